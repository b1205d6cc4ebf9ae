"""Time bounds: against sorting all times and looking at every gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams.configuration import Configuration, ConfigurationError, from_builtins
from thalweg.streams.event import EARLIEST, LATEST
from thalweg.streams.instant import OUTSIDE
from thalweg.streams.row import DAY
from thalweg.streams.time_bounds import GAP, Bounds, configured, scan

T0 = 1_772_452_800_000


def obvious(times: list[int]) -> set[int]:
    """The times that are inside, by the words of the rule."""
    inside = sorted(t for t in times if EARLIEST <= t <= LATEST)
    allowed = max(1, int(len(inside) * 0.001))
    low = max([i for i in range(1, len(inside)) if i <= allowed and inside[i] - inside[i - 1] > GAP], default=0)
    n = len(inside)
    high = min([i for i in range(1, n) if n - i <= allowed and inside[i] - inside[i - 1] > GAP], default=n)
    return set(inside) if low >= high or 2 * (low + n - high) >= n else set(inside[low:high])


def kept(times: list[int], pieces: int = 1) -> set[int]:
    bounds = scan([np.array(part, np.int64) for part in np.array_split(times, pieces)], Configuration())
    return {t for t in times if bounds.earliest <= t <= bounds.latest}


@given(st.lists(st.integers(0, 400).map(lambda d: T0 + d * DAY), min_size=1, max_size=12), st.integers(1, 3))
def test_equals_the_obvious_rule_on_small_logs(times: list[int], pieces: int) -> None:
    assert kept(times, pieces) == obvious(times)


@given(st.lists(st.integers(-4000, 4000).map(lambda d: T0 + d * DAY + 7), max_size=4), st.integers(0, 3))
def test_equals_the_obvious_rule_around_a_dense_log(strays: list[int], copies: int) -> None:
    times = [T0 + i * DAY // 40 for i in range(2000)] + strays * (copies + 1)
    assert kept(times, 3) == obvious(times)


def test_one_wrong_clock_costs_one_event() -> None:
    times = [T0 + i * 1000 for i in range(100)]
    stray = T0 + 4000 * DAY
    assert kept([*times, stray]) == set(times)
    assert kept([T0 - 4000 * DAY, *times, stray]) == set(times)


def test_a_gap_inside_is_no_tail() -> None:
    times = [T0 + i * 1000 for i in range(50)] + [T0 + 300 * DAY + i for i in range(50)]
    assert kept(times) == set(times)


def test_a_gap_of_thirty_days_is_not_more_than_thirty_days() -> None:
    times = [T0 + i for i in range(10)]
    assert len(kept([*times, times[-1] + GAP])) == 11
    assert len(kept([*times, times[-1] + GAP + 1])) == 10


def test_a_log_that_grows_keeps_its_bounds() -> None:
    bounds = scan([np.array([T0, T0 + 1, T0 + 2])], Configuration())
    assert (bounds.earliest, bounds.latest, bounds.origin) == (EARLIEST, LATEST, "scan")


def test_what_the_configuration_gives_stands() -> None:
    configuration = from_builtins({"time": {"latest": "2026-03-03T00:00:00Z"}})
    bounds = scan([np.array([T0 - 4000 * DAY, T0, T0 + 1, T0 + 400 * DAY, OUTSIDE])], configuration)
    assert bounds.latest == 1_772_496_000_000
    assert bounds.earliest == T0 - GAP


def test_no_times_at_all() -> None:
    assert scan([np.array([OUTSIDE])], Configuration()) == Bounds(EARLIEST, LATEST)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ({"earliest": "yesterday"}, "time.earliest 'yesterday' is no time"),
        (
            {"earliest": "2026-01-01T00:00:00Z", "latest": "2025-01-01T00:00:00Z"},
            "time.earliest is not before time.latest",
        ),
    ],
)
def test_bounds_that_are_wrong_are_refused(time: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        configured(from_builtins({"time": time}))
