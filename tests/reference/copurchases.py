"""Rows of thalweg.copurchases for tests: random ones with returns, and a shop with a planted one-way structure."""

from __future__ import annotations

import numpy as np

from thalweg.streams.row import COPURCHASE_ROW, DAY, Pairing

ONE = 1 << 16


def make_rows(entries: list[tuple[int, int, int, int, int, int, int, int]]) -> np.ndarray:
    """Rows from (ts, effect_ts, kind, sign, user, source, target, weight), in the order of the stage."""
    rows = np.zeros(len(entries), COPURCHASE_ROW)
    for i, (ts, effect_ts, kind, sign, user, source, target, weight) in enumerate(entries):
        for name, value in (
            ("ts", ts), ("rank", kind), ("id", i + 1), ("id2", 0), ("tie", sign & 3), ("effect_ts", effect_ts),
            ("kind", kind), ("sign", sign), ("user", user), ("source", source), ("target", target),
            ("weight", weight), ("quantity", 1),
        ):  # fmt: skip
            rows[name][i] = value
    return rows[np.argsort(rows["ts"], kind="stable")]


def random_rows(seed: int, n: int, days: int, return_days: int = 20, items: int = 8, users: int = 5) -> np.ndarray:
    """Pairs and purchases of a few users, guests (user 0) among them; a third of all is withdrawn later."""
    draw = np.random.default_rng(seed)
    entries = []
    for _ in range(n):
        ts = int(draw.integers(0, days * DAY))
        user = int(draw.integers(0, users))
        kind = int(draw.choice([Pairing.ITEM, Pairing.PURCHASE, Pairing.PAIR], p=[0.05, 0.25, 0.7]))
        source, target = (int(x) + 1 for x in draw.integers(0, items, 2))
        weight = int(draw.integers(1, 2 * ONE))
        entries.append((ts, ts, kind, 1, user, source, target, weight))
        if kind != Pairing.ITEM and draw.random() < 0.33:
            entries.append((ts + int(draw.integers(1, return_days * DAY)), ts, kind, -1, user, source, target, weight))
    return make_rows(entries)


def planted_rows(seed: int, users: int, days: int, pairs: int = 6, noise: int = 12) -> np.ndarray:
    """Customers who buy phone 100 + i and days later case 200 + i, never the other way round, among popular items.

    Each customer also buys popular items 1 .. noise in any order, so every pair of those goes both ways.
    """
    draw = np.random.default_rng(seed)
    entries = []
    for user in range(1, users + 1):
        basket: list[tuple[int, int]] = []
        start = int(draw.integers(0, (days - 5) * DAY))
        kind = int(draw.integers(0, pairs))
        basket.append((start, 100 + kind))
        basket.append((start + DAY + int(draw.integers(0, 2 * DAY)), 200 + kind))
        for _ in range(4):
            basket.append((start + int(draw.integers(0, 4 * DAY)), 1 + int(draw.zipf(1.3)) % noise))
        basket.sort()
        for j, (ts, item) in enumerate(basket):
            entries.append((ts, ts, Pairing.PURCHASE, 1, user, 0, item, 0))
            for earlier in {other for when, other in basket[:j] if when < ts and other != item}:
                entries.append((ts, ts, Pairing.PAIR, 1, user, earlier, item, ONE))
    return make_rows(entries)
