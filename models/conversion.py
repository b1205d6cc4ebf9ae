"""Hashed sparse logistic regression with AdaGrad steps: P(an impression ends in a purchase), and how unsure that is.

Each example has k indices into one table of weights (`features.FeatureSpace`). The logit is the sum of their weights;
the log-loss has gradient (p - y) in it, the same for all k weights. The step of a weight is learning_rate /
sqrt(1 + sum of its squared gradients) (Duchi, Hazan, Singer 2011).

What is learnt is a *gradient mass* m, signed: y - p for an ordinary example, the change of belief for one under a
policy of delayed feedback. The uncertainty is -log of the harmonic mean over the indices of 1 + the number of examples
learnt with that index: 0 when all is new, -log(1 + n) when each was seen n times, and ruled by the rarest. Log-count
is what carried the gain of thresholds per uncertainty level in measurement; the spread of an ensemble did not.

A weight, its accumulator and its count lie in 16 bytes, so that one cache line serves each index.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from river import base
from river.utils import dataframe

from thalweg.graph_store.hash import hash_text, mix64
from thalweg.graph_store.kernel import kernel, lean_kernel

U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]

WEIGHT = np.dtype([("weight", "<f8"), ("accumulator", "<f4"), ("count", "<u4")])
"""One hashed weight: value (logit), sum of squared gradients, examples learnt."""

LOGIT_LIMIT = 35.0
"""Logits are cut here before they become probabilities: 6e-16 is the least that 1 - p can tell from 0."""


@kernel
def sigmoid(z):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-z)), exactly 0 at -inf and 1 at +inf, else cut at +-LOGIT_LIMIT.

    >>> float(sigmoid(0.0)), float(sigmoid(-math.inf)), float(sigmoid(math.inf))
    (0.5, 0.0, 1.0)
    """
    if z == math.inf:
        return 1.0
    if z == -math.inf:
        return 0.0
    return 1.0 / (1.0 + math.exp(-min(max(z, -LOGIT_LIMIT), LOGIT_LIMIT)))


@lean_kernel
def logit_and_count(weights, indices, slot, width):  # type: ignore[no-untyped-def]
    """(logit, harmonic mean of 1 + count) of the example whose `width` indices are `indices[slot]`."""
    logit = 0.0
    inverse = 0.0
    for j in range(width):
        r = indices[slot, j]
        logit += weights["weight"][r]
        inverse += 1.0 / (1.0 + np.float64(weights["count"][r]))
    return logit, width / inverse


@lean_kernel
def logit_and_step(weights, indices, slot, width, learning_rate):  # type: ignore[no-untyped-def]
    """(logit, sum of the steps): a mass m pushed now moves the logit by about m times the second."""
    logit = 0.0
    step = 0.0
    for j in range(width):
        r = indices[slot, j]
        logit += weights["weight"][r]
        step += learning_rate / math.sqrt(1.0 + np.float64(weights["accumulator"][r]))
    return logit, step


@lean_kernel
def push(weights, indices, slot, width, mass, learning_rate, count):  # type: ignore[no-untyped-def]
    """Learn a gradient mass (y - p, signed); `count` is 1 where the example is counted, 0 where it was before."""
    square = np.float32(mass * mass)
    more = np.uint32(count)
    for j in range(width):
        r = indices[slot, j]
        accumulator = weights["accumulator"][r] + square
        weights["accumulator"][r] = accumulator
        weights["count"][r] += more
        weights["weight"][r] += learning_rate * mass / math.sqrt(1.0 + np.float64(accumulator))


@kernel
def predict_rows(weights, indices, logits, uncertainties):  # type: ignore[no-untyped-def]
    """Logit and uncertainty of each row of `indices` (uint32[n, k]), into float64[n] twice."""
    for i in range(indices.shape[0]):
        logits[i], count = logit_and_count(weights, indices, i, indices.shape[1])
        uncertainties[i] = -math.log(count)


@kernel
def learn_rows(weights, indices, labels, importance, learning_rate):  # type: ignore[no-untyped-def]
    """Learn row after row: labels float64[n] in 0..1, importance float64[n], signed."""
    for i in range(indices.shape[0]):
        logit, _ = logit_and_count(weights, indices, i, indices.shape[1])
        mass = importance[i] * (labels[i] - sigmoid(logit))
        push(weights, indices, i, indices.shape[1], mass, learning_rate, 1)


