"""Closing timers of attribution: expiry of impressions, and what is forgotten at the end of its span."""

from __future__ import annotations

import numpy as np

from ...graph_store.hash import pair64
from ...graph_store.hash_index import delete, find, prefetch_key, put
from ...graph_store.kernel import merged_kernel
from .emit import AHEAD, BUY, EXPIRY_SEQUENCE, LATE_LABEL, OP_EXPIRY, ORPHAN, RETURN, UNATTRIBUTED, ZERO, emit_label


@merged_kernel
def leave_chain(older, mask, keys, values, count, chain, number):  # type: ignore[no-untyped-def]
    """Take the oldest entry out of its chain, which is in order of time: an entry that came late may stand behind it.

    `older` is the column of links. Where nothing that stays stands behind it, the chain simply ends there.
    """
    head = find(keys, values, chain)
    behind = older[number & mask]
    if head == number:
        if behind > number:
            put(keys, values, count, chain, behind)
        else:
            delete(keys, values, count, chain)
    elif behind > number:
        before = head
        while older[before & mask] != number:
            before = older[before & mask]
        older[before & mask] = behind


@merged_kernel
def expire_impressions(s, out, used, rules, before):  # type: ignore[no-untyped-def]
    """Emit EXPIRY where the window ended before `before`; forget what is past the late span. False: no room."""
    rows, ends = s.impressions, s.impression_ends
    mask = rows.shape[0] - 1
    while s.pointers[0] < ends[1]:
        i = s.pointers[0] & mask
        due = rows["effective"][i] + rules.window
        if due >= before:
            break
        if used[0] >= out.shape[0]:
            return False
        rows["expired"][i] = 1
        emit_label(out, used, due, rows["ts"][i] + rules.window, OP_EXPIRY, EXPIRY_SEQUENCE, rows["label"][i],
               rows["ts"][i], rows["key"][i], rows["user"][i], rows["item"][i])  # fmt: skip
        s.pointers[0] += 1
    while ends[0] < s.pointers[0]:
        number = ends[0]
        i = number & mask
        if rows["effective"][i] + rules.window + rules.late_conversion >= before:
            break
        if number + AHEAD < s.pointers[0]:
            k = (number + AHEAD) & mask
            prefetch_key(s.label_keys, s.label_values, rows["label"][k])
            prefetch_key(s.item_keys, s.item_values, pair64(rows["key"][k], rows["item"][k]))
            if rows["request"][k] != ZERO:
                prefetch_key(s.request_keys, s.request_values, rows["request"][k])
        if find(s.label_keys, s.label_values, rows["label"][i]) == number:
            delete(s.label_keys, s.label_values, s.label_count, rows["label"][i])
        if rows["request"][i] != ZERO and find(s.request_keys, s.request_values, rows["request"][i]) == number:
            delete(s.request_keys, s.request_values, s.request_count, rows["request"][i])
        chain = pair64(rows["key"][i], rows["item"][i])
        leave_chain(rows["older"], mask, s.item_keys, s.item_values, s.item_count, chain, number)
        ends[0] = number + 1
    return True


@merged_kernel
def forget_seen(rows, ends, life, before, keys, values, count):  # type: ignore[no-untyped-def]
    """Let go of event ids whose memory is over."""
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["effective"][ends[0] & mask] + life < before:
        key = rows["key"][ends[0] & mask]
        if find(keys, values, key) == ends[0]:
            delete(keys, values, count, key)
        ends[0] += 1


@merged_kernel
def give_up_waiting(rows, ends, life, before, keys, values, count, books, pointers, column):  # type: ignore[no-untyped-def]
    """Count what waited too long, in the given column of the books."""
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["effective"][ends[0] & mask] + life < before:
        i = ends[0] & mask
        if rows["alive"][i] == 1:
            books[rows["type"][i], column] += 1
            if rows["type"][i] == RETURN:
                pointers[1] -= 1
            if rows["type"][i] == BUY and rows["effective"][i] > rows["ts"][i]:
                books[BUY, LATE_LABEL] += 1
        if find(keys, values, rows["cause"][i]) == ends[0]:
            delete(keys, values, count, rows["cause"][i])
        ends[0] += 1


