"""The strict JSON decoder: one message, one event or one dead letter, whatever else is in the block.

This file is the definition of what a JSON event is. A message is UTF-8, one JSON value and blanks around it, an object,
nested at most `MAX_DEPTH` deep, no key of the object twice; numbers are finite. Keys are told apart by case. Values
then go column by column through `value` and `instant`, and the rows through `validation`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import value as single
from .column import type_code
from .dead_letter import DeadLetter, Reason, dead_letter
from .event import FIELDS, TYPE_NAMES, CanonicalBatch
from .instant import OUTSIDE, from_float, from_integer, from_text, zone_of
from .validation import Candidate, Rules

MAX_DEPTH = 100
"""Levels of objects and lists in one message; deeper is `bad_json`, the same on every machine."""

_NONE = type(None)
_TEXT = {str, _NONE}
_decode = msgspec.json.Decoder().decode

Bools = npt.NDArray[np.bool_]
Reader = Callable[[Any], Any]
READERS: dict[str, tuple[Reader, pa.DataType]] = {
    "id": (single.read_id, pa.string()),
    "text": (single.read_id, pa.string()),
    "integer": (single.read_position, pa.int32()),
    "price": (single.read_price, pa.float64()),
    "quantity": (single.read_quantity, pa.int64()),
    "categorical": (single.read_category, pa.string()),
    "numeric": (single.read_number, pa.float64()),
}


class Refused(ValueError):
    """A message that is no event; `reason` and `detail` say why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse(message: bytes | None) -> dict[str, Any]:
    """The object of one message; Refused where there is none.

    >>> parse(b'{"type": "click"}')
    {'type': 'click'}
    >>> for raw in (None, b"", b"null", b'{"a": NaN}', b'{"a": 1, "a": 2}'):
    ...     try:
    ...         parse(raw)
    ...     except Refused as error:
    ...         print(error.reason)
    null_payload
    bad_json
    not_an_object
    bad_json
    duplicate_key
    """
    if message is None:
        raise Refused(Reason.NULL_PAYLOAD, "the message has no value")
    if message.count(b"[") + message.count(b"{") > MAX_DEPTH and _too_deep(message):
        raise Refused(Reason.BAD_JSON, f"nested more than {MAX_DEPTH} levels deep")
    try:
        found = _decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        detail = str(error) if message.strip(b" \t\r\n") else "the message is empty"
        raise Refused(Reason.BAD_JSON, detail) from None
    if type(found) is not dict:
        raise Refused(Reason.NOT_AN_OBJECT, f"a JSON {_json_name(found)}, not an object")
    if not surely_distinct(message, found):
        twice = repeated_keys(message)
        if twice:
            raise Refused(Reason.DUPLICATE_KEY, f"key {twice[0]!r} is there twice")
    return found


def surely_distinct(message: bytes, found: dict[str, Any]) -> bool:
    """A quick proof that no key of the object stands twice in the message; False where the proof does not hold.

    Without a backslash every quote opens or closes a string; without nested values the strings are the keys and the
    text values. A key that stands twice adds at least itself, and takes away nothing, so the count exceeds that of
    `found`.

    >>> surely_distinct(b'{"a":1,"b":"x"}', {"a": 1, "b": "x"}), surely_distinct(b'{"a":1,"a":2}', {"a": 2})
    (True, False)
    """
    texts = 0
    for value in found.values():
        kind = type(value)
        if kind is str:
            texts += 1
        elif kind is dict or kind is list:
            return False
    return message.count(b'"') == 2 * (len(found) + texts) and b"\\" not in message


