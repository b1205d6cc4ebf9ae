"""The kernel of attribution: applies events in order, one after the other, on flat tables.

It stops and says what must grow rather than allocate: the caller grows it and calls again at the row where it
stopped. The rules are in ARCHITECTURE.md; `tests/reference/attribution.py` is the slow, obvious twin.
"""

from __future__ import annotations

import numpy as np

from ...graph_store.hash import pair64
from ...graph_store.hash_index import find, prefetch_key, put
from ...graph_store.kernel import lean_kernel, merged_kernel
from .effects import apply_effect, open_impression
from .emit import (
    AHEAD,
    APPLIED,
    BUY,
    CONFLICT,
    DONE,
    DUPLICATE,
    DUPLICATE_IMPRESSION,
    DUPLICATE_LINE,
    GROW_COPURCHASES,
    GROW_LABELS,
    GROW_PAIRS,
    GROW_REJECTS,
    GROW_SCRATCH,
    ITEM,
    LATE,
    PROGRESS,
    RETURN,
    SET_ASIDE,
    VIEW,
    ZERO,
    emit_copurchase,
    emit_label,
)
from .orders import apply_purchase, apply_return, order_line_key
from .timers import fire_timers


@merged_kernel
def known_impression(s, e, i):  # type: ignore[no-untyped-def]
    """Entry of the impression that row i names, -1: none."""
    return find(s.label_keys, s.label_values, pair64(e["key"][i], e["impression"][i]))


@merged_kernel
def is_duplicate(s, e, i, now, used):  # type: ignore[no-untyped-def]
    """Has this event, impression or order line been seen? used[3] is set where the same id had other content."""
    type_, key, content = e["rank"][i], e["key"][i], e["tie"][i]
    books = s.books
    plain = type_ == VIEW and e["impression"][i] == e["id"][i]
    known = np.int64(-1)
    before = ZERO
    orders = type_ == BUY or type_ == RETURN
    rows, ends = (s.seen_orders, s.seen_orders_ends) if orders else (s.seen, s.seen_ends)
    event = pair64(pair64(key, np.uint64(type_)), e["id"][i])
    if plain:
        known = known_impression(s, e, i)
        before = s.impressions["content"][known & (s.impressions.shape[0] - 1)]
    else:
        known = find(s.seen_keys, s.seen_values, event)
        before = rows["content"][known & (rows.shape[0] - 1)]
    if known >= 0:
        books[type_, DUPLICATE if before == content else CONFLICT] += 1
        used[3] = 0 if before == content else 1
        return True
    if plain:
        return False
    if type_ == VIEW and known_impression(s, e, i) >= 0:
        books[type_, DUPLICATE] += 1
        books[type_, DUPLICATE_IMPRESSION] += 1
        return True
    if type_ == BUY:
        line = order_line_key(key, e["order"][i], e["line"][i], e["item"][i], e["quantity"][i])
        if line != ZERO and find(s.line_keys, s.line_values, line) >= 0:
            books[type_, DUPLICATE] += 1
            books[type_, DUPLICATE_LINE] += 1
            return True
    k = ends[1] & (rows.shape[0] - 1)
    rows["key"][k] = event
    rows["content"][k] = content
    rows["effective"][k] = now
    put(s.seen_keys, s.seen_values, s.seen_count, event, ends[1])
    ends[1] += 1
    return False


@merged_kernel
def apply_item(out, features_out, pairs_out, pair_features_out, used, e, features, i, now):  # type: ignore[no-untyped-def]
    """A catalogue row goes to both sides."""
    at, pair_at = used[0], used[1]
    emit_label(out, used, now, e["ts"][i], 0, e["id"][i], e["item"][i], e["ts"][i], e["key"][i], ZERO, e["item"][i])
    out["rank"][at] = 0
    out["impression"][at] = ZERO
    emit_copurchase(pairs_out, used, now, e["ts"][i], 0, 1, pair64(e["key"][i], e["id"][i]), 0, ZERO, ZERO,
                    e["item"][i], np.int64(0), np.int64(0))  # fmt: skip
    for f in range(features.shape[1]):
        features_out[at, f] = features[i, f]
        pair_features_out[pair_at, f] = features[i, f]


@merged_kernel
def count_returnable(s, e, i):  # type: ignore[no-untyped-def]
    """Upper bound of the rows that a purchase or return may emit on thalweg.copurchases beyond its own pairs."""
    rows, tail = s.purchases, s.purchase_ends[0]
    mask = rows.shape[0] - 1
    node = find(s.user_keys, s.user_values, e["key"][i])
    total = np.int64(0)
    while node >= 0:
        line = node
        while line >= tail:
            total += rows["pair_count"][line & mask] + 1
            line = rows["older_item"][line & mask]
        node = rows["older"][node & mask]
    lines = find(s.line_item_keys, s.line_item_values, pair64(e["key"][i], e["item"][i]))
    while lines >= tail:
        total += 1
        lines = rows["older_item"][lines & mask]
    return total


