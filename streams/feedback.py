"""The feedback stage: scores each impression, and learns from labels while they are still open.

It reads thalweg.labels and emits thalweg.outcomes (signed integers for calibration: a trial at the impression, a
positive at a conversion, minus one at a reversal, all in the cell and epoch of the impression) and thalweg.examples
(every emission of the learner). What is learnt when is the label policy's business
(`thalweg.models.delayed_feedback.policy`); the arithmetic is in `thalweg.models`, the loop in `feedback_kernel`.

State: the hashed weights; the catalogue with each item's matured labels; a ring of open impressions, kept for window +
late_conversion; a ring of those that converted, kept as long as a return may come; the life table; prequential scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ..graph_store.digest import Numbered
from ..graph_store.hash_index import HashIndex
from ..graph_store.ring_index import RingIndex
from ..graph_store.state_store import StateStore
from ..models.calibration.grid import UNCERTAINTY_HIGH, UNCERTAINTY_LOW, cell_of
from ..models.conversion import WEIGHT, predict_rows, sigmoid
from ..models.delayed_feedback.life_table import PRIOR_RATE, make_life_table
from ..models.delayed_feedback.policy import Flag, Policy
from ..models.features import FeatureSpace
from ..models.prequential import Prequential
from .block import Codes, Rows
from .configuration import Configuration
from .feedback_kernel import run
from .feedback_tables import BOOKS, IMPRESSION, ITEM, TALLIES, Outbox, Rules, Tables, codes_type
from .row import EXAMPLE_ROW, LABEL_ROW, OUTCOME_ROW, join
from .stage import Order, Outputs, Stage

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


def feature_space(configuration: Configuration) -> FeatureSpace:
    """The feature function of a configuration.

    >>> feature_space(Configuration()).labels
    ['intercept', 'user_id', 'item_id']
    """
    conversion = configuration.conversion
    return FeatureSpace(
        [feature.name for feature in configuration.features],
        [feature.source for feature in configuration.features],
        conversion.crosses,
        conversion.user_feature,
        conversion.item_feature,
        conversion.bits,
    )


def feedback_rules(configuration: Configuration, width: int, collect: bool) -> Rules:
    """What the kernel takes from the configuration.

    >>> feedback_rules(Configuration(), 3, collect=False).window == Configuration().attribution.window
    True
    """
    attribution, calibration = configuration.attribution, configuration.calibration
    slack = configuration.time.lateness + attribution.skew_tolerance
    life = attribution.window + attribution.late_conversion + slack
    return Rules(
        policy=int(Policy[configuration.conversion.policy.upper()]),
        window=int(attribution.window),
        life=int(life),
        kept_life=int(life + attribution.return_window + attribution.orphan_wait),
        epoch=int(calibration.epoch),
        learning_rate=float(configuration.conversion.learning_rate),
        sampling=configuration.conversion.negative_sampling,
        width=width,
        score_low=float(calibration.score_low),
        score_high=float(calibration.score_high),
        score_bins=calibration.score_bins,
        uncertainty_bins=calibration.uncertainty_bins,
        evaluate=int(configuration.conversion.evaluate),
        collect=int(collect),
    )


_LOGICAL = [name for name in IMPRESSION.names or () if name not in ("emissions", "spare")]
"""Columns of an impression that its digest covers: emitting examples is a consumer's choice."""


class Scores(NamedTuple):
    """What the model says of n (user, item, context) triples.

    Attributes
    ----------
    logit, probability, uncertainty : float64[n]
    cell : int64[n], of the calibration grid
    """

    logit: F64
    probability: F64
    uncertainty: F64
    cell: I64


