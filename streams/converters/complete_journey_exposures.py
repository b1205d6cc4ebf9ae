"""Exposures of the Complete Journey: coupons sent to households, displays and mailers of a visit's store and week.

A visit has thousands of products on display or in the mailer, 1,100 of them of types the household bought before: 174
million a year. Of each visit the `LIMIT` with the least hash of basket and product are kept: a uniform choice that
does not depend on the order of the rows, and that a second conversion repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thalweg.graph_store.hash import mix64
from thalweg.graph_store.kernel import kernel

from .complete_journey_tables import START, Tables, index_of
from .purchase_history import I32, I64
from .report import Progress

LIMIT = 20
"""Display and mailer impressions of one visit."""
AHEAD = 15 * 60
"""Seconds that a shelf is seen before the checkout, which is the only time that the data gives of a visit."""

CHANNELS = ("coupon", "display", "mailer", "display+mailer")
PLACEMENTS = (
    "campaign B", "campaign C", "none", "store front", "store rear", "front end cap", "mid-aisle end cap",
    "rear end cap", "side-aisle end cap", "in-aisle", "secondary location", "in-shelf",
)  # fmt: skip
_DISPLAYS = {"0": 2, "1": 3, "2": 4, "3": 5, "4": 6, "5": 7, "6": 8, "7": 9, "9": 10, "A": 11}
"""Code of display_location in the source -> index into PLACEMENTS."""
MAILERS = (
    "none", "interior feature", "interior line", "front feature", "back feature", "wrap front", "wrap interior",
    "wrap back", "interior coupon", "front line", "back line",
)  # fmt: skip
_MAILERS = {c: k for k, c in enumerate(("0", "A", "C", "D", "F", "H", "J", "L", "P", "X", "Z"))}


@dataclass(frozen=True)
class Exposures:
    """One entry an impression. `channel`, `placement`, `mailer` index into the tuples above; `second` since START."""

    second: I64
    household: I32
    item: I32
    cause: I64  # campaign of a coupon, basket of a visit
    channel: I32
    placement: I32
    mailer: I32

    @classmethod
    def together(cls, parts: list[Exposures]) -> Exposures:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def coupon_exposures(tables: Tables) -> tuple[Exposures, int]:
    """(a): one a household, campaign of type B or C, coupon product it bought before; how many start before it."""
    described = tables.table("campaign_descriptions").to_pylist()
    coupons = tables.table("coupons", ["campaign_id", "product_id"])
    members = tables.table("campaigns")
    campaign_of_coupon, campaign_of_member = coupons["campaign_id"].to_numpy(), members["campaign_id"].to_numpy()
    products = index_of(tables.item_numbers, len(tables.catalogue_item), coupons["product_id"].to_numpy())
    households = np.searchsorted(tables.household_numbers, members["household_id"].to_numpy()).astype(np.int32)
    bought, first = _first_purchases(tables)
    parts, before = [], 0
    for campaign in sorted(described, key=lambda row: int(row["campaign_id"])):
        kind = campaign["campaign_type"].removeprefix("Type ")
        if kind not in ("B", "C"):
            continue
        second = _midnight(campaign["start_date"]) - START
        before += second <= 0
        offered = np.unique(products[campaign_of_coupon == campaign["campaign_id"]])
        invited = np.unique(households[campaign_of_member == campaign["campaign_id"]])
        household, item = (grid.reshape(-1) for grid in np.meshgrid(invited, offered[offered >= 0], indexing="ij"))
        key = household.astype(np.int64) * len(tables.item_ids) + item
        at = np.minimum(np.searchsorted(bought, key), len(bought) - 1)
        known = (bought[at] == key) & (first[at] < second)
        n = int(known.sum())
        parts.append(
            Exposures(
                np.full(n, second), household[known], item[known], np.full(n, campaign["campaign_id"], np.int64),
                np.zeros(n, np.int32), np.full(n, "BC".index(kind), np.int32), np.zeros(n, np.int32),
            )
        )  # fmt: skip
    return Exposures.together(parts), before


def _first_purchases(tables: Tables) -> tuple[I64, I64]:
    """Keys household * items + item that were bought, sorted, and the second of the first time."""
    key = tables.household.astype(np.int64) * len(tables.item_ids) + tables.item
    bought, at = np.unique(key, return_index=True)
    return bought, tables.second[at]


def _midnight(date: datetime) -> int:
    return int(date.replace(tzinfo=ZoneInfo("America/New_York")).timestamp())


def shelf_exposures(tables: Tables, progress: Progress) -> tuple[Exposures, int]:
    """(b): at most `LIMIT` a visit; and how many there were to choose from."""
    place, item, placement, mailer = _promotions(tables, progress)
    visited = _place(tables.visit_store, tables.visit_week)
    start, end = np.searchsorted(place, visited), np.searchsorted(place, visited, side="right")
    types = int(tables.type_of_item.max()) + 1
    first = np.full((len(tables.household_numbers), types), np.iinfo(np.int32).max, np.int32)
    bought = tables.type_of_item[tables.item]
    latest_first = np.flatnonzero(bought >= 0)[::-1]  # the last assignment stays: the first purchase
    first[tables.household[latest_first], bought[latest_first]] = tables.second[latest_first]
    second = tables.visit_second - AHEAD
    chosen, count, eligible = (
        np.empty((len(visited), LIMIT), np.int64),
        np.zeros(len(visited), np.int64),
        np.zeros(1, np.int64),
    )
    choose(
        start, end, tables.visit_basket, tables.visit_household, second, item, tables.type_of_item[item], placement,
        first, chosen, count, eligible,
    )  # fmt: skip
    at = chosen[np.arange(LIMIT) < count[:, None]]
    visit = np.repeat(np.arange(len(visited)), count)
    shown = Exposures(
        second[visit], tables.visit_household[visit], item[at], tables.visit_basket[visit],
        (np.where(placement[at] == _DISPLAYS["0"], 0, 1) + 2 * (mailer[at] > 0)).astype(np.int32),
        placement[at].astype(np.int32), mailer[at].astype(np.int32),
    )  # fmt: skip
    return shown, int(eligible[0])


def _place(store: I64, week: I64) -> I64:
    return store * 64 + week


def _promotions(tables: Tables, progress: Progress) -> tuple[I64, I32, npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Place (store and week), item, placement and mailer of each promotion that shows anything, by place."""
    path = tables.folder / "promotions.parquet"
    places = np.unique(_place(tables.visit_store, tables.visit_week))
    index = np.full(int(tables.item_numbers.max()) + 1, -1, np.int32)
    index[tables.item_numbers] = np.arange(len(tables.item_numbers))
    parts, read = [], 0
    with pq.ParquetFile(path, read_dictionary=["display_location", "mailer_location"]) as file:
        for batch in file.iter_batches(batch_size=1_000_000):
            progress("displays and mailers", read, tables.rows["promotions"])
            read += len(batch)
            place = _place(batch["store_id"].to_numpy(), batch["week"].to_numpy())
            at = np.minimum(np.searchsorted(places, place), len(places) - 1).astype(np.int16)
            some = (places[at] == place) & (batch["product_id"].to_numpy() < len(index))
            item = index[batch["product_id"].to_numpy()[some]]
            placement = _lookup(batch["display_location"], _DISPLAYS)[some]
            parts.append((at[some], item, placement, _lookup(batch["mailer_location"], _MAILERS)[some]))
    at, item, placement, mailer = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(at, kind="stable")  # a radix sort: the place is 16 bits
    order = order[(item[order] >= 0) & ((placement[order] != _DISPLAYS["0"]) | (mailer[order] != _MAILERS["0"]))]
    return places[at[order]], item[order], placement[order], mailer[order]


