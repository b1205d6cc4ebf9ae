"""Which times of a log are plausible: from the configuration, or from a look at the whole log before it is replayed.

The look: sort all times; a tail at either end that holds at most 0.1 % of the rows, or one row, and lies beyond a gap of more
than 30 days, is outside. The rest must hold more than half of the rows, else nothing is outside. One device with a wrong
clock then costs one event, and not the clock of the whole replay. Whatever the look says, a bound that the configuration
does not give is never wider than 2000 to 2099.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

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
    """The bounds that the configuration gives, 2000 to 2099 where it gives none."""
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


def scan(times: Iterable[npt.NDArray[np.int64]], configuration: Configuration) -> Bounds:
    """Bounds of a log whose times are given piece by piece (int64 ms, in any order, `OUTSIDE` for unreadable).

    What the configuration gives stands. Only the ends are held, in days: a day's rows, first and last time.
    """
    limit = configured(configuration)
    days: dict[int, list[int]] = {}
    for piece in times:
        inside = piece[(piece >= limit.earliest) & (piece <= limit.latest)]
        for day, count, first, last in _by_day(inside):
            held = days.setdefault(day, [0, first, last])
            held[0] += count
            held[1] = min(held[1], first)
            held[2] = max(held[2], last)
    if not days:
        return limit
    ordered = [days[day] for day in sorted(days)]
    low, high = _tails(ordered)
    time = configuration.time
    earliest = limit.earliest if time.earliest is not None else ordered[low][1]
    latest = limit.latest if time.latest is not None else ordered[high][2]
    return Bounds(earliest, latest, "scan" if time.earliest is None or time.latest is None else "configuration")


def _by_day(times: npt.NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
    if len(times) == 0:
        return []
    low, high = int(times.min()) // DAY, int(times.max()) // DAY
    if low == high:
        return [(low, len(times), int(times.min()), int(times.max()))]
    ordered = np.sort(times)
    days = ordered // DAY
    starts = np.concatenate(([0], np.flatnonzero(np.diff(days)) + 1))
    ends = np.concatenate((starts[1:], [len(ordered)]))
    return [(int(days[a]), int(b - a), int(ordered[a]), int(ordered[b - 1])) for a, b in zip(starts, ends, strict=True)]


def _tails(days: list[list[int]]) -> tuple[int, int]:
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
