"""Order lines, the co-purchases they make, and the returns that take them back."""

from __future__ import annotations

import math

import numpy as np

from ...graph_store.hash import pair64
from ...graph_store.hash_index import delete, find, put
from ...graph_store.kernel import merged_kernel
from .effects import apply_effect, wait_for
from .emit import (
    ATTRIBUTED,
    BUY,
    CAPPED,
    FIRST_TOGGLE,
    FIXED,
    LN2,
    OP_REVERSAL,
    OVER,
    RETURN,
    RETURN_CAUSE,
    REVERSED,
    ZERO,
    emit_copurchase,
    emit_label,
)
from .timers import enlist, unlist


@merged_kernel
def earlier_line(s, rules, number, node):  # type: ignore[no-untyped-def]
    """From `node` down the lines of its item: the latest unreturned one of an earlier order inside the horizon; -1."""
    rows, tail = s.purchases, s.purchase_ends[0]
    mask = rows.shape[0] - 1
    b = number & mask
    while node >= tail:
        a = node & mask
        if rows["ts"][a] < rows["ts"][b] - rules.horizon:
            return np.int64(-1)
        same = rows["order"][a] != ZERO and rows["order"][a] == rows["order"][b]
        if rows["ts"][a] < rows["ts"][b] and not same and rows["left"][a] > 0:
            return node
        node = rows["older_item"][a]
    return np.int64(-1)


@merged_kernel
def make_pairs(s, out, used, rules, now, number):  # type: ignore[no-untyped-def]
    """Each distinct item bought by the user in an earlier order inside the horizon, with the item of line `number`."""
    rows, pairs, ends = s.purchases, s.pairs, s.pair_ends
    mask, pair_mask = rows.shape[0] - 1, pairs.shape[0] - 1
    b = number & mask
    node = find(s.user_keys, s.user_values, rows["key"][b])
    made = 0
    seen = 0
    while node >= 0 and rows["ts"][node & mask] >= rows["ts"][b] - rules.horizon:
        following = rows["older"][node & mask]
        line = np.int64(-1)
        if rows["item"][node & mask] != rows["item"][b]:
            line = earlier_line(s, rules, number, node)
        node = following
        if line < 0:
            continue
        if seen >= rules.history:
            s.books[BUY, CAPPED] += 1
            break
        seen += 1
        a = line & mask
        key = pair64(pair64(rows["key"][b], rows["item"][a]), rows["item"][b])
        known = find(s.pair_keys, s.pair_values, key)
        if known >= ends[0] and pairs["alive"][known & pair_mask] == 1:
            continue
        gap = float(rows["ts"][b] - rows["ts"][a])
        weight = max(np.int64(1), np.int64(FIXED * math.exp(-LN2 * gap / rules.half_life) + 0.5))
        p = ends[1] & pair_mask
        pairs["key"][p] = key
        pairs["source"][p] = rows["item"][a]
        pairs["target"][p] = rows["item"][b]
        pairs["weight"][p] = weight
        pairs["line"][p] = line
        pairs["ts"][p] = rows["ts"][b]
        pairs["effective"][p] = now
        pairs["alive"][p] = 1
        put(s.pair_keys, s.pair_values, s.pair_count, key, ends[1])
        ends[1] += 1
        made += 1
        emit_copurchase(out, used, now, rows["ts"][b], 2, 1, rows["event"][b], made, rows["user"][b], rows["item"][a],
                    rows["item"][b], weight, np.int64(0))  # fmt: skip
    rows["pair_count"][b] = made


@merged_kernel
def chain_line(s, rows, number, keys, values, count, chain, by_order):  # type: ignore[no-untyped-def]
    """Insert a line into its chain of lines, newest first; True where it is the newest."""
    mask, tail = rows.shape[0] - 1, s.purchase_ends[0]
    k = number & mask
    newer = np.int64(-1)
    older = find(keys, values, chain)
    while older >= tail and rows["ts"][older & mask] > rows["ts"][k]:
        newer = older
        older = rows["older_order"][older & mask] if by_order else rows["older_item"][older & mask]
    if older < tail:
        older = np.int64(-1)
    if by_order:
        rows["older_order"][k] = older
        if newer >= 0:
            rows["older_order"][newer & mask] = number
    else:
        rows["older_item"][k] = older
        if newer >= 0:
            rows["older_item"][newer & mask] = number
    if newer < 0:
        put(keys, values, count, chain, number)
    return newer < 0


@merged_kernel
def order_line_key(key, order, line, item, quantity):  # type: ignore[no-untyped-def]
    """Key of an order line: the order and its line number, else the order, item and quantity; 0 without an order."""
    if order == ZERO:
        return ZERO
    if line != ZERO:
        return pair64(pair64(key, order), line)
    return pair64(pair64(pair64(key, order), item), np.uint64(quantity))