class FeedbackStage(Stage):
    """The stage of topic "labels".

    Parameters
    ----------
    configuration, store, sources : as for every stage
    collect : whether thalweg.examples is emitted; the state does not depend on it, but for `emissions`, the running
        number of an impression's examples

    Attributes
    ----------
    space : FeatureSpace
    prequential : Prequential, scores of matured predictions

    >>> stage = FeedbackStage(Configuration(), StateStore.memory(), 1)
    >>> rows = np.zeros(1, LABEL_ROW)
    >>> rows["op"], rows["impression"], rows["item"] = 1, 7, 5
    >>> stage.apply(rows, np.zeros((1, 0), np.uint32), np.arange(1), 1)
    >>> stage.take()["outcomes"][0]["trials"].tolist(), round(stage.label(7)["prediction"], 3)
    ([1], 0.02)
    """

    name: ClassVar[str] = "feedback"
    row_type: ClassVar[np.dtype[Any]] = LABEL_ROW

    def __init__(self, configuration: Configuration, store: StateStore, sources: int, collect: bool = False) -> None:
        self.space = feature_space(configuration)
        self.rules = feedback_rules(configuration, self.space.width, collect)
        width, features = self.space.width, len(configuration.features)
        self._weights = store.array("weights", WEIGHT, (1 << self.space.bits,))
        if store.fresh:
            self._weights.values["weight"][self.space.intercept] = math.log(PRIOR_RATE / (1.0 - PRIOR_RATE))
        self._open = store.ring("impressions", IMPRESSION)
        self._open_indices = store.ring("impression_indices", codes_type("indices", width))
        self._kept = store.ring("converted", IMPRESSION)
        self._kept_indices = store.ring("converted_indices", codes_type("indices", width))
        self._items = store.growing("catalogue", ITEM)
        self._item_codes = store.growing("catalogue_codes", codes_type("codes", features))
        self._tallies = store.array("tallies", np.int64, (len(TALLIES),))
        self._make_life_table(configuration, store)
        self.prequential = Prequential(
            *(store.array(f"prequential_{n}", np.int64, shape).values for n, shape in Prequential.shapes().items())
        )
        self._open_index, self._kept_index, self._item_index = RingIndex(), RingIndex(), HashIndex()
        self._books = np.zeros(len(BOOKS), np.int64)
        self._hint = np.zeros(1, np.int64)
        self._hashes = self.space.scratch()
        self._outcomes = np.zeros(0, OUTCOME_ROW)
        self._examples = np.zeros(4096 if collect else 0, EXAMPLE_ROW)
        self._example_indices = np.zeros((len(self._examples), width), np.uint32)
        self._used = np.zeros(2, np.int64)
        self._index_tables()
        super().__init__(configuration, store, sources)

    def _make_life_table(self, configuration: Configuration, store: StateStore) -> None:
        ages = configuration.conversion.checkpoints if self.rules.policy == Policy.RETRACTION else ()
        start = make_life_table(ages)
        self._offsets = np.zeros(len(ages), np.int64)
        for k, age in enumerate(ages):  # rising also where a window is a few milliseconds long
            self._offsets[k] = max(int(age * self.rules.window), int(self._offsets[k - 1]) + 1 if k else 0)
        self._pointers = store.array("checkpoints", np.int64, (len(ages),))
        self._life = [
            store.array(f"life_{name}", np.float64, getattr(start, name).shape)
            for name in ("counts", "values", "ratios")
        ]
        self._prior = start.prior
        if store.fresh:
            for table, values in zip(self._life, start, strict=False):
                table.values[:] = values

    def _index_tables(self) -> None:
        self._open_index.follow(self._open)
        self._kept_index.follow(self._kept)
        self._item_index.put_many(self._items.entries()["item"].copy(), np.arange(len(self._items)))

    # ---- what the base class asks for

    def apply(self, rows: Rows, features: Codes, order: Order, before: int) -> None:
        """Apply label operations in order, and the checkpoints of age due before each and below `before`."""
        self._reserve(rows, order)
        start = 0
        while True:
            tables = self._tables()
            out = Outbox(self._outcomes, self._examples, self._example_indices, self._used)
            start = int(run(tables, self.rules, out, rows, features, order, start, before, self._hint))
            if start > len(order):
                break
            self._grow_examples()
        self._open_indices.ends[:] = self._open.ends
        self._kept_indices.ends[:] = self._kept.ends
        self._item_codes.count[:] = self._items.count
        for name, count in zip(BOOKS, self._books.tolist(), strict=True):
            self.store.count(name, count)
        self._books[:] = 0

    def _reserve(self, rows: Rows, order: Order) -> None:
        n = len(order)
        conversions = int(self._tallies.values[TALLIES.index("convertible")]) + n
        for ring, more in ((self._open, n), (self._open_indices, n), (self._kept, conversions)):
            ring.reserve(more)
        self._kept_indices.reserve(conversions)
        self._open_index.follow(self._open)
        self._kept_index.follow(self._kept)
        self._items.reserve(n)
        self._item_codes.reserve(n)
        self._item_index.reserve(n)
        need = int(self._used[0]) + n
        if need > len(self._outcomes):
            grown = np.zeros(max(need, 2 * len(self._outcomes)), OUTCOME_ROW)
            grown[: self._used[0]] = self._outcomes[: self._used[0]]
            self._outcomes = grown

    def _grow_examples(self) -> None:
        used = int(self._used[1])
        examples = np.zeros(2 * len(self._examples), EXAMPLE_ROW)
        indices = np.zeros((len(examples), self.space.width), np.uint32)
        examples[:used], indices[:used] = self._examples[:used], self._example_indices[:used]
        self._examples, self._example_indices = examples, indices

    def _tables(self) -> Tables:
        opened, kept, items, index = self._open, self._kept, self._items, self._item_index
        return Tables(
            opened.rows, self._open_indices.rows["indices"], opened.ends,
            self._open_index.heads, self._open_index.nexts,
            kept.rows, self._kept_indices.rows["indices"], kept.ends, self._kept_index.heads, self._kept_index.nexts,
            items.rows, self._item_codes.rows["codes"], items.count,
            index.keys, index.values, index.count,
            self._weights.values,
            self._life[0].values, self._life[1].values, self._life[2].values, self._prior,
            self._offsets, self._pointers.values, self._tallies.values, self._books,
            *self.prequential.arrays(),
            self.space.plan, self._hashes,
        )  # fmt: skip

    def take(self) -> Outputs:
        """Rows of "outcomes" since the last call, and of "examples" where they are collected."""
        outcomes, examples = int(self._used[0]), int(self._used[1])
        out: Outputs = {"outcomes": (join([self._outcomes[:outcomes]]), np.zeros((outcomes, 0), np.uint32))}
        if self.rules.collect:
            out["examples"] = (join([self._examples[:examples]]), self._example_indices[:examples].copy())
        self._used[:] = 0
        return out

    def entries(self) -> Iterator[tuple[str, Rows | Numbered]]:
        """Weights ever learnt, impressions kept, catalogue, life table, tallies and prequential sums."""
        yield "weights", Numbered(self._weights.values)
        for name, ring in (("impressions", self._open), ("converted", self._kept)):
            for rows in ring.slices():
                yield name, rows[_LOGICAL]
        yield "catalogue", _joined(self._items.entries(), self._item_codes.entries())
        yield "tallies", _numbered(np.arange(len(TALLIES)), self._tallies.values)
        for name, table in zip(("counts", "values", "ratios"), self._life, strict=True):
            yield f"life_{name}", _numbered(np.arange(table.values.size), table.values.reshape(-1))
        for name, values in zip(Prequential.shapes(), self.prequential.arrays(), strict=True):
            flat = values.reshape(-1)
            used = np.flatnonzero(flat)
            yield f"prequential_{name}", _numbered(used, flat[used])

    # ---- what queries and reports ask for

    def score(self, users: U64, items: U64, context: U32) -> Scores:
        """Score n (user, item, context) triples as an impression of them would be scored now.

        Parameters
        ----------
        users, items : uint64[n], hashes; user 0 is a guest
        context : uint32[n, F], codes of the context columns (item columns are not read)
        """
        row = self._item_index.find_many(items)
        codes = np.zeros((len(items), max(1, self._width)), np.uint32)
        known = row >= 0
        codes[known] = self._item_codes.rows["codes"][row[known]]
        indices = self.space.indices(users, items, np.ascontiguousarray(context, np.uint32), codes)
        logit, uncertainty = np.zeros(len(items)), np.zeros(len(items))
        predict_rows(self._weights.values, indices, logit, uncertainty)
        rules = self.rules
        cell = [
            cell_of(z, u, rules.score_low, rules.score_high, rules.score_bins, UNCERTAINTY_LOW, UNCERTAINTY_HIGH,
                    rules.uncertainty_bins)
            for z, u in zip(logit, uncertainty, strict=True)
        ]  # fmt: skip
        return Scores(logit, np.array([sigmoid(z) for z in logit], np.float64), uncertainty, np.array(cell, np.int64))

    def item_codes(self, item: int) -> U32 | None:
        """Codes uint32[F] of an item's catalogue row (its item columns); None where the item is unknown."""
        row = int(self._item_index.find_many(np.array([item], np.uint64))[0])
        return None if row < 0 else self._item_codes.rows["codes"][row, : self._width].copy()

    def label(self, key: int) -> dict[str, Any] | None:
        """What is known of one label while it is kept, by its label key; None where it is not.

        Keys: ts, prediction, epoch, cell, mass, ratio (log likelihood ratio of the belief), stage, flags (names).
        """
        number, ring = self._open_index.find(self._open, key), self._open
        if number < 0:
            number, ring = self._kept_index.find(self._kept, key), self._kept
        if number < 0:
            return None
        row = ring.rows[number & (len(ring.rows) - 1)]
        fields = ("ts", "prediction", "epoch", "cell", "mass", "ratio", "stage")
        flags = [flag.name for flag in Flag if int(row["flags"]) & flag]
        return {**{name: row[name].item() for name in fields}, "flags": flags}

    def books(self) -> dict[str, int]:
        """Counts of the books. They balance: negatives_emitted = open + retracted + confirmed + dropped.

        `negatives_open` is counted in the ring itself.
        """
        counts = {name: self.store.counters.get(name, 0) for name in BOOKS}
        counts["negatives_open"] = int(np.count_nonzero(self._open.entries()["flags"] & Flag.NEGATIVE_OPEN))
        counts["labels_open"] = len(self._open)
        return counts


def _joined(rows: Rows, codes: Rows) -> Rows:
    """Records of a table and of the table beside it, as one."""
    out = np.zeros(len(rows), np.dtype([("row", rows.dtype), ("codes", codes.dtype)]))
    out["row"], out["codes"] = rows, codes
    return out


def _numbered(numbers: npt.NDArray[Any], rows: Rows) -> Rows:
    """Records (number, value) of rows and their numbers, for the digest."""
    out = np.zeros(len(rows), np.dtype([("number", "<i8"), ("value", rows.dtype)]))
    out["number"], out["value"] = numbers, rows
    return out
