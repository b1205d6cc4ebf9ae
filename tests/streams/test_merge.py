"""The merge: rows leave once, in the total order, as soon as every source's clock has passed them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.streams.block import NO_CLOCK
from thalweg.streams.merge import Merge, total_order
from thalweg.streams.row import OUTCOME_ROW

ORDER = ("ts", "rank", "id", "id2", "tie")
PLACES = st.lists(st.tuples(*[st.integers(0, 3)] * 5), max_size=40)


def rows_of(places: list[tuple[int, ...]]) -> np.ndarray:
    rows = np.zeros(len(places), OUTCOME_ROW)
    for number, place in enumerate(places):
        for name, value in zip(ORDER, place):
            rows[name][number] = value
        rows["cell"][number] = number
    return rows


def codes_of(rows: np.ndarray) -> np.ndarray:
    """A feature that says which row it belongs to."""
    return rows["cell"].astype(np.uint32).reshape(-1, 1)


@settings(max_examples=300)
@given(PLACES)
def test_total_order_is_pythons_stable_sort(places):
    assert total_order(rows_of(places)).tolist() == sorted(range(len(places)), key=lambda n: places[n])


def test_long_runs_of_one_time_are_sorted_and_stable():
    draw = np.random.default_rng(1)
    for n in (63, 64, 65, 66, 127, 1000):
        places = [(int(a), *b) for a, b in zip(draw.integers(0, 2, n), draw.integers(0, 3, (n, 4)).tolist())]
        assert total_order(rows_of(places)).tolist() == sorted(range(n), key=lambda k: places[k])


def test_ids_are_compared_as_unsigned_and_times_as_signed():
    rows = rows_of([(5, 0, 0, 0, 0)] * 2 + [(5, 0, 0, 0, 0)])
    rows["id"] = [2**63 + 5, 3, 2**64 - 1]
    assert total_order(rows).tolist() == [1, 0, 2]
    rows["ts"] = [0, -7, -8]
    assert total_order(rows).tolist() == [2, 1, 0]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), st.lists(st.integers(0, 30), max_size=5)), max_size=15),
    st.integers(1, 3),
)
def test_rows_leave_once_in_order_and_not_before_the_least_clock(steps, sources):
    """Each step: a source brings rows at or above its clock and raises the clock."""
    merge, left, offered, clocks = Merge(sources), [], 0, [0] * sources
    merge.clocks[:] = 0
    for which, raised, times in steps:
        source = which % sources
        rows = rows_of([(clocks[source] + ts, 0, 0, 0, ts % 3) for ts in times])
        rows["cell"] += offered
        offered += len(rows)
        merge.offer(rows, codes_of(rows))
        clocks[source] += raised
        merge.clocks[source] = clocks[source]
        ready = merge.release()
        out, features, order = ready if ready is not None else (rows[:0], codes_of(rows)[:0], np.zeros(0, np.int64))
        assert features[:, 0].tolist() == out["cell"].tolist()
        left += [tuple(out[k].tolist())[:5] for k in order]
        assert all(row[0] < min(clocks) for row in left)
        held, _ = merge.rows(rows[:0], codes_of(rows)[:0])
        assert merge.held == len(held) and not (held["ts"] < min(clocks)).any()
        assert merge.clock == min(clocks)
    assert left == sorted(left)
    assert len(left) + merge.held == offered


def test_a_source_not_heard_from_holds_everything():
    merge = Merge(2)
    rows = rows_of([(1, 0, 0, 0, 0)])
    merge.offer(rows, codes_of(rows))
    merge.clocks[0] = 10**15
    assert merge.clock == NO_CLOCK and merge.release() is None and merge.held == 1


def test_a_row_at_the_clock_stays():
    merge = Merge(1)
    rows = rows_of([(9, 0, 0, 0, 0), (10, 0, 0, 0, 0)])
    merge.offer(rows, codes_of(rows))
    merge.clocks[0] = 10
    ready = merge.release()
    assert ready is not None and ready[0]["ts"][ready[2]].tolist() == [9]
    assert merge.rows(rows[:0], codes_of(rows)[:0])[0]["ts"].tolist() == [10]
