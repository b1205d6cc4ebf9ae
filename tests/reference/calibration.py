"""Slow, obvious twins of the calibration and prequential kernels, and the dynamic programme that is their oracle."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence


class Scores:
    """Prequential sums, one dictionary entry a week and predictor; nothing is dropped."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, float, int]] = []

    def observe(self, week: int, predictor: int, probability: float, label: int) -> None:
        self.rows.append((week, predictor, min(max(probability, 1e-9), 1 - 1e-9), label))

    def of(self, predictor: int, week: int | None = None) -> list[tuple[float, int]]:
        return [(p, y) for w, k, p, y in self.rows if k == predictor and week in (None, w)]

    def log_loss(self, predictor: int, week: int | None = None) -> float:
        rows = self.of(predictor, week)
        return -sum(math.log(p) if y else math.log(1 - p) for p, y in rows) / len(rows)

    def brier(self, predictor: int) -> float:
        rows = self.of(predictor)
        return sum((p - y) ** 2 for p, y in rows) / len(rows)

    def ratio(self, predictor: int) -> float:
        rows = self.of(predictor)
        return sum(p for p, _ in rows) / sum(y for _, y in rows)


def auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Share of (positive, negative) pairs in the right order, ties half."""
    pairs = [
        (a, b) for a, y in zip(scores, labels, strict=True) if y for b, z in zip(scores, labels, strict=True) if not z
    ]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def average_precision(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Sum over distinct scores, highest first, of (recall gained) * (precision so far)."""
    total, out, before = sum(labels), 0.0, 0.0
    for cut in sorted(set(scores), reverse=True):
        chosen = [y for s, y in zip(scores, labels, strict=True) if s >= cut]
        recall = sum(chosen) / total
        out += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return out


def cell_of(
    logit: float, uncertainty: float, score: tuple[float, float, int], uncertain: tuple[float, float, int]
) -> int:
    """Cell number by counting the edges at or below the value."""

    def place(value: float, low: float, high: float, bins: int) -> int:
        position = (value - low) * (bins / (high - low))
        return sum(1 for edge in range(1, bins) if position >= edge)

    return place(logit, *score) * uncertain[2] + place(uncertainty, *uncertain)


class Table:
    """The grid as a dictionary, for streams whose epochs all fit."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])

    def add(self, epoch: int, cell: int, trials: int, positives: int) -> None:
        self.cells[epoch, cell][0] += trials
        self.cells[epoch, cell][1] += positives

    def entries(self) -> list[tuple[int, int, int, int]]:
        return sorted((e, c, n, p) for (e, c), (n, p) in self.cells.items() if n or p)

    def decayed(self, first: int, last: int, keep: float, fold: int, folds: int, cell: int) -> tuple[float, float]:
        total = hits = 0.0
        for epoch in range(last, first - 1, -1):
            if epoch % folds == fold:
                n, p = self.cells.get((epoch, cell), (0, 0))
                total += keep ** (last - epoch) * n
                hits += keep ** (last - epoch) * p
        return total, hits


def isotonic(positives: Sequence[float], trials: Sequence[float]) -> list[float]:
    """Isotonic rates by the min-max formula: max over starts of min over ends of the mean between."""
    n = len(trials)

    def mean(i: int, j: int) -> float:
        return sum(positives[i : j + 1]) / sum(trials[i : j + 1])

    return [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


def best_boundary(trials: Sequence[Sequence[int]], positives: Sequence[Sequence[int]], precision: float) -> int:
    """Most positives that one threshold a level can select at that precision (exact; any integer trial counts).

    Dynamic programme over levels: for each number of trials selected, the most positives. EW-DPMT of Arora et al.
    (arXiv 2311.11723) without its assumption that bins weigh the same.
    """
    best = {0: 0}
    for level_trials, level_positives in zip(trials, positives, strict=True):
        options = {(sum(level_trials[b:]), sum(level_positives[b:])) for b in range(len(level_trials) + 1)}
        new: dict[int, int] = {}
        for m, p in best.items():
            for dm, dp in options:
                new[m + dm] = max(new.get(m + dm, -1), p + dp)
        best = new
    return max((p for m, p in best.items() if p >= precision * m), default=0)


def equal_weight_boundary(scores: Sequence[float], labels: Sequence[int], precision: float, size: int) -> int:
    """EW-DPMT with one level as published: rows sorted by score, cut into bins of `size` rows, ties and all.

    Returns the number of rows it believes it selects at the precision asked for.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen = 0
    for end in range(size, len(order) + 1, size):
        if sum(labels[i] for i in order[:end]) >= precision * end:
            chosen = end
    return chosen


