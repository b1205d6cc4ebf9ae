"""The fixed micro-grid: signed integers by score bin, uncertainty bin and epoch.

The edges never move, and a cell holds integers only, so adding and taking back commute: any order, any shard, and a
retraction leaves no trace. A cell's number is `score_bin * uncertainty_bins + uncertainty_bin`; the cell and the
epoch (of the impression) are frozen when the impression is scored and travel with it.

Epochs live in a ring: epoch e in slot e mod `epochs_kept`. A newer epoch empties the slot it takes over; what was in
it, and what still comes for an epoch no longer kept, is counted in `dropped`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.digest import digest_entries
from thalweg.graph_store.hash import mix64
from thalweg.graph_store.kernel import kernel

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]

UNCERTAINTY_LOW = -16.0
"""Uncertainty is -log(1 + n), n the effective count behind a prediction: -16 is n = 9 million, 0 is n = 0."""
UNCERTAINTY_HIGH = 0.0
DROPPED = ("trials_dropped", "positives_dropped", "rows_too_old", "rows_outside_grid")
"""What the `dropped` array counts: trials and positives in slots taken over, rows for an epoch no longer kept, rows
whose cell is not in the grid."""
CELL_ENTRY = np.dtype([("epoch", "<i8"), ("cell", "<i8"), ("trials", "<i8"), ("positives", "<i8")])
"""A cell that holds anything."""
EPOCH_ENTRY = np.dtype([("epoch", "<i8"), ("low", "<u8"), ("high", "<u8")])
"""One logical entry of the table: an epoch and the 128-bit digest of its cells."""
_TAG = 1 << 40  # epoch e is tagged e + 2**40, so that an array of zeros means "no epoch yet"
_53_BITS = 2.0**-53
_S11 = np.uint64(11)


@kernel
def cell_of(  # type: ignore[no-untyped-def]
    logit, uncertainty, score_low, score_high, score_bins, uncertainty_low, uncertainty_high, uncertainty_bins
):
    """Cell of a prediction; values outside the grid fall into an outer bin, NaN into the lowest.

    >>> [int(cell_of(z, u, -9.0, 5.0, 256, -16.0, 0.0, 32)) for z, u in ((-9.0, -16.0), (99.0, 0.0))]
    [0, 8191]
    """
    s = (logit - score_low) * (score_bins / (score_high - score_low))
    u = (uncertainty - uncertainty_low) * (uncertainty_bins / (uncertainty_high - uncertainty_low))
    row = np.int64(min(s, score_bins - 1.0)) if s > 0.0 else np.int64(0)
    column = np.int64(min(u, uncertainty_bins - 1.0)) if u > 0.0 else np.int64(0)
    return row * np.int64(uncertainty_bins) + column


@kernel
def _add(  # type: ignore[no-untyped-def]
    tags, trials, positives, touched, dropped, epochs, cells, more_trials, more_positives, order
):
    kept, size = trials.shape
    for j in range(order.shape[0]):
        i = order[j]
        epoch, cell = epochs[i], cells[i]
        if cell < 0 or cell >= size:
            dropped[3] += 1
            continue
        slot, tag = epoch % kept, epoch + _TAG
        if tags[slot] < tag:
            if tags[slot] != 0:
                for c in range(size):
                    dropped[0] += trials[slot, c]
                    dropped[1] += positives[slot, c]
                    trials[slot, c] = 0
                    positives[slot, c] = 0
            tags[slot] = tag
        if tags[slot] != tag:
            dropped[2] += 1
            continue
        trials[slot, cell] += more_trials[i]
        positives[slot, cell] += more_positives[i]
        touched[slot] = True


@kernel
def _decayed(tags, trials, positives, first, last, keep, total, hits, sums):  # type: ignore[no-untyped-def]
    kept, size = trials.shape
    folds = total.shape[0]
    weight = 1.0
    for epoch in range(last, first - 1, -1):
        slot = epoch % kept
        if tags[slot] == epoch + _TAG:
            fold = epoch % folds
            for c in range(size):
                total[fold, c] += weight * trials[slot, c]
                hits[fold, c] += weight * positives[slot, c]
                sums[0] += trials[slot, c]
                sums[1] += positives[slot, c]
        weight *= keep


@kernel
def _shuffled(tags, trials, positives, first, last, keep, width, shares, seed, total, hits):  # type: ignore[no-untyped-def]
    kept, size = trials.shape
    folds, levels = total.shape[0], total.shape[1]
    weight = 1.0
    for epoch in range(last, first - 1, -1):
        slot = epoch % kept
        if tags[slot] == epoch + _TAG:
            fold = epoch % folds
            salt = mix64(np.uint64(epoch) ^ seed)
            for s in range(size // width):
                for c in range(s * width, (s + 1) * width):
                    if trials[slot, c] == 0 and positives[slot, c] == 0:
                        continue
                    draw = np.float64(mix64(salt + np.uint64(c)) >> _S11) * _53_BITS
                    level = 0
                    while level < levels - 1 and draw >= shares[level]:
                        level += 1
                    total[fold, level, s] += weight * trials[slot, c]
                    hits[fold, level, s] += weight * positives[slot, c]
        weight *= keep


@kernel
def _entries(tags, trials, positives, first, last, out):  # type: ignore[no-untyped-def]
    n = 0
    for slot in range(first, last):
        if tags[slot] == 0:
            continue
        for c in range(trials.shape[1]):
            if trials[slot, c] != 0 or positives[slot, c] != 0:
                if n < out.shape[0]:
                    out[n]["epoch"] = tags[slot] - _TAG
                    out[n]["cell"] = c
                    out[n]["trials"] = trials[slot, c]
                    out[n]["positives"] = positives[slot, c]
                n += 1
    return n


@dataclass(frozen=True)
class Shape:
    """Bins of the grid; scores are logits, uncertainties -log(1 + n).

    >>> Shape(4, 2, -2.0, 2.0).midpoints().tolist()
    [-1.5, -0.5, 0.5, 1.5]
    """

    score_bins: int = 256
    uncertainty_bins: int = 32
    score_low: float = -9.0
    score_high: float = 5.0
    uncertainty_low: float = UNCERTAINTY_LOW
    uncertainty_high: float = UNCERTAINTY_HIGH
    epochs_kept: int = 400

    @property
    def cells(self) -> int:
        """Number of cells of one epoch.

        >>> Shape().cells
        8192
        """
        return self.score_bins * self.uncertainty_bins

    def midpoints(self) -> F64:
        """Logit in the middle of each score bin, float64[score_bins]."""
        width = (self.score_high - self.score_low) / self.score_bins
        return np.asarray(self.score_low + width * (np.arange(self.score_bins) + 0.5), np.float64)

    def edge(self, score_bin: int) -> float:
        """Logit at the lower edge of a score bin; minus infinity for the lowest, infinity past the highest.

        >>> Shape(4, 2, -2.0, 2.0).edge(1), Shape(4, 2).edge(4)
        (-1.0, inf)
        """
        if score_bin <= 0:
            return -np.inf
        if score_bin >= self.score_bins:
            return np.inf
        return self.score_low + (self.score_high - self.score_low) / self.score_bins * score_bin

    def bins_of(self, logit: float, uncertainty: float) -> tuple[int, int]:
        """(score bin, uncertainty bin) of one prediction.

        >>> Shape(4, 2, -2.0, 2.0).bins_of(0.1, -1.0)
        (2, 1)
        """
        cell = cell_of(
            float(logit), float(uncertainty), self.score_low, self.score_high, self.score_bins,
            self.uncertainty_low, self.uncertainty_high, self.uncertainty_bins,
        )  # fmt: skip
        row, column = divmod(int(cell), self.uncertainty_bins)
        return row, column


class Grid:
    """The integers, and what readings ask of them.

    Parameters
    ----------
    shape : the bins
    tags : int64[epochs_kept], zeros at the start
    trials, positives : int32[epochs_kept, cells], zeros at the start; 2**31 rows a cell and epoch is the bound

    Attributes
    ----------
    dropped : int64[4], see `DROPPED`; not part of the state

    >>> grid = Grid.empty(Shape(4, 2, -2.0, 2.0))
    >>> grid.add(np.array([7, 7]), np.array([5, 5]), np.array([1, 0]), np.array([0, 1]))
    >>> grid.entries().tolist()
    [(7, 5, 1, 1)]
    """

    def __init__(self, shape: Shape, tags: I64, trials: I32, positives: I32) -> None:
        self.shape, self.tags, self.trials, self.positives = shape, tags, trials, positives
        self.dropped = np.zeros(4, np.int64)
        self._touched = tags != 0  # slots whose digest is out of date
        self._digests = np.zeros((len(tags), 2), np.uint64)

    @classmethod
    def empty(cls, shape: Shape) -> Grid:
        """A grid with arrays of its own.

        >>> Grid.empty(Shape(4, 2)).entries().tolist()
        []
        """
        size = (shape.epochs_kept, shape.cells)
        return cls(shape, np.zeros(shape.epochs_kept, np.int64), np.zeros(size, np.int32), np.zeros(size, np.int32))

    def add(self, epochs: I64, cells: I64, trials: I64, positives: I64, order: I64 | None = None) -> None:
        """Add signed integers, int64[n] each, row after row (in `order`, int64 row numbers, where given)."""
        if order is None:
            order = np.arange(len(epochs))
        _add(
            self.tags, self.trials, self.positives, self._touched, self.dropped, epochs, cells, trials, positives, order
        )  # fmt: skip

    def cells_of(self, epoch: int) -> tuple[F64, F64] | None:
        """(trials, positives) of one epoch, float64[score_bins, uncertainty_bins]; None where it is not kept.

        >>> Grid.empty(Shape(4, 2)).cells_of(3) is None
        True
        """
        slot = epoch % self.shape.epochs_kept
        if self.tags[slot] != epoch + _TAG:
            return None
        size = (self.shape.score_bins, self.shape.uncertainty_bins)
        return self.trials[slot].reshape(size).astype(np.float64), self.positives[slot].reshape(size).astype(np.float64)

    def epochs(self) -> list[int]:
        """The epochs kept, oldest first.

        >>> Grid.empty(Shape(4, 2)).epochs()
        []
        """
        return sorted(int(tag) - _TAG for tag in self.tags if tag)

    def decayed(self, first: int, last: int, keep: float, folds: int) -> tuple[F64, F64, int, int]:
        """Sums over epochs first..last, an epoch weighing `keep ** (last - epoch)`, apart by `epoch % folds`.

        Returns (trials, positives): float64[folds, score_bins, uncertainty_bins], added cell by cell from the newest
        epoch to the oldest, so that the bits are the same everywhere; and their plain integer sums.
        """
        size = (folds, self.shape.cells)
        total, hits, sums = np.zeros(size), np.zeros(size), np.zeros(2, np.int64)
        _decayed(self.tags, self.trials, self.positives, first, last, keep, total, hits, sums)
        whole = (folds, self.shape.score_bins, self.shape.uncertainty_bins)
        return total.reshape(whole), hits.reshape(whole), int(sums[0]), int(sums[1])

    def shuffled(self, first: int, last: int, keep: float, folds: int, shares: F64, seed: int) -> tuple[F64, F64]:
        """The control arm: like `decayed`, but each (epoch, cell) goes to a random level, whatever its uncertainty.

        `shares` float64[levels] are the levels' shares; the draw is a hash of `seed`, epoch and cell. Returns
        (trials, positives), float64[folds, levels, score_bins]. Levels made so know nothing: what they gain is luck.
        """
        size = (folds, len(shares), self.shape.score_bins)
        total, hits = np.zeros(size), np.zeros(size)
        _shuffled(
            self.tags, self.trials, self.positives, first, last, keep, self.shape.uncertainty_bins,
            np.cumsum(shares), np.uint64(seed), total, hits,
        )  # fmt: skip
        return total, hits

    def entries(self) -> npt.NDArray[np.void]:
        """Every cell that holds anything, as `CELL_ENTRY`."""
        return self._entries(0, len(self.tags))

    def digests(self) -> npt.NDArray[np.void]:
        """Every epoch that holds anything and the digest of its entries, as `EPOCH_ENTRY`.

        Only epochs touched since the last call are read anew: an audit a day over a year of epochs stays cheap.

        >>> Grid.empty(Shape(4, 2)).digests().tolist()
        []
        """
        for slot in np.flatnonzero(self._touched).tolist():
            digest = digest_entries("cells", self._entries(slot, slot + 1))
            self._digests[slot] = digest & (2**64 - 1), digest >> 64
        self._touched[:] = False
        held = np.flatnonzero(self._digests.any(axis=1))
        out = np.zeros(len(held), EPOCH_ENTRY)
        out["epoch"] = self.tags[held] - _TAG
        out["low"], out["high"] = self._digests[held].T
        return out

    def _entries(self, first: int, last: int) -> npt.NDArray[np.void]:
        out = np.zeros((last - first) * 64, CELL_ENTRY)
        n = int(_entries(self.tags, self.trials, self.positives, first, last, out))
        if n > len(out):
            out = np.zeros(n, CELL_ENTRY)
            _entries(self.tags, self.trials, self.positives, first, last, out)
        return out[:n]
