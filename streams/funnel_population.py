"""Who shops in the funnel, what is on sale, and what is true of them: the latent side of `funnel`.

Nothing of it is written to the log. Effects are drawn per value of a feature, item, category, brand and user, centred
and scaled under the popularity of the values, so that a dial's standard deviation is that of the logit itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from .configuration import ConfigurationError
from .funnel import Dials
from .row import DAY

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

CATEGORIES, BRANDS = 12, 40  # of the items outside the planted pairs
PAIR_CATEGORIES = ("phone", "case", "tea", "biscuit")
"""Sources and targets of the one-way pairs, then the two sides of the symmetric pairs."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator for the draws called `name`: Philox under a key made of both.

    >>> float(stream(1, "users").random()) == float(stream(1, "users").random()) != float(stream(1, "items").random())
    True
    """
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))


def zipf(n: int, exponent: float) -> F64:
    """Probabilities of ranks 1..n falling as rank**-exponent; float64[n], sums to 1.

    >>> zipf(2, 1.0).round(3).tolist()
    [0.667, 0.333]
    """
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def draw(probabilities: F64, uniform: F64) -> I32:
    """Index of each uniform draw under `probabilities`, by inversion; int32 of `uniform`'s shape.

    >>> draw(np.array([0.5, 0.5]), np.array([0.1, 0.9])).tolist()
    [0, 1]
    """
    steps = np.cumsum(probabilities)
    return np.minimum(np.searchsorted(steps, uniform, side="right"), len(steps) - 1).astype(np.int32)


def _standardised(values: F64, probabilities: F64) -> F64:
    centred = values - values @ probabilities
    spread = np.sqrt(centred**2 @ probabilities)
    return np.asarray(centred / spread if spread > 0 else np.zeros_like(centred))


@dataclass(frozen=True)
class Population:
    """The latent side of one funnel. Ranks are by popularity, 0 the most popular.

    `category[rank]` and `brand[rank]` index into the lists of names. `follower[rank]` is the rank of the planted target
    (-1: none) and `follow[rank]` the chance that it follows. `pairs` is int32[k, 3]: source, target, and 1
    where the pair is one-way.

    >>> population = Population.draw(Dials(users=50, items=200), 1000, seed=1)
    >>> len(population.users), len(population.items), population.pairs.shape
    (50, 200, (40, 3))
    """

    dials: Dials
    seed: int
    start: int  # ms
    span: int  # ms
    users: F64  # probability by rank
    items: F64
    item_numbers: I32  # rank -> number in the id, so that ids tell no rank
    user_numbers: I32
    category: I32
    brand: I32
    categories: list[str]
    brands: list[str]
    price: F64
    item_effect: F64
    user_effect: F64
    values: list[F64]  # probability by value, one a context feature
    effects: list[tuple[F64, F64]]  # the two phases of each context effect
    delay_effects: list[F64]  # log delay by value, for the first two features
    follower: I32
    follow: F64
    pairs: I32

    @classmethod
    def draw(cls, dials: Dials, events: int, seed: int) -> Population:
        """Draw a population for a log of `events` rows."""
        users = dials.users or max(50, events // 100)
        items = dials.items or max(100, events // 500)
        pairs, follower, category, categories = _planted(dials, items, seed)
        rng = stream(seed, "catalogue")
        brand = rng.integers(0, BRANDS, items, dtype=np.int32)
        price = np.round(2 + 98 * rng.random(items) ** 2, 2)
        popularity = zipf(items, dials.item_zipf)
        own, of_category, of_brand = (rng.standard_normal(k) for k in (items, len(categories), BRANDS))
        shares = (1 / 3, 1 / 3, 1 / 3) if dials.catalogue else (1.0, 0.0, 0.0)
        parts = zip(shares, (own, of_category[category], of_brand[brand]), strict=True)
        effect = sum(np.sqrt(share) * _standardised(part, popularity) for share, part in parts)
        item_effect = dials.item_effect * _standardised(np.asarray(effect), popularity)
        user_popularity = zipf(users, dials.user_zipf)
        values = [zipf(dials.cardinalities[j % len(dials.cardinalities)], 0.8) for j in range(dials.features)]
        return cls(
            dials=dials,
            seed=seed,
            start=_start(dials.start),
            span=int(dials.days * DAY),
            users=user_popularity,
            items=popularity,
            item_numbers=rng.permutation(items).astype(np.int32),
            user_numbers=stream(seed, "users").permutation(users).astype(np.int32),
            category=category,
            brand=brand,
            categories=categories,
            brands=[f"brand{b:02d}" for b in range(BRANDS)],
            price=price,
            item_effect=item_effect,
            user_effect=dials.user_effect
            * _standardised(stream(seed, "user effects").standard_normal(users), user_popularity),
            values=values,
            effects=_context_effects(dials, values, seed),
            delay_effects=_delay_effects(dials, values, seed),
            follower=follower,
            follow=_follow(dials, pairs, popularity * np.exp(item_effect)),
            pairs=pairs,
        )


def _start(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f'funnel dial: start {text!r} is no date; write it as "2025-01-01"') from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def _context_effects(dials: Dials, values: list[F64], seed: int) -> list[tuple[F64, F64]]:
    scale = dials.signal / np.sqrt(max(1, sum(len(p) > 1 for p in values)))
    rng = stream(seed, "context effects")
    tables = []
    for p in values:
        first, second = rng.standard_normal(len(p)), rng.standard_normal(len(p))
        tables.append((scale * _standardised(first, p), scale * _standardised(second, p)))
    return tables


def _delay_effects(dials: Dials, values: list[F64], seed: int) -> list[F64]:
    rng = stream(seed, "delay effects")
    moved = values[:2]
    scale = dials.delay_spread / np.sqrt(max(1, len(moved)))
    return [scale * _standardised(rng.standard_normal(len(p)), p) for p in moved]


def _follow(dials: Dials, pairs: I32, sales: F64) -> F64:
    """Chance of a follow-up by source rank.

    The better seller of a symmetric pair leads to the other less often, so that both directions are about as frequent:
    a count would else see a direction that is only popularity.
    """
    chance = np.zeros(len(sales))
    for source, target, one_way in pairs.tolist():
        chance[source] = dials.follow
        if not one_way:
            chance[target] = dials.follow
            chance[[source, target]] *= min(sales[source], sales[target]) / sales[[source, target]]
    return chance


def _planted(dials: Dials, items: int, seed: int) -> tuple[I32, I32, I32, list[str]]:
    """The pairs, who follows whom, and the categories: pair members first, the rest at random.

    Members stand among the popular items (from rank 3 on) in an order drawn at random, so that popularity does not
    tell a source from its target.
    """
    one_way, symmetric = dials.pairs, dials.symmetric_pairs
    members = 2 * (one_way + symmetric)
    if members + 3 > items:
        raise ConfigurationError(
            f"funnel dial: {one_way} + {symmetric} planted pairs need {members + 3} items, there are {items}; "
            "raise items or lower pairs and symmetric_pairs"
        )
    rng = stream(seed, "pairs")
    ranks = 3 + rng.permutation(members).astype(np.int32).reshape(-1, 2)
    pairs = np.column_stack([ranks, np.arange(len(ranks)) < one_way]).astype(np.int32)
    follower = np.full(items, -1, np.int32)
    follower[pairs[:, 0]] = pairs[:, 1]
    follower[pairs[one_way:, 1]] = pairs[one_way:, 0]
    category = len(PAIR_CATEGORIES) + rng.integers(0, CATEGORIES, items, dtype=np.int32)
    category[pairs[:one_way, 0]], category[pairs[:one_way, 1]] = 0, 1
    category[pairs[one_way:, 0]], category[pairs[one_way:, 1]] = 2, 3
    names = [*PAIR_CATEGORIES, *(f"category{c:02d}" for c in range(CATEGORIES))]
    return pairs, follower, category, names
