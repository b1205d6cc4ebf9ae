"""The kernel that applies thalweg.copurchases rows to the adjacency, one after the other.

Items come as a tuple (rows, count, keys, values, keys_count): a dense table and the hash index into it. Pairs and
shares, of which there are many, come as (rows, count, slots): `slots` holds entry numbers alone, -1 where it is empty,
and what is looked for is compared with the entry itself: 8 bytes an entry instead of 32. The running sums are what the
digest is made of: each entry's two hashes are taken out before a change and put in after it.
"""

from __future__ import annotations

import numpy as np

from .hash import mix64, pair64
from .hash_index import delete, find, put
from .kernel import kernel, lean_kernel, merged_kernel

ITEM, PURCHASE, PAIR = 0, 1, 2  # kinds of a row, as in thalweg.streams.row.Pairing

GENERATION, PERIOD, SINCE, KEPT, PRUNED_AT, ITEM_LIMIT, PAIR_LIMIT, SHARE_LIMIT, RECENT_LIMIT = range(9)
SETTINGS = 9

EVEN, ODD, PAIRS, RECENTS = range(4)  # rows of `sums`; shares by the parity of their generation

ITEMS_FULL, SHARES_FULL, TOO_OLD, WITHDRAWN_UNKNOWN, WITHDRAWN_PRUNED, RECENTS_EVICTED = range(6)
DROPPED = (
    "items: table full",
    "pairs: customer not tracked, shares full",
    "rows older than two generations",
    "withdrawals of what is not kept",
    "withdrawals from a pruned pair",
    "recent purchases pushed out",
)

CAP = np.int64(1 << 16)
_TURN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@merged_kernel
def _entry(a, b, c, d):  # type: ignore[no-untyped-def]
    return mix64(mix64(mix64(a + _TURN * np.uint64(b)) ^ np.uint64(c)) + np.uint64(d))


@merged_kernel
def _count_entry(sums, which, hashed, sign):  # type: ignore[no-untyped-def]
    other = mix64(hashed ^ _TURN)
    if sign > 0:
        sums[which, 0] += hashed
        sums[which, 1] += other
    else:
        sums[which, 0] -= hashed
        sums[which, 1] -= other


@merged_kernel
def _find_share(rows, slots, key):  # type: ignore[no-untyped-def]
    """Place in `slots` of a share, or of the empty cell where it belongs."""
    mask = slots.shape[0] - 1
    place = np.int64(key >> _HALF) & mask
    while slots[place] >= 0 and rows[slots[place]]["key"] != key:
        place = (place + 1) & mask
    return place


@merged_kernel
def _find_pair(rows, slots, key, u, v):  # type: ignore[no-untyped-def]
    """Place in `slots` of the pair (u, v) of nodes, or of the empty cell where it belongs."""
    mask = slots.shape[0] - 1
    place = np.int64(key >> _HALF) & mask
    while slots[place] >= 0 and (rows[slots[place]]["source"] != u or rows[slots[place]]["target"] != v):
        place = (place + 1) & mask
    return place


@merged_kernel
def node_of(items, item, settings):  # type: ignore[no-untyped-def]
    """Dense number of an item, made when it is new; -1 where the item table is full."""
    rows, count, keys, values, keys_count = items
    node = find(keys, values, item)
    if node < 0 and count[0] < settings[ITEM_LIMIT]:
        node = count[0]
        rows[node]["item"] = item
        rows[node]["popularity"] = 0
        count[0] += 1
        put(keys, values, keys_count, item, node)
    return node


@merged_kernel
def _share(shares, sums, which, key, weight, sign, settings):  # type: ignore[no-untyped-def]
    """Change of what a customer counts for a pair in a generation, in [-CAP, CAP]; -2 * CAP: not kept, ignore."""
    rows, count, slots = shares
    place = _find_share(rows, slots, key)
    slot = np.int64(slots[place])
    if slot < 0:
        if sign < 0 or count[0] >= settings[SHARE_LIMIT]:
            return -2 * CAP
        slot = count[0]
        count[0] += 1
        rows[slot]["key"] = key
        rows[slot]["weight"] = 0
        slots[place] = slot
    before = rows[slot]["weight"]
    after = max(np.int64(0), before + sign * weight)
    rows[slot]["weight"] = after
    if before > 0:
        _count_entry(sums, which, _entry(key, before, 0, 0), -1)
    if after > 0:
        _count_entry(sums, which, _entry(key, after, 0, 0), 1)
    return min(after, CAP) - min(before, CAP)


