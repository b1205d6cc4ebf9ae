"""The decayed directed co-purchase adjacency: who bought V after U, how often, and lately.

An item table gives each item a dense node number in the order of first application, a popularity and its catalogue
codes. A pair table holds one entry for each ordered pair with its decayed weight. Both use forward decay by
generations (`decay`): integers only, so that a return restores what its purchase added, to the bit.

**A customer counts once.** Of one customer a pair's weight in one generation is capped at 1: the shares table keeps
what each customer gave in the two generations that a return can still reach. Without the cap a few households that buy
the same things every week make the graph (Complete Journey, HitRate@10 of the SVD: .076 without, .087 to .099 with it).

Bounds: pairs, shares, items and recent purchases each have a limit; what it drops is counted. A full pair table is
pruned to three quarters by shrunk z, at the very row that finds it full, so the result depends on the rows alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import adjacency_kernel as k
from .csr import Csr, build_rows
from .decay import ONE, Decay
from .hash_index import HashIndex
from .shrunk_z import keep_highest, marginals, shrunk_z
from .state_store import StateStore

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
Rows = np.ndarray[Any, np.dtype[Any]]

ITEM = np.dtype([("item", "<u8"), ("popularity", "<i8")])
PAIR = np.dtype([("source", "<i4"), ("target", "<i4"), ("weight", "<i8"), ("recent", "<i8"), ("last", "<i8")])
SHARE = np.dtype([("key", "<u8"), ("weight", "<i8")])
RECENT = np.dtype([("user", "<u8"), ("item", "<u8"), ("ts", "<i8"), ("before", "<i8"), ("alive", "<i8")])


class Limits(NamedTuple):
    """The most entries of each table."""

    items: int = 1 << 22
    pairs: int = 16_000_000
    shares: int = 16_000_000
    recents: int = 1 << 21


def _no_slots(entries: int) -> npt.NDArray[np.int32]:
    """An empty index for so many entries, at most half full."""
    return np.full(1 << max(10, (2 * entries - 1).bit_length()), -1, np.int32)


class Adjacency:
    """Tables of the co-purchase graph in a state store.

    Parameters
    ----------
    store : where the tables live
    decay : generations and half-life; a generation must be at least as long as a purchase can be withdrawn
    features : columns of the catalogue codes
    limits : bounds of the tables

    >>> graph = Adjacency(StateStore.memory(), Decay(10, 40), 0)
    >>> len(graph.items), len(graph.pairs)
    (0, 0)
    """

    def __init__(self, store: StateStore, decay: Decay, features: int, limits: Limits | None = None) -> None:
        self.store, self.decay, self.limits, self.features = store, decay, limits or Limits(), features
        self.items = store.growing("items", ITEM)
        self.codes = store.growing("item_codes", np.dtype([("codes", "<u4", (max(1, features),))]))
        self.pairs = store.growing("pairs", PAIR)
        self.shares = [store.growing("shares_even", SHARE), store.growing("shares_odd", SHARE)]
        self.recents = store.ring("recents", RECENT)
        self._sums = store.array("entry_sums", np.uint64, (4, 2))
        self._state = store.value(
            "adjacency", {"landmark": None, "generation": None, "shift": 0, "since": None, "kept": 0, "pruned_at": 0}
        )
        self._item_index, self._user_index = HashIndex(), HashIndex()
        self._pair_slots, self._share_slots = _no_slots(0), [_no_slots(0), _no_slots(0)]
        self._settings = np.zeros(k.SETTINGS, np.int64)
        self._factors = np.ones(2, np.int64)
        self._counters = np.zeros(len(k.DROPPED), np.int64)
        self._load()

    # ---- writing

    def apply(self, rows: Rows, features: npt.NDArray[np.uint32], order: npt.NDArray[np.int64]) -> None:
        """Apply rows[order[0]], rows[order[1]], ... of thalweg.copurchases, all of the current generation's time."""
        if not len(order):
            return
        if self._state.value["generation"] is None:
            self._begin(int(rows["ts"][order[0]]))
        position = 0
        while position < len(order):
            self._reserve(len(order) - position)
            position = int(
                k.apply_rows(
                    rows, features, order, position, self._item_table(),
                    self.codes.rows["codes"], (self.pairs.rows, self.pairs.count, self._pair_slots),
                    (self.shares[0].rows, self.shares[0].count, self._share_slots[0]),
                    (self.shares[1].rows, self.shares[1].count, self._share_slots[1]), self._ring(), self._sums.values,
                    self._settings, self._factors, self._counters,
                )
            )  # fmt: skip
            self.codes.count[0] = self.items.count[0]
            if position < len(order):
                self.prune(self.limits.pairs * 3 // 4, int(rows["ts"][order[position]]))
        for name, count in zip(k.DROPPED, self._counters.tolist()):
            self.store.count(name, count)
        self._counters[:] = 0

    def rotate(self, boundary: int) -> None:
        """Begin the generation that starts at `boundary` (ms): the last but one's shares go, sums are shifted."""
        state = self._state.value
        if state["generation"] is None:
            return
        state["generation"] = self.decay.generation(boundary)
        old = state["generation"] & 1
        self.shares[old].count[0] = 0
        self._share_slots[old] = _no_slots(0)
        self._sums.values[old] = 0
        shift = self.decay.doublings(state["generation"] - 1, state["landmark"]) - state["shift"]
        if shift > 0:
            state["shift"] += shift
            k.shift_pairs(self.pairs.entries(), shift)
            self.items.entries()["popularity"] >>= shift
            self._recount()
        self._refresh_settings()

    def begin_period(self, boundary: int) -> None:
        """Begin the refresh period that starts at `boundary` (ms): what comes from now on is `recent`."""
        self.pairs.entries()["recent"] = 0
        self._state.value["since"] = boundary
        self._refresh_settings()
        self._recount()

    def prune(self, most: int, now: int) -> int:
        """Keep the `most` pairs of highest shrunk z, and none of weight 0; the number dropped, which is counted."""
        entries = self.pairs.entries()
        weight = entries["weight"] / self.unit
        z = shrunk_z(entries["source"], entries["target"], weight, *self.marginals())
        z[entries["weight"] <= 0] = -np.inf
        mask = keep_highest(z, most) & (entries["weight"] > 0)
        kept = entries[mask]
        dropped = len(entries) - len(kept)
        self.pairs.rows[: len(kept)] = kept
        self.pairs.rows[len(kept) : len(entries)] = 0
        self.pairs.count[0] = len(kept)
        self._place_pairs(0)
        self._state.value.update(kept=len(kept), pruned_at=now)
        self._refresh_settings()
        self._recount()
        self.store.count("pairs pruned", dropped)
        return dropped

    # ---- reading

    @property
    def unit(self) -> int:
        """What one customer of the current generation weighs in the tables' fixed point."""
        return ONE * self._factor(self._state.value["generation"])

    def unit_at(self, ts: int) -> float:
        """What one customer at time `ts` (ms) weighs in the tables' fixed point."""
        state = self._state.value
        if state["generation"] is None:
            return float(self.unit)
        age = (state["generation"] * self.decay.period - ts) / self.decay.half_life
        return float(self.unit * 2.0**-age)

    @property
    def since(self) -> int | None:
        """Start of the current refresh period, ms; None before the first."""
        since: int | None = self._state.value["since"]
        return since

    def weights(self) -> F64:
        """Decayed customers of each pair, float64[pairs]."""
        return np.asarray(self.pairs.entries()["weight"] / self.unit)

    def marginals(self) -> tuple[F64, F64]:
        """Row sums of `weights` by source and by target, float64[items] each."""
        entries = self.pairs.entries()
        return marginals(entries["source"], entries["target"], self.weights(), len(self.items))

    def popularity(self) -> F64:
        """Decayed purchases of each item, float64[items]."""
        return np.asarray(self.items.entries()["popularity"] / self.unit)

    def node(self, item: int) -> int:
        """Node number of an item's hash; -1 where it is not known."""
        return int(self._item_index.find_many(np.array([item], np.uint64))[0])

    def nodes(self, items: U64) -> npt.NDArray[np.int64]:
        """Node numbers of item hashes, -1 where one is not known."""
        return self._item_index.find_many(items)

    def hashes(self) -> U64:
        """Item hash of each node, uint64[items]."""
        return np.ascontiguousarray(self.items.entries()["item"])

    def item_codes(self) -> npt.NDArray[np.uint32]:
        """Catalogue codes of each node, uint32[items, features]."""
        return np.asarray(self.codes.entries()["codes"][:, : self.features])

    def rows(self, incoming: bool = False) -> Csr:
        """Pairs by source (or by target), with decayed customers as values; built anew on each call."""
        entries = self.pairs.entries()
        ends = (entries["source"], entries["target"])
        near, far = ends[::-1] if incoming else ends
        return build_rows(near, far, self.weights(), len(self.items))

    def recent_purchases(self, user: int, most: int) -> list[tuple[int, int]]:
        """The user's latest unreturned purchases, newest first: (item hash, time in ms)."""
        number = int(self._user_index.find_many(np.array([user], np.uint64))[0])
        found: list[tuple[int, int]] = []
        while number >= self.recents.ends[0] and len(found) < most:
            entry = self.recents.rows[number & (len(self.recents.rows) - 1)]
            if entry["alive"]:
                found.append((int(entry["item"]), int(entry["ts"])))
            number = int(entry["before"])
        return found

    def keys(self) -> U64:
        """Hash of each pair, uint64[pairs]."""
        out = np.empty(len(self.pairs), np.uint64)
        k.pair_keys(self.pairs.entries(), self.hashes(), out)
        return out

    def entries(self) -> list[tuple[str, Rows]]:
        """Logical entries for the digest. Pairs, shares and recents stand as running sums over their entries."""
        sums = [("pairs", self._sums.values[k.PAIRS :][:1]), ("recents", self._sums.values[k.RECENTS :][:1])]
        shares = (self._sums.values[k.EVEN] + self._sums.values[k.ODD]).reshape(1, 2)
        coded = np.zeros(len(self.items), np.dtype([("item", "<u8"), ("codes", "<u4", (max(1, self.features),))]))
        coded["item"] = self.items.entries()["item"]
        coded["codes"] = self.codes.entries()["codes"]
        return [*sums, ("shares", shares), ("items", self.items.entries()), ("item_codes", coded)]

    # ---- inside

    def _begin(self, ts: int) -> None:
        generation = self.decay.generation(ts)
        self._state.value.update(generation=generation, landmark=generation - 1)
        if self._state.value["since"] is None:
            self._state.value["since"] = ts
        self._refresh_settings()

    def _factor(self, generation: int | None) -> int:
        state = self._state.value
        return ONE if generation is None else self.decay.factor(generation, state["landmark"], state["shift"])

    def _refresh_settings(self) -> None:
        state, s = self._state.value, self._settings
        s[k.PERIOD], s[k.KEPT], s[k.PRUNED_AT] = self.decay.period, state["kept"], state["pruned_at"]
        s[[k.ITEM_LIMIT, k.PAIR_LIMIT, k.SHARE_LIMIT, k.RECENT_LIMIT]] = self.limits
        if state["generation"] is not None:
            s[k.GENERATION], s[k.SINCE] = state["generation"], state["since"]
            for generation in (state["generation"] - 1, state["generation"]):
                self._factors[generation & 1] = self._factor(generation)

    def _reserve(self, more: int) -> None:
        """Room for `more` rows: a kernel cannot make any."""
        self.items.reserve(2 * more)
        self._item_index.reserve(2 * more)
        self.codes.reserve(len(self.items) + 2 * more - len(self.codes))
        self.recents.reserve(min(more, self.limits.recents - len(self.recents)))
        self._user_index.reserve(more)
        room = min(more, self.limits.pairs - len(self.pairs))
        self.pairs.reserve(room)
        if 2 * (len(self.pairs) + room) > len(self._pair_slots):
            self._place_pairs(room)
        for which, table in enumerate(self.shares):
            room = min(more, self.limits.shares - len(table))
            table.reserve(room)
            if 2 * (len(table) + room) > len(self._share_slots[which]):
                self._place_shares(which, room)

    def _item_table(self) -> tuple[Any, ...]:
        index = self._item_index
        return self.items.rows, self.items.count, index.keys, index.values, index.count

    def _ring(self) -> tuple[Any, ...]:
        index = self._user_index
        return self.recents.rows, self.recents.ends, index.keys, index.values, index.count

    def _place_pairs(self, more: int) -> None:
        self._pair_slots = _no_slots(len(self.pairs) + more)
        k.place_pairs(self.pairs.entries(), self.keys(), self._pair_slots)

    def _place_shares(self, which: int, more: int) -> None:
        self._share_slots[which] = _no_slots(len(self.shares[which]) + more)
        k.place_shares(self.shares[which].entries(), self._share_slots[which])

    def _recount(self) -> None:
        k.recount_pairs(self.pairs.entries(), self.keys(), self._sums.values)

    def _load(self) -> None:
        """Rebuild the hash indexes, which are never stored; those that only learning asks, where it can learn."""
        self._refresh_settings()
        self._item_index.put_many(self.hashes(), np.arange(len(self.items)))
        if not self.store.read_only:  # 220 MB for 12 million pairs
            self._place_pairs(0)
            for which in (0, 1):
                self._place_shares(which, 0)
        self._user_index.reserve(len(self.recents))
        k.last_of_users(self.recents.rows, self.recents.ends, *self._table_of_users())

    def _table_of_users(self) -> tuple[Any, ...]:
        return self._user_index.keys, self._user_index.values, self._user_index.count
