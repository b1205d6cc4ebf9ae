"""Dead letters: what could not be understood, kept with its raw bytes, its place and one reason code.

A dead letter is written once for one place, however often the place is read: a file that is opened again skips the
places it holds, so what a killed run wrote twice counts as one.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

RAW_LIMIT = 65_536
"""Bytes of a rejected row that are kept; its length and digest are kept whole."""


class Reason(enum.StrEnum):
    """Why a row became a dead letter; docs/event_schema.md has a line for each.

    `missing_field`, `bad_id`, `bad_number` and `bad_feature` name the field after a colon. The first rule that a row
    breaks gives its one reason. `id_conflict` and `too_late` come from attribution, `bad_block` from any stage that
    finds something else than a block on its topic.
    """

    BAD_JSON = "bad_json"
    NULL_PAYLOAD = "null_payload"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    BAD_ENCODING = "bad_encoding"
    BAD_ROW = "bad_row"
    HEADER_ROW = "header_row"
    BAD_TYPE = "bad_type"
    RESERVED_TYPE = "reserved_type"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_ID = "bad_id"
    MISSING_FIELD = "missing_field"
    BAD_QUANTITY = "bad_quantity"
    BAD_NUMBER = "bad_number"
    BAD_FEATURE = "bad_feature"
    ID_CONFLICT = "id_conflict"
    TOO_LATE = "too_late"
    BAD_BLOCK = "bad_block"


class DeadLetter(msgspec.Struct, frozen=True):
    """One rejected row.

    Attributes
    ----------
    source : name of the file or topic partition
    row : raw row number in it, from 0: with `source` this is the place
    line : what an editor calls the place: line of a text file, row of a Parquet file, from 1
    reason : a code of `Reason`, with `:FIELD` where one field is to blame
    detail : free text for people
    raw : the bytes, cut at `RAW_LIMIT`; None for a null payload
    length, digest : of the bytes before the cut; the digest is BLAKE2b of 128 bits, in hex
    type : type of the event, "unknown" where it cannot be told
    """

    source: str
    row: int
    line: int
    reason: str
    detail: str
    raw: bytes | None
    length: int
    digest: str
    type: str

    @property
    def place(self) -> tuple[str, int]:
        """(source, raw row number): what makes a dead letter the same as another."""
        return self.source, self.row


def dead_letter(
    place: tuple[str, int, int],
    reason: Reason,
    raw: bytes | None,
    *,
    field: str = "",
    detail: str = "",
    kind: str = "unknown",
) -> DeadLetter:
    """Make the record for `place` = (source, row, line); the raw bytes are cut, measured and digested here.

    >>> letter = dead_letter(("a.jsonl", 2, 3), Reason.MISSING_FIELD, b"{}", field="item_id")
    >>> letter.reason, letter.length, letter.place
    ('missing_field:item_id', 2, ('a.jsonl', 2))
    """
    source, row, line = place
    body = b"" if raw is None else raw
    return DeadLetter(
        source=source,
        row=row,
        line=line,
        reason=f"{reason.value}:{field}" if field else reason.value,
        detail=detail,
        raw=None if raw is None else body[:RAW_LIMIT],
        length=len(body),
        digest=hashlib.blake2b(body, digest_size=16).hexdigest(),
        type=kind,
    )


def to_json(letter: DeadLetter) -> bytes:
    """One line of strict JSON: bytes that are no UTF-8 stand in `raw_base64`, and `raw` is null for a null payload.

    >>> to_json(dead_letter(("a", 0, 1), Reason.BAD_JSON, b"NaN"))[:30]
    b'{"source":"a","row":0,"line":1'
    """
    record: dict[str, Any] = {
        "source": letter.source, "row": letter.row, "line": letter.line, "type": letter.type, "reason": letter.reason,
        "detail": letter.detail, "length": letter.length, "digest": letter.digest, "raw": None,
    }  # fmt: skip
    if letter.raw is not None:
        try:
            record["raw"] = letter.raw.decode("utf-8")
        except UnicodeDecodeError:
            record["raw_base64"] = base64.b64encode(letter.raw).decode("ascii")
    return msgspec.json.encode(record)


class DeadLetterError(ValueError):
    """A file that is to take dead letters holds something else; the message names the line and the mend."""


class DeadLetterFile:
    """A JSONL file of dead letters that holds each place once.

    Opening reads the places that are there; a last line that was cut off by a kill is removed first. ValueError where
    the file holds something else.

    Attributes
    ----------
    written : places in the file
    repeated : records that were handed in again and skipped

    >>> import tempfile
    >>> letters = [dead_letter(("a.jsonl", 2, 3), Reason.BAD_JSON, b"x")]
    >>> with tempfile.TemporaryDirectory() as folder, DeadLetterFile(f"{folder}/dead.jsonl") as file:
    ...     file.write(letters), file.write(letters), file.written
    (1, 0, 1)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._places: set[tuple[str, int]] = set()
        self.repeated = 0
        self._restore()
        self._file = self.path.open("ab")

    @property
    def written(self) -> int:
        """Number of places in the file."""
        return len(self._places)

    def _restore(self) -> None:
        if not self.path.exists():
            return
        good = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    record = msgspec.json.decode(line, type=_Place)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    raise DeadLetterError(
                        f"{self.path} line {number:,}: is no dead letter; name another file"
                    ) from None
                self._places.add((record.source, record.row))
                good += len(line)
        if good != self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(good)

    def write(self, letters: Iterable[DeadLetter]) -> int:
        """Append those whose place is new; the number appended."""
        fresh = []
        for letter in letters:
            if letter.place in self._places:
                self.repeated += 1
                continue
            self._places.add(letter.place)
            fresh.append(to_json(letter) + b"\n")
        if fresh:
            self._file.write(b"".join(fresh))
            self._file.flush()
        return len(fresh)

    def close(self) -> None:
        """Close the file; further writes raise ValueError."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Place(msgspec.Struct):
    source: str
    row: int
