"""Parquet logs: row group by row group, only the columns that are used, no Python object per row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from . import column as typed
from .configuration import Configuration
from .dead_letter import DeadLetter, dead_letter
from .event import FIELDS, TYPE_NAMES, CanonicalBatch
from .instant import zone_of
from .log_file import LogError, LogFile
from .time_bounds import Bounds
from .validation import Candidate, Rules, Verdict


class ParquetFile(LogFile):
    """A Parquet file. A row's number counts over its row groups; memory holds about a batch of each used column.

    LogError where it is no Parquet file, has no `ts` column, or has a used column twice.
    """

    format = "parquet"

    def __init__(self, path: Path, configuration: Configuration, bounds: Bounds) -> None:
        super().__init__(path, configuration, bounds)
        try:
            self._metadata = pq.read_metadata(path)
            schema = self._metadata.schema.to_arrow_schema()
        except (pa.ArrowInvalid, OSError) as error:
            raise LogError(f"{path}: is no whole Parquet file ({_first_line(error)}); write it again") from None
        self.rows = self._metadata.num_rows
        wanted = {field.name for field in FIELDS} | {feature.name for feature in configuration.features}
        names = schema.names
        self._columns = [name for name in names if name in wanted]
        twice = sorted({name for name in self._columns if self._columns.count(name) > 1})
        if twice:
            raise LogError(f"{path}: column {twice[0]!r} is there twice; rename one. Columns found: {', '.join(names)}")
        if "ts" not in names:
            raise LogError(
                f"{path}: has no column `ts`; rename the column that holds the time. Columns found: {', '.join(names)}"
            )
        self._ignored = [name for name in names if name not in wanted]
        categories = {feature.name for feature in configuration.features if feature.kind == "categorical"}
        text = [name for name in self._columns if typed.is_text(schema.field(name).type)]
        self._dictionaries = [name for name in text if name in categories or name in ("type", "currency")]

    def batches(self, start_row: int = 0, rows: int = 50_000) -> Iterator[CanonicalBatch]:
        """See `LogFile.batches`; row groups before `start_row` are not read."""
        rules = self.rules
        zone = zone_of(self.configuration.time)
        start = start_row
        for piece in self._pieces(start_row, rows):
            columns = _columns(piece)
            candidate = self._candidate(columns, start, len(piece), zone)
            verdict = rules.judge(candidate)
            yield self._batch(columns, candidate, verdict, start, rules)
            start += len(piece)

    def times(self) -> Iterator[npt.NDArray[np.int64]]:
        """See `LogFile.times`; only the column `ts` is read."""
        zone = zone_of(self.configuration.time)
        with self._open([]) as file:
            for batch in file.iter_batches(batch_size=262_144, columns=["ts"]):
                yield typed.times(batch.column(0), self.configuration.time.unit, zone).to_numpy(zero_copy_only=False)

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, metadata=self._metadata, read_dictionary=dictionaries, pre_buffer=False)

    def _pieces(self, start_row: int, rows: int) -> Iterator[pa.Table]:
        """Tables of exactly `rows` rows from `start_row` on."""
        first, skip = self._group_of(start_row)
        groups = list(range(first, self._metadata.num_row_groups))
        if not groups:
            return
        held: list[pa.RecordBatch] = []
        count = 0
        with self._open(self._dictionaries) as file:
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=self._columns):
                if skip >= len(batch):
                    skip -= len(batch)
                    continue
                held.append(batch.slice(skip))
                count += len(batch) - skip
                skip = 0
                while count >= rows:
                    taken, held = _cut(held, rows)
                    count -= rows
                    yield pa.Table.from_batches(taken)
        if count:
            yield pa.Table.from_batches(held)

    def _group_of(self, row: int) -> tuple[int, int]:
        """Row group that holds `row`, and the rows of it before."""
        for group in range(self._metadata.num_row_groups):
            size = self._metadata.row_group(group).num_rows
            if row < size:
                return group, row
            row -= size
        return self._metadata.num_row_groups, 0

    def _candidate(self, columns: dict[str, pa.Array], start: int, n: int, zone: Any) -> Candidate:
        read: dict[str, pa.Array] = {}
        bad: dict[str, npt.NDArray[np.bool_]] = {}
        kinds = {
            "id": typed.ids,
            "text": typed.texts,
            "integer": typed.positions,
            "price": typed.prices,
            "quantity": typed.quantities,
        }
        readers = {field.name: kinds[field.kind] for field in FIELDS if field.kind in kinds}
        for feature in self.configuration.features:
            readers[feature.name] = typed.categories if feature.kind == "categorical" else typed.numbers
        for name, reader in readers.items():
            if name in columns:
                read[name], wrong = reader(columns[name])
                if wrong is not None:
                    bad[name] = wrong
        ts = typed.times(columns["ts"], self.configuration.time.unit, zone).to_numpy(zero_copy_only=False)
        types = typed.types(columns.get("type"), n, self.default_type)
        return Candidate(np.arange(start, start + n, dtype=np.int64), types, ts, read, bad)

    def _batch(
        self, columns: dict[str, pa.Array], candidate: Candidate, verdict: Verdict, start: int, rules: Rules
    ) -> CanonicalBatch:
        n = len(candidate.rows)
        offsets = candidate.rows if verdict.kept is None else candidate.rows[verdict.kept]
        rejects: list[DeadLetter] = []
        for finding in verdict.findings:
            for at in finding.at.tolist():
                raw = _raw({name: column[at] for name, column in columns.items()})
                kind = TYPE_NAMES.get(int(candidate.types[at]), "unknown")
                place = (self.name, start + at, start + at + 1)
                rejects.append(
                    dead_letter(place, finding.reason, raw, field=finding.field, detail=finding.detail, kind=kind)
                )
        rejects.sort(key=lambda letter: letter.row)
        return CanonicalBatch(start, start + n, offsets, verdict.events, rejects, dict.fromkeys(self._ignored, n))


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    found = {}
    for name in table.column_names:
        chunks = table.column(name)
        found[name] = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.unify_dictionaries().combine_chunks()
    return found


def _cut(held: list[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    taken: list[pa.RecordBatch] = []
    need = rows
    for i, batch in enumerate(held):
        if len(batch) >= need:
            taken.append(batch.slice(0, need))
            rest = [batch.slice(need)] if len(batch) > need else []
            return taken, rest + held[i + 1 :]
        taken.append(batch)
        need -= len(batch)
    return taken, []


def _raw(values: dict[str, pa.Scalar]) -> bytes:
    """A Parquet row has no bytes of its own: it is written as JSON, what JSON cannot say as text."""
    row: dict[str, Any] = {}
    for name, value in values.items():
        if value.is_valid:
            try:
                found = value.as_py()
                row[name] = str(found) if isinstance(found, float) and not math.isfinite(found) else found
            except (ValueError, OverflowError):
                row[name] = str(value.cast(pa.int64()))
    return msgspec.json.encode(row, enc_hook=str)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
