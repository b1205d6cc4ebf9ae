"""Random streams of label operations as attribution would emit them."""

from __future__ import annotations

import numpy as np

from thalweg.graph_store.hash import hash_text
from thalweg.streams.row import LABEL_ROW, Op

START = 1_700_000_000_000


def random_labels(
    n: int, window: int, features: int = 2, seed: int = 0, rate: float = 0.3, span: int | None = None, users: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """(LABEL_ROW, uint32[., features]) in total order: n impressions and all that becomes of them, and item rows.

    Conversions inside the window and after it, reversals and second conversions, clicks and carts, late arrivals, equal
    times, and a few operations of impressions that never were.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[tuple[int, ...], list[int]]] = []
    span = 3 * window if span is None else span

    def add(op: Op, ts: int, sequence: int, label: int, shown: int, user: int, item: int, codes: list[int]) -> None:
        rank = 0 if op == Op.ITEM else 1
        key = item if op == Op.ITEM else label
        rows.append(((ts, rank, key, sequence, int(op), ts, int(op), label, shown, user, user, item), codes))

    items = [hash_text(f"item {i}") for i in range(6)]
    nothing = [0] * features
    for version in range(8):
        codes = rng.integers(0, 4, features).tolist()
        ts = START + int(rng.integers(0, span))
        add(Op.ITEM, ts, version, 0, 0, 0, items[version % 4], codes)
    for i in range(n):
        label, shown = hash_text(f"label {i}"), START + int(rng.integers(0, span)) // 7 * 7
        ts = shown + (int(rng.integers(0, 50)) if rng.random() < 0.1 else 0)
        user = hash_text(f"user {rng.integers(0, users)}") if rng.random() < 0.8 else 0
        who = (label, shown, user, int(rng.choice([*items, 0])))
        add(Op.IMPRESSION, ts, 0, *who, rng.integers(0, 3, features).tolist())
        for op, sequence in ((Op.CLICK, 1), (Op.ADD_TO_CART, 2)):
            if rng.random() < 0.4:
                add(op, ts + int(rng.integers(0, window)), sequence, *who, nothing)
        add(Op.EXPIRY, ts + window, 2**40, *who, nothing)
        at, sequence = ts + int(rng.integers(0, int(window * 1.15))), 3
        while rng.random() < rate and sequence < 7:
            op = Op.CONVERSION if sequence % 2 else Op.REVERSAL
            add(op, at, sequence, *who, nothing)
            at, sequence = at + int(rng.integers(1, window)), sequence + 1
    add(Op.CLICK, START + span // 2, 1, 77, START, 0, items[0], nothing)
    add(Op.CONVERSION, START + span // 2, 3, 78, START, 0, items[0], nothing)
    rows.sort(key=lambda row: row[0][:5])
    codes_out = np.array([codes for _, codes in rows], np.uint32).reshape(-1, features)
    return np.array([row for row, _ in rows], LABEL_ROW), codes_out