@merged_kernel
def apply_purchase(s, out, pairs_out, used, rules, e, i, now):  # type: ignore[no-untyped-def]
    """An order line: popularity, pairs, the impression that earned it, returns that waited for it."""
    rows, ends = s.purchases, s.purchase_ends
    number = ends[1]
    k = number & (rows.shape[0] - 1)
    key, item = e["key"][i], e["item"][i]
    rows["key"][k] = key
    rows["user"][k] = e["user"][i]
    rows["order"][k] = e["order"][i]
    rows["item"][k] = item
    rows["line"][k] = order_line_key(key, e["order"][i], e["line"][i], item, e["quantity"][i])
    rows["event"][k] = pair64(key, e["id"][i])
    rows["ts"][k] = e["ts"][i]
    rows["effective"][k] = now
    rows["quantity"][k] = e["quantity"][i]
    rows["left"][k] = e["quantity"][i]
    rows["credit"][k] = -1
    rows["pairs"][k] = s.pair_ends[1]
    rows["pair_count"][k] = 0
    rows["older_order"][k] = -1
    rows["listed"][k] = 0
    ends[1] = number + 1
    if rows["line"][k] != ZERO:
        put(s.line_keys, s.line_values, s.line_count, rows["line"][k], number)
    emit_copurchase(pairs_out, used, now, e["ts"][i], 1, 1, rows["event"][k], 0, e["user"][i], ZERO, item, np.int64(0),
                e["quantity"][i])  # fmt: skip
    chain = pair64(key, item)
    before = find(s.line_item_keys, s.line_item_values, chain)
    newest = chain_line(s, rows, number, s.line_item_keys, s.line_item_values, s.line_item_count, chain, False)
    if e["user"][i] != ZERO:
        make_pairs(s, pairs_out, used, rules, now, number)
        if newest:
            if before >= ends[0] and rows["listed"][before & (rows.shape[0] - 1)] == 1:
                unlist(s, before)
            enlist(s, number)
    apply_effect(s, out, used, rules, e, i, now, number)
    if e["order"][i] != ZERO:
        chain = pair64(pair64(key, e["order"][i]), item)
        chain_line(s, rows, number, s.line_order_keys, s.line_order_values, s.line_order_count, chain, True)
        if s.pointers[1] > 0:
            returns_waiting(s, s.waiting, s.waiting_ends, s.waiting_keys, s.waiting_values,
                             pair64(chain, RETURN_CAUSE), out, pairs_out, used, rules, now, number, True)  # fmt: skip
    if s.pointers[1] > 0:
        returns_waiting(s, s.waiting_skew, s.waiting_skew_ends, s.waiting_skew_keys, s.waiting_skew_values,
                         pair64(pair64(key, item), RETURN_CAUSE), out, pairs_out, used, rules, now, number,
                         False)  # fmt: skip


@merged_kernel
def returns_waiting(s, rows, ends, keys, values, cause, out, pairs_out, used, rules, now, number, named):  # type: ignore[no-untyped-def]
    """Returns that waited for order line `number`, oldest first."""
    mask = rows.shape[0] - 1
    head = find(keys, values, cause)
    if head < ends[0]:
        return
    bought = s.purchases["ts"][number & (s.purchases.shape[0] - 1)]
    count = 0
    k = head
    while k >= ends[0]:
        count += 1
        k = rows["older"][k & mask]
    chain = s.chain
    k = head
    for c in range(count):
        chain[count - 1 - c] = k
        k = rows["older"][k & mask]
    for c in range(count):
        w = chain[c] & mask
        fits = rows["ts"][w] - bought <= rules.return_window and (named or bought <= rows["ts"][w] + rules.skew)
        if rows["alive"][w] == 1 and fits:
            rows["alive"][w] = 0
            s.pointers[1] -= 1
            s.books[RETURN, ATTRIBUTED] += 1
            left = take_back(s, out, pairs_out, used, rules, now, number, rows["quantity"][w], rows["event"][w],
                              rows["ts"][w], 0)  # fmt: skip
            if left > 0:
                s.books[RETURN, OVER] += 1


@merged_kernel
def withdrawals(s, number):  # type: ignore[no-untyped-def]
    """How many live pairs order line `number` made or stands in as the earlier line; their numbers go to `found`."""
    rows, pairs = s.purchases, s.pairs
    mask, pair_mask, tail, pair_tail = rows.shape[0] - 1, pairs.shape[0] - 1, s.purchase_ends[0], s.pair_ends[0]
    x = number & mask
    total = rows["pair_count"][x]
    found = s.found
    n = 0
    for p in range(max(rows["pairs"][x], pair_tail), rows["pairs"][x] + total):
        if pairs["alive"][p & pair_mask] == 1:
            found[n] = p
            n += 1
    node = find(s.user_keys, s.user_values, rows["key"][x]) if rows["user"][x] != ZERO else np.int64(-1)
    while node >= 0 and rows["ts"][node & mask] > rows["ts"][x]:
        line = node
        while line >= tail and rows["ts"][line & mask] > rows["ts"][x]:
            b = line & mask
            for p in range(max(rows["pairs"][b], pair_tail), rows["pairs"][b] + rows["pair_count"][b]):
                if pairs["line"][p & pair_mask] == number and pairs["alive"][p & pair_mask] == 1:
                    found[n] = p
                    n += 1
            line = rows["older_item"][b]
        node = rows["older"][node & mask]
    return n


