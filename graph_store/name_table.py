"""The text of item ids by their hash, for answers; in no digest, for a hash says the same.

Text lies end to end in one table of bytes, spans in another; the index is rebuilt on load.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .hash_index import HashIndex
from .state_store import StateStore

SPAN = np.dtype([("hash", "<u8"), ("start", "<i8"), ("end", "<i8")])
LIMIT = 1 << 22
"""Names kept; what comes beyond is counted and answered for by its hash."""


class NameTable:
    """Hash -> text.

    >>> names = NameTable(StateStore.memory())
    >>> names.put(np.array([7, 7], np.uint64), ["tea", "tea"])
    >>> names.get(7), names.get(8), len(names)
    ('tea', None, 1)
    """

    def __init__(self, store: StateStore, limit: int = LIMIT) -> None:
        self._store, self._limit = store, limit
        self._spans = store.growing("name_spans", SPAN)
        self._text = store.growing("name_text", np.dtype([("byte", "u1")]), 4096)
        self._index = HashIndex()
        self._index.put_many(self._spans.entries()["hash"], np.arange(len(self._spans)))

    def __len__(self) -> int:
        return len(self._spans)

    def put(self, hashes: npt.NDArray[np.uint64], names: list[str]) -> None:
        """Keep what is not known yet; names[i] belongs to hashes[i]."""
        for i in np.flatnonzero(self._index.find_many(hashes) < 0).tolist():
            if self._index.find_many(hashes[i : i + 1])[0] >= 0:
                continue
            if len(self) >= self._limit:
                self._store.count("names: table full")
                continue
            raw = np.frombuffer(names[i].encode(), np.uint8)
            start, number = len(self._text), len(self)
            self._text.reserve(len(raw))
            self._text.rows["byte"][start : start + len(raw)] = raw
            self._text.count[0] += len(raw)
            self._spans.reserve(1)
            self._spans.rows[number] = (hashes[i], start, start + len(raw))
            self._spans.count[0] += 1
            self._index.put_many(hashes[i : i + 1], np.array([number]))

    def get(self, item: int) -> str | None:
        """The text of a hash; None where it was not mentioned."""
        number = int(self._index.find_many(np.array([item], np.uint64))[0])
        if number < 0:
            return None
        span = self._spans.rows[number]
        return self._text.rows["byte"][int(span["start"]) : int(span["end"])].tobytes().decode()

    def all(self) -> list[tuple[int, str]]:
        """Every (hash, text), in order of first mention."""
        raw = self._text.entries()["byte"].tobytes()
        return [(int(h), raw[int(start) : int(end)].decode()) for h, start, end in self._spans.entries().tolist()]
