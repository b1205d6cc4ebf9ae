"""Impressions, and the clicks, carts and purchases that belong to them."""

from __future__ import annotations

import numpy as np

from ...graph_store.hash import pair64
from ...graph_store.hash_index import find, put
from ...graph_store.kernel import merged_kernel
from .emit import (
    ATTRIBUTED,
    BUY,
    CLICK,
    FIRST_TOGGLE,
    LATE_CLICK,
    LATE_CONVERSION,
    LATE_LABEL,
    OP_CART,
    OP_CLICK,
    OP_CONVERSION,
    OP_IMPRESSION,
    REPEAT,
    RETURN,
    UNATTRIBUTED,
    ZERO,
    emit_label,
)


@merged_kernel
def convert_impression(s, out, used, rules, now, effect_ts, number, purchase):  # type: ignore[no-untyped-def]
    """One more unreturned order line for impression `number`; the first one is its conversion."""
    line = purchase & (s.purchases.shape[0] - 1)
    if purchase < s.purchase_ends[0] or s.purchases["left"][line] <= 0:  # forgotten, or returned while it waited
        return
    rows, mask = s.impressions, s.impressions.shape[0] - 1
    i = number & mask
    credits, ends = s.credits, s.credit_ends
    if rows["credit"][i] < 0:
        c = ends[1] & (credits.shape[0] - 1)
        credits["label"][c] = rows["label"][i]
        credits["key"][c] = rows["key"][i]
        credits["item"][c] = rows["item"][i]
        credits["user"][c] = rows["user"][i]
        credits["ts"][c] = rows["ts"][i]
        credits["effective"][c] = now
        credits["lines"][c] = 0
        credits["toggles"][c] = 0
        rows["credit"][i] = ends[1]
        ends[1] += 1
    credit = rows["credit"][i]
    c = credit & (credits.shape[0] - 1)
    s.purchases["credit"][line] = credit
    credits["lines"][c] += 1
    if credits["lines"][c] == 1:
        emit_label(out, used, now, effect_ts, OP_CONVERSION, np.uint64(FIRST_TOGGLE + credits["toggles"][c]),
               rows["label"][i], rows["ts"][i], rows["key"][i], rows["user"][i], rows["item"][i])  # fmt: skip
        credits["toggles"][c] += 1
        if rows["expired"][i] == 1:
            s.books[BUY, LATE_CONVERSION] += 1


@merged_kernel
def attribute_effect(s, out, used, rules, now, type_, effect_ts, number, purchase):  # type: ignore[no-untyped-def]
    """An effect belongs to impression `number`."""
    rows = s.impressions
    i = number & (rows.shape[0] - 1)
    s.books[type_, ATTRIBUTED] += 1
    at = max(effect_ts, rows["ts"][i])
    if type_ == BUY:
        convert_impression(s, out, used, rules, now, at, number, purchase)
        return
    if type_ == CLICK:
        again = rows["clicked"][i] == 1
        rows["clicked"][i] = 1
    else:
        again = rows["carted"][i] == 1
        rows["carted"][i] = 1
    if again:
        s.books[type_, REPEAT] += 1
    elif rows["expired"][i] == 1:
        s.books[type_, LATE_CLICK] += 1
    else:
        op = OP_CLICK if type_ == CLICK else OP_CART
        emit_label(out, used, now, at, op, np.uint64(op - 1), rows["label"][i], rows["ts"][i], rows["key"][i],
               rows["user"][i], rows["item"][i])  # fmt: skip


@merged_kernel
def search_impression(s, rules, key, item, ts):  # type: ignore[no-untyped-def]
    """Impression of (K, item) that an effect at `ts` naming none belongs to: the latest inside the window before it,
    else the earliest within the skew after it; -1: none."""
    rows, tail = s.impressions, s.impression_ends[0]
    mask = rows.shape[0] - 1
    number = find(s.item_keys, s.item_values, pair64(key, item))
    after = np.int64(-1)
    while number >= tail:
        i = number & mask
        if rows["ts"][i] <= ts:
            return number if ts - rows["ts"][i] <= rules.window else after
        if rows["ts"][i] <= ts + rules.skew:
            after = number
        number = rows["older"][i]
    return after


@merged_kernel
def wait_for(rows, ends, keys, values, count, cause, event, key, item, type_, ts, now, purchase, quantity):  # type: ignore[no-untyped-def]
    """Append an effect to a ring of waiting ones, at the head of its cause's chain."""
    i = ends[1] & (rows.shape[0] - 1)
    rows["cause"][i] = cause
    rows["event"][i] = event
    rows["key"][i] = key
    rows["item"][i] = item
    rows["type"][i] = type_
    rows["ts"][i] = ts
    rows["effective"][i] = now
    rows["purchase"][i] = purchase
    rows["quantity"][i] = quantity
    rows["alive"][i] = 1
    rows["older"][i] = put(keys, values, count, cause, ends[1])
    ends[1] += 1


