"""The kernel of the feedback stage: label operations and checkpoints of age, one after the other, on flat tables.

Checkpoints of age need no heap: their offsets are constants, so each is a pointer that follows the arrivals through
the ring of open impressions. One due at t fires after rows at t and before rows above. See `feedback.py` for the
rules and `tests/reference/feedback.py` for the slow, obvious twin.
"""

from __future__ import annotations

import math

import numpy as np

from ..graph_store.hash_index import find, put
from ..graph_store.kernel import lean_kernel, merged_kernel
from ..graph_store.prefetch import prefetch
from ..graph_store.ring_index import ring_find, ring_prefetch, ring_put
from ..models.calibration.grid import UNCERTAINTY_HIGH, UNCERTAINTY_LOW, cell_of
from ..models.conversion import logit_and_count, push, sigmoid
from ..models.delayed_feedback.life_table import CONVERTED as PASSED
from ..models.delayed_feedback.life_table import PERIOD, PRIOR_RATE, decay, solve, state_at
from ..models.delayed_feedback.policy import Flag, Policy, importance, move
from ..models.features import fill_indices, prefetch_weights
from ..models.prequential import BASE_RATE, ITEM_RATE, PREDICTORS, WEEK, observe
from .feedback_tables import BOOKS, ITEMS_BOUND, TALLIES
from .row import Example, Op

_VANILLA, _WAIT, _RETRACTION = int(Policy.VANILLA), int(Policy.WAIT), int(Policy.RETRACTION)
_ITEM, _IMPRESSION, _CLICK, _CART = int(Op.ITEM), int(Op.IMPRESSION), int(Op.CLICK), int(Op.ADD_TO_CART)
_CONVERSION, _EXPIRY = int(Op.CONVERSION), int(Op.EXPIRY)
_PROVISIONAL, _REVISION, _RETRACT = int(Example.PROVISIONAL_NEGATIVE), int(Example.REVISION), int(Example.RETRACTION)
_POSITIVE, _CONFIRMED, _REVERSAL = int(Example.POSITIVE), int(Example.CONFIRMED_NEGATIVE), int(Example.REVERSAL)

_CONVERTED, _EXPIRED, _EVER = np.uint32(Flag.CONVERTED), np.uint32(Flag.EXPIRED), np.uint32(Flag.EVER_CONVERTED)
_NEGATIVE, _DONE, _LEARNT = np.uint32(Flag.NEGATIVE_OPEN), np.uint32(Flag.NEGATIVE_DONE), np.uint32(Flag.LEARNT)
_CLICKED, _CARTED = np.uint32(Flag.CLICKED), np.uint32(Flag.CARTED)

(
    _B_IMPRESSIONS, _B_CLICKS, _B_CARTS, _B_CONVERSIONS, _B_REVERSALS, _B_EXPIRIES, _B_UNKNOWN,
    _B_ITEMS_DROPPED, _B_EMITTED, _B_RETRACTED, _B_CONFIRMED, _B_DROPPED, _B_REAL, _B_SKIPPED, _B_LATE, _B_EXAMPLES,
) = range(len(BOOKS))  # fmt: skip
_T_IMPRESSIONS, _T_TRIALS, _T_POSITIVES, _T_DECAYED, _T_CONVERTIBLE = range(len(TALLIES))

NEVER = np.int64(2**62)
_ODD = np.uint64(0x9E3779B97F4A7C15)
AHEAD = 6
"""Rows, or impressions, whose memory is asked for in advance: some 2 microseconds of work, 20 times a miss."""
SHRINKAGE = 20.0
"""Trials at the base rate that an item's own rate starts with."""


@merged_kernel
def _outcome(out, used, ts, rows, slot, trials, positives):  # type: ignore[no-untyped-def]
    k = used[0]
    out["ts"][k] = ts
    out["rank"][k] = 0
    out["id"][k] = rows["key"][slot]
    out["id2"][k] = np.uint64(rows["outcomes"][slot])
    out["tie"][k] = np.uint64(0)
    out["epoch"][k] = rows["epoch"][slot]
    out["cell"][k] = rows["cell"][slot]
    out["trials"][k] = trials
    out["positives"][k] = positives
    rows["outcomes"][slot] += np.uint32(1)
    used[0] = k + 1


