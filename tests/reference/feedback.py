"""Slow, obvious twin of the feedback stage: dicts, plain floats, no ring, no hash index, timers found by looking.

Written from DESIGN section 3 and the docstrings, not from the kernel: one label is one object; the timers due are
found by asking every open label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from thalweg.graph_store.hash import hash_text
from thalweg.streams.configuration import Configuration

MASK = 2**64 - 1
ITEM, IMPRESSION, CLICK, CART, CONVERSION, EXPIRY, REVERSAL = range(7)
PROVISIONAL, REVISION, RETRACTION, POSITIVE, CONFIRMED, REVERSED = range(6)
WEEK = 7 * 86_400_000


def mix(x: int) -> int:
    """SplitMix64's finaliser in whole numbers."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def pair(a: int, b: int) -> int:
    """Hash of an ordered pair."""
    return mix((mix(a) * 0x94D049BB133111EB + b) & MASK) or 0x9E3779B97F4A7C15


def indices_of(
    configuration: Configuration, user: int, item: int, context: list[int], catalogue: list[int]
) -> list[int]:
    """The hashed indices of one example, by the names of its features."""
    conversion = configuration.conversion
    value = {"user_id": user, "item_id": item}
    for f, feature in enumerate(configuration.features):
        value[feature.name] = context[f] if feature.source == "context" else catalogue[f]
    hashed = {name: mix(v ^ hash_text(name)) for name, v in value.items()}
    out = [hash_text("intercept")]
    out += [hashed["user_id"]] if conversion.user_feature else []
    out += [hashed["item_id"]] if conversion.item_feature else []
    out += [hashed[feature.name] for feature in configuration.features]
    out += [pair(hashed[a], hashed[b]) for a, b in conversion.crosses]
    return [h >> (64 - conversion.bits) for h in out]


def sigmoid(z: float) -> float:
    """The logistic function, certain at infinity, cut at 35."""
    if math.isinf(z):
        return 1.0 if z > 0 else 0.0
    return 1.0 / (1.0 + math.exp(-min(max(z, -35.0), 35.0)))


class Weights:
    """Weight, squared gradients and count by index."""

    def __init__(self, learning_rate: float) -> None:
        self.rate = learning_rate
        self.weight: dict[int, float] = {}
        self.squares: dict[int, np.float32] = {}
        self.count: dict[int, int] = {}

    def logit(self, indices: list[int]) -> float:
        z = 0.0
        for r in indices:
            z += self.weight.get(r, 0.0)
        return z

    def uncertainty(self, indices: list[int]) -> float:
        inverse = 0.0
        for r in indices:
            inverse += 1.0 / (1.0 + self.count.get(r, 0))
        return -math.log(len(indices) / inverse)

    def step(self, indices: list[int]) -> float:
        total = 0.0
        for r in indices:
            total += self.rate / math.sqrt(1.0 + float(self.squares.get(r, np.float32(0))))
        return total

    def push(self, indices: list[int], mass: float, count: int) -> None:
        for r in indices:
            self.squares[r] = np.float32(self.squares.get(r, np.float32(0)) + np.float32(mass * mass))
            self.count[r] = self.count.get(r, 0) + count
            step = self.rate * mass / math.sqrt(1.0 + float(self.squares[r]))
            self.weight[r] = self.weight.get(r, 0.0) + step


@dataclass
class Label:
    """One impression and what became of it."""

    number: int
    key: int
    ts: int
    user: int
    item: int
    indices: list[int]
    prediction: float
    base: float
    item_rate: float
    cell: int
    epoch: int
    week: int
    own: float = 0.0
    ratio: float = 0.0
    stage: int = 0
    entered: int = 0
    crossed: int = 0
    state: int | None = 0  # None: the life table is done with it
    converted: bool = False
    ever: bool = False
    expired: bool = False
    learnt: bool = False
    negative: str = "none"  # open, done
    outcomes: int = 0
    emissions: int = 0
    kept: bool = False  # left the ring, kept for returns


