from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.adjacency import Adjacency
from thalweg.graph_store.csr import build_rows
from thalweg.graph_store.decay import Decay
from thalweg.graph_store.embedding import Embedding
from thalweg.graph_store.refresh import take_snapshot
from thalweg.graph_store.snapshot import BuildSettings, Snapshot
from thalweg.graph_store.state_store import StateStore
from thalweg.models.blade.direction import significant_share
from thalweg.models.blade.evaluation import (
    Edges,
    by_popularity,
    by_rows,
    by_vectors,
    evaluate,
    ranks,
    sample_sources,
    together,
    true_edges,
)
from thalweg.models.blade.latest import latest_targets
from thalweg.models.blade.propagation import coefficients, combine, normalise, propagate
from thalweg.models.blade.rotation import procrustes, shared_rows, turn_to
from thalweg.models.blade.sparse import SparseMatrix
from thalweg.models.blade.svd import randomised_svd
from thalweg.models.blade.training import Trained, split_sources, train
from thalweg.models.blade.version import align, build, hops_from, period_edges, positive_graph, warm_start
from thalweg.streams.row import DAY

from ..reference.blade import dense, slow_latest, slow_propagation, slow_rank
from ..reference.copurchases import planted_rows

seeds = st.integers(0, 10**6)


def random_pairs(seed: int, nodes: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    key = draw.choice(nodes * nodes, min(n, nodes * nodes), replace=False)
    value = draw.random(len(key)).astype(np.float32) + np.float32(0.1)
    return (key // nodes).astype(np.int32), (key % nodes).astype(np.int32), value


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 40), st.integers(1, 5))
def test_products_equal_dense_ones(seed: int, nodes: int, n: int, d: int) -> None:
    source, target, value = random_pairs(seed, nodes, n)
    matrix, full = SparseMatrix(source, target, value, nodes), dense(source, target, value, nodes)
    block = np.random.default_rng(seed).standard_normal((nodes, d)).astype(np.float32)
    assert np.allclose(matrix.times(block), full @ block, atol=1e-4)
    assert np.allclose(matrix.transposed_times(block), full.T @ block, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 30), st.integers(1, 8))
def test_svd_finds_the_leading_singular_values(seed: int, nodes: int, d: int) -> None:
    source, target, value = random_pairs(seed, nodes, 4 * nodes)
    exact = np.linalg.svd(dense(source, target, value, nodes), compute_uv=False)
    found = randomised_svd(SparseMatrix(source, target, value, nodes), d, seed=1)
    # beyond the oversampling the range is random: the leading ones are found, none is ever overshot
    assert found.values[0] == pytest.approx(exact[0], rel=0.02)
    assert (found.values <= exact[0] * (1 + 1e-4)).all()
    assert (np.diff(found.values) <= 1e-5).all()


def test_svd_of_a_low_rank_matrix_gives_it_back() -> None:
    draw = np.random.default_rng(0)
    full = draw.random((20, 3)) @ draw.random((3, 20))
    u, v = (place.astype(np.int32) for place in np.nonzero(full))
    source, target = randomised_svd(SparseMatrix(u, v, full[u, v], 20), 5, seed=3).dual()
    assert np.allclose(source @ target.T, full, atol=1e-4)
    assert np.allclose(source[:, 3:], 0, atol=1e-2)


def test_svd_does_not_depend_on_anything_but_its_seed() -> None:
    matrix = SparseMatrix(*random_pairs(4, 15, 60), 15)
    assert np.array_equal(randomised_svd(matrix, 4, 7).left, randomised_svd(matrix, 4, 7).left)


def test_svd_of_nothing_is_zeros() -> None:
    empty = SparseMatrix(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), 3)
    assert not randomised_svd(empty, 2, 1).left.any()


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 10), st.integers(0, 4))
def test_propagation_equals_the_formula_step_by_step(seed: int, nodes: int, steps: int) -> None:
    source, target, value = random_pairs(seed, nodes, 3 * nodes)
    draw = np.random.default_rng(seed)
    s0, t0 = (draw.standard_normal((nodes, 3)).astype(np.float32) for _ in range(2))
    a, b = draw.standard_normal(steps).tolist(), draw.standard_normal(steps).tolist()
    matrix = SparseMatrix(source, target, normalise(source, target, value, nodes), nodes)
    got = combine(propagate(matrix, s0, t0, steps), a, b)
    wanted = slow_propagation(dense(source, target, value, nodes), s0, t0, a, b)
    assert np.allclose(got[0], wanted[0], atol=1e-3)
    assert np.allclose(got[1], wanted[1], atol=1e-3)


def test_no_step_no_change() -> None:
    assert coefficients([], []) == ([1.0], [1.0])
    assert coefficients([0.0, 0.0], [0.0, 0.0]) == ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(3, 15))
