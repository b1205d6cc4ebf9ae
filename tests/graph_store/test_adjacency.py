from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.adjacency import Adjacency, Limits
from thalweg.graph_store.decay import ONE, Decay
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.row import DAY, Pairing

from ..reference.adjacency import SlowAdjacency
from ..reference.copurchases import make_rows, random_rows

PERIOD = 21 * DAY


def feed(graph: Adjacency, rows: np.ndarray, block: int = 10**9) -> None:
    """Apply rows in blocks, and begin generations where the stage's timer would."""
    codes = np.zeros((len(rows), graph.features), np.uint32)
    generations = rows["ts"] // graph.decay.period
    edges = [0, *(np.flatnonzero(np.diff(generations)) + 1).tolist(), len(rows)]
    for k, (begin, end) in enumerate(zip(edges, edges[1:])):
        if k:
            for generation in range(int(generations[begin - 1]) + 1, int(generations[begin]) + 1):
                graph.rotate(generation * graph.decay.period)
        for start in range(begin, end, block):
            graph.apply(rows, codes, np.arange(start, min(end, start + block)))


def fresh(features: int = 0, half_life: int = 60 * DAY, limits: Limits | None = None) -> Adjacency:
    return Adjacency(StateStore.memory(), Decay(PERIOD, half_life), features, limits)


def weights_of(graph: Adjacency) -> dict[tuple[int, int], float]:
    hashes, entries = graph.hashes(), graph.pairs.entries()
    ends = zip(hashes[entries["source"]].tolist(), hashes[entries["target"]].tolist())
    return {pair: weight for pair, weight in zip(ends, graph.weights().tolist()) if weight > 0}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.sampled_from([15, 60, 200]))
def test_equals_the_slow_twin(seed: int, n: int, days: int) -> None:
    rows = random_rows(seed, n, days)
    graph, slow = fresh(), SlowAdjacency(PERIOD, 60 * DAY)
    feed(graph, rows)
    for row in rows:
        slow.apply(row, ())
    assert graph.hashes().tolist() == slow.items
    wanted, got = slow.weights(), weights_of(graph)
    for pair in wanted.keys() | got.keys():
        assert got.get(pair, 0.0) == pytest.approx(wanted.get(pair, 0.0), rel=2e-4, abs=2e-4)
    popularity = dict(zip(graph.hashes().tolist(), graph.popularity().tolist()))
    for item, value in slow.popularity().items():
        assert popularity[item] == pytest.approx(value, rel=2e-4, abs=2e-4)
    for user, purchases in slow.recents.items():
        assert sorted(graph.recent_purchases(user, 10**6)) == sorted(purchases)
    assert graph.store.counters == {}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_the_cut_into_blocks_does_not_matter(seed: int, block: int) -> None:
    rows = random_rows(seed, 200, 100)
    whole, cut = fresh(), fresh()
    feed(whole, rows)
    feed(cut, rows, block)
    for (name, a), (_, b) in zip(whole.entries(), cut.entries()):
        assert np.array_equal(a, b), name


