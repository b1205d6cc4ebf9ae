"""The journeys of the funnel: requests and impressions, then signals, conversions, follow-ups and returns, as arrays.

Laws, per impression with logit z = bias + context(t) + item + user and p = sigmoid(z):
conversion within the window with probability p; a click with `click_given_conversion` if it converts, else with the
rate that makes `click_rate` in all (given the outcome it says nothing more of the features); a cart likewise, among the
clicked. Delay of a conversion: an exponential of scale `delay_scale` times the stage's factor, cut at the window. Its
click falls at u**3 of the delay, its cart at a uniform place between the two. Without a conversion, click and cart
follow exponentials of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .funnel import Progress
from .funnel_population import F64, I32, I64, Population, draw, stream
from .row import Type

Bools = np.ndarray


@dataclass(frozen=True)
class Impressions:
    """One entry an impression, by request. `user` is -1 of a guest; `codes` has one int32 array a context feature."""

    ts: I64
    request: I32
    position: I32
    user: I32
    item: I32
    codes: list[I32]
    p: F64  # probability of conversion within the window, before thinning
    delay_scale: F64  # ms, before the stage's factor
    converts: Bools
    delay: I64  # ms; -1: does not convert
    click: I64  # ms after the impression; -1: none
    cart: I64


@dataclass(frozen=True)
class Effects:
    """One entry a click, cart, purchase or return; `impression` -1: none earned it; `order` -1: it names none."""

    type: np.ndarray  # int8
    ts: I64
    impression: I32  # the impression it comes from
    naming: np.ndarray  # int8: 0 names nothing, 1 request and item, 2 the impression's id
    user: I32
    item: I32
    order: I32
    line: I32
    quantity: I32


@dataclass(frozen=True)
class Journeys:
    """Everything that happens."""

    impressions: Impressions
    effects: Effects


def journeys(population: Population, events: int, progress: Progress | None = None) -> Journeys:
    """Draw what happens: enough for a log of `events` rows.

    >>> from thalweg.streams.funnel import Dials
    >>> made = journeys(Population.draw(Dials(), 1000, seed=1), 1000)
    >>> len(made.impressions.ts) + len(made.effects.ts) > 1000
    True
    """
    report = progress or (lambda what, done, total: None)
    report("impressions", 0, None)
    impressions = _impressions(population, events)
    report("effects", 0, None)
    effects = _effects(population, impressions)
    return Journeys(impressions, effects)


def rows_an_impression(population: Population) -> tuple[float, float]:
    """Expected rows of the log, and impressions kept, for each impression before thinning.

    >>> from thalweg.streams.funnel import Dials
    >>> rows, kept = rows_an_impression(Population.draw(Dials(guests=0.0), 1000, seed=1))
    >>> 1.1 < rows < 1.3, kept
    (True, 1.0)
    """
    d = population.dials
    pi, keep = d.base_rate, 1 / d.thin
    kept = pi + (1 - pi) * keep
    clicks = pi * d.click_given_conversion + (d.click_rate - pi * d.click_given_conversion) * keep
    carts = pi * d.cart_given_conversion + (d.cart_rate - pi * d.cart_given_conversion) * keep
    purchases = pi * (1 + d.extra_line) * (1 + float(population.items @ population.follow))
    return (kept + clicks + carts + purchases * (1 + d.returns)) * (1 + d.duplicates), kept


def _impressions(population: Population, events: int) -> Impressions:
    d, seed = population.dials, population.seed
    margin = 1.08 + 6 / np.sqrt(events)  # the log is cut at its last row: a surplus, so that there is one
    per_impression, _ = rows_an_impression(population)
    requests = int(np.ceil(events * margin / per_impression / d.slots)) + 1
    rng = stream(seed, "requests")
    when = population.start + np.sort(rng.random(requests) * population.span * margin).astype(np.int64)
    user = draw(population.users, rng.random(requests))
    user[rng.random(requests) < d.guests] = -1
    n = requests * d.slots
    request = np.repeat(np.arange(requests, dtype=np.int32), d.slots)
    ts, user = when[request], user[request]
    item = _shelf(population, requests).reshape(-1)
    position = np.tile(np.arange(d.slots, dtype=np.int32), requests)
    codes = _context(population, requests, request)
    tau = (ts - population.start) / population.span
    logit = _logit(population, codes, tau, item, user)
    p = 1 / (1 + np.exp(-(logit + _bias(logit, d.base_rate))))
    scale = np.full(n, float(d.delay))
    for table, code in zip(population.delay_effects, codes, strict=False):
        scale *= np.exp(table)[code]
    converts = stream(seed, "conversions").random(n) < p
    kept = converts | (stream(seed, "thinning").random(n) < 1 / d.thin)
    delay, click, cart = _stages(population, converts[kept], scale[kept])
    return Impressions(
        ts[kept], request[kept], position[kept], user[kept], item[kept], [code[kept] for code in codes], p[kept],
        scale[kept], converts[kept], delay, click, cart,
    )  # fmt: skip


def _shelf(population: Population, requests: int) -> I32:
    """Items of each request, int32[requests, slots]: stratified draws by popularity, moved apart where two meet."""
    slots, items = population.dials.slots, len(population.items)
    rng = stream(population.seed, "items")
    shelf = draw(population.items, (np.arange(slots) + rng.random((requests, slots))) / slots)
    for k in range(1, slots):
        shelf[:, k] = np.maximum(shelf[:, k], shelf[:, k - 1] + 1)
    np.minimum(shelf, items - slots + np.arange(slots, dtype=np.int32), out=shelf)
    return np.take_along_axis(shelf, np.argsort(rng.random((requests, slots)), axis=1), axis=1)


def _context(population: Population, requests: int, request: I32) -> list[I32]:
    """Codes of the context features: even columns belong to the request, odd ones to the impression."""
    codes = []
    for j, p in enumerate(population.values):
        rng = stream(population.seed, f"context {j}")
        codes.append(draw(p, rng.random(requests))[request] if j % 2 == 0 else draw(p, rng.random(len(request))))
    return codes


def _logit(population: Population, codes: list[I32], tau: F64, item: I32, user: I32) -> F64:
    turn = population.dials.drift * tau
    cosine, sine = np.cos(turn), np.sin(turn)
    logit = population.item_effect[item] + np.append(population.user_effect, 0.0)[user]
    for (first, second), code in zip(population.effects, codes, strict=True):
        logit += cosine * first[code] + sine * second[code]
    return np.asarray(logit)


def _bias(logit: F64, rate: float) -> float:
    """Intercept at which the mean probability is `rate`: bisection on at most 200,000 impressions."""
    sample = logit[:: max(1, len(logit) // 200_000)]
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.mean(1 / (1 + np.exp(-(sample + middle))))) < rate:
            low = middle
        else:
            high = middle
    return low


def _stages(population: Population, converts: Bools, scale: F64) -> tuple[I64, I64, I64]:
    """Delay of the conversion, of the click and of the cart, ms; -1 where there is none."""
    d, seed, n = population.dials, population.seed, len(converts)
    rate = {}
    for signal in ("click", "cart"):
        given = getattr(d, f"{signal}_given_conversion")
        rate[signal] = (given, (getattr(d, f"{signal}_rate") - d.base_rate * given) / (1 - d.base_rate))
    rng = stream(seed, "signals")
    clicked = rng.random(n) < np.where(converts, *rate["click"])
    among = [cart / click if click > 0 else 0.0 for cart, click in zip(rate["cart"], rate["click"], strict=True)]
    carted = clicked & (rng.random(n) < np.where(converts, *among))
    window = float(d.window)
    mean = scale * np.asarray(d.stage_delay)[clicked.astype(np.int8) + carted]
    rng = stream(seed, "delays")
    law = -mean * np.log1p(-rng.random(n) * -np.expm1(-window / mean))
    second = window * (0.5 + 0.5 * rng.random(n))
    delay = np.where(rng.random(n) < d.slow, second, law)
    rng = stream(seed, "signal times")
    u, v = rng.random(n), rng.random(n)
    click = np.where(converts, delay * u**3, -float(d.click_delay) * np.log1p(-u))
    cart = np.where(converts, click + (delay - click) * v, click - float(d.cart_delay) * np.log1p(-v))
    return tuple(
        np.where(there, np.minimum(value, window - 1), -1).astype(np.int64)
        for value, there in ((delay, converts), (click, clicked), (cart, carted))
    )  # type: ignore[return-value]


def _effects(population: Population, imp: Impressions) -> Effects:
    """Clicks, carts and purchases of impressions, follow-ups, second lines and returns, one after the other."""
    seed = population.seed
    buys = np.flatnonzero(imp.converts).astype(np.int32)
    quantity = 1 + draw(np.array([0.85, 0.1, 0.05]), stream(seed, "quantities").random(len(buys)))
    parts = [
        _signals(imp, Type.CLICK, imp.click),
        _signals(imp, Type.ADD_TO_CART, imp.cart),
        _part(
            Type.PURCHASE, imp.ts[buys] + imp.delay[buys], buys, imp.user[buys], imp.item[buys],
            np.where(imp.user[buys] < 0, -1, np.arange(len(buys), dtype=np.int32)), quantity=quantity,
        ),
    ]  # fmt: skip
    parts.append(_second_lines(population, parts[-1]))
    parts.append(_follow_ups(population, parts[-2:], len(buys)))
    parts.append(_returns(population, parts[-3:]))
    fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    u = stream(seed, "naming").random(len(fields["ts"]))
    d = population.dials
    naming = np.where(u < d.named_by_impression, 2, np.where(u < d.named_by_impression + d.named_by_request, 1, 0))
    naming[(fields["impression"] < 0) | (fields["type"] == Type.RETURN)] = 0
    naming[(naming == 0) & (fields["user"] < 0)] = 1
    return Effects(naming=naming.astype(np.int8), **fields)


def _part(
    kind: Type, ts: I64, impression: I32 | int, user: I32, item: I32, order: I32 | int, line: I32 | int = 1,
    quantity: I32 | int = 1,
) -> dict[str, np.ndarray]:  # fmt: skip
    n = len(ts)
    whole = {"impression": impression, "user": user, "item": item, "order": order, "line": line, "quantity": quantity}
    columns = {name: np.broadcast_to(np.asarray(value, np.int32), n) for name, value in whole.items()}
    return {"type": np.full(n, kind, np.int8), "ts": ts, **columns}


def _signals(imp: Impressions, kind: Type, delay: I64) -> dict[str, np.ndarray]:
    which = np.flatnonzero(delay >= 0).astype(np.int32)
    return _part(kind, imp.ts[which] + delay[which], which, imp.user[which], imp.item[which], -1)


def _second_lines(population: Population, bought: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Line 2 of some known users' orders: an item by popularity, seen on no impression."""
    rng = stream(population.seed, "second lines")
    n = len(bought["ts"])
    other = draw(population.items, rng.random(n))
    chosen = (rng.random(n) < population.dials.extra_line) & (bought["user"] >= 0) & (other != bought["item"])
    return _part(
        Type.PURCHASE, bought["ts"][chosen], -1, bought["user"][chosen], other[chosen], bought["order"][chosen], 2
    )