def _lookup(column: pa.Array, codes: dict[str, int]) -> npt.NDArray[np.int8]:
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    table = np.array([codes[text] for text in encoded.dictionary.to_pylist()], np.int8)
    return np.asarray(table[encoded.indices.to_numpy()])


@kernel
def choose(start, end, basket, household, second, item, type_of_row, placement, first, chosen, count, eligible):  # type: ignore[no-untyped-def]
    """For each visit v: of the rows start[v]..end[v]-1 whose type the household bought before second[v], keep the
    `chosen.shape[1]` with the least hash of basket and item, by rising hash; of an item's rows the one of the greatest
    placement. `eligible[0]` counts all of them.
    """
    limit = chosen.shape[1]
    hashes = np.empty(limit, np.uint64)
    for v in range(start.shape[0]):
        kept = 0
        salt = mix64(np.uint64(basket[v]))
        for row in range(start[v], end[v]):
            kind = type_of_row[row]
            if kind < 0 or first[household[v], kind] >= second[v]:
                continue
            eligible[0] += 1
            h = mix64(salt ^ np.uint64(item[row]))
            if kept == limit and h > hashes[limit - 1]:
                continue
            k = kept
            while k > 0 and hashes[k - 1] > h:
                k -= 1
            if k > 0 and hashes[k - 1] == h:
                if placement[row] > placement[chosen[v, k - 1]]:
                    chosen[v, k - 1] = row
                continue
            kept = min(kept + 1, limit)
            for j in range(kept - 1, k, -1):
                hashes[j] = hashes[j - 1]
                chosen[v, j] = chosen[v, j - 1]
            hashes[k] = h
            chosen[v, k] = row
        count[v] = kept
