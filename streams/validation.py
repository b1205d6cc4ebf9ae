"""The rules every event must pass, one after the other, each on a whole batch at once.

Reading (`decode`, `column`) says which values could not be read; the rules say what an event must have. The first rule
a row breaks, in the order of `Rules.judge`, gives its one reason. A rule whose columns are absent or sound costs a few
vectorised looks; no rule makes a Python object per row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thalweg.graph_store.kernel import kernel

from .column import RESERVED_TYPE, UNKNOWN_TYPE
from .configuration import Configuration
from .dead_letter import Reason
from .event import FIELDS, ID_FIELDS, NOBODY, event_schema
from .instant import OUTSIDE
from .row import Type
from .time_bounds import Bounds

Bools = npt.NDArray[np.bool_]
Words = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint8]]
"""Bytes and offsets of some words, and a table [256] of the first bytes that call for a closer look."""


@dataclass
class Candidate:
    """Rows that could be parsed, as canonical columns, before the rules.

    Parameters
    ----------
    rows : int64 [n], raw row number of each
    types : int8 [n], `row.Type` or the codes of `column.types`
    ts : int64 [n] ms, `instant.OUTSIDE` where unreadable
    columns : the other canonical columns by name; an absent one is all null
    bad : rows (bool [n]) whose value could not be read, by column
    """

    rows: npt.NDArray[np.int64]
    types: npt.NDArray[np.int8]
    ts: npt.NDArray[np.int64]
    columns: dict[str, pa.Array]
    bad: dict[str, Bools] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Rows (positions in the candidate) that broke one rule first."""

    at: npt.NDArray[np.int64]
    reason: Reason
    field: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The good rows as canonical events, `kept` (positions; None: all of them), and the findings."""

    events: pa.RecordBatch
    kept: npt.NDArray[np.int64] | None
    findings: list[Finding]


class _Open:
    """Rows without a finding yet."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.closed: Bools | None = None
        self.findings: list[Finding] = []

    def close(self, bad: Bools, reason: Reason, name: str = "", detail: str = "") -> None:
        """Give the rows of `bad` that are still open this reason."""
        hit = bad if self.closed is None else bad & ~self.closed
        at = np.flatnonzero(hit)
        if len(at) == 0:
            return
        self.findings.append(Finding(at, reason, name, detail))
        self.closed = hit.copy() if self.closed is None else self.closed | hit


class Rules:
    """The rules for one source.

    Parameters
    ----------
    source : its name; an event without an id is named `<source>#<raw row number>`
    bounds : no time outside them is accepted
    """

    def __init__(self, configuration: Configuration, bounds: Bounds, source: str) -> None:
        self.configuration = configuration
        self.bounds = bounds
        self.source = source
        self.schema = event_schema(configuration)
        top = len(Type)
        self._used = {f.name: np.array([Type(t) in f.used for t in range(top)], np.bool_) for f in FIELDS}
        self._required = {f.name: np.array([Type(t) in f.required for t in range(top)], np.bool_) for f in FIELDS}
        self._words = word_table(NOBODY)
        self._user_words = self._words if configuration.attribution.keep_user_zero else word_table((*NOBODY, "0"))

    def judge(self, candidate: Candidate) -> Verdict:
        """Apply the rules: type, time, ids, required fields, quantity, numbers, features, in this order."""
        rows = _Open(len(candidate.types))
        columns = dict(candidate.columns)
        self._types(candidate, rows)
        self._times(candidate, rows)
        known = (
            np.where(candidate.types < 0, np.int8(Type.PROGRESS), candidate.types)
            if rows.closed is not None
            else candidate.types
        )
        self._ids(candidate, columns, known, rows)
        self._values(candidate, columns, known, rows)
        for feature in self.configuration.features:
            reason = Reason.BAD_FEATURE if feature.kind == "categorical" else Reason.BAD_NUMBER
            if feature.name in candidate.bad:
                rows.close(
                    candidate.bad[feature.name], reason, feature.name, f"{feature.name} is no {feature.kind} value"
                )
        return self._verdict(candidate, columns, rows)

    def _types(self, candidate: Candidate, rows: _Open) -> None:
        types = candidate.types
        if len(types) == 0 or types.min() >= 0:
            return
        rows.close(types == RESERVED_TYPE, Reason.RESERVED_TYPE, detail="type `forget` is reserved for a later version")
        known = "item, impression, click, add_to_cart, purchase, return, progress"
        rows.close(types == UNKNOWN_TYPE, Reason.BAD_TYPE, detail=f"no type, or none of {known}")

    def _times(self, candidate: Candidate, rows: _Open) -> None:
        ts = candidate.ts
        low, high = self.bounds.earliest, self.bounds.latest
        if len(ts) == 0 or (ts.min() >= low and ts.max() <= high):
            return
        rows.close(ts == OUTSIDE, Reason.BAD_TIMESTAMP, detail="ts is missing or no time")
        rows.close((ts < low) | (ts > high), Reason.BAD_TIMESTAMP, detail=f"ts lies outside {self.bounds}")

    def _ids(
        self, candidate: Candidate, columns: dict[str, pa.Array], known: npt.NDArray[np.int8], rows: _Open
    ) -> None:
        for name in ID_FIELDS:
            if name in columns:
                columns[name] = without_nobody(columns[name], self._user_words if name == "user_id" else self._words)
            if name in candidate.bad:
                rows.close(candidate.bad[name], Reason.BAD_ID, name, f"{name} is no text and no whole number")
        for name, required in self._required.items():
            if name in ("type", "ts") or not required.any():
                continue
            column = columns.get(name)
            if column is None:
                missing = required[known]
            elif column.null_count:
                missing = required[known] & column.is_null().to_numpy(zero_copy_only=False)
            else:
                continue
            rows.close(missing, Reason.MISSING_FIELD, name, f"{name} is missing or empty")

    def _values(
        self, candidate: Candidate, columns: dict[str, pa.Array], known: npt.NDArray[np.int8], rows: _Open
    ) -> None:
        wanted = (
            ("quantity", Reason.BAD_QUANTITY, "", "quantity is no whole number from 1 to 1,000,000"),
            ("position", Reason.BAD_NUMBER, "position", "position is no whole number from 0"),
            ("price", Reason.BAD_NUMBER, "price", "price is no finite number from 0"),
            ("currency", Reason.BAD_NUMBER, "currency", "currency is no text"),
        )
        for name, reason, at, detail in wanted:
            column = columns.get(name)
            bad = candidate.bad.get(name)
            if column is None or (column.null_count == rows.n and bad is None):
                continue
            used = self._used[name][known]
            if bad is not None:
                rows.close(bad & used, reason, at, detail)
            if column.null_count < rows.n and not used.all():
                columns[name] = _where(used, column)

    def _verdict(self, candidate: Candidate, columns: dict[str, pa.Array], rows: _Open) -> Verdict:
        n = rows.n
        kept = None if rows.closed is None else np.flatnonzero(~rows.closed)
        arrays = []
        for spec in self.schema:
            if spec.name == "type":
                column = pa.array(candidate.types)
            elif spec.name == "ts":
                column = pa.array(candidate.ts)
            elif spec.name == "event_id":
                column = self._named(columns.get("event_id"), candidate.rows)
            else:
                column = columns.get(spec.name)
                column = pa.nulls(n, spec.type) if column is None else column
            arrays.append(column)
        events = pa.RecordBatch.from_arrays(arrays, names=self.schema.names)
        if kept is not None:
            events = events.take(pa.array(kept))
        return Verdict(events, kept, rows.findings)

    def _named(self, column: pa.Array | None, rows: npt.NDArray[np.int64]) -> pa.Array:
        """Event ids, those that are missing made from the source and the raw row number."""
        if column is not None and column.null_count == 0:
            return column
        names = pc.binary_join_element_wise(self.source, pa.array(rows).cast(pa.string()), "#")
        if column is None or column.null_count == len(rows):
            return names
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return pc.coalesce(column.cast(pa.string()), names)


