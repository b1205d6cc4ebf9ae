"""The conversion model: River's own checks, one equals many, and the slow twin."""

from __future__ import annotations

import math
import random
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
from river import checks

from tests.reference.feedback import Weights, sigmoid
from thalweg.models.conversion import ConversionModel, value_text

pd = pytest.importorskip("pandas")


def river_checks() -> list[Callable[[ConversionModel], None]]:
    """River imports scikit-learn for data sets that a binary classifier never sees; an empty module will do."""
    if "sklearn" not in sys.modules:
        try:
            import sklearn.datasets  # noqa: F401
        except ImportError:
            stand_in = types.ModuleType("sklearn")
            stand_in.datasets = types.ModuleType("sklearn.datasets")  # type: ignore[attr-defined]
            sys.modules["sklearn"] = stand_in
            try:
                return list(checks.yield_checks(ConversionModel(bits=12)))
            finally:
                del sys.modules["sklearn"]
    return list(checks.yield_checks(ConversionModel(bits=12)))


@pytest.mark.parametrize("check", [pytest.param(c, id=f"{c.__name__}-{k}") for k, c in enumerate(river_checks())])
def test_river_check(check: Callable[[ConversionModel], None]) -> None:
    model = ConversionModel(bits=12)
    assert check.__name__ not in model._unit_test_skips()
    random.seed(1)
    check(model.clone())


def examples(n: int, seed: int = 0) -> tuple[list[dict[str, object]], list[bool], np.ndarray]:
    rng = np.random.default_rng(seed)
    xs: list[dict[str, object]] = [
        {
            "colour": str(rng.choice(["red", "blue", "green"])),
            "price": float(rng.gamma(2.0)),
            "shop": int(rng.integers(9)),
        }
        for _ in range(n)
    ]
    ys = [bool(rng.random() < (0.5 if x["colour"] == "red" else 0.1)) for x in xs]
    return xs, ys, rng.normal(0, 1, n)


def test_many_equals_one_bit_for_bit() -> None:
    xs, ys, weights = examples(300)
    one, many = ConversionModel(bits=10), ConversionModel(bits=10)
    for x, y, w in zip(xs, ys, weights.tolist()):
        one.learn_one(x, y, w)
    frame = pd.DataFrame(xs)
    for start in range(0, 300, 70):
        many.learn_many(frame[start : start + 70], pd.Series(ys[start : start + 70]), weights[start : start + 70])
    assert one.weights.tobytes() == many.weights.tobytes()
    together = many.predict_proba_many(frame)
    assert together[True].tolist() == [one.predict_proba_one(x)[True] for x in xs]
    assert many.predict_many(frame).tolist() == [one.predict_one(x) for x in xs]


def test_equals_the_slow_twin() -> None:
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 64, (500, 7)).astype(np.uint32)
    labels, importance = (rng.random(500) < 0.2).astype(float), rng.normal(1, 1, 500)
    model, twin = ConversionModel(bits=6, learning_rate=0.2), Weights(0.2)
    model.learn_indices(indices, labels, importance)
    for row, y, w in zip(indices.tolist(), labels.tolist(), importance.tolist()):
        twin.push(row, w * (y - sigmoid(twin.logit(row))), 1)
    assert model.weights["weight"].tolist() == [twin.weight.get(r, 0.0) for r in range(64)]
    assert model.weights["count"].tolist() == [twin.count.get(r, 0) for r in range(64)]
    logits, uncertainties = model.predict_indices(indices)
    assert logits.tolist() == [twin.logit(row) for row in indices.tolist()]
    assert uncertainties.tolist() == [twin.uncertainty(row) for row in indices.tolist()]


def test_negative_weight_takes_an_example_back_while_steps_are_equal() -> None:
    model = ConversionModel(bits=8, learning_rate=1e-9)
    model.learn_one({"a": "x"}, True, 1.0)
    model.learn_one({"a": "x"}, True, -1.0)
    assert abs(model.predict_indices(model.hash_dict({"a": "x"}))[0][0]) < 1e-9


def test_uncertainty_is_log_count_and_ruled_by_the_rarest() -> None:
    model = ConversionModel(bits=16)
    for _ in range(99):
        model.learn_one({"a": "x"}, False)
    assert math.isclose(model.uncertainty_one({"a": "x"}), -math.log(100))
    assert model.uncertainty_one({"a": "new"}) > -math.log(4)


def test_learns_what_there_is_to_learn() -> None:
    xs, ys, _ = examples(4000, seed=1)
    model = ConversionModel(bits=12, learning_rate=0.3)
    for x, y in zip(xs, ys):
        model.learn_one(x, y)
    assert abs(model.predict_proba_one({**xs[0], "colour": "red"})[True] - 0.5) < 0.1
    assert abs(model.predict_proba_one({**xs[0], "colour": "blue"})[True] - 0.1) < 0.06


def test_values_as_text() -> None:
    assert value_text(True) == "True" != value_text(1)
    assert value_text(float("nan")) == "nan"
    assert value_text(-2.0) != value_text(2.0)
    assert value_text(0.0) == value_text(-0.0) == value_text(0)
    assert value_text(None) == "None"
    with pytest.raises(ValueError, match="between 1 and 32"):
        ConversionModel(bits=0)
