"""The calibration stage: signed integers from thalweg.outcomes, and a reading frozen at the start of each epoch.

An outcome row says: add so many trials and positives to this cell of this epoch. An impression adds a trial, its
conversion a positive, its return takes the positive back; all go to the *impression's* cell and epoch. The reading of
epoch k is made by an opening timer at k's start, from epochs whose labels are all known by then, and is never touched
again. Arithmetic is in `thalweg.models.calibration`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from thalweg.graph_store.state_store import StateStore
from thalweg.models.calibration.evaluation import EpochScore, matured, summary
from thalweg.models.calibration.grid import DROPPED, Grid, Shape
from thalweg.models.calibration.reading import Reading, Rules, make_reading
from thalweg.models.calibration.shelf import Shelf

from .block import Codes, Rows
from .configuration import Configuration, ConfigurationError
from .row import OUTCOME_ROW
from .stage import Opening, Order, Outputs, Stage


class Calibrated(NamedTuple):
    """What a reading says of one prediction.

    Attributes
    ----------
    rate : calibrated probability; `low` and `high` bound its 90 % credible interval
    level : uncertainty level, 0 the surest
    threshold : logit at and above which this level is selected; infinite where all or none are
    kept : the prediction is at or above the threshold
    """

    rate: float
    low: float
    high: float
    level: int
    threshold: float
    kept: bool


def grid_shape(configuration: Configuration) -> Shape:
    """The grid's bins as configured; the feedback stage bins with the same.

    >>> grid_shape(Configuration()).cells
    8192
    """
    c = configuration.calibration
    return Shape(c.score_bins, c.uncertainty_bins, c.score_low, c.score_high, epochs_kept=c.epochs_kept)


def reading_rules(configuration: Configuration) -> Rules:
    """How readings are made, in epochs: an epoch is mature when its end lies a whole attribution window back.

    ConfigurationError where the grid keeps too few epochs for any to mature.

    >>> reading_rules(Configuration()).maturity
    8
    """
    c = configuration.calibration
    wait = -(-int(configuration.attribution.window) // int(c.epoch))
    if c.epochs_kept <= wait + 1:
        raise ConfigurationError(
            f"calibration.epochs_kept = {c.epochs_kept}: epochs of {c.epoch} mature {wait + 1} epochs later ("
            f"attribution.window = {configuration.attribution.window}), so none is ever read; keep over {wait + 1}"
        )
    return Rules(c.levels, float(c.evidence), c.half_life / c.epoch, 1 + wait, c.precision)


class CalibrationStage(Stage):
    """Outcomes in, readings on a shelf; see the module.

    >>> stage = CalibrationStage(Configuration(), StateStore.memory(), 1)
    >>> stage.calibrate(0.0, -3.0).rate, stage.newest()
    (0.5, None)
    """

    name: ClassVar[str] = "calibration"
    row_type: ClassVar[np.dtype[Any]] = OUTCOME_ROW
    carries_features: ClassVar[bool] = False

    def __init__(self, configuration: Configuration, store: StateStore, sources: int = 1) -> None:
        super().__init__(configuration, store, sources)
        self.shape, self.rules = grid_shape(configuration), reading_rules(configuration)
        self.epoch_length = int(configuration.calibration.epoch)
        size = (self.shape.epochs_kept, self.shape.cells)
        self.grid = Grid(
            self.shape,
            store.array("epochs", np.int64, (self.shape.epochs_kept,)).values,
            store.array("trials", np.int32, size).values,
            store.array("positives", np.int32, size).values,
        )
        layout = Shelf.layout(self.shape, configuration.calibration.levels)
        tables = {name: store.array(f"reading_{name}", dtype, shape) for name, (dtype, shape) in layout.items()}
        self.shelf = Shelf(*(table.values for table in tables.values()))
        self._newest: Reading | None = None

    def apply(self, rows: Rows, features: Codes, order: Order, before: int) -> None:
        """Add the rows' integers. There are no closing timers here, so `before` does not matter."""
        if not len(order):
            return
        self.grid.add(rows["epoch"], rows["cell"], rows["trials"], rows["positives"], order)
        for name, count in zip(DROPPED, self.grid.dropped.tolist(), strict=True):
            self.store.count(name, count)
        self.grid.dropped[:] = 0

    def openings(self) -> list[Opening]:
        """One timer: the reading of each epoch, due just before it begins."""
        return [Opening("reading", int(self.configuration.calibration.epoch), 1, self._read)]

    def entries(self) -> Iterator[tuple[str, Rows]]:
        """Each epoch with the digest of its cells, each reading with the print of its values."""
        yield "cells", self.grid.digests()
        yield "readings", self.shelf.entries()

    def take(self) -> Outputs:
        """Nothing: this is the end of the chain."""
        return {}

    def _read(self, boundary: int) -> None:
        self.shelf.put(make_reading(self.grid, boundary // self.epoch_length, self.rules))
        self.store.count("readings")

    # ---- for queries and the report

    def reading_at(self, epoch: int) -> Reading | None:
        """The reading that applies to impressions of `epoch` (ts // epoch length); None where none is kept."""
        return self.shelf.get(epoch)

    def newest(self) -> Reading | None:
        """The latest reading made; None before the first."""
        epochs = self.shelf.epochs()
        if not epochs:
            return None
        if self._newest is None or self._newest.epoch != epochs[-1]:
            self._newest = self.shelf.get(epochs[-1])
        return self._newest

    def calibrate(self, logit: float, uncertainty: float, epoch: int | None = None) -> Calibrated:
        """What the reading of `epoch` (none: the latest) says of a prediction.

        Before the first reading the raw score is given back, with an interval of [0, 1] and no threshold.
        """
        reading = self.newest() if epoch is None else self.reading_at(epoch)
        if reading is None:
            return Calibrated(float(1.0 / (1.0 + np.exp(-logit))), 0.0, 1.0, 0, -np.inf, True)
        row, column = self.shape.bins_of(logit, uncertainty)
        level = int(reading.level_of[column])
        threshold = int(reading.thresholds[level])
        rate, low, high = (float(table[level, row]) for table in (reading.rate, reading.low, reading.high))
        return Calibrated(rate, low, high, level, self.shape.edge(threshold), row >= threshold)

    def last_mature(self) -> int:
        """The latest epoch whose labels are all known by the stage's clock."""
        return self.rules.last_mature(self.clock // self.epoch_length)

    def scores(self) -> list[EpochScore]:
        """Raw and calibrated quality of each matured epoch whose reading had labels to stand on, oldest first."""
        return matured(self.grid, self.shelf, self.last_mature())

    def summary(self) -> dict[str, Any]:
        """The same in total, see `evaluation.summary`; plain data for the report."""
        return summary(self.grid, self.shelf, self.last_mature())