@merged_kernel
def _example(  # type: ignore[no-untyped-def]
    out, out_indices, used, rows, indices, slot, width, item, ts, elapsed, kind, prediction, before, after, mass
):
    k = used[1]
    out["ts"][k] = ts
    out["rank"][k] = kind
    out["id"][k] = rows["key"][slot]
    out["id2"][k] = np.uint64(rows["emissions"][slot])
    out["tie"][k] = np.uint64(0)
    out["kind"][k] = kind
    out["label"][k], out["weight"][k] = importance(mass, prediction)
    out["mass"][k] = mass
    out["prediction"][k] = prediction
    out["belief_before"][k] = before
    out["belief_after"][k] = after
    out["stage"][k] = rows["stage"][slot]
    out["elapsed"][k] = elapsed
    out["clock"][k] = ts
    out["item"][k] = item
    out["user"][k] = rows["user"][slot]
    for j in range(width):
        out_indices[k, j] = indices[slot, j]
    rows["emissions"][slot] += np.uint32(1)
    used[1] = k + 1


@merged_kernel
def _learn(t, rules, out, rows, indices, slot, ts, elapsed, kind, ratio):  # type: ignore[no-untyped-def]
    """Move the belief of one impression to `ratio`; a first negative mass is its provisional negative."""
    prediction, before, after, mass = move(rows, indices, slot, rules.width, t.weights, rules.learning_rate, ratio)
    if kind == _REVISION and mass < 0.0 and not rows["flags"][slot] & (_NEGATIVE | _DONE):
        kind = _PROVISIONAL
    if kind == _PROVISIONAL:
        rows["flags"][slot] |= _NEGATIVE
        t.books[_B_EMITTED] += 1
    if rules.collect:
        row = rows["row"][slot]
        item = t.items["item"][row] if row >= 0 else np.uint64(0)
        _example(out.examples, out.indices, out.used, rows, indices, slot, rules.width, item, ts, elapsed, kind,
                 prediction, before, after, mass)  # fmt: skip
        t.books[_B_EXAMPLES] += 1


@merged_kernel
def _sampled(rules, key):  # type: ignore[no-untyped-def]
    """Is a label among those whose negative is learnt? Its key, a hash, decides."""
    return rules.sampling == 1 or key % np.uint64(rules.sampling) == np.uint64(0)


@merged_kernel
def _next_checkpoint(open_, ends, offsets, pointers):  # type: ignore[no-untyped-def]
    """(time, checkpoint) of the next checkpoint of age; the oldest impression first among those of one time."""
    mask = open_.shape[0] - 1
    due, which = NEVER, -1
    for k in range(offsets.shape[0] - 1, -1, -1):
        if pointers[k] < ends[1]:
            at = open_["ts"][pointers[k] & mask] + offsets[k]
            if at < due:
                due, which = at, k
    return due, which


@merged_kernel
def _pass_checkpoint(t, rules, out, k, due):  # type: ignore[no-untyped-def]
    """The next impression passes checkpoint k: count what became of it in the bin, and revise its belief."""
    rows = t.open
    number = t.pointers[k]
    mask = rows.shape[0] - 1
    slot = number & mask
    if number + 2 < t.open_ends[1]:
        prefetch(rows, (number + 2) & mask)
        for j in range(rules.width):
            prefetch(t.weights, np.int64(t.open_indices[(number + 1) & mask, j]))
    t.pointers[k] = number + 1
    before = rows["state"][slot]
    if rows["flags"][slot] & _EXPIRED or before == PASSED:
        return
    if rows["flags"][slot] & _EVER:
        t.life_counts[k, before, PASSED] += 1.0
        rows["state"][slot] = PASSED
        return
    state = state_at(np.int64(rows["stage"][slot]), np.int64(rows["entered"][slot]), k + 1)
    t.life_counts[k, before, state] += 1.0
    rows["state"][slot] = state
    ratio = t.life_ratios[k + 1, state]
    _learn(t, rules, out, rows, t.open_indices, slot, due, due - rows["ts"][slot], _REVISION, ratio)