def repeated_keys(message: bytes) -> list[str]:
    """Keys that stand twice in the outermost object of a message that `parse` could read; nested ones do not count.

    >>> repeated_keys(b'{"a": {"b": 1, "b": 2}, "c": 3, "c": 4}')
    ['c']
    """
    pairs: list[tuple[str, Any]] = json.loads(message.decode("utf-8"), object_pairs_hook=lambda found: found)
    return [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _too_deep(message: bytes) -> bool:
    depth = 0
    text = escaped = False
    for byte in message:
        if text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                text = False
        elif byte == 0x22:
            text = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


def _json_name(found: Any) -> str:
    if found is None:
        return "null"
    return {bool: "boolean", str: "string", list: "list"}.get(type(found), "number")


def read_column(values: list[Any], kind: str) -> tuple[pa.Array, Bools | None]:
    """Values of one field as a canonical column, and the rows whose value could not be read.

    >>> column, bad = read_column([1, "2.50", None, "x"], "price")
    >>> column.to_pylist(), bad.tolist()
    ([1.0, 2.5, None, None], [False, False, False, True])
    """
    reader, arrow = READERS[kind]
    kinds = set(map(type, values))
    if kinds == {_NONE}:
        return pa.nulls(len(values), arrow), None
    if kinds <= _TEXT and arrow == pa.string():
        return pa.array(values, arrow), None
    read = [reader(value) for value in values]
    bad = np.fromiter((value is single.BAD for value in read), np.bool_, len(read))
    if not bad.any():
        return pa.array(read, arrow), None
    return pa.array([None if value is single.BAD else value for value in read], arrow), bad


def read_time(value: Any, unit: str, zone: tzinfo) -> int:
    """Milliseconds of a JSON value or a text field; `instant.OUTSIDE` where it is no time.

    >>> from datetime import UTC
    >>> read_time(1774785600, "auto", UTC), read_time(True, "auto", UTC) == OUTSIDE
    (1774785600000, True)
    """
    kind = type(value)
    if kind is str:
        return from_text(value, unit, zone)
    if kind is int:
        return from_integer(value, unit)
    return from_float(value, unit) if kind is float else OUTSIDE


class Decoder:
    """Turns raw messages of one source into canonical batches.

    Parameters
    ----------
    rules : the rules of the source (they name it)
    default_type : `row.Type` of a message that does not say, or `column.UNKNOWN_TYPE`

    >>> from .configuration import Configuration
    >>> from .time_bounds import configured
    >>> decoder = Decoder(Rules(Configuration(), configured(Configuration()), "clicks"), 2)
    >>> batch = decoder.decode([b'{"ts": 1774785600, "item_id": "A"}', b"oops"], start=7)
    >>> batch.events.column("event_id").to_pylist(), [letter.reason for letter in batch.rejects]
    (['clicks#7'], ['bad_json'])
    """

    def __init__(self, rules: Rules, default_type: int) -> None:
        self.rules = rules
        self.default_type = default_type
        self._kinds: dict[str, str] = {f.name: f.kind for f in FIELDS if f.kind in READERS}
        self._kinds.update((feature.name, feature.kind) for feature in rules.configuration.features)
        self._wanted = frozenset(self._kinds) | {"type", "ts"}
        self._zone = zone_of(rules.configuration.time)

    def decode(
        self, messages: Sequence[bytes | None], start: int = 0, lines: Sequence[int] | None = None
    ) -> CanonicalBatch:
        """Raw rows `start`, `start + 1`, ... ; `lines` are their line numbers for people (none: row + 1)."""
        objects: list[dict[str, Any]] = []
        at: list[int] = []
        rejects: list[DeadLetter] = []
        ignored: Counter[str] = Counter()
        for i, message in enumerate(messages):
            try:
                found = parse(message)
            except Refused as error:
                place = (self.rules.source, start + i, lines[i] if lines is not None else start + i + 1)
                kind = TYPE_NAMES.get(self.default_type, "unknown")
                rejects.append(dead_letter(place, error.reason, message, detail=error.detail, kind=kind))
                continue
            objects.append(found)
            at.append(i)
            unknown = found.keys() - self._wanted
            if unknown:
                ignored.update(unknown)
        columns = {name: [found.get(name) for found in objects] for name in self._wanted}
        return self.assemble(columns, at, messages, start, lines, rejects, ignored)

    def assemble(
        self,
        columns: dict[str, list[Any]],
        at: Sequence[int],
        raws: Sequence[bytes | None],
        start: int,
        lines: Sequence[int] | None,
        rejects: list[DeadLetter],
        ignored: dict[str, int],
    ) -> CanonicalBatch:
        """A batch of parsed rows: `columns` hold the values of raw rows `start + at[i]`, bytes `raws[at[i]]`."""
        candidate = self._candidate(columns, np.array(at, np.int64) + start)
        verdict = self.rules.judge(candidate)
        for finding in verdict.findings:
            for position in finding.at.tolist():
                i = at[position]
                place = (self.rules.source, start + i, lines[i] if lines is not None else start + i + 1)
                kind = TYPE_NAMES.get(int(candidate.types[position]), "unknown")
                rejects.append(
                    dead_letter(place, finding.reason, raws[i], field=finding.field, detail=finding.detail, kind=kind)
                )
        rejects.sort(key=lambda letter: letter.row)
        offsets = candidate.rows if verdict.kept is None else candidate.rows[verdict.kept]
        return CanonicalBatch(start, start + len(raws), offsets, verdict.events, rejects, dict(ignored))

    def _candidate(self, columns: dict[str, list[Any]], rows: npt.NDArray[np.int64]) -> Candidate:
        n = len(rows)
        unit = self.rules.configuration.time.unit
        read: dict[str, pa.Array] = {}
        bad: dict[str, Bools] = {}
        for name, kind in self._kinds.items():
            if name in columns:
                read[name], wrong = read_column(columns[name], kind)
                if wrong is not None:
                    bad[name] = wrong
        times: Iterable[Any] = columns.get("ts", [None] * n)
        ts = np.fromiter((read_time(value, unit, self._zone) for value in times), np.int64, n)
        names: Iterable[Any] = columns.get("type", [None] * n)
        types = np.fromiter((type_code(value, self.default_type) for value in names), np.int8, n)
        return Candidate(rows, types, ts, read, bad)