@merged_kernel
def apply_effect(s, out, used, rules, e, i, now, purchase):  # type: ignore[no-untyped-def]
    """A click, cart or purchase looks for its impression, or waits for it."""
    type_, ts, key, item = e["rank"][i], e["ts"][i], e["key"][i], e["item"][i]
    number = np.int64(-1)
    cause = ZERO
    if e["impression"][i] != ZERO:
        cause = pair64(key, e["impression"][i])
        number = find(s.label_keys, s.label_values, cause)
    elif e["request"][i] != ZERO:
        cause = pair64(pair64(key, e["request"][i]), item)
        number = find(s.request_keys, s.request_values, cause)
    if cause != ZERO and number < 0:
        wait_for(s.waiting, s.waiting_ends, s.waiting_keys, s.waiting_values, s.waiting_count, cause, e["id"][i], key,
              item, type_, ts, now, purchase, np.int64(0))  # fmt: skip
        return
    if cause == ZERO:
        number = search_impression(s, rules, key, item, ts)
        if number < 0:
            wait_for(s.waiting_skew, s.waiting_skew_ends, s.waiting_skew_keys, s.waiting_skew_values,
                  s.waiting_skew_count, pair64(key, item), e["id"][i], key, item, type_, ts, now, purchase,
                  np.int64(0))  # fmt: skip
            return
    delay = ts - s.impressions["ts"][number & (s.impressions.shape[0] - 1)]
    if delay > rules.window or delay < -rules.skew:
        s.books[type_, UNATTRIBUTED] += 1
        if type_ == BUY and now > ts:
            s.books[BUY, LATE_LABEL] += 1
        return
    attribute_effect(s, out, used, rules, now, type_, ts, number, purchase)


@merged_kernel
def resolve_waiting(s, out, used, rules, rows, ends, head, now, number, named):  # type: ignore[no-untyped-def]
    """Effects that waited for impression `number`, oldest first; one without a name stays where it does not fit."""
    mask = rows.shape[0] - 1
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
    shown = s.impressions["ts"][number & (s.impressions.shape[0] - 1)]
    for c in range(count):
        w = chain[c] & mask
        type_, ts = rows["type"][w], rows["ts"][w]
        if rows["alive"][w] == 0 or type_ == RETURN:
            continue
        if ts - shown <= rules.window and shown <= ts + rules.skew:
            rows["alive"][w] = 0
            attribute_effect(s, out, used, rules, now, type_, ts, number, rows["purchase"][w])
        elif named:
            rows["alive"][w] = 0
            s.books[type_, UNATTRIBUTED] += 1
            if type_ == BUY and rows["effective"][w] > ts:
                s.books[BUY, LATE_LABEL] += 1


@merged_kernel
def open_impression(s, out, features_out, used, rules, e, features, i, now):  # type: ignore[no-untyped-def]
    """Open an impression, and give it the effects that waited for it."""
    rows, ends = s.impressions, s.impression_ends
    mask = rows.shape[0] - 1
    number = ends[1]
    k = number & mask
    key, item, ts = e["key"][i], e["item"][i], e["ts"][i]
    label = pair64(key, e["impression"][i])
    rows["label"][k] = label
    rows["content"][k] = e["tie"][i]
    rows["key"][k] = key
    rows["item"][k] = item
    rows["user"][k] = e["user"][i]
    rows["ts"][k] = ts
    rows["effective"][k] = now
    rows["credit"][k] = -1
    rows["clicked"][k] = 0
    rows["carted"][k] = 0
    rows["expired"][k] = 0
    ends[1] = number + 1
    put(s.label_keys, s.label_values, s.label_count, label, number)
    chain = pair64(key, item)
    head = find(s.item_keys, s.item_values, chain)
    newer = np.int64(-1)
    older = head if head >= ends[0] else np.int64(-1)
    while older >= ends[0] and rows["ts"][older & mask] > ts:
        newer = older
        older = rows["older"][older & mask]
    rows["older"][k] = older
    if newer < 0:
        put(s.item_keys, s.item_values, s.item_count, chain, number)
    else:
        rows["older"][newer & mask] = number
    request = ZERO
    if e["request"][i] != ZERO:
        request = pair64(pair64(key, e["request"][i]), item)
        put(s.request_keys, s.request_values, s.request_count, request, number)
    rows["request"][k] = request
    at = used[0]
    emit_label(out, used, now, ts, OP_IMPRESSION, ZERO, label, ts, key, e["user"][i], item)
    for f in range(features.shape[1]):
        features_out[at, f] = features[i, f]
    if s.waiting_count[0] > 0:
        waits = find(s.waiting_keys, s.waiting_values, label)
        if waits >= 0:
            resolve_waiting(s, out, used, rules, s.waiting, s.waiting_ends, waits, now, number, True)
        if request != ZERO:
            waits = find(s.waiting_keys, s.waiting_values, request)
            if waits >= 0:
                resolve_waiting(s, out, used, rules, s.waiting, s.waiting_ends, waits, now, number, True)
    if s.waiting_skew_count[0] > 0:
        waits = find(s.waiting_skew_keys, s.waiting_skew_values, chain)
        if waits >= 0:
            resolve_waiting(s, out, used, rules, s.waiting_skew, s.waiting_skew_ends, waits, now, number, False)
