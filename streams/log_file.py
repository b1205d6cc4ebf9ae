"""One file of a log: what every format has in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .column import UNKNOWN_TYPE
from .configuration import Configuration
from .event import TYPES, CanonicalBatch
from .time_bounds import Bounds
from .validation import Rules

_STEM = re.compile(r"(impression|click|add_to_cart|cart|purchase|return|item)s?(?![a-z])")


class LogError(ValueError):
    """A log cannot be read at all; the message names the file, what is wrong and the mend."""


def type_of_stem(name: str) -> int:
    """The type that a file's name says, or `column.UNKNOWN_TYPE`: `clicks.csv`, `clicks-2026-03.jsonl.gz`, `carts.csv`.

    >>> type_of_stem("clicks-2026.jsonl.gz"), type_of_stem("add_to_carts.csv"), type_of_stem("log.parquet")
    (2, 3, -1)
    """
    match = _STEM.match(name.lower())
    if match is None:
        return UNKNOWN_TYPE
    return int(TYPES["add_to_cart" if match[1] == "cart" else match[1]])


class LogFile(ABC):
    """A raw partition: rows numbered from 0, read in order from any row on.

    Attributes
    ----------
    name : the file's name, which names its rows' events and dead letters
    path : where it lies
    bytes : its size
    rows : number of raw rows, where known without reading it all
    unfinished : after reading, what was wrong with its end (a cut-off gzip and the like); None for a whole file
    notes : remarks for people, known once `times` has been read
    format, unit : its format, and what one of its rows is called
    """

    format: str
    unit = "row"

    def __init__(self, path: Path, configuration: Configuration, bounds: Bounds) -> None:
        self.path = path
        self.name = path.name
        self.bytes = path.stat().st_size
        self.configuration = configuration
        self.bounds = bounds
        self.default_type = type_of_stem(path.name)
        self.rows: int | None = None
        self.unfinished: str | None = None
        self.notes: list[str] = []

    @property
    def rules(self) -> Rules:
        """The rules for this file's rows under its present bounds."""
        return Rules(self.configuration, self.bounds, self.name)

    def place(self, row: int) -> str:
        """What to tell people about a raw row."""
        return f"{self.name} {self.unit} {row + 1:,}"

    @abstractmethod
    def batches(self, start_row: int = 0, rows: int = 50_000) -> Iterator[CanonicalBatch]:
        """The raw rows from `start_row` on, in batches of exactly `rows` raw rows (the last may be shorter)."""

    @abstractmethod
    def times(self) -> Iterator[npt.NDArray[np.int64]]:
        """All times of the file, piece by piece, as int64 ms; unreadable ones are `instant.OUTSIDE`."""
