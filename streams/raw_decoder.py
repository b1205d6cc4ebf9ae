"""Decodes raw messages of one raw partition to rows of thalweg.events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .block import Codes, Rows
from .column import UNKNOWN_TYPE
from .configuration import Configuration
from .dead_letter import DeadLetter
from .decode import Decoder
from .event import CanonicalBatch
from .intake import Intake
from .row import EVENT_ROW
from .time_bounds import configured
from .validation import Rules


class Decoded(NamedTuple):
    """What raw messages came to.

    Attributes
    ----------
    rows, codes : EVENT_ROW [n], uint32 [n, F], in the order of the offsets
    names : (hash, text) of the item ids in the rows
    rejects : dead letters of the others, in the order of the offsets
    ignored : messages that carried a field which is not in the schema, by field
    """

    rows: Rows
    codes: Codes
    names: list[tuple[int, str]]
    rejects: list[DeadLetter]
    ignored: dict[str, int]


class RawDecoder:
    """The strict decoder and the intake for one raw partition.

    Parameters
    ----------
    source : name of the partition: dead letters and events without an id are named after it
    default_type : of a message that does not say; None: it has to say
    index : of the partition among the sources

    >>> decoder = RawDecoder(Configuration(), "clicks/0", 2, index=0)
    >>> decoded = decoder.decode([b'{"ts": 1774785600, "item_id": "A"}', b"oops"], np.array([7, 9]))
    >>> decoded.rows["offset"].tolist(), [(letter.row, letter.reason) for letter in decoded.rejects]
    ([7], [(9, 'bad_json')])
    """

    def __init__(self, configuration: Configuration, source: str, default_type: int | None, index: int) -> None:
        rules = Rules(configuration, configured(configuration), source)
        self._decoder = Decoder(rules, UNKNOWN_TYPE if default_type is None else default_type)
        self._intake = Intake(configuration)
        self._index = index
        self._width = len(configuration.features)

    def decode(self, values: Sequence[bytes | None], offsets: npt.NDArray[np.int64]) -> Decoded:
        """The messages at `offsets`, which rise and may have holes."""
        runs = np.flatnonzero(np.diff(offsets) != 1) + 1
        parts = [
            self._run(values[begin:end], int(offsets[begin]))
            for begin, end in zip([0, *runs.tolist()], [*runs.tolist(), len(offsets)], strict=True)
            if end > begin
        ]
        if len(parts) == 1:
            return parts[0]
        ignored: Counter[str] = Counter()
        for part in parts:
            ignored.update(part.ignored)
        return Decoded(
            np.concatenate([np.zeros(0, EVENT_ROW), *(part.rows for part in parts)]),
            np.concatenate([np.zeros((0, self._width), np.uint32), *(part.codes for part in parts)]),
            [name for part in parts for name in part.names],
            [letter for part in parts for letter in part.rejects],
            dict(ignored),
        )

    def _run(self, values: Sequence[bytes | None], start: int) -> Decoded:
        batch: CanonicalBatch = self._decoder.decode(values, start)
        rows, codes, (hashes, texts) = self._intake.rows(batch, self._index)
        names = list(zip(hashes.tolist(), texts.to_pylist(), strict=True))
        return Decoded(rows, codes, names, batch.rejects, batch.ignored)