@merged_kernel
def _forget(t, rules, before):  # type: ignore[no-untyped-def]
    """Drop impressions whose life ended below `before`; those that ever converted are kept for returns."""
    rows, ends = t.open, t.open_ends
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["ts"][ends[0] & mask] + rules.life < before:
        slot = ends[0] & mask
        flags = rows["flags"][slot]
        if flags & _NEGATIVE:
            t.books[_B_DROPPED] += 1
        if flags & _EVER:
            kept = t.kept_ends[1] & (t.kept.shape[0] - 1)
            t.kept[kept] = rows[slot]
            for j in range(rules.width):
                t.kept_indices[kept, j] = t.open_indices[slot, j]
            ring_put(t.kept_heads, t.kept_nexts, rows["key"][slot], t.kept_ends[1])
            t.kept_ends[1] += 1
            t.tallies[_T_CONVERTIBLE] -= 1
        ends[0] += 1
    rows, ends = t.kept, t.kept_ends
    mask = rows.shape[0] - 1
    while ends[0] < ends[1] and rows["ts"][ends[0] & mask] + rules.kept_life < before:
        ends[0] += 1


@merged_kernel
def _item_row(t, item):  # type: ignore[no-untyped-def]
    """Catalogue row of an item, made where there is none; -1 beyond the bound, and for no item."""
    if item == np.uint64(0):
        return np.int64(-1)
    row = find(t.item_keys, t.item_values, item)
    if row >= 0:
        return row
    row = t.items_count[0]
    if row >= ITEMS_BOUND:
        t.books[_B_ITEMS_DROPPED] += 1
        return np.int64(-1)
    t.items["item"][row] = item
    t.items_count[0] = row + 1
    put(t.item_keys, t.item_values, t.item_count, item, row)
    return row


@lean_kernel
def _item(t, item, codes, i):  # type: ignore[no-untyped-def]
    row = _item_row(t, item)
    if row >= 0:
        for f in range(codes.shape[1]):
            t.item_codes[row, f] = codes[i, f]


@lean_kernel
def _refresh(tallies, counts, values, ratios, prior, window, ts):  # type: ignore[no-untyped-def]
    """Decay the life table to `ts`, over one window, and solve it."""
    decay(counts, math.exp(-max(0.0, np.float64(ts - tallies[_T_DECAYED])) / window))
    tallies[_T_DECAYED] = ts
    solve(counts, values, ratios, prior)


@merged_kernel
def _rates(tallies, items, row):  # type: ignore[no-untyped-def]
    """(base rate, item's rate) from the labels matured so far."""
    base = (tallies[_T_POSITIVES] + PRIOR_RATE) / (tallies[_T_TRIALS] + 1.0)
    if row < 0:
        return base, base
    return base, (items["positives"][row] + SHRINKAGE * base) / (items["trials"][row] + SHRINKAGE)


