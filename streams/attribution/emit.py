"""Codes that the kernels of attribution share, and the rows they emit."""

from __future__ import annotations

import math

import numpy as np

from ...graph_store.hash import pair64
from ...graph_store.kernel import kernel, merged_kernel

DONE, GROW_LABELS, GROW_COPURCHASES, GROW_PAIRS, GROW_REJECTS, GROW_SCRATCH = 0, 1, 2, 3, 4, 5

# columns of the books; the order is that of tables.BOOKS
APPLIED, DUPLICATE, CONFLICT, SET_ASIDE, ATTRIBUTED, UNATTRIBUTED, ORPHAN, REPEAT = 1, 2, 3, 4, 5, 6, 7, 8
LATE, DUPLICATE_LINE, DUPLICATE_IMPRESSION, CAPPED, OVER, LATE_CONVERSION, LATE_LABEL = 9, 10, 11, 12, 13, 14, 15
REVERSED, LATE_CLICK = 16, 17

ITEM, VIEW, CLICK, CART, BUY, RETURN, PROGRESS = 0, 1, 2, 3, 4, 5, 6
OP_IMPRESSION, OP_CLICK, OP_CART, OP_CONVERSION, OP_EXPIRY, OP_REVERSAL = 1, 2, 3, 4, 5, 6
EXPIRY_SEQUENCE = np.uint64(2**40)
FIRST_TOGGLE = 3
ZERO = np.uint64(0)
RETURN_CAUSE = np.uint64(0x72657475726E)
LN2 = math.log(2.0)
FIXED = 65536.0
AHEAD = 5  # rows, or ring entries, whose index cells are asked for in advance: about a microsecond of work


@kernel
def pair_many(a, b):  # type: ignore[no-untyped-def]
    """pair64 of each pair of uint64 values: uint64[n]."""
    out = np.empty(a.shape[0], np.uint64)
    for i in range(a.shape[0]):
        out[i] = pair64(a[i], b[i])
    return out


@merged_kernel
def emit_label(out, used, now, effect_ts, op, sequence, label, impression_ts, key, user, item):  # type: ignore[no-untyped-def]
    """Append one label operation; `used[0]` counts them."""
    k = used[0]
    out["ts"][k] = now
    out["rank"][k] = 1
    out["id"][k] = label
    out["id2"][k] = sequence
    out["tie"][k] = np.uint64(op)
    out["effect_ts"][k] = effect_ts
    out["op"][k] = op
    out["impression"][k] = label
    out["impression_ts"][k] = impression_ts
    out["key"][k] = key
    out["user"][k] = user
    out["item"][k] = item
    used[0] = k + 1


@merged_kernel
def emit_copurchase(out, used, now, effect_ts, kind, sign, event, sequence, user, source, target, weight, quantity):  # type: ignore[no-untyped-def]
    """Append one co-purchase row; `used[1]` counts them."""
    k = used[1]
    out["ts"][k] = now
    out["rank"][k] = 2 * kind + (1 if sign < 0 else 0)
    out["id"][k] = event
    out["id2"][k] = np.uint64(sequence)
    out["tie"][k] = target
    out["effect_ts"][k] = effect_ts
    out["kind"][k] = kind
    out["sign"][k] = sign
    out["user"][k] = user
    out["source"][k] = source
    out["target"][k] = target
    out["weight"][k] = weight
    out["quantity"][k] = quantity
    used[1] = k + 1
