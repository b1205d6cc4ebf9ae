"""The feedback stage: equal to its slow twin, indifferent to cuts, exact in its books and its label ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.feedback import Reference
from tests.reference.label_streams import random_labels
from thalweg.graph_store.state_store import StateStore
from thalweg.models.prequential import POSITIVES, PROBABILITY, SCALE, TRIALS, Prequential, observe
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.feedback import FeedbackStage
from thalweg.streams.row import EXAMPLE_ROW, Example, Op

POLICIES = ("vanilla", "wait", "retraction")
WINDOW = 100_000
END = 2**61


def configuration(policy: str, **conversion: Any) -> Configuration:
    return from_builtins(
        {
            "features": [{"name": "channel"}, {"name": "brand", "source": "item"}],
            "attribution": {
                "window": "100s", "late_conversion": "20s", "return_window": "300s", "orphan_wait": "10s",
            },
            "time": {"lateness": "0ms"},
            "calibration": {"epoch": "1m"},
            "conversion": {"policy": policy, "bits": 10, "crosses": [["item_id", "channel"]], **conversion},
        }
    )  # fmt: skip


def stage_of(policy: str, collect: bool = True, store: StateStore | None = None, **conversion: Any) -> FeedbackStage:
    return FeedbackStage(configuration(policy, **conversion), store or StateStore.memory(), 1, collect)


def run_stage(
    stage: FeedbackStage, rows: np.ndarray, codes: np.ndarray, cuts: list[int] | None = None
) -> dict[str, Any]:
    """Outputs of all calls, the input cut at `cuts`; each call's timers up to the time of its last row."""
    order = np.arange(len(rows))
    edges = [0, *sorted(cuts or []), len(rows)]
    parts: dict[str, list[Any]] = {"outcomes": [], "examples": [], "indices": []}
    for start, end in zip(edges, edges[1:]):
        before = END if end == len(rows) else int(rows["ts"][end - 1]) if end else -(2**62)
        stage.apply(rows, codes, order[start:end], before)
        out = stage.take()
        parts["outcomes"].append(out["outcomes"][0])
        if "examples" in out:
            parts["examples"].append(out["examples"][0])
            parts["indices"].append(out["examples"][1])
    return {name: np.concatenate(pieces) for name, pieces in parts.items() if pieces}


def examples_of(reference: Reference, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.zeros(len(reference.examples), EXAMPLE_ROW)
    indices = np.zeros((len(rows), width), np.uint32)
    for k, example in enumerate(reference.examples):
        ts, kind, key, sequence, *said, item, user, indices[k] = example
        rows[k] = (ts, kind, key, sequence, 0, kind, *said, ts, item, user)
    return rows, indices


@pytest.mark.parametrize(
    ("policy", "seed", "sampling"),
    [(policy, seed, 1) for policy in POLICIES for seed in range(3)] + [("vanilla", 0, 3), ("wait", 1, 3)],
)
def test_equals_the_slow_twin(policy: str, seed: int, sampling: int) -> None:
    rows, codes = random_labels(400, WINDOW, seed=seed)
    stage = stage_of(policy, negative_sampling=sampling)
    out = run_stage(stage, rows, codes)
    twin = Reference(stage.configuration)
    twin.apply(rows, codes, END)
    expected = [(ts, 0, key, n, 0, epoch, cell, t, p) for ts, key, n, epoch, cell, t, p in twin.outcomes]
    assert out["outcomes"].tolist() == expected
    examples, indices = examples_of(twin, stage.space.width)
    assert out["examples"].tolist() == examples.tolist()
    assert (out["indices"] == indices).all()
    weights = stage.store.tables["weights"].data
    assert {int(r): weights[r].item() for r in np.flatnonzero(weights["count"])} == {
        r: (twin.weights.weight[r], float(twin.weights.squares[r]), twin.weights.count[r]) for r in twin.weights.weight
    }
    books = {name: count for name, count in stage.books().items() if count and name != "examples"}
    assert books == {**twin.books, **{name: books[name] for name in ("labels_open", "negatives_open") if name in books}}
    expected_scores = Prequential.empty()
    for week, predictor, p, label in twin.scored:
        observe(*expected_scores.arrays(), week, predictor, p, label, 1)
    for mine, theirs in zip(stage.prequential.arrays(), expected_scores.arrays(), strict=True):
        assert (mine == theirs).all()
    assert stage._life[0].values.tolist() == twin.counts
    assert stage._life[2].values.tolist() == twin.ratios


def test_the_stream_reaches_every_operation() -> None:
    rows, codes = random_labels(400, WINDOW, seed=0)
    books = run_and_book("retraction", rows, codes)
    for name in ("clicks", "carts", "conversions", "reversals", "expiries", "unknown", "late_corrections",
                 "negatives_retracted", "negatives_confirmed"):  # fmt: skip
        assert books[name] > 0, name
    assert run_and_book("wait", rows, codes)["real_negatives"] > 0


def run_and_book(policy: str, rows: np.ndarray, codes: np.ndarray) -> dict[str, int]:
    stage = stage_of(policy, collect=False)
    run_stage(stage, rows, codes)
    return stage.books()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(POLICIES), st.integers(0, 1000), st.lists(st.integers(0, 300), max_size=6))