def value_text(value: Any) -> str:
    """A feature value of River's idiom as the text that is hashed; numbers fall into four bins an octave.

    >>> value_text("red"), value_text(1.0) == value_text(1.1), value_text(1.0) == value_text(2.0)
    ('red', True, False)
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.integer | np.floating):
        number = float(value)
        if number == 0.0 or not math.isfinite(number):
            return repr(abs(number))
        return f"{'-' if number < 0 else '+'}{math.floor(4.0 * math.log2(abs(number)))}"
    return str(value)


class ConversionModel(base.MiniBatchClassifier):
    """Binary classifier on dicts of features, in River's idiom; the kernels are those of the feedback stage.

    A dict's entries are hashed by name and value. Text is a category; a number is binned (`value_text`). Order does
    not matter. `learn_many` is `learn_one` in a loop, bit for bit. For arrays that are hashed already there are
    `learn_indices` and `predict_indices`.

    When not to use it: for numeric features whose effect is linear (they are binned here), or for interactions that
    are not declared.

    Parameters
    ----------
    bits : 2**bits weights
    learning_rate : AdaGrad's; the first step of a weight is at most this

    Attributes
    ----------
    weights : WEIGHT[2**bits]

    >>> from river import datasets, evaluate, metrics
    >>> model = ConversionModel(bits=12, learning_rate=0.3)
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.ROCAUC())
    ROCAUC: 96.79%

    References
    ----------
    Duchi, Hazan, Singer: Adaptive subgradient methods (JMLR 2011). Weinberger et al.: Feature hashing (ICML 2009).
    """

    def __init__(self, bits: int = 20, learning_rate: float = 0.1) -> None:
        if not 1 <= bits <= 32:
            raise ValueError(f"bits is {bits}; it must lie between 1 and 32")
        self.bits = bits
        self.learning_rate = learning_rate
        self.weights = np.zeros(1 << bits, WEIGHT)

    @property
    def _multiclass(self) -> bool:
        return False

    def hash_dict(self, x: dict[Any, Any]) -> U32:
        """Indices uint32[1, k] of a dict: the intercept, then its entries by name.

        >>> ConversionModel(bits=8).hash_dict({"a": 1}).shape
        (1, 2)
        """
        shift = np.uint64(64 - self.bits)
        out = np.zeros((1, 1 + len(x)), np.uint32)
        out[0, 0] = np.uint64(hash_text("intercept")) >> shift
        for j, (name, value) in enumerate(sorted((str(name), value_text(value)) for name, value in x.items())):
            out[0, 1 + j] = mix64(np.uint64(hash_text(value)) ^ np.uint64(hash_text(name))) >> shift
        return out

    def hash_frame(self, X: Any) -> U32:
        """Indices uint32[n, 1 + columns] of the rows of a data frame."""
        frame = dataframe.into_frame(X)
        names = frame.columns
        rows = [self.hash_dict(dict(zip(names, row, strict=True))) for row in frame.rows()]
        return np.concatenate(rows) if rows else np.zeros((0, 1 + len(names)), np.uint32)

    def learn_indices(self, indices: U32, labels: npt.ArrayLike, importance: npt.ArrayLike = 1.0) -> None:
        """Learn hashed examples in order: indices uint32[n, k], labels in 0..1, signed importance weights."""
        n = len(indices)
        y = np.broadcast_to(np.asarray(labels, np.float64), (n,)).copy()
        w = np.broadcast_to(np.asarray(importance, np.float64), (n,)).copy()
        learn_rows(self.weights, indices, y, w, float(self.learning_rate))

    def predict_indices(self, indices: U32) -> tuple[F64, F64]:
        """(logits, uncertainties) float64[n] of hashed examples.

        >>> [a.tolist() for a in ConversionModel(bits=8).predict_indices(np.zeros((1, 3), np.uint32))]
        [[0.0], [-0.0]]
        """
        logits, uncertainties = np.zeros(len(indices)), np.zeros(len(indices))
        predict_rows(self.weights, indices, logits, uncertainties)
        return logits, uncertainties

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Learn one example; `w` is its signed importance weight."""
        self.learn_indices(self.hash_dict(x), float(bool(y)), w)

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        """Probability of False and True."""
        logits, _ = self.predict_indices(self.hash_dict(x))
        p = float(sigmoid(float(logits[0])))
        return {False: 1.0 - p, True: p}

    def uncertainty_one(self, x: dict[Any, Any]) -> float:
        """-log of the harmonic mean of 1 + count over the example's indices; 0: all is new.

        >>> model = ConversionModel(bits=8)
        >>> model.learn_one({"a": "b"}, True)
        >>> round(model.uncertainty_one({"a": "b"}), 3)
        -0.693
        """
        return float(self.predict_indices(self.hash_dict(x))[1][0])

    def learn_many(self, X: Any, y: Any, w: Any = 1.0) -> None:
        """Learn the rows of a data frame in order, as `learn_one` would."""
        self.learn_indices(self.hash_frame(X), [float(bool(value)) for value in y], w)

    def predict_proba_many(self, X: Any) -> Any:
        """Probabilities of False and True for the rows of a data frame, as a data frame of its kind."""
        logits, _ = self.predict_indices(self.hash_frame(X))
        p = np.array([sigmoid(z) for z in logits], np.float64)
        return dataframe.to_native_frame({False: 1.0 - p, True: p}, like=dataframe.into_frame(X))

    def predict_many(self, X: Any) -> Any:
        """The likelier label for the rows of a data frame, as a series of its kind."""
        logits, _ = self.predict_indices(self.hash_frame(X))
        return dataframe.to_native_series(logits > 0.0, name="y", like=dataframe.into_frame(X))