@merged_kernel
def _impression(t, rules, out, e, codes, i):  # type: ignore[no-untyped-def]
    """Score an impression, open its label, and learn what the policy learns at once."""
    rows, ends, key, ts = t.open, t.open_ends, e["impression"][i], e["ts"][i]
    slot = ends[1] & (rows.shape[0] - 1)
    ring_put(t.open_heads, t.open_nexts, key, ends[1])
    t.books[_B_IMPRESSIONS] += 1
    ends[1] += 1
    row = _item_row(t, e["item"][i])
    fill_indices(t.plan, e["user"][i], e["item"][i], codes, i, t.item_codes, row, t.hashes, t.open_indices, slot)
    logit, count = logit_and_count(t.weights, t.open_indices, slot, rules.width)
    probability = sigmoid(logit)
    rows["key"][slot] = key
    rows["ts"][slot] = ts
    rows["user"][slot] = e["user"][i]
    features = np.uint64(0)
    for j in range(rules.width):
        features += np.uint64(t.open_indices[slot, j] + 1) * (_ODD * np.uint64(2 * j + 1))
    rows["features"][slot] = features
    rows["mass"][slot] = 0.0
    rows["ratio"][slot] = 0.0
    rows["flags"][slot] = np.uint32(0)
    rows["stage"][slot] = 0
    rows["entered"][slot] = 0
    rows["state"][slot] = 0
    rows["prediction"][slot] = probability
    rows["base_rate"][slot], rows["item_rate"][slot] = _rates(t.tallies, t.items, row)
    rows["row"][slot] = row
    rows["epoch"][slot] = e["impression_ts"][i] // rules.epoch
    rows["week"][slot] = e["impression_ts"][i] // WEEK
    rows["cell"][slot] = cell_of(logit, -math.log(count), rules.score_low, rules.score_high, rules.score_bins,
                                 UNCERTAINTY_LOW, UNCERTAINTY_HIGH, rules.uncertainty_bins)  # fmt: skip
    rows["outcomes"][slot] = np.uint32(0)
    rows["emissions"][slot] = np.uint32(0)
    _outcome(out.outcomes, out.used, ts, rows, slot, 1, 0)
    if rules.policy == _VANILLA and _sampled(rules, key):
        _learn_at_once(t, rules, out, slot, ts, probability)
    if t.tallies[_T_IMPRESSIONS] == 0:
        t.tallies[_T_DECAYED] = ts
    t.tallies[_T_IMPRESSIONS] += 1
    if rules.policy == _RETRACTION and t.tallies[_T_IMPRESSIONS] % PERIOD == 0:
        _refresh(t.tallies, t.life_counts, t.life_values, t.life_ratios, t.life_prior, rules.window, ts)


@merged_kernel
def _learn_at_once(t, rules, out, slot, ts, probability):  # type: ignore[no-untyped-def]
    """`_learn` of a fresh impression's negative, whose logit is at hand: the same bits, one pass less."""
    rows = t.open
    push(t.weights, t.open_indices, slot, rules.width, -probability, rules.learning_rate, 1)
    rows["mass"][slot] = -probability
    rows["ratio"][slot] = -math.inf
    rows["flags"][slot] = _LEARNT | _NEGATIVE
    t.books[_B_EMITTED] += 1
    if rules.collect:
        row = rows["row"][slot]
        item = t.items["item"][row] if row >= 0 else np.uint64(0)
        _example(out.examples, out.indices, out.used, rows, t.open_indices, slot, rules.width, item, ts, 0,
                 _PROVISIONAL, probability, probability, 0.0, -probability)  # fmt: skip
        t.books[_B_EXAMPLES] += 1


@merged_kernel
def _observe(t, rows, slot, label):  # type: ignore[no-untyped-def]
    """Score the predictions made at arrival: the model's and the two baselines'."""
    week = np.int64(rows["week"][slot])
    for predictor in range(PREDICTORS):
        p = rows["prediction"][slot]
        if predictor == BASE_RATE:
            p = np.float64(rows["base_rate"][slot])
        elif predictor == ITEM_RATE:
            p = np.float64(rows["item_rate"][slot])
        observe(t.weeks, t.sums, t.total, t.histogram, t.dropped, week, predictor, p, label, 1)