def test_cuts_do_not_matter(policy: str, seed: int, cuts: list[int]) -> None:
    rows, codes = random_labels(80, WINDOW, seed=seed)
    cuts = [min(cut, len(rows)) for cut in cuts]
    whole, cut = stage_of(policy), stage_of(policy)
    expected, got = run_stage(whole, rows, codes), run_stage(cut, rows, codes, cuts)
    for name in expected:
        assert expected[name].tobytes() == got[name].tobytes(), name
    assert whole.digest() == cut.digest()
    assert whole.books() == cut.books()


@pytest.mark.parametrize("policy", POLICIES)
def test_collecting_examples_changes_no_state(policy: str) -> None:
    rows, codes = random_labels(150, WINDOW, seed=4)
    loud, silent = stage_of(policy, collect=True), stage_of(policy, collect=False)
    run_stage(loud, rows, codes)
    out = run_stage(silent, rows, codes)
    assert "examples" not in out
    assert loud.digest() == silent.digest()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_books_balance_at_any_time(policy: str, share: float) -> None:
    rows, codes = random_labels(300, WINDOW, seed=5)
    rows = rows[: int(share * len(rows))]
    stage = stage_of(policy, collect=False)
    stage.apply(rows, codes, np.arange(len(rows)), int(rows["ts"][-1]))
    b = stage.books()
    closed = b["negatives_retracted"] + b["negatives_confirmed"] + b["negatives_dropped"]
    assert b["negatives_emitted"] == b["negatives_open"] + closed


def test_label_without_expiry_is_dropped_by_its_bound() -> None:
    rows, codes = random_labels(50, WINDOW, seed=6)
    kept = rows["op"] != Op.EXPIRY
    books = run_and_book("vanilla", rows[kept], codes[kept])
    assert books["negatives_dropped"] == books["negatives_emitted"] - books["negatives_retracted"] > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_label_ledger_is_exact(policy: str) -> None:
    """All windows over: each label's signed steps add up to its final label, in outcomes and in examples."""
    rows, codes = random_labels(300, WINDOW, seed=7)
    out = run_stage(stage_of(policy), rows, codes)
    final: dict[int, int] = {}
    kept = {int(key) for key in rows["impression"][rows["op"] == Op.IMPRESSION]}
    for row in rows:
        if int(row["impression"]) in kept:
            step = {int(Op.CONVERSION): 1, int(Op.REVERSAL): -1}.get(int(row["op"]), 0)
            final[int(row["impression"])] = final.get(int(row["impression"]), 0) + step
    outcomes = out["outcomes"]
    assert outcomes["trials"].sum() == 300
    totals = dict.fromkeys(final, 0)
    for key, positives in zip(outcomes["id"].tolist(), outcomes["positives"].tolist()):
        totals[key] += positives
    examples = out["examples"]
    beliefs = dict(zip(examples["id"].tolist(), examples["belief_after"].tolist()))
    counted = run_and_book(policy, rows, codes)["unknown"]
    wrong = [key for key in final if totals[key] != final[key]]
    assert len(wrong) <= counted  # operations that came after the impression's life are counted, none other is missing
    assert all(beliefs[key] == totals[key] for key in final)


@pytest.mark.parametrize("policy", POLICIES)
def test_with_weights_frozen_masses_add_up_to_label_minus_prediction(policy: str) -> None:
    rows, codes = random_labels(300, WINDOW, seed=8)
    stage = stage_of(policy)
    stage.rules = stage.rules._replace(learning_rate=0.0)
    rng = np.random.default_rng(0)
    stage.store.tables["weights"].data["weight"][:] = rng.normal(0, 0.3, 1 << 10)
    examples = run_stage(stage, rows, codes)["examples"]
    mass: dict[int, float] = {}
    last: dict[int, float] = {}
    for row in examples:
        mass[int(row["id"])] = mass.get(int(row["id"]), 0.0) + float(row["mass"])
        last[int(row["id"])] = float(row["belief_after"]) - float(row["prediction"])
    assert max(abs(mass[key] - last[key]) for key in mass) < 1e-14


def test_weight_and_mass_say_the_same() -> None:
    rows, codes = random_labels(200, WINDOW, seed=9)
    examples = run_stage(stage_of("retraction"), rows, codes)["examples"]
    rebuilt = examples["weight"] * (examples["label"] - examples["prediction"])
    assert np.allclose(rebuilt, examples["mass"], atol=1e-12)
    assert (examples["weight"] >= 0).all()
    assert set(examples["kind"].tolist()) == {int(kind) for kind in Example}


