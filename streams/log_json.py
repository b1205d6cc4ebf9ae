"""JSON lines, plain or gzip: each line is one raw row and one message of `decode`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .configuration import Configuration
from .decode import Decoder, read_time
from .event import CanonicalBatch
from .instant import OUTSIDE, zone_of
from .log_file import LogFile
from .text_file import TextFile
from .time_bounds import Bounds


class _Time(msgspec.Struct):
    ts: Any = None


class JsonLinesFile(LogFile):
    """A file of JSON lines; a blank line is a row, and a dead letter."""

    format = "jsonl"
    unit = "line"

    def __init__(self, path: Path, configuration: Configuration, bounds: Bounds) -> None:
        super().__init__(path, configuration, bounds)
        self._text = TextFile(path)

    def batches(self, start_row: int = 0, rows: int = 50_000) -> Iterator[CanonicalBatch]:
        """See `LogFile.batches`; the lines before `start_row` are read and passed over."""
        decoder = Decoder(self.rules, self.default_type)
        lines = islice(self._text.lines(), start_row, None)
        start = start_row
        while piece := list(islice(lines, rows)):
            yield decoder.decode(piece, start)
            start += len(piece)
        self.unfinished = self._text.unfinished
        self.rows = start

    def times(self) -> Iterator[npt.NDArray[np.int64]]:
        """See `LogFile.times`."""
        read = msgspec.json.Decoder(_Time).decode
        unit, zone = self.configuration.time.unit, zone_of(self.configuration.time)
        lines = self._text.lines()
        count = 0
        while piece := list(islice(lines, 65_536)):
            found = np.full(len(piece), OUTSIDE, np.int64)
            for i, line in enumerate(piece):
                try:
                    found[i] = read_time(read(line).ts, unit, zone)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
                    continue
            count += len(piece)
            yield found
        self.rows = count