@merged_kernel
def _expire(t, rules, out, number, ts, elapsed):  # type: ignore[no-untyped-def]
    """The window is over: score the prediction, and confirm the negative or learn what has waited."""
    rows = t.open
    slot = number & (rows.shape[0] - 1)
    flags = rows["flags"][slot]
    if flags & _EXPIRED:
        t.books[_B_UNKNOWN] += 1
        return
    converted = 1 if flags & _CONVERTED else 0
    rows["flags"][slot] = flags | _EXPIRED
    t.books[_B_EXPIRIES] += 1
    t.tallies[_T_TRIALS] += 1
    t.tallies[_T_POSITIVES] += converted
    row = rows["row"][slot]
    if row >= 0:
        t.items["trials"][row] += 1
        t.items["positives"][row] += converted
    if rules.evaluate:
        _observe(t, rows, slot, converted)
    last = t.offsets.shape[0]
    if rules.policy == _RETRACTION and rows["state"][slot] != PASSED and (last == 0 or t.pointers[last - 1] > number):
        t.life_counts[last, rows["state"][slot], PASSED if flags & _EVER else 0] += 1.0
    rows["state"][slot] = PASSED
    if converted:
        if rules.policy == _WAIT:
            _learn(t, rules, out, rows, t.open_indices, slot, ts, elapsed, _POSITIVE, math.inf)
        return
    if not _sampled(rules, rows["key"][slot]):
        t.books[_B_SKIPPED] += 1
        return
    if flags & _NEGATIVE:
        t.books[_B_CONFIRMED] += 1
        rows["flags"][slot] = (rows["flags"][slot] & ~_NEGATIVE) | _DONE
    elif not flags & _DONE:
        t.books[_B_REAL] += 1
        rows["flags"][slot] |= _DONE
    if rules.collect or rows["ratio"][slot] != -math.inf:
        _learn(t, rules, out, rows, t.open_indices, slot, ts, elapsed, _CONFIRMED, -math.inf)


@lean_kernel
def _convert(t, rules, out, rows, indices, slot, ts, elapsed):  # type: ignore[no-untyped-def]
    """A first unreturned purchase: retract the negative, or correct what was confirmed."""
    flags = rows["flags"][slot]
    t.books[_B_CONVERSIONS] += 1
    kind = _POSITIVE
    if flags & (_NEGATIVE | _DONE) and not flags & _EVER:
        kind = _RETRACT
    if flags & _NEGATIVE:
        t.books[_B_RETRACTED] += 1
    if flags & _EXPIRED and not flags & _EVER:
        t.books[_B_LATE] += 1
    if flags & _NEGATIVE:
        flags = (flags & ~_NEGATIVE) | _DONE
    rows["flags"][slot] = flags | _CONVERTED | _EVER
    _outcome(out.outcomes, out.used, ts, rows, slot, 0, 1)
    if rules.policy != _WAIT or flags & _EXPIRED:
        _learn(t, rules, out, rows, indices, slot, ts, elapsed, kind, math.inf)


@lean_kernel
def _reverse(t, rules, out, rows, indices, slot, ts, elapsed):  # type: ignore[no-untyped-def]
    """The last unreturned purchase came back: the belief falls from 1 to 0, or to what it was if 0 is not learnt."""
    t.books[_B_REVERSALS] += 1
    rows["flags"][slot] &= ~_CONVERTED
    _outcome(out.outcomes, out.used, ts, rows, slot, 0, -1)
    if rules.policy != _WAIT or rows["flags"][slot] & _EXPIRED:
        ratio = -math.inf if _sampled(rules, rows["key"][slot]) else 0.0
        _learn(t, rules, out, rows, indices, slot, ts, elapsed, _REVERSAL, ratio)


@lean_kernel
def _signal(t, number, op):  # type: ignore[no-untyped-def]
    """A click or cart: the stage it reaches, and in which bin of age; beliefs follow at the next checkpoint."""
    rows = t.open
    slot = number & (rows.shape[0] - 1)
    if op == _CLICK:
        t.books[_B_CLICKS] += 1
        rows["flags"][slot] |= _CLICKED
        stage = 1
    else:
        t.books[_B_CARTS] += 1
        rows["flags"][slot] |= _CARTED
        stage = 2
    if stage > rows["stage"][slot]:
        crossed = 0
        for k in range(t.pointers.shape[0]):
            crossed += 1 if t.pointers[k] > number else 0
        rows["stage"][slot] = stage
        rows["entered"][slot] = crossed


