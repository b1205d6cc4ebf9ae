"""The adjacency, slow and obvious: dictionaries, and sums made anew from every contribution that still stands."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

ITEM, PURCHASE, PAIR = 0, 1, 2
CAP = 1 << 16


class SlowAdjacency:
    """No bounds, no landmark, no shift: weights are plain floats at the end, in customers of the current generation."""

    def __init__(self, period: int, half_life: int) -> None:
        self.period, self.half_life = period, half_life
        self.shares: dict[tuple[int, int, int, int], int] = defaultdict(int)  # (user, u, v, generation) -> sum
        self.guests: dict[tuple[int, int, int], int] = defaultdict(int)  # (u, v, generation) -> sum of capped weights
        self.purchases: dict[tuple[int, int], int] = defaultdict(int)  # (item, generation) -> number
        self.recents: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.codes: dict[int, tuple[int, ...]] = {}
        self.last: dict[tuple[int, int], int] = {}
        self.items: list[int] = []
        self.now = 0

    def apply(self, row: Any, codes: tuple[int, ...]) -> None:
        self.now = max(self.now, int(row["ts"]))
        kind, sign, user = int(row["kind"]), int(row["sign"]), int(row["user"])
        u, v, ts = int(row["source"]), int(row["target"]), int(row["effect_ts"])
        generation = ts // self.period
        for item in (u, v) if kind == PAIR else (v,):
            if item not in self.items:
                self.items.append(item)
        if kind == ITEM:
            self.codes[v] = codes
        elif kind == PURCHASE:
            self.purchases[v, generation] += sign
            if user and sign > 0:
                self.recents[user].append((v, ts))
            elif user:
                mine = self.recents[user]
                place = max(i for i, entry in enumerate(mine) if entry == (v, ts))
                del mine[place]
        else:
            if user:
                self.shares[user, u, v, generation] += sign * int(row["weight"])
            else:
                self.guests[u, v, generation] += sign * min(CAP, int(row["weight"]))
            if sign > 0:
                self.last[u, v] = max(self.last.get((u, v), ts), ts)

    def _fade(self, generation: int, now: int) -> float:
        return 2.0 ** ((generation - now) * self.period / self.half_life)

    def weights(self) -> dict[tuple[int, int], float]:
        """Decayed customers of each pair that has any."""
        now = self.now // self.period
        sums: dict[tuple[int, int], float] = defaultdict(float)
        for (_, u, v, generation), weight in self.shares.items():
            sums[u, v] += min(weight, CAP) / CAP * self._fade(generation, now)
        for (u, v, generation), weight in self.guests.items():
            sums[u, v] += weight / CAP * self._fade(generation, now)
        return {pair: weight for pair, weight in sums.items() if weight > 0}

    def popularity(self) -> dict[int, float]:
        """Decayed purchases of each item."""
        now = self.now // self.period
        sums: dict[int, float] = defaultdict(float)
        for (item, generation), number in self.purchases.items():
            sums[item] += number * self._fade(generation, now)
        return dict(sums)