@merged_kernel
def _add_to_pair(pairs, sums, key, u, v, change, ts, settings):  # type: ignore[no-untyped-def]
    """Add `change` (decayed fixed point) to a pair; True unless it was not kept."""
    rows, count, slots = pairs
    place = _find_pair(rows, slots, key, u, v)
    slot = np.int64(slots[place])
    if slot < 0:
        if change < 0:
            return False
        slot = count[0]
        count[0] += 1
        rows[slot]["source"] = u
        rows[slot]["target"] = v
        rows[slot]["weight"] = 0
        rows[slot]["recent"] = 0
        rows[slot]["last"] = ts
        slots[place] = slot
    else:
        if change < 0 and slot >= settings[KEPT] and ts < settings[PRUNED_AT]:
            return False
        _count_entry(sums, PAIRS, _entry(key, rows[slot]["weight"], rows[slot]["recent"], rows[slot]["last"]), -1)
    rows[slot]["weight"] = max(np.int64(0), rows[slot]["weight"] + change)
    if ts >= settings[SINCE]:
        rows[slot]["recent"] += change
    if change > 0:
        rows[slot]["last"] = max(rows[slot]["last"], ts)
    _count_entry(sums, PAIRS, _entry(key, rows[slot]["weight"], rows[slot]["recent"], rows[slot]["last"]), 1)
    return True


@merged_kernel
def _apply_pair(row, items, pairs, even, odd, sums, settings, factors, counters):  # type: ignore[no-untyped-def]
    ts = row["effect_ts"]
    generation = ts // settings[PERIOD]
    u, v = node_of(items, row["source"], settings), node_of(items, row["target"], settings)
    if u < 0 or v < 0:
        counters[ITEMS_FULL] += 1
        return
    if generation < settings[GENERATION] - 1:
        counters[TOO_OLD] += 1
        return
    key = pair64(row["source"], row["target"])
    weight, sign = row["weight"], row["sign"]
    change = sign * min(weight, CAP)
    if row["user"] != np.uint64(0):
        which = generation & 1
        mine = mix64(pair64(row["user"], key) + np.uint64(generation))
        if which == 0:
            change = _share(even, sums, EVEN, mine, weight, sign, settings)
        else:
            change = _share(odd, sums, ODD, mine, weight, sign, settings)
        if change == -2 * CAP:
            counters[WITHDRAWN_UNKNOWN if sign < 0 else SHARES_FULL] += 1
            return
    if change != 0 and not _add_to_pair(pairs, sums, key, u, v, change * factors[generation & 1], ts, settings):
        counters[WITHDRAWN_PRUNED] += 1


@merged_kernel
def _hash_recent(entry):  # type: ignore[no-untyped-def]
    return _entry(entry["user"], entry["item"], entry["ts"], 0)


@merged_kernel
def _remember(recents, sums, user, item, ts, settings, counters):  # type: ignore[no-untyped-def]
    """Append a purchase to the ring and link it to the user's purchase before; push out the oldest when full."""
    rows, ends, keys, values, keys_count = recents
    mask = rows.shape[0] - 1
    if ends[1] - ends[0] >= settings[RECENT_LIMIT]:
        old = rows[ends[0] & mask]
        if old["alive"] == 1:
            _count_entry(sums, RECENTS, _hash_recent(old), -1)
            counters[RECENTS_EVICTED] += 1
        if find(keys, values, old["user"]) == ends[0]:
            delete(keys, values, keys_count, old["user"])
        ends[0] += 1
    number = ends[1]
    ends[1] += 1
    entry = rows[number & mask]
    entry["user"] = user
    entry["item"] = item
    entry["ts"] = ts
    entry["alive"] = 1
    entry["before"] = put(keys, values, keys_count, user, number)
    _count_entry(sums, RECENTS, _hash_recent(entry), 1)


