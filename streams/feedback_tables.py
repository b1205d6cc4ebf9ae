"""Record types and argument groups of the feedback stage's kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..models.delayed_feedback.policy import BELIEF
from ..models.features import Plan

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Rows = np.ndarray[Any, np.dtype[Any]]

BOOKS = (
    "impressions",  # labels opened
    "clicks",
    "carts",
    "conversions",
    "reversals",
    "expiries",
    "unknown",  # an operation whose impression is not kept
    "items_dropped",  # impressions of items beyond the catalogue's bound: scored without catalogue row
    "negatives_emitted",  # labels with a provisional negative
    "negatives_retracted",  # ... that converted before their window was over
    "negatives_confirmed",  # ... whose window was over
    "negatives_dropped",  # ... that left the ring before either
    "real_negatives",  # labels whose first negative came when the window was over
    "negatives_skipped",  # labels whose negative was not among those sampled
    "late_corrections",  # first conversions after the window was over
    "examples",  # rows of thalweg.examples, counted where they are collected
)
"""What the kernel counts, each term at its own site."""

TALLIES = ("impressions", "trials", "positives", "decayed_at", "convertible")
"""int64 state: impressions seen; labels matured, and converted at that time; time of the life table's last decay, ms;
open impressions that converted at some time."""

ITEMS_BOUND = 1 << 24
"""Catalogue rows at most; items beyond are scored by their hash only."""


IMPRESSION = np.dtype(
    [
        ("key", "<u8"),  # label key
        ("ts", "<i8"),  # when it arrived here; order of the ring
        ("user", "<u8"),
        ("features", "<u8"),  # sum of (index + 1) times odd constants: stands for the indices in the digest
        *BELIEF,
        ("prediction", "<f8"),  # probability at arrival
        ("base_rate", "<f4"),  # baselines' predictions at arrival
        ("item_rate", "<f4"),
        ("row", "<i4"),  # catalogue row; -1: beyond the bound, or no item
        ("epoch", "<i4"),
        ("cell", "<i4"),
        ("outcomes", "<u4"),  # outcome rows emitted
        ("emissions", "<u4"),  # example rows emitted
        ("week", "<i4"),  # week of the impression
    ]
)
"""Record of an open or kept impression; its indices stand in a ring of their own, so that one compiled kernel serves
every number of features."""

ITEM = np.dtype([("item", "<u8"), ("trials", "<i8"), ("positives", "<i8")])
"""Record of a catalogue row: the item and its matured labels; the codes of its latest item event stand beside."""


def codes_type(name: str, width: int) -> np.dtype[Any]:
    """Record of `width` uint32 (at least one) and nothing else: its column is a contiguous matrix.

    >>> np.zeros(3, codes_type("indices", 2))["indices"].shape
    (3, 2)
    """
    return np.dtype([(name, "<u4", (max(1, width),))])


class Rules(NamedTuple):
    """What the kernel takes from the configuration; times in ms."""

    policy: int
    sampling: int  # of the negatives one in so many is learnt
    window: int
    life: int  # of an open impression
    kept_life: int  # of one that converted, for returns
    epoch: int
    learning_rate: float
    width: int  # indices of an example
    score_low: float
    score_high: float
    score_bins: int
    uncertainty_bins: int
    evaluate: int
    collect: int


class Tables(NamedTuple):
    """The state, as flat arrays."""

    open: Rows
    open_indices: U32
    open_ends: I64
    open_heads: I64  # index of `open` by label key
    open_nexts: I64
    kept: Rows
    kept_indices: U32
    kept_ends: I64
    kept_heads: I64
    kept_nexts: I64
    items: Rows
    item_codes: U32
    items_count: I64
    item_keys: U64
    item_values: I64
    item_count: I64
    weights: Rows
    life_counts: F64
    life_values: F64
    life_ratios: F64
    life_prior: F64
    offsets: I64  # ages of the checkpoints, ms
    pointers: I64  # number of the next impression to pass each checkpoint
    tallies: I64
    books: I64
    weeks: I64
    sums: I64
    total: I64
    histogram: I64
    dropped: I64
    plan: Plan
    hashes: U64  # scratch


class Outbox(NamedTuple):
    """Where emitted rows go; used[0] outcomes, used[1] examples."""

    outcomes: Rows
    examples: Rows
    indices: U32
    used: I64
