"""The shelf: the readings kept, in flat arrays that a state store can persist and a digest can cover.

Reading k stands in slot k mod `kept`; a newer one takes the slot over. Rates are float32. Each slot carries a 128-bit
print of its own bytes, made when the reading is put there and checked when a shelf is opened on stored arrays: a
digest then costs a few bytes a reading, and a damaged page is found on opening, not in an answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.digest import digest_entries

from .grid import Shape
from .reading import Reading

_TAG = 1 << 40  # epoch e is tagged e + 2**40, so that an array of zeros means "no reading yet"
HEADER = np.dtype(
    [
        ("tag", "<i8"),
        ("first", "<i8"),
        ("last", "<i8"),
        ("trials", "<i8"),
        ("positives", "<i8"),
        ("levels", "<i8"),
        ("fitted", "<i8"),
        ("cut", "<f8"),
        ("precision", "<f8"),
        ("recall", "<f8"),
        ("gain", "<f8"),
        ("control", "<f8"),
        ("low", "<u8"),
        ("high", "<u8"),
    ]
)
"""One slot; `low` and `high` are the print."""
READING_ENTRY = np.dtype([("epoch", "<i8"), ("low", "<u8"), ("high", "<u8")])
"""One logical entry of the table of readings."""
_NUMBERS = ("cut", "precision", "recall", "gain", "control")


class DamagedReading(RuntimeError):
    """A stored reading does not carry the print it was stored with."""


class Shelf:
    """Readings by epoch.

    Parameters
    ----------
    headers : HEADER[kept]
    level_of : uint8[kept, uncertainty_bins]
    thresholds : int32[kept, levels]
    rates : float32[kept, 3, levels, score_bins], rate, low, high

    >>> from .grid import Grid
    >>> from .reading import Rules, make_reading
    >>> shape = Shape(8, 4, epochs_kept=16)
    >>> shelf = Shelf.empty(shape, levels=2)
    >>> shelf.put(make_reading(Grid.empty(shape), 20, Rules()))
    >>> shelf.epochs(), shelf.get(20).rate.shape, shelf.get(21)
    ([20], (1, 8), None)
    """

    def __init__(
        self,
        headers: npt.NDArray[np.void],
        level_of: npt.NDArray[np.uint8],
        thresholds: npt.NDArray[np.int32],
        rates: npt.NDArray[np.float32],
    ) -> None:
        self.headers, self.level_of, self.thresholds, self.rates = headers, level_of, thresholds, rates
        for slot in np.flatnonzero(headers["tag"]).tolist():
            if self._print(slot) != (int(headers["low"][slot]), int(headers["high"][slot])):
                raise DamagedReading(
                    f"calibration reading of epoch {int(headers['tag'][slot]) - _TAG}: the stored bytes are not those "
                    "that were written; restore the state folder from a copy, or replay into a new --state folder"
                )

    @staticmethod
    def layout(shape: Shape, levels: int) -> dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]:
        """Names, dtypes and shapes of the arrays, in the constructor's order; all start at zero.

        >>> list(Shelf.layout(Shape(), 4))
        ['headers', 'level_of', 'thresholds', 'rates']
        """
        kept = shape.epochs_kept
        return {
            "headers": (HEADER, (kept,)),
            "level_of": (np.dtype(np.uint8), (kept, shape.uncertainty_bins)),
            "thresholds": (np.dtype(np.int32), (kept, levels)),
            "rates": (np.dtype(np.float32), (kept, 3, levels, shape.score_bins)),
        }

    @classmethod
    def empty(cls, shape: Shape, levels: int) -> Shelf:
        """A shelf with arrays of its own.

        >>> Shelf.empty(Shape(8, 4), 2).epochs()
        []
        """
        return cls(*(np.zeros(size, dtype) for dtype, size in cls.layout(shape, levels).values()))

    def put(self, reading: Reading) -> None:
        """Keep a reading; the one that stood in its slot is gone. ValueError where it has more levels than fit."""
        levels = reading.levels
        if levels > self.thresholds.shape[1]:
            raise ValueError(f"a reading of {levels} levels on a shelf of {self.thresholds.shape[1]}; raise `levels`")
        slot = reading.epoch % len(self.headers)
        header = self.headers[slot]
        header["tag"], header["levels"] = reading.epoch + _TAG, levels
        for name in ("first", "last", "trials", "positives", "fitted", *_NUMBERS):
            header[name] = getattr(reading, name)
        self.level_of[slot] = reading.level_of
        self.thresholds[slot] = 0
        self.thresholds[slot, :levels] = reading.thresholds
        self.rates[slot] = 0.0
        for k, values in enumerate((reading.rate, reading.low, reading.high)):
            self.rates[slot, k, :levels] = values
        header["low"], header["high"] = self._print(slot)

    def get(self, epoch: int) -> Reading | None:
        """The reading of `epoch`; None where there is none, or none any more."""
        slot = epoch % len(self.headers)
        header = self.headers[slot]
        if header["tag"] != epoch + _TAG:
            return None
        levels = int(header["levels"])
        rate, low, high = (self.rates[slot, k, :levels].copy() for k in range(3))
        return Reading(
            epoch, int(header["first"]), int(header["last"]), int(header["trials"]), int(header["positives"]),
            bool(header["fitted"]), self.level_of[slot].copy(), rate, low, high,
            self.thresholds[slot, :levels].astype(np.int64),
            *(float(header[name]) for name in _NUMBERS),
        )  # fmt: skip

    def epochs(self) -> list[int]:
        """Epochs that have a reading, oldest first."""
        return sorted(int(tag) - _TAG for tag in self.headers["tag"] if tag)

    def __iter__(self) -> Iterator[Reading]:
        return (reading for epoch in self.epochs() if (reading := self.get(epoch)) is not None)

    def entries(self) -> npt.NDArray[np.void]:
        """One entry a reading, `READING_ENTRY`: its epoch and the print of all its values.

        >>> Shelf.empty(Shape(8, 4), 2).entries().tolist()
        []
        """
        kept = np.flatnonzero(self.headers["tag"])
        out = np.zeros(len(kept), READING_ENTRY)
        out["epoch"] = self.headers["tag"][kept] - _TAG
        out["low"], out["high"] = self.headers["low"][kept], self.headers["high"][kept]
        return out

    def _print(self, slot: int) -> tuple[int, int]:
        header = self.headers[slot : slot + 1].copy()
        header["low"] = header["high"] = 0
        levels = int(header["levels"][0])
        parts = (header, self.level_of[slot], self.thresholds[slot, :levels], self.rates[slot, :, :levels])
        raw = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        digest = digest_entries("reading", np.frombuffer(raw, np.uint8)[None, :])
        return digest & (2**64 - 1), digest >> 64