@dataclass
class Reference:
    """The twin's state and what it emitted."""

    configuration: Configuration
    labels: dict[int, Label] = field(default_factory=dict)
    outcomes: list[tuple[int, ...]] = field(default_factory=list)
    examples: list[tuple[object, ...]] = field(default_factory=list)
    scored: list[tuple[int, int, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        c = self.configuration
        self.weights = Weights(c.conversion.learning_rate)
        self.weights.weight[hash_text("intercept") >> (64 - c.conversion.bits)] = math.log(0.02 / 0.98)
        self.window = int(c.attribution.window)
        self.life = self.window + c.attribution.late_conversion + c.time.lateness + c.attribution.skew_tolerance
        self.kept_life = self.life + c.attribution.return_window + c.attribution.orphan_wait
        self.policy = c.conversion.policy
        ages = c.conversion.checkpoints if self.policy == "retraction" else ()
        self.offsets: list[int] = []
        for age in ages:
            self.offsets.append(max(int(age * self.window), self.offsets[-1] + 1 if self.offsets else 0))
        edges = [0.0, *ages, 1.0]
        self.prior = [0.02 * (math.sqrt(b) - math.sqrt(a)) for a, b in zip(edges, edges[1:])]
        self.counts = [[[0.0] * 8 for _ in range(7)] for _ in self.prior]
        self.ratios: list[list[float]] = []
        self.solve()
        self.decayed_at = 0
        self.seen = self.trials = self.positives = 0
        self.codes: dict[int, list[int]] = {}
        self.item_labels: dict[int, list[int]] = {}
        self.books: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.books[name] = self.books.get(name, 0) + 1

    # ---- life table

    def solve(self) -> None:
        values = [[0.0] * 7]
        for k in reversed(range(len(self.prior))):
            row = []
            for s in range(7):
                nothing_happens = {1: 2, 2: 3, 4: 5, 5: 6}.get(s, s)
                total, expected = 1.0, values[0][nothing_happens] + self.prior[k]
                for t in range(7):
                    total += self.counts[k][s][t]
                    expected += self.counts[k][s][t] * values[0][t]
                total += self.counts[k][s][7]
                expected += self.counts[k][s][7]
                row.append(min(expected / total, 0.999999))
            values.insert(0, row)
        fresh = math.log(values[0][0]) - math.log(1.0 - values[0][0])
        self.ratios = [[(math.log(v) - math.log(1.0 - v)) - fresh for v in row] for row in values[:-1]]

    def refresh(self, ts: int) -> None:
        factor = math.exp(-max(0.0, float(ts - self.decayed_at)) / self.window)
        self.counts = [[[n * factor for n in row] for row in table] for table in self.counts]
        self.decayed_at = ts
        self.solve()

    # ---- learning

    def learn(self, label: Label, ts: int, elapsed: int, kind: int, ratio: float) -> None:
        z = self.weights.logit(label.indices)
        prior = z - label.own * self.weights.step(label.indices)
        before, after = sigmoid(prior + label.ratio), sigmoid(prior + ratio)
        mass = after - before
        self.weights.push(label.indices, mass, 0 if label.learnt else 1)
        label.learnt, label.own, label.ratio = True, label.own + mass, ratio
        if kind == REVISION and mass < 0 and label.negative == "none":
            kind = PROVISIONAL
        if kind == PROVISIONAL:
            label.negative = "open"
            self.count("negatives_emitted")
        p = sigmoid(z)
        side, weight = (0, -mass / p) if mass <= 0 else (1, mass / (1.0 - p))
        self.examples.append(
            (ts, kind, label.key, label.emissions, side, weight, mass, p, before, after, label.stage, elapsed,
             label.item, label.user, tuple(label.indices))
        )  # fmt: skip
        label.emissions += 1

    def outcome(self, label: Label, ts: int, trials: int, positives: int) -> None:
        self.outcomes.append((ts, label.key, label.outcomes, label.epoch, label.cell, trials, positives))
        label.outcomes += 1

    # ---- timers

    def fire(self, before: int) -> None:
        """Checkpoints of age due below `before`, then what is forgotten by then."""
        while True:
            due = [
                (label.ts + self.offsets[label.crossed], label.number, label)
                for label in self.labels.values()
                if not label.kept and label.crossed < len(self.offsets)
            ]
            due = [entry for entry in due if entry[0] < before]
            if not due:
                break
            at, _, label = min(due, key=lambda entry: entry[:2])
            self.cross(label, at)
        for key, label in list(self.labels.items()):
            if not label.kept and label.ts + self.life < before:
                if label.negative == "open":
                    self.count("negatives_dropped")
                label.kept = True
                if not label.ever:
                    del self.labels[key]
            if label.kept and label.ts + self.kept_life < before:
                self.labels.pop(key, None)

    def cross(self, label: Label, at: int) -> None:
        k = label.crossed
        label.crossed += 1
        if label.expired or label.state is None:
            return
        if label.ever:
            self.counts[k][label.state][7] += 1.0
            label.state = None
            return
        state = 0
        if label.stage:
            ago = k - label.entered
            state = {1: 1, 2: 4}[label.stage] + (0 if ago <= 0 else 1 if ago <= 2 else 2)
        self.counts[k][label.state][state] += 1.0
        label.state = state
        self.learn(label, at, at - label.ts, REVISION, self.ratios[k + 1][state])

    # ---- operations

    def apply(self, rows: np.ndarray, codes: np.ndarray, before: int) -> None:
        """All rows, in the order given, and the timers below `before`."""
        for row, code in zip(rows, codes.tolist(), strict=True):
            self.fire(int(row["ts"]))
            self.row({name: int(row[name]) for name in rows.dtype.names}, code)
        self.fire(before)

    def row(self, row: dict[str, int], codes: list[int]) -> None:
        op, ts, key = row["op"], row["ts"], row["impression"]
        if op == ITEM:
            if row["item"]:
                self.codes[row["item"]] = codes
            return
        if op == IMPRESSION:
            self.impression(row, codes)
            return
        label = self.labels.get(key)
        elapsed = row["effect_ts"] - row["impression_ts"]
        if label is None or (label.kept and op not in (CONVERSION, REVERSAL)) or (op == EXPIRY and label.expired):
            self.count("unknown")
        elif op in (CLICK, CART):
            self.count("clicks" if op == CLICK else "carts")
            if op - 1 > label.stage:
                label.stage, label.entered = op - 1, label.crossed
        elif op == CONVERSION:
            self.convert(label, ts, elapsed)
        elif op == REVERSAL:
            self.count("reversals")
            label.converted = False
            self.outcome(label, ts, 0, -1)
            if self.policy != "wait" or label.expired:
                self.learn(label, ts, elapsed, REVERSED, -math.inf if self.sampled(label) else 0.0)
        else:
            self.expire(label, ts, elapsed)

    def sampled(self, label: Label) -> bool:
        """Whether the label's negative is learnt."""
        return label.key % self.configuration.conversion.negative_sampling == 0

    def impression(self, row: dict[str, int], codes: list[int]) -> None:
        c = self.configuration.calibration
        item, ts = row["item"], row["ts"]
        indices = indices_of(self.configuration, row["user"], item, codes, self.codes.get(item, [0] * len(codes)))
        z, u = self.weights.logit(indices), self.weights.uncertainty(indices)
        s = (z - c.score_low) * (c.score_bins / (c.score_high - c.score_low))
        v = (u + 16.0) * (c.uncertainty_bins / 16.0)
        cell = int(min(max(s, 0.0), c.score_bins - 1.0)) * c.uncertainty_bins
        cell += int(min(max(v, 0.0), c.uncertainty_bins - 1.0))
        base = (self.positives + 0.02) / (self.trials + 1.0)
        own_trials, own_positives = self.item_labels.get(item, [0, 0])
        rate = base if not item else (own_positives + 20.0 * base) / (own_trials + 20.0)
        label = Label(
            self.seen, row["impression"], ts, row["user"], item, indices, sigmoid(z), float(np.float32(base)),
            float(np.float32(rate)), cell, row["impression_ts"] // int(c.epoch), row["impression_ts"] // WEEK,
        )  # fmt: skip
        self.labels[label.key] = label
        self.count("impressions")
        self.outcome(label, ts, 1, 0)
        if self.policy == "vanilla" and self.sampled(label):
            self.learn(label, ts, 0, PROVISIONAL, -math.inf)
        if self.seen == 0:
            self.decayed_at = ts
        self.seen += 1
        if self.policy == "retraction" and self.seen % 256 == 0:
            self.refresh(ts)

    def convert(self, label: Label, ts: int, elapsed: int) -> None:
        self.count("conversions")
        kind = RETRACTION if label.negative != "none" and not label.ever else POSITIVE
        if label.negative == "open":
            self.count("negatives_retracted")
            label.negative = "done"
        if label.expired and not label.ever:
            self.count("late_corrections")
        label.converted = label.ever = True
        self.outcome(label, ts, 0, 1)
        if self.policy != "wait" or label.expired:
            self.learn(label, ts, elapsed, kind, math.inf)

    def expire(self, label: Label, ts: int, elapsed: int) -> None:
        self.count("expiries")
        label.expired = True
        self.trials += 1
        self.positives += label.converted
        if label.item:
            tally = self.item_labels.setdefault(label.item, [0, 0])
            tally[0] += 1
            tally[1] += label.converted
        for predictor, p in enumerate((label.prediction, label.base, label.item_rate)):
            self.scored.append((label.week, predictor, p, int(label.converted)))
        if self.policy == "retraction" and label.state is not None and label.crossed == len(self.offsets):
            self.counts[len(self.offsets)][label.state][7 if label.ever else 0] += 1.0
        label.state = None
        if label.converted:
            if self.policy == "wait":
                self.learn(label, ts, elapsed, POSITIVE, math.inf)
            return
        if not self.sampled(label):
            self.count("negatives_skipped")
            return
        if label.negative == "open":
            self.count("negatives_confirmed")
        elif label.negative == "none":
            self.count("real_negatives")
        label.negative = "done"
        self.learn(label, ts, elapsed, CONFIRMED, -math.inf)
