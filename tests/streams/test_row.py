"""Row types: the order fields first, no padding (its bytes would reach the digests), codes that kernels agree on."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.streams.attribution import emit
from thalweg.streams.row import (
    COPURCHASE_ROW,
    DAY,
    EVENT_ROW,
    EXAMPLE_ROW,
    HOUR,
    LABEL_ROW,
    OUTCOME_ROW,
    Example,
    Op,
    Pairing,
    Type,
)  # fmt: skip

ROWS = {
    "event": EVENT_ROW,
    "label": LABEL_ROW,
    "copurchase": COPURCHASE_ROW,
    "outcome": OUTCOME_ROW,
    "example": EXAMPLE_ROW,
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_flat_words_in_the_total_order(name):
    row = ROWS[name]
    assert row.names is not None and row.names[:5] == ("ts", "rank", "id", "id2", "tie")
    assert [row[field].str for field in row.names[:5]] == ["<i8", "<i8", "<u8", "<u8", "<u8"]
    assert all(row[field].str in ("<i8", "<u8", "<f8") for field in row.names)
    assert row.itemsize == sum(row[field].itemsize for field in row.names)
    assert np.zeros(3, row).view(np.uint8).reshape(3, -1).shape == (3, row.itemsize)


def test_types_rank_causes_before_effects():
    """At one instant the catalogue comes first, then the impression, then what it caused, then what that caused."""
    order = [Type.ITEM, Type.IMPRESSION, Type.CLICK, Type.ADD_TO_CART, Type.PURCHASE, Type.RETURN, Type.PROGRESS]
    assert [int(type_) for type_ in order] == list(range(7))


def test_kernels_use_the_numbers_of_the_enumerations():
    types = (emit.ITEM, emit.VIEW, emit.CLICK, emit.CART, emit.BUY, emit.RETURN, emit.PROGRESS)
    assert types == tuple(Type)
    ops = (emit.OP_IMPRESSION, emit.OP_CLICK, emit.OP_CART, emit.OP_CONVERSION, emit.OP_EXPIRY, emit.OP_REVERSAL)
    assert ops == tuple(Op)[1:] and Op.ITEM == 0
    assert tuple(Pairing) == (0, 1, 2) and tuple(Example) == tuple(range(6))


def test_spans_are_milliseconds():
    assert (HOUR, DAY) == (3_600_000, 86_400_000)
