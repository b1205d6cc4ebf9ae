"""The rows of the internal topics: one numpy record type each, of fixed width, so that a kernel loops over them.

Ids are strings outside and 64-bit hashes here (`thalweg.graph_store.hash`). Every row type begins with the five
fields of the total order (`streams/merge.py`): `ts`, `rank`, `id`, `id2`, `tie`. Rows with equal order fields are the
same row. Declared features travel beside the rows in a uint32 matrix [n, F], one column a declared feature in the
configuration's order: the feature's value hash, 0 where there is none.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph_store.table import whole

HOUR = 3_600_000
DAY = 24 * HOUR


class Type(enum.IntEnum):
    """Type of an event; the number is its rank among events of one instant."""

    ITEM = 0
    IMPRESSION = 1
    CLICK = 2
    ADD_TO_CART = 3
    PURCHASE = 4
    RETURN = 5
    PROGRESS = 6


class Op(enum.IntEnum):
    """Operation on a label (topic thalweg.labels)."""

    ITEM = 0
    IMPRESSION = 1
    CLICK = 2
    ADD_TO_CART = 3
    CONVERSION = 4
    EXPIRY = 5
    REVERSAL = 6


class Pairing(enum.IntEnum):
    """Kind of a row of thalweg.copurchases."""

    ITEM = 0
    PURCHASE = 1
    PAIR = 2


class Example(enum.IntEnum):
    """Kind of a row of thalweg.examples."""

    PROVISIONAL_NEGATIVE = 0
    REVISION = 1
    RETRACTION = 2
    POSITIVE = 3
    CONFIRMED_NEGATIVE = 4
    REVERSAL = 5


_ORDER = [("ts", "<i8"), ("rank", "<i8"), ("id", "<u8"), ("id2", "<u8"), ("tie", "<u8")]

EVENT_ROW = np.dtype(
    [
        *_ORDER,  # rank: Type; id, id2: two hashes of the event id; tie: hash of the canonical content
        ("clock", "<i8"),  # ingest's clock, stamped before this row counted
        ("key", "<u8"),  # shard key K
        ("user", "<u8"),  # 0: a guest
        ("item", "<u8"),
        ("impression", "<u8"),  # the impression named (of an impression: its own name, else its event id); 0: none
        ("request", "<u8"),
        ("order", "<u8"),
        ("line", "<u8"),
        ("price", "<f8"),  # NaN: none
        ("quantity", "<i8"),  # 1 where the row says nothing
        ("source", "<i8"),  # origin: index into the block's sources
        ("offset", "<i8"),  # origin: row number in that source
    ]
)

LABEL_ROW = np.dtype(
    [
        *_ORDER,  # rank: 0 for an item, 1 otherwise; id: label key, or item; id2: sequence, or event; tie: op
        ("effect_ts", "<i8"),  # the effect's own time; ts is never below the stage's clock
        ("op", "<i8"),  # Op
        ("impression", "<u8"),  # label key: hash of K and the impression's name
        ("impression_ts", "<i8"),
        ("key", "<u8"),  # shard key K
        ("user", "<u8"),
        ("item", "<u8"),
    ]
)
"""With features: of the impression (op IMPRESSION: context columns), of the catalogue row (op ITEM: item columns)."""

COPURCHASE_ROW = np.dtype(
    [
        *_ORDER,  # rank: 2 * Pairing + (sign < 0); id: hash of K and the causing event; id2: its sequence; tie: target
        ("effect_ts", "<i8"),  # time of the purchase that made (not withdrew) the row
        ("kind", "<i8"),  # Pairing
        ("sign", "<i8"),  # +1, or -1: withdrawn by a return
        ("user", "<u8"),  # shard key K of a known user; 0: a guest
        ("source", "<u8"),  # PAIR: bought earlier
        ("target", "<u8"),  # PAIR: bought later; ITEM, PURCHASE: the item
        ("weight", "<i8"),  # PAIR: fixed point, 2**16 = 1
        ("quantity", "<i8"),  # PURCHASE: units
    ]
)
"""With features on ITEM rows: the item columns."""

OUTCOME_ROW = np.dtype(
    [
        *_ORDER,  # rank: 0; id: label key; id2: sequence; tie: 0
        ("epoch", "<i8"),  # day number of the impression (ts // epoch length)
        ("cell", "<i8"),  # score bin * uncertainty bins + uncertainty bin
        ("trials", "<i8"),  # +1 at the impression, else 0
        ("positives", "<i8"),  # +1 conversion, -1 reversal, else 0
    ]
)

EXAMPLE_ROW = np.dtype(
    [
        *_ORDER,  # rank: Example; id: label key; id2: sequence of emission for that label; tie: 0
        ("kind", "<i8"),  # Example
        ("label", "<i8"),  # 0 or 1
        ("weight", "<f8"),  # importance weight
        ("mass", "<f8"),  # gradient mass: signed, exact
        ("prediction", "<f8"),  # the model's probability at emission
        ("belief_before", "<f8"),
        ("belief_after", "<f8"),
        ("stage", "<i8"),  # 0 nothing yet, 1 clicked, 2 in the cart
        ("elapsed", "<i8"),  # ms since the impression
        ("clock", "<i8"),
        ("item", "<u8"),
        ("user", "<u8"),
    ]
)
"""With features: the hashed indices of `models.features`, uint32 [n, indices]."""


def join(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Structured arrays of one dtype one after the other; `numpy.concatenate` copies field by field, 15 times slower.

    >>> join([np.zeros(2, OUTCOME_ROW), np.ones(1, OUTCOME_ROW)])["trials"].tolist()
    [0, 0, 1]
    """
    return np.concatenate([whole(part) for part in parts]).view(parts[0].dtype)


def pick(rows: npt.NDArray[Any], which: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`rows[which]` of a structured array, for a mask or indices; numpy copies field by field, 12 times slower.

    >>> pick(np.ones(3, OUTCOME_ROW), np.array([True, False, True]))["trials"].tolist()
    [1, 1]
    """
    return whole(rows)[which].view(rows.dtype)