def select(rates: Iterable[float], cut: float) -> list[int]:
    """Places whose rate reaches the cut."""
    return [i for i, rate in enumerate(rates) if rate >= cut]


def platt(
    trials: Sequence[float],
    positives: Sequence[float],
    logits: Sequence[float],
    prior: tuple[float, float],
    ridge: tuple[float, float],
) -> tuple[float, float]:
    """Platt's map by bisection on each coordinate in turn: slow, and sure because the posterior is log-concave."""

    def slope(a: float, b: float, axis: int) -> float:
        out = ridge[axis] * ((a, b)[axis] - prior[axis])
        for n, k, z in zip(trials, positives, logits, strict=True):
            out += (n / (1 + math.exp(-(a + b * z))) - k) * (1.0, z)[axis]
        return out

    at = list(prior)
    for _ in range(400):
        before = tuple(at)
        for axis in (0, 1):
            low, high = at[axis] - 20.0, at[axis] + 20.0
            for _ in range(60):
                at[axis] = 0.5 * (low + high)
                if slope(at[0], at[1], axis) > 0:
                    high = at[axis]
                else:
                    low = at[axis]
        if max(abs(x - y) for x, y in zip(at, before, strict=True)) < 1e-10:
            break
    return at[0], at[1]


def rates(
    trials: Sequence[Sequence[float]],
    positives: Sequence[Sequence[float]],
    logits: Sequence[float],
    ridges: tuple[tuple[float, float], tuple[float, float]],
    strength: float,
) -> list[list[float]]:
    """Calibrated rates by level and score bin: pooled map, level's map, Beta prior around it, isotonic."""
    pooled_positives = [sum(column) for column in zip(*positives, strict=True)]
    pooled_trials = [sum(column) for column in zip(*trials, strict=True)]
    found = sum(pooled_positives)
    centre = sum(k * z for k, z in zip(pooled_positives, logits, strict=True)) / found if found else 0.0
    shifted = [z - centre for z in logits]
    pooled = platt(pooled_trials, pooled_positives, shifted, (centre, 1.0), ridges[0])
    out = []
    for n, k in zip(trials, positives, strict=True):
        a, b = platt(n, k, shifted, pooled, ridges[1]) if len(trials) > 1 else pooled
        mean = [1 / (1 + math.exp(-(a + b * z))) for z in shifted]
        held = sum(k)
        full = 1 + strength * held / (held + strength)
        weight = [full / (m * (1 - m)) for m in mean]
        hits = [x + w * m for x, w, m in zip(k, weight, mean, strict=True)]
        out.append(isotonic(hits, [x + w for x, w in zip(n, weight, strict=True)]))
    return out


def calibration_error(
    trials: Sequence[float], positives: Sequence[float], probability: Sequence[float], groups: int
) -> float:
    """Debiased root-mean-square calibration error; a bin belongs to the group of the middle of its ranks."""
    total, seen = sum(trials), 0.0
    held: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for n, k, p in zip(trials, positives, probability, strict=True):
        group = min(int((seen + n / 2) * groups / total), groups - 1)
        seen += n
        for place, value in enumerate((n, k, p)):
            held[group][place] += value
    out = 0.0
    for n, k, p in held.values():
        if n > 1:
            out += n * ((k / n - p / n) ** 2 - (k / n) * (1 - k / n) / (n - 1))
    return math.sqrt(max(0.0, out / total))


def lowest_cut(
    rate: Sequence[float], trials: Sequence[float], positives: Sequence[float], good: Callable[[float, float], bool]
) -> float:
    """The lowest rate such that what lies at or above it is `good` (trials, positives); infinity where none is."""
    for cut in sorted(set(rate)):
        chosen = select(rate, cut)
        if good(sum(trials[i] for i in chosen), sum(positives[i] for i in chosen)):
            return cut
    return math.inf