def _where(keep: Bools, column: pa.Array) -> pa.Array:
    """`column` with null where `keep` is false."""
    if pa.types.is_dictionary(column.type):
        indices = pc.if_else(pa.array(keep), column.indices, pa.scalar(None, column.indices.type))
        return pa.DictionaryArray.from_arrays(indices, column.dictionary)
    return pc.if_else(pa.array(keep), column, pa.scalar(None, column.type))


def word_table(words: tuple[str, ...]) -> Words:
    """What `without_nobody` looks words up in.

    >>> word_table(("null", "None"))[1].tolist()
    [0, 4, 8]
    """
    raw = [word.encode() for word in words]
    first = np.zeros(256, np.uint8)
    first[[word[0] for word in raw]] = 1
    first[[9, 10, 13, 32]] = 1
    ends = np.cumsum([0] + [len(word) for word in raw]).astype(np.int64)
    return np.frombuffer(b"".join(raw), np.uint8), ends, first


@kernel
def _blank(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or byte == 9 or byte == 10 or byte == 13


@kernel
def _nobody(data, offsets, start, n, words, ends, first, out):  # type: ignore[no-untyped-def]
    """out[i]: string i is empty, blank, or a word once the blanks around it are gone. Number of hits."""
    hits = 0
    for i in range(n):
        a, b = offsets[start + i], offsets[start + i + 1]
        out[i] = False
        if a < b and first[data[a]] == 0:
            continue
        while a < b and _blank(data[a]):
            a += 1
        while a < b and _blank(data[b - 1]):
            b -= 1
        found = a == b
        for w in range(ends.shape[0] - 1):
            if found or ends[w + 1] - ends[w] != b - a:
                continue
            same = True
            for k in range(b - a):
                if data[a + k] != words[ends[w] + k]:
                    same = False
                    break
            found = same
        if found:
            out[i] = True
            hits += 1
    return hits


def _hits(column: pa.Array, table: Words) -> Bools | None:
    _, offsets, data = column.buffers()
    if offsets is None or len(column) == 0:
        return None
    wide = pa.types.is_large_string(column.type)
    text = np.zeros(1, np.uint8) if data is None or data.size == 0 else np.frombuffer(data, np.uint8)
    out = np.empty(len(column), np.bool_)
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
    return out if _nobody(text, ends, column.offset, len(column), *table, out) else None


def without_nobody(column: pa.Array, table: Words) -> pa.Array:
    """A string column (plain or dictionary) with null where the id is blank or one of the words (`event.is_nobody`).

    >>> without_nobody(pa.array(["u1", " null ", ""]), word_table(NOBODY)).to_pylist()
    ['u1', None, None]
    """
    if column.null_count == len(column):
        return column
    if not pa.types.is_dictionary(column.type):
        hits = _hits(column, table)
        return column if hits is None else _where(~hits, column)
    hits = _hits(column.dictionary, table)
    if hits is None:
        return column
    nobody = np.append(hits, True)[column.indices.fill_null(len(hits)).to_numpy(zero_copy_only=False)]
    return _where(~nobody, column)
