"""Which times of a log are plausible: from the configuration, or from a look at the log before it is replayed.

The look: sort all times; a tail at either end that holds at most 0.1 % of the rows, or one row, and lies beyond a gap
of more than 30 days, is outside. The rest must hold more than half of the rows, else nothing is outside. One device
with a wrong clock then costs one event, and not the clock of the whole replay. The bound at an end with such a tail is
30 days beyond the last row inside; at an end without one, and without a bound in the configuration, it is 2000 or 2099.
So a log that has grown keeps its bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel

from .configuration import Configuration, ConfigurationError
from .event import EARLIEST, LATEST
from .instant import OUTSIDE, from_text, zone_of
from .row import DAY

GAP = 30 * DAY
TAIL = 0.001


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Bounds:
    """The earliest and the latest time accepted, ms, both inside; `origin` says where they come from.

    >>> str(Bounds(0, 1000))
    '1970-01-01T00:00:00Z to 1970-01-01T00:00:01Z'
    """

    earliest: int
    latest: int
    origin: str = "configuration"

    def __str__(self) -> str:
        return f"{_text(self.earliest)} to {_text(self.latest)}"


def configured(configuration: Configuration) -> Bounds:
    """The bounds that the configuration gives, 2000 to 2099 where it gives none.

    >>> str(configured(Configuration()))
    '2000-01-01T00:00:00Z to 2100-01-01T00:00:00Z'
    """
    time = configuration.time
    zone = zone_of(time)
    found = []
    for name, text, default in (("earliest", time.earliest, EARLIEST), ("latest", time.latest, LATEST)):
        ms = default if text is None else from_text(text, time.unit, zone)
        if ms == OUTSIDE:
            raise ConfigurationError(f"time.{name} {text!r} is no time; write one such as 2026-03-02T12:00:00Z")
        found.append(ms)
    if found[0] >= found[1]:
        raise ConfigurationError(f"time.earliest is not before time.latest ({_text(found[0])}, {_text(found[1])})")
    return Bounds(found[0], found[1])


@kernel
def _count_days(times, first_day, low, high, count, least, most):  # type: ignore[no-untyped-def]
    for t in times:
        if low <= t <= high:
            day = t // 86_400_000 - first_day
            if count[day] == 0 or t < least[day]:
                least[day] = t
            if count[day] == 0 or t > most[day]:
                most[day] = t
            count[day] += 1


def scan(times: Iterable[npt.NDArray[np.int64]], configuration: Configuration) -> Bounds:
    """Bounds of a log whose times are given piece by piece (int64 ms, in any order, `OUTSIDE` for unreadable).

    What the configuration gives stands. Memory holds a count and two times for each day between the widest bounds.

    >>> times = np.array([1772452800000, 1772452801000, 1772452802000, 1900000000000])
    >>> str(scan([times], Configuration()))
    '2000-01-01T00:00:00Z to 2026-04-01T12:00:02Z'
    """
    limit = configured(configuration)
    first_day = limit.earliest // DAY
    size = limit.latest // DAY - first_day + 1
    count, least, most = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    for piece in times:
        _count_days(piece, first_day, limit.earliest, limit.latest, count, least, most)
    at = np.flatnonzero(count)
    if len(at) == 0:
        return limit
    days = list(zip(count[at].tolist(), least[at].tolist(), most[at].tolist(), strict=True))
    low, high = _tails(days)
    time = configuration.time
    earliest, latest = limit.earliest, limit.latest
    if low > 0 and time.earliest is None:
        earliest = days[low][1] - GAP
    if high < len(days) - 1 and time.latest is None:
        latest = days[high][2] + GAP
    return Bounds(earliest, latest, "scan")


def _tails(days: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Index of the first and of the last day that are inside."""
    total = sum(day[0] for day in days)
    allowed = max(1, int(total * TAIL))
    low, seen, cut = 0, 0, 0
    for i in range(1, len(days)):
        seen += days[i - 1][0]
        if seen > allowed:
            break
        if days[i][1] - days[i - 1][2] > GAP:
            low, cut = i, seen
    high, seen, cut_high = len(days) - 1, 0, 0
    for i in range(len(days) - 2, -1, -1):
        seen += days[i + 1][0]
        if seen > allowed:
            break
        if days[i + 1][1] - days[i][2] > GAP:
            high, cut_high = i, seen
    if low > high or 2 * (cut + cut_high) >= total:
        return 0, len(days) - 1
    return low, high
