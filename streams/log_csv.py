"""CSV logs, plain or gzip: UTF-8, commas, one heading line, double quotes as in RFC 4180. Every field is text.

A record may span lines inside quotes. A raw row's number counts records after the heading. An empty field is a missing
value. Headings are checked before anything is read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .configuration import Configuration
from .dead_letter import DeadLetter, Reason, dead_letter
from .decode import Decoder, read_time
from .event import FIELDS, ID_FIELDS, TYPE_NAMES, CanonicalBatch
from .instant import OUTSIDE, zone_of
from .log_file import LogError, LogFile
from .text_file import TextFile
from .time_bounds import Bounds

SPAN = 100
"""Lines that one quoted record may span; a quote that is open longer spoils its own line only."""

_MARK = "\ufeff"


class _Record:
    """One record: its first line (from 1), its bytes, and its fields or what is wrong with it."""

    __slots__ = ("detail", "fields", "line", "raw", "reason")

    def __init__(
        self, line: int, raw: bytes, fields: list[str] | None, reason: Reason | None = None, detail: str = ""
    ) -> None:
        self.line, self.raw, self.fields, self.reason, self.detail = line, raw, fields, reason, detail


class CsvFile(LogFile):
    """A CSV file. LogError where its headings lack `ts`, repeat a used name, or are no comma-separated UTF-8."""

    format = "csv"
    unit = "record"

    def __init__(self, path: Path, configuration: Configuration, bounds: Bounds) -> None:
        super().__init__(path, configuration, bounds)
        self._text = TextFile(path)
        wanted = {field.name for field in FIELDS} | {feature.name for feature in configuration.features}
        self._headings = self._read_headings(wanted)
        self._used = [(j, name) for j, name in enumerate(self._headings) if name in wanted]
        self._ignored = [name for name in self._headings if name not in wanted]

    def _read_headings(self, wanted: set[str]) -> list[str]:
        first = next(_records(self._text.lines()), None)
        if first is None:
            if self._text.unfinished is None:
                self._text.unfinished = f"{self.name}: is empty, without a heading line; send it again"
            return []
        if first.fields is None:
            raise LogError(
                f"{self.path}: its headings are no CSV in UTF-8 ({first.detail}); save it as UTF-8 with commas"
            )
        names = [name.strip() for name in first.fields]
        found = f"headings found: {', '.join(names)}"
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            raise LogError(f"{self.path}: columns are not separated by commas; save it with commas; {found}")
        if "ts" not in names:
            raise LogError(f"{self.path}: has no column `ts`; rename the column that holds the time; {found}")
        twice = sorted({name for name in names if name in wanted and names.count(name) > 1})
        if twice:
            raise LogError(f"{self.path}: column `{twice[0]}` is there twice; rename one; {found}")
        return names

    def batches(self, start_row: int = 0, rows: int = 50_000) -> Iterator[CanonicalBatch]:
        """See `LogFile.batches`; the records before `start_row` are read and passed over."""
        decoder = Decoder(self.rules, self.default_type)
        records = islice(self._records(), start_row, None)
        start = start_row
        while piece := list(islice(records, rows)):
            yield self._batch(decoder, piece, start)
            start += len(piece)
        self.unfinished = self._text.unfinished
        self.rows = start

    def _records(self) -> Iterator[_Record]:
        """Records after the heading; those with another number of fields, or the headings again, marked as wrong."""
        if not self._headings:
            return
        width = len(self._headings)
        for record in islice(_records(self._text.lines(), width), 1, None):
            fields = record.fields
            if fields is not None and len(fields) == width:
                if (
                    fields[0].strip(_MARK + " ") == self._headings[0]
                    and [field.strip(_MARK + " ") for field in fields] == self._headings
                ):
                    record.reason, record.detail = Reason.HEADER_ROW, "the headings again"
            elif fields is not None:
                empty = not record.raw.strip()
                record.reason = Reason.BAD_ROW
                record.detail = "an empty line" if empty else f"{len(fields)} fields where the heading has {width}"
            yield record

    def _batch(self, decoder: Decoder, piece: list[_Record], start: int) -> CanonicalBatch:
        rejects: list[DeadLetter] = []
        at: list[int] = []
        kind = TYPE_NAMES.get(self.default_type, "unknown")
        for i, record in enumerate(piece):
            if record.reason is None:
                at.append(i)
            else:
                place = (self.name, start + i, record.line)
                rejects.append(dead_letter(place, record.reason, record.raw, detail=record.detail, kind=kind))
        rows = [piece[i].fields or [] for i in at]
        columns = {name: [row[j] or None for row in rows] for j, name in self._used}
        ignored = dict.fromkeys(self._ignored, len(at)) if at else {}
        raws = [record.raw for record in piece]
        return decoder.assemble(columns, at, raws, start, [record.line for record in piece], rejects, ignored)

    def times(self) -> Iterator[npt.NDArray[np.int64]]:
        """See `LogFile.times`; fills `notes`."""
        unit, zone = self.configuration.time.unit, zone_of(self.configuration.time)
        column = self._headings.index("ts") if self._headings else 0
        ids = [(j, name) for j, name in self._used if name in ID_FIELDS]
        seen, dotted = dict.fromkeys(ID_FIELDS, 0), dict.fromkeys(ID_FIELDS, 0)
        records = self._records()
        count = 0
        while piece := list(islice(records, 65_536)):
            rows = [record.fields for record in piece if record.reason is None and record.fields is not None]
            for j, name in ids:
                seen[name] += sum(row[j] != "" for row in rows)
                dotted[name] += sum(row[j].endswith(".0") for row in rows)
            count += len(piece)
            times = (read_time(row[column], unit, zone) if row[column] else OUTSIDE for row in rows)
            yield np.fromiter(times, np.int64, len(rows))
        self.rows = count
        self.notes = [
            f"{self.name}: every {name} ends in `.0`; such ids never meet `17850` of another source; write them whole"
            for name in ID_FIELDS
            if seen[name] and seen[name] == dotted[name]
        ]


def _records(lines: Iterator[bytes], width: int | None = None) -> Iterator[_Record]:
    """Split lines into records by the rules of quotes.

    A record of several lines must be sound, and of `width` fields where that is given; else its first line is a bad row
    by itself and the others are read on their own.
    """
    number = 0
    waiting: list[bytes] = []  # lines read ahead
    while True:
        line = waiting.pop(0) if waiting else next(lines, None)
        if line is None:
            return
        number += 1
        if b'"' not in line:
            yield _plain(number, line)
            continue
        raw, spanned = line, 0
        record = _quoted(number, raw)
        while record is None and spanned < SPAN:
            while len(waiting) <= spanned:
                more = next(lines, None)
                if more is None:
                    break
                waiting.append(more)
            if len(waiting) <= spanned:
                break
            raw += b"\n" + waiting[spanned]
            spanned += 1
            record = _quoted(number, raw)
        if record is None or (
            spanned and (record.fields is None or len(record.fields) != (width or len(record.fields)))
        ):
            yield _Record(number, line.removesuffix(b"\r"), None, Reason.BAD_ROW, "a quote is not closed")
            continue
        yield record
        number += spanned
        del waiting[:spanned]


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _plain(number: int, line: bytes) -> _Record:
    line = line.removesuffix(b"\r")
    text = _text(line)
    if text is None:
        return _Record(number, line, None, Reason.BAD_ENCODING, "not UTF-8")
    return _Record(number, line, text.split(","))


def _quoted(number: int, raw: bytes) -> _Record | None:
    """The record in `raw`; None where a quote is still open."""
    raw = raw.removesuffix(b"\r")
    text = _text(raw)
    if text is None:
        return _Record(number, raw, None, Reason.BAD_ENCODING, "not UTF-8")
    text = text.removeprefix(_MARK)
    try:
        *whole, last = text.split("\n")
        found = list(csv.reader([*(line + "\n" for line in whole), last], strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            return None
        return _Record(number, raw, None, Reason.BAD_ROW, str(error))
    if len(found) != 1:
        return _Record(number, raw, None, Reason.BAD_ROW, "a line break outside quotes")
    return _Record(number, raw, found[0])