@merged_kernel
def _forget(recents, sums, user, item, ts, counters):  # type: ignore[no-untyped-def]
    """Take a returned purchase out of the user's recents."""
    rows, ends, keys, values, _ = recents
    mask = rows.shape[0] - 1
    number = find(keys, values, user)
    while number >= ends[0]:
        entry = rows[number & mask]
        if entry["alive"] == 1 and entry["item"] == item and entry["ts"] == ts:
            entry["alive"] = 0
            _count_entry(sums, RECENTS, _hash_recent(entry), -1)
            return
        number = entry["before"]
    counters[WITHDRAWN_UNKNOWN] += 1


@merged_kernel
def _apply_purchase(row, items, recents, sums, settings, factors, counters):  # type: ignore[no-untyped-def]
    ts = row["effect_ts"]
    generation = ts // settings[PERIOD]
    node = node_of(items, row["target"], settings)
    if node < 0:
        counters[ITEMS_FULL] += 1
    elif generation < settings[GENERATION] - 1:
        counters[TOO_OLD] += 1
    else:
        items[0][node]["popularity"] += row["sign"] * CAP * factors[generation & 1]
    if row["user"] != np.uint64(0):
        if row["sign"] > 0:
            _remember(recents, sums, row["user"], row["target"], ts, settings, counters)
        else:
            _forget(recents, sums, row["user"], row["target"], ts, counters)


@lean_kernel
def apply_rows(  # type: ignore[no-untyped-def]
    rows, features, order, begin, items, codes, pairs, even, odd, recents, sums, settings, factors, counters
):
    """Apply rows[order[begin]], ... in order; the position reached: below len(order) where the pair table is full."""
    for position in range(begin, order.shape[0]):
        i = order[position]
        row = rows[i]
        if row["kind"] == ITEM:
            node = node_of(items, row["target"], settings)
            if node < 0:
                counters[ITEMS_FULL] += 1
            else:
                for f in range(features.shape[1]):
                    codes[node, f] = features[i, f]
        elif row["kind"] == PURCHASE:
            _apply_purchase(row, items, recents, sums, settings, factors, counters)
        else:
            if pairs[1][0] >= settings[PAIR_LIMIT]:
                return position
            _apply_pair(row, items, pairs, even, odd, sums, settings, factors, counters)
    return order.shape[0]


@kernel
def recount_pairs(rows, keys, sums):  # type: ignore[no-untyped-def]
    """The pairs' running sums anew, from all entries; `keys` are their hashes."""
    sums[PAIRS, 0] = np.uint64(0)
    sums[PAIRS, 1] = np.uint64(0)
    for i in range(rows.shape[0]):
        _count_entry(sums, PAIRS, _entry(keys[i], rows[i]["weight"], rows[i]["recent"], rows[i]["last"]), 1)


@kernel
def pair_keys(rows, item, out):  # type: ignore[no-untyped-def]
    """Hash of each pair from the hashes of its ends."""
    for i in range(rows.shape[0]):
        out[i] = pair64(item[rows[i]["source"]], item[rows[i]["target"]])


@kernel
def shift_pairs(rows, shift):  # type: ignore[no-untyped-def]
    """Divide every weight by 2**shift, rounding down."""
    for i in range(rows.shape[0]):
        rows[i]["weight"] >>= shift
        rows[i]["recent"] >>= shift


@kernel
def last_of_users(rows, ends, keys, values, keys_count):  # type: ignore[no-untyped-def]
    """Fill the index from a user to the number of the user's latest purchase in the ring."""
    mask = rows.shape[0] - 1
    for number in range(ends[0], ends[1]):
        put(keys, values, keys_count, rows[number & mask]["user"], number)


@kernel
def place_pairs(rows, keys, slots):  # type: ignore[no-untyped-def]
    """Fill `slots`, all -1, with the numbers of the pairs; `keys` are their hashes."""
    for i in range(rows.shape[0]):
        slots[_find_pair(rows, slots, keys[i], rows[i]["source"], rows[i]["target"])] = i


@kernel
def place_shares(rows, slots):  # type: ignore[no-untyped-def]
    """Fill `slots`, all -1, with the numbers of the shares."""
    for i in range(rows.shape[0]):
        slots[_find_share(rows, slots, rows[i]["key"])] = i