def test_a_withdrawal_restores_to_the_bit() -> None:
    base = random_rows(3, 120, 15, return_days=3)
    ts = int(base["ts"].max()) + 1
    extra = [(ts + k, ts + k, Pairing.PAIR, 1, 1 + k % 3, 1 + k % 5, 1 + k % 4, ONE // 3 + k) for k in range(40)]
    back = [(ts + 100 + DAY, t, kind, -1, u, s, v, w) for t, _, kind, _, u, s, v, w in extra]
    with_return = make_rows([*extra, *back])
    plain, returned = fresh(), fresh()
    feed(plain, base)
    feed(returned, base)
    before = weights_of(returned)
    feed(returned, with_return)
    assert weights_of(returned) == before
    kept = dict(plain.entries())
    assert np.array_equal(kept["shares"], dict(returned.entries())["shares"])


def test_withdrawal_is_exact_after_a_shift_of_the_landmark() -> None:
    graph = fresh(half_life=6 * DAY)
    first = make_rows([(d * DAY, d * DAY, Pairing.PAIR, 1, d + 1, 1, 2, ONE // 3) for d in range(0, 200, 7)])
    feed(graph, first)
    before = graph.pairs.entries()["weight"].copy()
    assert graph._state.value["shift"] > 0
    late = [(200 * DAY + k, 200 * DAY + k, Pairing.PAIR, 1, 900 + k, 1, 2, 12_345 + k) for k in range(9)]
    gone = [(204 * DAY, t, kind, -1, u, s, v, w) for t, _, kind, _, u, s, v, w in late]
    feed(graph, make_rows(late))
    assert graph.pairs.entries()["weight"][0] > before[0]
    feed(graph, make_rows(gone))
    assert graph.pairs.entries()["weight"].tolist() == before.tolist()


def test_a_customer_counts_once_a_generation() -> None:
    graph = fresh()
    feed(graph, make_rows([(k, k, Pairing.PAIR, 1, 7, 1, 2, ONE) for k in range(1, 60)]))
    assert weights_of(graph) == {(1, 2): pytest.approx(1.0)}
    feed(graph, make_rows([(100 + k, 100, Pairing.PAIR, 1, 50 + k, 1, 2, ONE) for k in range(3)]))
    assert weights_of(graph) == {(1, 2): pytest.approx(4.0)}


def test_a_full_table_is_pruned_by_shrunk_z_and_says_so() -> None:
    graph = fresh(limits=Limits(pairs=64))
    strong = [(k, k, Pairing.PAIR, 1, k, 1, 2, ONE) for k in range(1, 30)]
    weak = [(1000 + k, 1000 + k, Pairing.PAIR, 1, 5, 10 + k, 500 + k % 7, ONE) for k in range(400)]
    feed(graph, make_rows(strong + weak))
    assert len(graph.pairs) <= 64
    assert weights_of(graph)[1, 2] == pytest.approx(29.0)
    assert graph.store.counters["pairs pruned"] == 401 - len(graph.pairs)


def test_pruning_does_not_depend_on_the_cut_into_blocks() -> None:
    rows = random_rows(11, 900, 60, items=40)
    whole, cut = (fresh(limits=Limits(pairs=100)) for _ in range(2))
    feed(whole, rows)
    feed(cut, rows, 7)
    assert whole.store.counters == cut.store.counters
    assert "pairs pruned" in whole.store.counters
    for (name, a), (_, b) in zip(whole.entries(), cut.entries()):
        assert np.array_equal(a, b), name


def test_running_sums_equal_a_recount() -> None:
    graph = fresh()
    feed(graph, random_rows(5, 500, 120))
    before = graph._sums.values.copy()
    graph._recount()
    assert np.array_equal(before, graph._sums.values)


def test_each_bound_drops_and_counts() -> None:
    graph = fresh(limits=Limits(items=4, pairs=100, shares=3, recents=2))
    rows = [(k, k, Pairing.PAIR, 1, k, 1, 2 + k % 3, ONE) for k in range(1, 10)]
    rows += [(50 + k, 50 + k, Pairing.PURCHASE, 1, 3, 0, 1 + k, 0) for k in range(6)]
    feed(graph, make_rows(rows))
    assert graph.store.counters["items: table full"] == 2
    assert graph.store.counters["pairs: customer not tracked, shares full"] == 6
    assert graph.store.counters["recent purchases pushed out"] == 4
    assert len(graph.recent_purchases(3, 10)) == 2


def test_rows_of_older_generations_are_dropped_and_counted() -> None:
    graph = fresh()
    feed(graph, make_rows([(100 * DAY, 100 * DAY, Pairing.PAIR, 1, 1, 1, 2, ONE)]))
    feed(graph, make_rows([(100 * DAY + 1, 10 * DAY, Pairing.PAIR, 1, 1, 1, 2, ONE)]))
    assert graph.store.counters == {"rows older than two generations": 1}


def test_a_return_takes_the_purchase_out_of_the_recents() -> None:
    graph = fresh()
    bought = [(k, k, Pairing.PURCHASE, 1, 1, 0, k, 0) for k in range(1, 5)]
    feed(graph, make_rows([*bought, (9, 3, Pairing.PURCHASE, -1, 1, 0, 3, 0)]))
    assert graph.recent_purchases(1, 10) == [(4, 4), (2, 2), (1, 1)]
    assert graph.recent_purchases(1, 2) == [(4, 4), (2, 2)]
    assert graph.recent_purchases(77, 10) == []


def test_codes_of_the_catalogue_and_unknown_items() -> None:
    graph = fresh(features=2)
    rows = make_rows([(1, 1, Pairing.ITEM, 1, 0, 0, 5, 0)])
    graph.apply(rows, np.array([[7, 9]], np.uint32), np.arange(1))
    assert graph.item_codes()[graph.node(5)].tolist() == [7, 9]
    assert graph.node(6) == -1


def test_rows_in_both_directions() -> None:
    graph = fresh()
    feed(graph, make_rows([(1, 1, Pairing.PAIR, 1, 1, 10, 20, ONE), (2, 2, Pairing.PAIR, 1, 1, 30, 20, ONE)]))
    out, into = graph.rows(), graph.rows(incoming=True)
    assert out.row(graph.node(10))[0].tolist() == [graph.node(20)]
    assert sorted(into.row(graph.node(20))[0].tolist()) == sorted([graph.node(10), graph.node(30)])
    assert len(out.row(graph.node(20))[0]) == 0


def test_a_new_period_forgets_what_is_recent() -> None:
    graph = fresh()
    feed(graph, make_rows([(1, 1, Pairing.PAIR, 1, 1, 10, 20, ONE)]))
    assert graph.pairs.entries()["recent"][0] == graph.pairs.entries()["weight"][0]
    graph.begin_period(DAY)
    assert graph.pairs.entries()["recent"][0] == 0
    feed(graph, make_rows([(2 * DAY, 2 * DAY, Pairing.PAIR, 1, 2, 10, 20, ONE)]))
    assert graph.pairs.entries()["recent"][0] * 2 == graph.pairs.entries()["weight"][0]
    assert graph.since == DAY


def test_state_on_disk_goes_on_where_it_was(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = random_rows(21, 400, 90)
    half = len(rows) // 2
    cut = int(np.flatnonzero(rows["ts"] // PERIOD == rows["ts"][half] // PERIOD)[-1]) + 1
    whole = fresh()
    feed(whole, rows)
    store = StateStore.open(tmp_path / "g", "f")
    graph = Adjacency(store, Decay(PERIOD, 60 * DAY), 0)
    feed(graph, rows[:cut])
    store.commit({})
    store.close()
    again = StateStore.open(tmp_path / "g", "f")
    graph = Adjacency(again, Decay(PERIOD, 60 * DAY), 0)
    if cut < len(rows):
        for generation in range(int(rows["ts"][cut - 1] // PERIOD) + 1, int(rows["ts"][cut] // PERIOD) + 1):
            graph.rotate(generation * PERIOD)
        feed(graph, rows[cut:])
    for (name, a), (_, b) in zip(whole.entries(), graph.entries()):
        assert np.array_equal(a, b), name
    assert graph.recent_purchases(1, 5) == whole.recent_purchases(1, 5)
    again.close()


def test_a_half_life_too_short_for_a_generation_is_refused() -> None:
    with pytest.raises(ValueError, match="half_life"):
        Decay(40 * DAY, 9 * DAY)