@lean_kernel
def _kept_operation(t, rules, out, e, i):  # type: ignore[no-untyped-def]
    """A conversion or reversal of an impression that left the ring; anything else has come too late."""
    op = e["op"][i]
    number = np.int64(-1)
    if op == _CONVERSION or op > _EXPIRY:
        number = ring_find(t.kept_heads, t.kept_nexts, t.kept, t.kept_ends[0], e["impression"][i])
    if number < 0:
        t.books[_B_UNKNOWN] += 1
        return
    slot = number & (t.kept.shape[0] - 1)
    elapsed = e["effect_ts"][i] - e["impression_ts"][i]
    if op == _CONVERSION:
        _convert(t, rules, out, t.kept, t.kept_indices, slot, e["ts"][i], elapsed)
    else:
        _reverse(t, rules, out, t.kept, t.kept_indices, slot, e["ts"][i], elapsed)


@merged_kernel
def _operation(t, rules, out, e, i, hint):  # type: ignore[no-untyped-def]
    """A click, cart, conversion, expiry or reversal of an impression that is kept."""
    key, op = e["impression"][i], e["op"][i]
    number = hint[0]
    mask = t.open.shape[0] - 1
    if op != _EXPIRY or number >= t.open_ends[1] or number < t.open_ends[0] or t.open["key"][number & mask] != key:
        number = ring_find(t.open_heads, t.open_nexts, t.open, t.open_ends[0], key)
        if number < 0:
            _kept_operation(t, rules, out, e, i)
            return
    elapsed = e["effect_ts"][i] - e["impression_ts"][i]
    if op == _EXPIRY:
        hint[0] = number + 1
        _expire(t, rules, out, number, e["ts"][i], elapsed)
    elif op == _CLICK or op == _CART:
        _signal(t, number, op)
    elif op == _CONVERSION:
        t.tallies[_T_CONVERTIBLE] += 0 if t.open["flags"][number & mask] & _EVER else 1
        _convert(t, rules, out, t.open, t.open_indices, number & mask, e["ts"][i], elapsed)
    else:
        _reverse(t, rules, out, t.open, t.open_indices, number & mask, e["ts"][i], elapsed)


@merged_kernel
def _look_ahead(t, e, i, expired):  # type: ignore[no-untyped-def]
    """Ask for the memory that row i will need."""
    op = e["op"][i]
    if op == _IMPRESSION:
        ring_prefetch(t.open_heads, e["impression"][i])
        prefetch_weights(t.plan, e["user"][i], e["item"][i], t.weights)
    elif op == _EXPIRY:
        mask = t.open.shape[0] - 1
        prefetch(t.open, (expired + 2 * AHEAD) & mask)
        prefetch(t.items, np.int64(t.open["row"][(expired + AHEAD) & mask]))
    else:
        ring_prefetch(t.open_heads, e["impression"][i])


@lean_kernel
def run(t, rules, out, e, codes, order, start, before, hint):  # type: ignore[no-untyped-def]
    """Apply rows e[order[start]], ...; then the timers due below `before`.

    Returns the number of rows of `order` that are done, len(order) + 1 where the last timers are done too; fewer where
    the examples' buffer is full: take them, then call again with `start` there.
    """
    room = out.examples.shape[0] if rules.collect else NEVER
    n = order.shape[0]
    position = start
    due, which = _next_checkpoint(t.open, t.open_ends, t.offsets, t.pointers)
    while True:
        until = e["ts"][order[position]] if position < n else before
        while due < until:
            if out.used[1] >= room:
                return position
            _pass_checkpoint(t, rules, out, which, due)
            due, which = _next_checkpoint(t.open, t.open_ends, t.offsets, t.pointers)
        if out.used[1] >= room:
            return position
        _forget(t, rules, until)
        if position >= n:
            return n + 1
        i = order[position]
        op = e["op"][i]
        if position + AHEAD < n:
            _look_ahead(t, e, order[position + AHEAD], hint[0])
        if op == _IMPRESSION:
            _impression(t, rules, out, e, codes, i)
            if t.offsets.shape[0] > 0 and t.pointers[0] == t.open_ends[1] - 1 and until + t.offsets[0] < due:
                due, which = until + t.offsets[0], 0
        elif op == _ITEM:
            _item(t, e["item"][i], codes, i)
        else:
            _operation(t, rules, out, e, i, hint)
        position += 1