@merged_kernel
def unlist(s, number):  # type: ignore[no-untyped-def]
    """Take an order line out of its user's list of distinct items."""
    rows = s.purchases
    mask = rows.shape[0] - 1
    i = number & mask
    older, newer = rows["older"][i], rows["newer"][i]
    if newer >= 0:
        rows["older"][newer & mask] = older
    elif older >= 0:
        put(s.user_keys, s.user_values, s.user_count, rows["key"][i], older)
    else:
        delete(s.user_keys, s.user_values, s.user_count, rows["key"][i])
    if older >= 0:
        rows["newer"][older & mask] = newer
    rows["listed"][i] = 0


@merged_kernel
def enlist(s, number):  # type: ignore[no-untyped-def]
    """Put an order line into its user's list, newest first."""
    rows = s.purchases
    mask = rows.shape[0] - 1
    i = number & mask
    newer = np.int64(-1)
    older = find(s.user_keys, s.user_values, rows["key"][i])
    while older >= 0 and (
        rows["ts"][older & mask] > rows["ts"][i] or (rows["ts"][older & mask] == rows["ts"][i] and older > number)
    ):
        newer = older
        older = rows["older"][older & mask]
    rows["older"][i] = older
    rows["newer"][i] = newer
    rows["listed"][i] = 1
    if older >= 0:
        rows["newer"][older & mask] = number
    if newer >= 0:
        rows["older"][newer & mask] = number
    else:
        put(s.user_keys, s.user_values, s.user_count, rows["key"][i], number)


@merged_kernel
def forget_purchases(s, life, before):  # type: ignore[no-untyped-def]
    """Let go of order lines past the return window; a late one of the same item takes its place in the chain."""
    rows, ends = s.purchases, s.purchase_ends
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["effective"][ends[0] & mask] + life < before:
        number = ends[0]
        i = number & mask
        if rows["listed"][i] == 1:
            unlist(s, number)
        if rows["line"][i] != ZERO and find(s.line_keys, s.line_values, rows["line"][i]) == number:
            delete(s.line_keys, s.line_values, s.line_count, rows["line"][i])
        chain = pair64(rows["key"][i], rows["item"][i])
        newest = find(s.line_item_keys, s.line_item_values, chain) == number
        leave_chain(rows["older_item"], mask, s.line_item_keys, s.line_item_values, s.line_item_count, chain, number)
        if newest and rows["older_item"][i] > number and rows["user"][i] != ZERO:
            enlist(s, rows["older_item"][i])
        if rows["order"][i] != ZERO:
            chain = pair64(pair64(rows["key"][i], rows["order"][i]), rows["item"][i])
            leave_chain(
                rows["older_order"], mask, s.line_order_keys, s.line_order_values, s.line_order_count, chain, number
            )
        ends[0] = number + 1


@merged_kernel
def forget_pairs(s, life, before):  # type: ignore[no-untyped-def]
    """Let go of pairs past the return window."""
    rows, ends = s.pairs, s.pair_ends
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["effective"][ends[0] & mask] + life < before:
        key = rows["key"][ends[0] & mask]
        if find(s.pair_keys, s.pair_values, key) == ends[0]:
            delete(s.pair_keys, s.pair_values, s.pair_count, key)
        ends[0] += 1


@merged_kernel
def fire_timers(s, out, used, rules, before):  # type: ignore[no-untyped-def]
    """Fire every closing timer due below `before`; False where the label buffer is full."""
    if not expire_impressions(s, out, used, rules, before):
        return False
    forget_seen(s.seen, s.seen_ends, rules.window, before, s.seen_keys, s.seen_values, s.seen_count)
    forget_seen(
        s.seen_orders, s.seen_orders_ends, rules.return_window, before, s.seen_keys, s.seen_values, s.seen_count
    )
    give_up_waiting(s.waiting, s.waiting_ends, rules.orphan_wait, before, s.waiting_keys, s.waiting_values,
                     s.waiting_count, s.books, s.pointers, ORPHAN)  # fmt: skip
    give_up_waiting(s.waiting_skew, s.waiting_skew_ends, rules.skew, before, s.waiting_skew_keys,
                     s.waiting_skew_values, s.waiting_skew_count, s.books, s.pointers, UNATTRIBUTED)  # fmt: skip
    forget_purchases(s, rules.return_window, before)
    forget_pairs(s, rules.return_window, before)
    rows, ends = s.credits, s.credit_ends
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["effective"][ends[0] & mask] + rules.credit_life < before:
        ends[0] += 1
    return True
