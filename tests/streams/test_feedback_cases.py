"""The life of one label, case by case: what is emitted, with which kind, and what the books say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from thalweg.graph_store.state_store import StateStore
from thalweg.streams.configuration import from_builtins
from thalweg.streams.feedback import FeedbackStage
from thalweg.streams.row import LABEL_ROW, Example, Op

START = 1_700_000_000_000
WINDOW = 100_000
KEY, USER, ITEM = 11, 22, 33

Steps = list[tuple[Op, int]]
SHOWN, OVER = (Op.IMPRESSION, 0), (Op.EXPIRY, WINDOW)


def stage_of(policy: str) -> FeedbackStage:
    configuration = from_builtins(
        {
            "attribution": {"window": "100s", "late_conversion": "20s", "return_window": "300s", "orphan_wait": "10s"},
            "time": {"lateness": "0ms"},
            "conversion": {"policy": policy, "bits": 8, "checkpoints": [0.1, 0.5]},
        }
    )
    return FeedbackStage(configuration, StateStore.memory(), 1, collect=True)


def live(policy: str, steps: Steps, until: int = 10**9) -> tuple[list[str], list[int], dict[str, int]]:
    """Kinds of the examples, signed positives of the outcomes and the books, after steps (op, ms after arrival)."""
    stage = stage_of(policy)
    rows = np.zeros(len(steps), LABEL_ROW)
    for k, (op, after) in enumerate(steps):
        ts = START + after
        rows[k] = (ts, 1, KEY, k, int(op), ts, int(op), KEY, START, USER, USER, ITEM)
    stage.apply(rows, np.zeros((len(rows), 0), np.uint32), np.arange(len(rows)), START + until)
    out = stage.take()
    kinds = [Example(kind).name for kind in out["examples"][0]["kind"].tolist()]
    return kinds, out["outcomes"][0]["positives"].tolist(), stage.books()


PROVISIONAL, REVISION, RETRACTION = "PROVISIONAL_NEGATIVE", "REVISION", "RETRACTION"
POSITIVE, CONFIRMED, REVERSAL = "POSITIVE", "CONFIRMED_NEGATIVE", "REVERSAL"
BOUGHT, LATE = (Op.CONVERSION, 20_000), (Op.CONVERSION, 110_000)
BACK_EARLY, BACK_LATE = (Op.REVERSAL, 30_000), (Op.REVERSAL, 300_000)


@pytest.mark.parametrize(
    ("policy", "steps", "kinds"),
    [
        ("vanilla", [SHOWN, OVER], [PROVISIONAL, CONFIRMED]),
        ("vanilla", [SHOWN, BOUGHT, OVER], [PROVISIONAL, RETRACTION]),
        ("vanilla", [SHOWN, BOUGHT, BACK_EARLY, OVER], [PROVISIONAL, RETRACTION, REVERSAL, CONFIRMED]),
        ("vanilla", [SHOWN, BOUGHT, OVER, BACK_LATE], [PROVISIONAL, RETRACTION, REVERSAL]),
        ("vanilla", [SHOWN, OVER, LATE], [PROVISIONAL, CONFIRMED, RETRACTION]),
        ("wait", [SHOWN, OVER], [CONFIRMED]),
        ("wait", [SHOWN, BOUGHT, OVER], [POSITIVE]),
        ("wait", [SHOWN, BOUGHT, BACK_EARLY, OVER], [CONFIRMED]),
        ("wait", [SHOWN, BOUGHT, OVER, BACK_LATE], [POSITIVE, REVERSAL]),
        ("wait", [SHOWN, OVER, LATE], [CONFIRMED, RETRACTION]),
        ("retraction", [SHOWN, OVER], [PROVISIONAL, REVISION, CONFIRMED]),
        ("retraction", [SHOWN, (Op.CONVERSION, 5_000), OVER], [POSITIVE]),
        ("retraction", [SHOWN, BOUGHT, OVER], [PROVISIONAL, RETRACTION]),
        ("retraction", [SHOWN, BOUGHT, BACK_EARLY, OVER], [PROVISIONAL, RETRACTION, REVERSAL, CONFIRMED]),
        ("retraction", [SHOWN, OVER, LATE, BACK_LATE], [PROVISIONAL, REVISION, CONFIRMED, RETRACTION, REVERSAL]),
        ("retraction", [SHOWN, BOUGHT, BACK_EARLY, (Op.CONVERSION, 40_000), OVER],
         [PROVISIONAL, RETRACTION, REVERSAL, POSITIVE]),
    ],
)  # fmt: skip
def test_kinds(policy: str, steps: Steps, kinds: list[str]) -> None:
    got, positives, books = live(policy, steps)
    assert got == kinds
    assert sum(positives) in (0, 1)
    assert positives.count(1) == books["conversions"]
    assert positives.count(-1) == books["reversals"]
    closed = sum(books[f"negatives_{end}"] for end in ("open", "retracted", "confirmed", "dropped"))
    assert books["negatives_emitted"] == closed == kinds.count(PROVISIONAL)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([SHOWN, OVER], {"negatives_confirmed": 1}),
        ([SHOWN, BOUGHT, OVER], {"negatives_retracted": 1}),
        ([SHOWN, OVER, LATE], {"negatives_confirmed": 1, "late_corrections": 1}),
        ([SHOWN, OVER, (Op.CONVERSION, 10 * WINDOW)], {"negatives_confirmed": 1, "unknown": 1, "conversions": 0}),
        ([SHOWN, BOUGHT, OVER, (Op.REVERSAL, 10 * WINDOW)], {"unknown": 1, "reversals": 0}),
        ([SHOWN, OVER, (Op.EXPIRY, WINDOW)], {"expiries": 1, "unknown": 1}),
        ([SHOWN, OVER, (Op.CLICK, 2 * WINDOW)], {"clicks": 0, "unknown": 1}),
        ([SHOWN], {"negatives_dropped": 1, "expiries": 0}),
        ([BOUGHT], {"unknown": 1, "impressions": 0}),
    ],
)
def test_books(steps: Steps, expected: dict[str, int]) -> None:
    books = live("vanilla", steps)[2]
    assert {name: books[name] for name in expected} == expected


def test_a_checkpoint_due_with_a_row_fires_after_it() -> None:
    """At 10,000 ms the first checkpoint is due: a conversion then comes first, one a millisecond later does not."""
    assert live("retraction", [SHOWN, (Op.CONVERSION, 10_000)])[0] == [POSITIVE]
    assert live("retraction", [SHOWN, (Op.CONVERSION, 10_001)])[0] == [PROVISIONAL, RETRACTION]


def test_a_signal_is_folded_in_at_the_next_checkpoint() -> None:
    stage = stage_of("retraction")
    rows = np.zeros(2, LABEL_ROW)
    for k, (op, after) in enumerate([SHOWN, (Op.ADD_TO_CART, 20_000)]):
        rows[k] = (START + after, 1, KEY, k, int(op), START + after, int(op), KEY, START, USER, USER, ITEM)
    stage.apply(rows, np.zeros((2, 0), np.uint32), np.arange(2), START + 20_001)
    before = label_of(stage)
    stage.apply(rows, np.zeros((2, 0), np.uint32), np.arange(0), START + 50_001)
    after = label_of(stage)
    assert before["stage"] == after["stage"] == 2
    assert before["ratio"] != after["ratio"]
    examples = stage.take()["examples"][0]
    assert examples["elapsed"].tolist() == [10_000, 50_000]
    assert examples["stage"].tolist() == [0, 2]


def label_of(stage: FeedbackStage) -> dict[str, Any]:
    label = stage.label(KEY)
    assert label is not None
    return label


def test_a_belief_is_certain_when_the_label_is() -> None:
    stage = stage_of("vanilla")
    rows = np.zeros(2, LABEL_ROW)
    for k, (op, after) in enumerate([SHOWN, BOUGHT]):
        rows[k] = (START + after, 1, KEY, k, int(op), START + after, int(op), KEY, START, USER, USER, ITEM)
    stage.apply(rows[:1], np.zeros((1, 0), np.uint32), np.arange(1), START)
    assert label_of(stage)["ratio"] == -math.inf
    stage.apply(rows, np.zeros((2, 0), np.uint32), np.array([1]), START + 20_000)
    assert label_of(stage)["ratio"] == math.inf
    assert label_of(stage)["flags"] == ["CONVERTED", "EVER_CONVERTED", "NEGATIVE_DONE", "LEARNT"]


def test_the_life_of_a_label_ends_with_its_bound() -> None:
    """A negative is forgotten after window + late_conversion, a conversion only when no return can come any more."""
    for steps, until, kept in (
        ([SHOWN, OVER], 125_000, True),
        ([SHOWN, OVER], 126_000, False),
        ([SHOWN, BOUGHT, OVER], 126_000, True),
        ([SHOWN, BOUGHT, OVER], 435_000, True),
        ([SHOWN, BOUGHT, OVER], 436_000, False),
    ):
        stage = stage_of("vanilla")
        rows = np.zeros(len(steps), LABEL_ROW)
        for k, (op, after) in enumerate(steps):
            rows[k] = (START + after, 1, KEY, k, int(op), START + after, int(op), KEY, START, USER, USER, ITEM)
        stage.apply(rows, np.zeros((len(rows), 0), np.uint32), np.arange(len(rows)), START + until)
        assert (stage.label(KEY) is not None) is kept, (steps, until)