def test_outputs_are_ordered_and_unique() -> None:
    rows, codes = random_labels(300, WINDOW, seed=10)
    out = run_stage(stage_of("retraction"), rows, codes)
    for name in ("outcomes", "examples"):
        fields = out[name][["id", "id2"]].tolist()
        assert len(set(fields)) == len(fields)
        assert (np.diff(out[name]["ts"]) >= 0).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_goes_on_from_a_commit(policy: str, tmp_path: Path) -> None:
    rows, codes = random_labels(300, WINDOW, seed=11)
    order, half = np.arange(len(rows)), len(rows) // 2
    straight = stage_of(policy, collect=False)
    run_stage(straight, rows, codes)
    fingerprint = straight.configuration.fingerprint()
    store = StateStore.open(tmp_path, fingerprint)
    stage = stage_of(policy, collect=False, store=store)
    stage.apply(rows, codes, order[:half], int(rows["ts"][half - 1]))
    stage.take()
    stage.checkpoint()
    store.close()
    store = StateStore.open(tmp_path, fingerprint)
    stage = stage_of(policy, collect=False, store=store)
    stage.apply(rows, codes, order[half:], END)
    assert stage.digest() == straight.digest()
    assert stage.books() == straight.books()
    store.close()


def test_one_changed_row_changes_the_digest() -> None:
    rows, codes = random_labels(100, WINDOW, seed=12)
    stages = [stage_of("retraction", collect=False) for _ in range(3)]
    changed = codes.copy()
    changed[np.flatnonzero(rows["op"] == Op.IMPRESSION)[50], 0] += 1
    without = np.delete(np.arange(len(rows)), np.flatnonzero(rows["op"] == Op.CONVERSION)[3])
    stages[0].apply(rows, codes, np.arange(len(rows)), int(rows["ts"][-1]))
    stages[1].apply(rows, changed, np.arange(len(rows)), int(rows["ts"][-1]))
    stages[2].apply(rows, codes, without, int(rows["ts"][-1]))
    assert len({stage.digest() for stage in stages}) == 3


def test_score_says_what_an_impression_would_get() -> None:
    rows, codes = random_labels(300, WINDOW, seed=13)
    stage = stage_of("vanilla")
    shown = int(np.flatnonzero(rows["op"] == Op.IMPRESSION)[-1])
    stage.apply(rows, codes, np.arange(shown), int(rows["ts"][shown]))
    stage.take()
    row = rows[shown : shown + 1]
    scores = stage.score(row["user"], row["item"], codes[shown : shown + 1])
    stage.apply(rows, codes, np.array([shown]), int(rows["ts"][shown]))
    label = stage.label(int(row["impression"][0]))
    assert label is not None
    assert label["prediction"] == scores.probability[0]
    assert label["cell"] == scores.cell[0]
    assert label["flags"] == ["NEGATIVE_OPEN", "LEARNT"]
    assert stage.label(12345) is None
    assert stage.item_codes(12345) is None
    known = int(rows["item"][rows["op"] == Op.ITEM][0])
    assert stage.item_codes(known) is not None


@pytest.mark.parametrize(("policy", "rate"), [(p, r) for p in POLICIES for r in (0.05, 0.3)])
def test_fixed_point_is_unbiased(policy: str, rate: float) -> None:
    """One cell, many open windows at any time: the mean prediction is the true rate (published vanilla: .770)."""
    rng = np.random.default_rng(1)
    rows, codes = one_cell_stream(60_000, rate, rng)
    stage = FeedbackStage(
        from_builtins(
            {
                "attribution": {"window": "100s", "late_conversion": "1s"},
                "conversion": {"policy": policy, "bits": 8, "user_feature": False, "item_feature": False},
            }
        ),
        StateStore.memory(),
        1,
    )
    half = int(np.searchsorted(rows["ts"], rows["ts"][0] + 3 * WINDOW))  # scores of the first 200 s of impressions
    stage.apply(rows, codes, np.arange(half), int(rows["ts"][half]))
    before = stage.prequential.total[0].copy()
    stage.apply(rows, codes, np.arange(half, len(rows)), END)
    scored = stage.prequential.total[0] - before
    assert scored[TRIALS] > 25_000
    assert abs(scored[PROBABILITY] / SCALE / scored[POSITIVES] - 1.0) < 3.0 / np.sqrt(scored[POSITIVES])


def one_cell_stream(n: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n impressions over 400 s of equal users, converting at `rate` within 100 s."""
    from tests.reference.label_streams import START
    from thalweg.streams.row import LABEL_ROW

    shown = START + np.sort(rng.integers(0, 400_000, n))
    parts = []
    converts = rng.random(n) < rate
    delay = (WINDOW * rng.random(n) ** 2).astype(np.int64)
    for op, sequence, mask, ts in (
        (Op.IMPRESSION, 0, np.ones(n, bool), shown),
        (Op.CONVERSION, 3, converts, shown + delay),
        (Op.EXPIRY, 2**40, np.ones(n, bool), shown + WINDOW),
    ):
        part = np.zeros(int(mask.sum()), LABEL_ROW)
        part["ts"] = part["effect_ts"] = ts[mask]
        part["impression_ts"] = shown[mask]
        part["rank"], part["id2"], part["tie"], part["op"] = 1, sequence, int(op), int(op)
        part["id"] = part["impression"] = np.arange(1, n + 1)[mask]
        parts.append(part)
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows["tie"], rows["id2"], rows["id"], rows["ts"]))]
    return rows, np.zeros((len(rows), 0), np.uint32)