@merged_kernel
def take_back(s, out, pairs_out, used, rules, now, number, quantity, event, ts, sequence):  # type: ignore[no-untyped-def]
    """Take `quantity` units off order line `number`; what is over. A line with nothing left is reversed everywhere."""
    rows = s.purchases
    x = number & (rows.shape[0] - 1)
    taken = min(quantity, rows["left"][x])
    if taken <= 0:
        return quantity
    rows["left"][x] -= taken
    if rows["left"][x] > 0:
        return quantity - taken
    s.books[RETURN, REVERSED] += 1
    emit_copurchase(pairs_out, used, now, rows["ts"][x], 1, -1, event, pair_sequence(sequence, 0), rows["user"][x],
                ZERO, rows["item"][x], np.int64(0), rows["quantity"][x])  # fmt: skip
    pairs, pair_mask = s.pairs, s.pairs.shape[0] - 1
    found = s.found
    for n in range(withdrawals(s, number)):
        p = found[n] & pair_mask
        pairs["alive"][p] = 0
        if find(s.pair_keys, s.pair_values, pairs["key"][p]) == found[n]:
            delete(s.pair_keys, s.pair_values, s.pair_count, pairs["key"][p])
        emit_copurchase(pairs_out, used, now, pairs["ts"][p], 2, -1, event, pair_sequence(sequence, n + 1),
                    rows["user"][x], pairs["source"][p], pairs["target"][p], pairs["weight"][p],
                    np.int64(0))  # fmt: skip
    if rows["credit"][x] >= s.credit_ends[0]:
        c = rows["credit"][x] & (s.credits.shape[0] - 1)
        s.credits["lines"][c] -= 1
        if s.credits["lines"][c] == 0:
            emit_label(out, used, now, ts, OP_REVERSAL, np.uint64(FIRST_TOGGLE + s.credits["toggles"][c]),
                   s.credits["label"][c], s.credits["ts"][c], s.credits["key"][c], s.credits["user"][c],
                   s.credits["item"][c])  # fmt: skip
            s.credits["toggles"][c] += 1
    return quantity - taken


@merged_kernel
def pair_sequence(line, n):  # type: ignore[no-untyped-def]
    """Sequence number of the n-th row that a return emits for its line-th order line."""
    return line * 1_000_000 + n


@merged_kernel
def apply_return(s, out, pairs_out, used, rules, e, i, now):  # type: ignore[no-untyped-def]
    """A return names its order and item, else takes back the user's latest unreturned line of the item."""
    rows, tail = s.purchases, s.purchase_ends[0]
    mask = rows.shape[0] - 1
    key, item, ts, quantity = e["key"][i], e["item"][i], e["ts"][i], e["quantity"][i]
    event = pair64(key, e["id"][i])
    named = e["order"][i] != ZERO
    if named:
        chain = pair64(pair64(key, e["order"][i]), item)
        number = find(s.line_order_keys, s.line_order_values, chain)
    else:
        chain = pair64(key, item)
        number = find(s.line_item_keys, s.line_item_values, chain)
    known = False
    lines = 0
    while number >= tail and quantity > 0:
        x = number & mask
        fits = ts - rows["ts"][x] <= rules.return_window and (named or rows["ts"][x] <= ts + rules.skew)
        if fits:
            known = True
            if rows["left"][x] > 0:
                quantity = take_back(s, out, pairs_out, used, rules, now, number, quantity, event, ts, lines)
                lines += 1
                if not named:
                    break
        number = rows["older_order"][x] if named else rows["older_item"][x]
    if known:
        s.books[RETURN, ATTRIBUTED] += 1
        if quantity > 0:
            s.books[RETURN, OVER] += 1
        return
    s.pointers[1] += 1
    if named:
        wait_for(s.waiting, s.waiting_ends, s.waiting_keys, s.waiting_values, s.waiting_count,
              pair64(chain, RETURN_CAUSE), event, key, item, RETURN, ts, now, np.int64(-1), quantity)  # fmt: skip
    else:
        wait_for(s.waiting_skew, s.waiting_skew_ends, s.waiting_skew_keys, s.waiting_skew_values, s.waiting_skew_count,
              pair64(chain, RETURN_CAUSE), event, key, item, RETURN, ts, now, np.int64(-1), quantity)  # fmt: skip
