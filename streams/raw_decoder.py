"""Decodes raw messages of one raw partition to rows of thalweg.events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .block import Codes, Rows
from .column import UNKNOWN_TYPE
from .configuration import Configuration
from .dead_letter import DeadLetter
from .json_rows import FastDecoder
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
    """The decoder of one raw partition: kernels for the common form, the strict decoder for all else (`json_rows`).

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
        self._decoder = FastDecoder(rules, UNKNOWN_TYPE if default_type is None else default_type, index)

    def decode(self, values: Sequence[bytes | None], offsets: npt.NDArray[np.int64]) -> Decoded:
        """The messages at `offsets`, which rise and may have holes."""
        rows, codes, (hashes, texts), rejects, ignored = self._decoder.rows(values, offsets)
        return Decoded(rows, codes, list(zip(hashes.tolist(), texts, strict=True)), rejects, ignored)