def _follow_ups(population: Population, bought: list[dict[str, np.ndarray]], orders: int) -> dict[str, np.ndarray]:
    """Purchases of a planted target after its source, each an order of its own; they lead to no further one."""
    item, user, ts = (np.concatenate([part[name] for part in bought]) for name in ("item", "user", "ts"))
    target = population.follower[item]
    rng = stream(population.seed, "follow-ups")
    chosen = (rng.random(len(item)) < population.follow[item]) & (target >= 0) & (user >= 0)
    wait = 1000 - float(population.dials.follow_delay) * np.log1p(-rng.random(len(item)))
    k = int(chosen.sum())
    numbers = np.arange(orders, orders + k, dtype=np.int32)
    return _part(Type.PURCHASE, ts[chosen] + wait[chosen].astype(np.int64), -1, user[chosen], target[chosen], numbers)


def _returns(population: Population, bought: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns of whole lines, or of some of their units where there are several."""
    d = population.dials
    line = {name: np.concatenate([part[name] for part in bought]) for name in bought[0]}
    rng = stream(population.seed, "returns")
    n = len(line["ts"])
    chosen = rng.random(n) < d.returns
    cut = -np.expm1(-(d.return_window - 1) / d.return_delay)
    wait = 1 - float(d.return_delay) * np.log1p(-rng.random(n) * cut)
    units = 1 + (rng.random(n) * line["quantity"]).astype(np.int32)
    impression, user, item, order, number = (
        line[name][chosen] for name in ("impression", "user", "item", "order", "line")
    )
    return _part(
        Type.RETURN,
        line["ts"][chosen] + wait[chosen].astype(np.int64),
        impression,
        user,
        item,
        order,
        number,
        units[chosen],
    )