@merged_kernel
def find_room(s, e, i, out, pairs_out, used, rules):  # type: ignore[no-untyped-def]
    """What must grow before row i can be applied, else DONE."""
    type_ = e["rank"][i]
    waiting = s.waiting_ends[1] - s.waiting_ends[0] + s.waiting_skew_ends[1] - s.waiting_skew_ends[0]
    if used[0] + 4 + waiting > out.shape[0]:
        return GROW_LABELS
    if waiting > s.chain.shape[0]:
        return GROW_SCRATCH
    if type_ == ITEM and used[1] + 1 > pairs_out.shape[0]:
        return GROW_COPURCHASES
    if type_ == BUY or type_ == RETURN:
        more = rules.history + 2
        if type_ == RETURN or s.pointers[1] > 0:
            more += count_returnable(s, e, i)
            if used[0] + 4 + waiting + more > out.shape[0]:
                return GROW_LABELS
            if more > s.found.shape[0]:
                return GROW_SCRATCH
        if used[1] + more > pairs_out.shape[0]:
            return GROW_COPURCHASES
        if s.pair_ends[1] - s.pair_ends[0] + rules.history > s.pairs.shape[0]:
            return GROW_PAIRS
        if 2 * (s.pair_count[0] + rules.history) > s.pair_keys.shape[0]:
            return GROW_PAIRS
    return DONE


@merged_kernel
def is_too_old(rules, type_, ts, clock):  # type: ignore[no-untyped-def]
    """Is a late row beyond the memory that would tell its duplicate?"""
    if type_ == ITEM or type_ == PROGRESS:
        return False
    return ts < clock - (rules.return_window if type_ == BUY or type_ == RETURN else rules.window)


@merged_kernel
def look_ahead(s, e, i):  # type: ignore[no-untyped-def]
    """Ask for the index cells that row i will touch; changes when memory is read, never what is computed."""
    key, type_ = e["key"][i], e["rank"][i]
    if type_ == VIEW or e["impression"][i] != ZERO:
        prefetch_key(s.label_keys, s.label_values, pair64(key, e["impression"][i]))
    if type_ != VIEW or e["impression"][i] != e["id"][i]:
        prefetch_key(s.seen_keys, s.seen_values, pair64(pair64(key, np.uint64(type_)), e["id"][i]))
    if type_ == VIEW or e["impression"][i] == ZERO:
        prefetch_key(s.item_keys, s.item_values, pair64(key, e["item"][i]))
    if type_ == VIEW and e["request"][i] != ZERO:
        prefetch_key(s.request_keys, s.request_values, pair64(pair64(key, e["request"][i]), e["item"][i]))


@lean_kernel
def attribute_rows(s, rules, e, features, order, start, clock, before, out, features_out, pairs_out, pair_features_out,
                   used, rejects):  # type: ignore[no-untyped-def] # fmt: skip
    """Apply rows e[order[start]], ... in order, then fire the timers due below `before`.

    Parameters
    ----------
    s : namedtuple of tables and indexes (attribution.State)
    clock : the stage's clock where the rows come late, else NO_CLOCK
    used : int64[4], numbers of rows used in `out`, `pairs_out`, `rejects`, grown by the call; the fourth is scratch
    rejects : int64[n, 3]: index of the row, reason (0 conflict, 1 set aside), type

    Returns
    -------
    (status, next) : DONE, or what must grow before the call goes on at order[next]
    """
    late = clock > -(2**61)
    for j in range(start, order.shape[0]):
        i = order[j]
        if j + AHEAD < order.shape[0]:
            look_ahead(s, e, order[j + AHEAD])
        type_, ts = e["rank"][i], e["ts"][i]
        now = clock if late else ts
        if not late and not fire_timers(s, out, used, rules, ts):
            return GROW_LABELS, j
        status = find_room(s, e, i, out, pairs_out, used, rules)
        if status == DONE and used[2] >= rejects.shape[0]:
            status = GROW_REJECTS
        if status != DONE:
            return status, j
        if type_ == PROGRESS:
            s.books[type_, APPLIED] += 1
            continue
        aside = late and is_too_old(rules, type_, ts, clock)
        used[3] = 0
        if late and not aside:
            s.books[type_, LATE] += 1
        if aside or is_duplicate(s, e, i, now, used):
            if aside:
                s.books[type_, SET_ASIDE] += 1
            if aside or used[3] == 1:
                rejects[used[2], 0] = i
                rejects[used[2], 1] = 1 if aside else 0
                rejects[used[2], 2] = type_
                used[2] += 1
            continue
        s.books[type_, APPLIED] += 1
        if type_ == VIEW:
            open_impression(s, out, features_out, used, rules, e, features, i, now)
        elif type_ == BUY:
            apply_purchase(s, out, pairs_out, used, rules, e, i, now)
        elif type_ == RETURN:
            apply_return(s, out, pairs_out, used, rules, e, i, now)
        elif type_ == ITEM:
            apply_item(out, features_out, pairs_out, pair_features_out, used, e, features, i, now)
        else:
            apply_effect(s, out, used, rules, e, i, now, np.int64(-1))
    if not late and not fire_timers(s, out, used, rules, before):
        return GROW_LABELS, order.shape[0]
    return DONE, order.shape[0]
