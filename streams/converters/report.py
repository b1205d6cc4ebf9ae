"""What a conversion did: every row read is in it, as an event or as a dead letter."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ..dead_letter import DeadLetter, DeadLetterFile

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how many rows are done and how many there are (None: not known)."""

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""Where the shipped configurations lie."""


@dataclass(frozen=True)
class Report:
    """Counts of one conversion. `rows` are the source's; `events` and `dead_letters` are what became of them.

    `notes` are further numbers a reader of the log wants: what the source holds and the log does not show.
    """

    source: str
    out: Path
    rows: dict[str, int]  # rows read, by source table
    events: dict[str, int]  # rows written, by type
    dead_letters: dict[str, int] = field(default_factory=dict)  # by reason
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def dead_letters_path(self) -> Path:
        """Where the dead letters lie (the file exists also where there are none)."""
        return beside(self.out, "dead_letters.jsonl")

    @property
    def names_path(self) -> Path:
        """Where the readable names of the items lie: Parquet, columns item_id and name."""
        return beside(self.out, "names.parquet")

    def lines(self) -> list[str]:
        """The report as text, a line a table.

        >>> Report("a shop", Path("log.parquet"), rows={"lines": 3}, events={"purchase": 3}).lines()
        ['read: lines 3', 'events: purchase 3']
        """
        tables = (
            ("read", self.rows),
            ("events", self.events),
            ("dead letters", self.dead_letters),
            ("notes", self.notes),
        )
        return [
            f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in table.items())
            for title, table in tables
            if table
        ]


def write_dead_letters(out: Path, letters: Iterable[DeadLetter]) -> dict[str, int]:
    """Write `letters` beside the log, in place of an earlier conversion's; returns how many there are by reason."""
    path = beside(out, "dead_letters.jsonl")
    path.unlink(missing_ok=True)
    whole = list(letters)
    with DeadLetterFile(path) as file:
        file.write(whole)
    return dict(Counter(letter.reason for letter in whole))


def rejected(
    source: str, row: int, reason: str, detail: str, record: dict[str, Any], kind: str, header: int = 0
) -> DeadLetter:
    """Dead letter of raw row number `row` (from 0) of the table `source`; `record` is the row, kept as JSON.

    `header` is the number of lines before row 0, so that `line` is what an editor shows.

    >>> rejected("t.parquet", 4, "bad_quantity", "quantity is 0", {"quantity": 0}, "purchase").raw
    b'{"quantity":0}'
    """
    raw = msgspec.json.encode(record)
    digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
    return DeadLetter(source, row, row + 1 + header, reason, detail, raw, len(raw), digest, kind)


def write_configuration(out: Path, name: str) -> None:
    """Put the shipped configuration `name` beside the log, as OUT.toml: replay finds it there. An older one stays."""
    path = out.with_name(f"{out.name.split('.')[0]}.toml")
    if not path.exists():
        path.write_text((ASSETS / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")


def write_names(out: Path, item_ids: pa.Array, names: pa.Array) -> None:
    """Write the readable names of the items beside the log."""
    pq.write_table(pa.table({"item_id": item_ids, "name": names}), beside(out, "names.parquet"))


def beside(out: Path, what: str) -> Path:
    """Path of a file that goes with the log `out`.

    >>> beside(Path("year.parquet"), "names.parquet").name
    'year.names.parquet'
    """
    return out.with_name(f"{out.stem}.{what}")