def test_ranks_equal_sorting_everything(seed: int, nodes: int) -> None:
    draw = np.random.default_rng(seed)
    source, target, _ = random_pairs(seed, nodes, nodes)
    keep = source != target
    order = np.lexsort((target[keep], source[keep]))
    edges = Edges(source[keep][order].astype(np.int64), target[keep][order].astype(np.int64))
    table = draw.integers(0, 4, (nodes, nodes)).astype(np.float32)
    popularity = draw.integers(0, 3, nodes).astype(np.float64)
    got = ranks(edges, lambda sources: table[sources], popularity)
    for u, v, rank in zip(edges.source.tolist(), edges.target.tolist(), got.tolist()):
        others = set(edges.target[edges.source == u].tolist())
        assert rank == slow_rank(table[u], popularity, u, v, others)


def test_true_edges_need_customers_and_lift() -> None:
    source, target = np.array([0, 0, 2, 4, 5], np.int32), np.array([1, 3, 3, 3, 3], np.int32)
    count = np.array([3.0, 9.0, 90.0, 2.0, 2.9])
    out, into = np.bincount(source, count, 6), np.bincount(target, count, 6)
    edges = true_edges(source, target, count, out, into)
    assert list(zip(edges.source.tolist(), edges.target.tolist())) == [(0, 1)]


def test_scorers_add_up() -> None:
    rows = build_rows(np.array([0], np.int32), np.array([2], np.int32), np.array([2.0]), 3)
    vectors = np.eye(3, dtype=np.float32)
    score = together((1.0, by_vectors(vectors, vectors)), (0.5, by_rows(rows, 3)), (0.1, by_popularity(np.ones(3))))
    assert np.allclose(score(np.array([0])), [[1.1, 0.1, 1.1]])


