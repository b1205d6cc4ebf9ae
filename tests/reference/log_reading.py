"""Reading small logs in tests: write a file, read it back as plain events and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.dead_letter import DeadLetter
from thalweg.streams.decode import Decoder
from thalweg.streams.event import TYPES
from thalweg.streams.log import open_log
from thalweg.streams.time_bounds import configured
from thalweg.streams.validation import Rules

WIDE = from_builtins({"time": {"earliest": "2000-01-01T00:00:00Z", "latest": "2099-01-01T00:00:00Z"}})
"""A configuration that gives both bounds, so that no scan decides."""


@dataclass
class Reading:
    """What came of a log."""

    events: list[dict[str, Any]]
    rejects: list[DeadLetter]
    ignored: dict[str, int]
    unfinished: list[str]
    rows: int

    @property
    def reasons(self) -> list[str]:
        """Reason codes in row order."""
        return [letter.reason for letter in self.rejects]

    def column(self, name: str) -> list[Any]:
        """One field of all events."""
        return [event[name] for event in self.events]


def read_log(paths: Path | Sequence[Path], configuration: Configuration = WIDE, rows: int = 1000) -> Reading:
    """Read whole files in batches of `rows`; asserts the books: read = accepted + dead-lettered, row by row."""
    log = open_log([paths] if isinstance(paths, Path) else list(paths), configuration)
    reading = Reading([], [], {}, [], 0)
    for file in log.files:
        at = 0
        for batch in file.batches(0, rows):
            assert batch.start == at and batch.end - batch.start <= rows
            numbers = sorted([*batch.offsets.tolist(), *(letter.row for letter in batch.rejects)])
            assert numbers == list(range(batch.start, batch.end))
            at = batch.end
            _add(reading, batch)
        reading.rows += at
    reading.unfinished = log.unfinished
    return reading


def _add(reading: Reading, batch: Any) -> None:
    reading.events += batch.events.to_pylist()
    reading.rejects += batch.rejects
    for name, count in batch.ignored.items():
        reading.ignored[name] = reading.ignored.get(name, 0) + count


def decode(kind: str, messages: Sequence[bytes | None], configuration: Configuration = WIDE) -> Reading:
    """Decode messages of a topic whose rows are of one type (its name)."""
    decoder = Decoder(Rules(configuration, configured(configuration), f"{kind}s"), int(TYPES[kind]))
    batch = decoder.decode(messages)
    reading = Reading([], [], {}, [], len(messages))
    _add(reading, batch)
    assert len(reading.events) + len(reading.rejects) == len(messages)
    return reading