def test_the_sample_of_sources_does_not_depend_on_the_order_of_nodes() -> None:
    draw = np.random.default_rng(2)
    hashes = draw.permutation(100).astype(np.uint64)
    edges = Edges(np.arange(100), (np.arange(100) + 1) % 100)
    chosen = set(hashes[sample_sources(edges, hashes, 10).source].tolist())
    turned = set(hashes[::-1][sample_sources(edges, hashes[::-1], 10).source].tolist())
    assert chosen == turned and len(chosen) == 10


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 60))
def test_latest_equals_sorting(seed: int, nodes: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    source, target, _ = random_pairs(seed, max(nodes, 8), n)
    last = draw.integers(0, 5, len(source))
    got = latest_targets(source, target, last, max(nodes, 8))
    for node in range(max(nodes, 8)):
        assert [v for v in got[node].tolist() if v >= 0] == slow_latest(source, target, last, node, 10)


def test_a_rotation_is_undone() -> None:
    draw = np.random.default_rng(5)
    before = draw.standard_normal((30, 4)).astype(np.float32)
    turn, _ = np.linalg.qr(draw.standard_normal((4, 4)))
    now = (before @ turn).astype(np.float32)
    assert np.allclose(now @ procrustes(now, before), before, atol=1e-5)
    items, old = np.arange(10, 40).astype(np.uint64), np.arange(30).astype(np.uint64) + np.uint64(12)
    here, there = shared_rows(items, old)
    assert np.array_equal(items[here], old[there]) and len(here) == 28
    found = turn_to(now[:, :4], now, items, (before, before, items))
    assert np.allclose(found @ found.T, np.eye(4), atol=1e-5)
    assert np.array_equal(turn_to(now, now, items, None), np.eye(4, dtype=np.float32))
    assert np.array_equal(turn_to(now, now, items, (before[:, :2], before[:, :2], items)), np.eye(4, dtype=np.float32))


def test_one_way_share_on_a_planted_mixture_and_on_coins() -> None:
    draw = np.random.default_rng(3)
    low = np.arange(0, 400, 2, dtype=np.int32)
    onward = draw.binomial(40, 0.5, 200).astype(np.float32)
    source, target = np.concatenate([low, low + 1]), np.concatenate([low + 1, low])
    share, tested = significant_share(source, target, np.concatenate([onward, 40 - onward]), 400)
    assert tested == 200 and share < 0.12
    share, _ = significant_share(source, target, np.concatenate([onward * 0 + 40, onward * 0]), 400)
    assert share == 1.0


def shop(seed: int, days: int = 60, prior: bool = False) -> tuple[Snapshot, Embedding | None]:
    graph = Adjacency(StateStore.memory(), Decay(400 * DAY, 400 * DAY), 0)
    rows = planted_rows(seed, 1500, days)
    middle = int(np.searchsorted(rows["ts"], days * DAY // 2))
    codes = np.zeros((len(rows), 0), np.uint32)
    choice = BuildSettings(dimensions=8, epochs=10, max_edges=10_000)
    graph.apply(rows, codes, np.arange(middle))
    first = take_snapshot(graph, 1, days * DAY // 2, choice, None)
    graph.begin_period(days * DAY // 2)
    graph.apply(rows, codes, np.arange(middle, len(rows)))
    before = build(first, None, first.digest()) if prior else None
    return take_snapshot(graph, 2, days * DAY, choice, first.digest() if prior else None), before


def test_a_planted_direction_comes_out_of_the_vectors_alone() -> None:
    snapshot, _ = shop(1)
    version = build(snapshot, None, snapshot.digest())
    node = {int(item): i for i, item in enumerate(version.items)}
    score = version.source @ version.target.T
    for kind in range(6):
        phone, case = node[100 + kind], node[200 + kind]
        assert score[phone, case] > 3 * abs(score[case, phone])
        assert int(np.argsort(-score[phone])[0]) == case
    assert version.manifest.method == "svd" and "too few" in version.manifest.reason


def test_building_is_pure_and_the_basis_is_kept() -> None:
    snapshot, before = shop(2, prior=True)
    one, two = (build(snapshot, before, snapshot.digest()) for _ in range(2))
    assert one.manifest == two.manifest
    assert np.array_equal(one.source, two.source)
    here, there = shared_rows(one.items, before.items)
    near = np.linalg.norm(one.target[here] - before.target[there])
    loose = build(snapshot, None, snapshot.digest())
    assert near < 0.8 * np.linalg.norm(before.target[there])
    assert np.allclose(one.source @ one.target.T, loose.source @ loose.target.T, atol=1e-3)


def test_the_version_before_is_judged_on_what_came_since() -> None:
    snapshot, before = shop(3, prior=True)
    figures = build(snapshot, before, snapshot.digest()).manifest.previous
    assert figures["version"] == 1 and figures["edges"] == len(period_edges(snapshot).source)
    assert figures["mrr_10"]["score"] > 2 * figures["mrr_10"]["popularity"]


def test_alignment_moves_vectors_and_pairs_with_their_items() -> None:
    snapshot, before = shop(4, prior=True)
    turned = align(before, snapshot.items[::-1])
    same = align(before, snapshot.items)
    assert np.array_equal(turned.source[::-1], same.source)
    n = len(snapshot.items)
    assert np.array_equal(n - 1 - turned.counts.source, same.counts.source)
    assert np.array_equal(np.where(turned.latest < 0, -1, n - 1 - turned.latest)[::-1], same.latest)


def test_pruning_takes_the_lowest_and_keeps_the_row_sums() -> None:
    graph = Adjacency(StateStore.memory(), Decay(400 * DAY, 400 * DAY), 0)
    rows = planted_rows(5, 300, 30)
    graph.apply(rows, np.zeros((len(rows), 0), np.uint32), np.arange(len(rows)))
    few, all_of_it = (take_snapshot(graph, 1, 30 * DAY, BuildSettings(max_edges=m), None) for m in (5, 10**6))
    assert (few.weight > 0).sum() == 5
    assert np.array_equal(few.out, all_of_it.out)
    assert positive_graph(few).z.min() >= np.sort(positive_graph(all_of_it).z)[-5]


def test_training_learns_from_the_period_and_never_serves_what_loses() -> None:
    draw = np.random.default_rng(7)
    nodes, groups = 240, 12
    source = np.repeat(np.arange(nodes), 6).astype(np.int32)
    target = ((source % groups) + groups * draw.integers(0, nodes // groups, len(source))).astype(np.int32)
    value = np.ones(len(source), np.float32)
    matrix = SparseMatrix(source, target, normalise(source, target, value, nodes), nodes)
    noisy = [draw.standard_normal((nodes, 16)).astype(np.float32) for _ in range(2)]
    hops = propagate(matrix, noisy[0], noisy[1], 2)
    later = ((source % groups) + groups * draw.integers(0, nodes // groups, len(source))).astype(np.int64)
    order = np.lexsort((later, source))
    edges = Edges(source[order].astype(np.int64), later[order])
    hashes = draw.permutation(10**6)[:nodes].astype(np.uint64)
    training, validation = split_sources(edges, hashes)
    popularity = np.ones(nodes)
    learned = train(hops, training, validation, popularity, epochs=30, seed=1)
    again = train(hops, training, validation, popularity, epochs=30, seed=1)
    assert learned == again
    assert learned.epoch > 0
    assert learned.propagation == evaluate(validation, by_vectors(*combine(hops, learned.a, learned.b)), popularity)
    assert learned.better == (
        learned.propagation.mrr >= learned.svd.mrr and learned.propagation.hit_rate >= learned.svd.hit_rate
    )
    nothing = train(hops, training, Edges(np.zeros(0, np.int64), np.zeros(0, np.int64)), popularity, 30, 1)
    assert not nothing.better and nothing.a == (0.0, 0.0)


def test_a_loss_on_one_figure_is_no_win() -> None:
    from thalweg.models.blade.evaluation import Quality

    warm = Quality(0.10, 0.05, 100, 50)
    assert not Trained((0.0,), (0.0,), 5, warm, Quality(0.12, 0.049, 100, 50)).better
    assert not Trained((0.0,), (0.0,), 5, warm, warm).better
    assert Trained((0.0,), (0.0,), 5, warm, Quality(0.10, 0.06, 100, 50)).better


def test_hop_zero_is_the_warm_start() -> None:
    snapshot, _ = shop(6)
    graph = positive_graph(snapshot)
    source, target = warm_start(graph, 8, 1)
    hops = hops_from(graph, source, target, 2)
    assert np.array_equal(hops.source[0], source) and np.array_equal(hops.target[0], target)
    assert hops.source.shape == (3, snapshot.nodes, 8)
