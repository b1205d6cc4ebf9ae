"""UCI Online Retail (D. Chen, UCI 352) as a canonical log: a year of a UK gift shop's invoice lines, with real returns.

Each invoice line is a purchase (invoice = order, place in the invoice = line), each line of a cancellation (an invoice
whose number begins with C) a return. A cancellation does not say which order it takes back, so its order_id is null: it
reverses the customer's latest unreturned purchase of the item. A line without a customer is a guest's. There are no
impressions. Times have no zone, and are UK time.

What is no product, has no positive quantity or no price becomes a dead letter, with the first of these reasons that
holds. Stock codes stay as they are: 112 exist in two spellings ("85123A", "85123a"), and stay two items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..configuration import ConfigurationError
from ..dead_letter import DeadLetter
from ..log_writer import ROW_GROUP, LogWriter, log_schema
from ..row import Type
from .purchase_history import I64
from .report import Progress, Report, rejected, write_configuration, write_dead_letters, write_names

SOURCE = "online-retail"
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
PRODUCT = r"^([0-9]{5}[A-Za-z]{0,2}|DCGS.+|PADS)$"
"""Stock codes of products. The others are postage, carriage, fees, discounts, samples, vouchers and corrections."""
_ZONE = ZoneInfo("Europe/London")

REASONS = (
    ("missing_field:order_id", "the line has no InvoiceNo"),
    ("missing_field:item_id", "the line has no StockCode"),
    ("bad_timestamp", "InvoiceDate is no time of the form 2010-12-01 08:26:00"),
    ("not_a_product", "the stock code is postage, a fee, a discount, a sample, a voucher or a correction"),
    ("bad_quantity", "the quantity is no whole number of the right sign: positive, or negative on a cancellation"),
    ("bad_number:price", "the unit price is no number"),
    ("no_price", "the unit price is not above 0"),
)
"""Reasons of dead letters with their detail, in the order in which they are looked for."""


@dataclass(frozen=True)
class _Lines:
    """The file as it stands, and what it says; arrays of one entry a line."""

    text: pa.Table
    cancelled: np.ndarray  # bool
    ts: I64  # ms UTC
    quantity: I64  # positive where the line is good
    price: np.ndarray
    customer: pa.Array
    place: I64  # within the invoice, from 1
    reason: np.ndarray  # int8: index into REASONS; -1: good


def convert(inputs: list[Path], out: Path, progress: Progress | None = None) -> Report:
    """Write the log of one file (CSV, plain or .gz) to `out`. ConfigurationError where it is no such file."""
    report = progress or (lambda what, done, total: None)
    if len(inputs) != 1:
        raise ConfigurationError(f"online-retail reads one CSV file, {len(inputs)} were given; name the one")
    report("reading", 0, None)
    text, broken = _read(inputs[0])
    lines = _understand(text)
    good = np.flatnonzero(lines.reason < 0)
    order = good[np.lexsort((lines.cancelled[good], lines.ts[good]))]
    dead = write_dead_letters(out, _dead_letters(inputs[0].name, lines, broken))
    _write_names(out, text, good)
    write_configuration(out, "online_retail")
    with LogWriter(out, log_schema()) as writer:  # last: where the log is, all of it is
        for begin in range(0, len(order), ROW_GROUP):
            report("writing", begin, len(order))
            index = order[begin : begin + ROW_GROUP]
            writer.write(_columns(lines, index), len(index))
    returns = int(lines.cancelled[good].sum())
    customers = pc.count_distinct(lines.customer.take(pa.array(good)), mode="only_valid").as_py()
    return Report(
        SOURCE,
        out,
        rows={inputs[0].name: len(text) + len(broken)},
        events={"purchase": len(good) - returns, "return": returns},
        dead_letters=dead,
        notes=_notes(lines, good, customers),
    )


def _read(path: Path) -> tuple[pa.Table, list[tuple[int, str]]]:
    """The lines as text, and (line number, text) of those with a wrong number of fields."""
    broken: list[tuple[int, str]] = []

    def skip(row: csv.InvalidRow) -> str:
        broken.append((row.number or 0, row.text))
        return "skip"

    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(invalid_row_handler=skip),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigurationError(f"online-retail: {path} cannot be read as CSV: {error}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ConfigurationError(
            f"online-retail: {path} has no column {missing[0]!r}; the columns are {', '.join(COLUMNS)}"
        )
    return table.combine_chunks(), broken


def _understand(text: pa.Table) -> _Lines:
    n = len(text)
    invoice, stock = (text[name].combine_chunks() for name in ("InvoiceNo", "StockCode"))
    cancelled = _bools(pc.starts_with(invoice, "C"))
    quantity = _numbers(text["Quantity"], r"^-?[0-9]+(\.0*)?$")
    price = _numbers(text["UnitPrice"], r"^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$")
    ts = _times(text["InvoiceDate"])
    units = np.where(cancelled, -quantity, quantity)
    failed = (
        _bools(invoice.is_null()),
        _bools(stock.is_null()),
        ts < 0,
        ~_bools(pc.match_substring_regex(stock, PRODUCT)),
        ~(units > 0),
        np.isnan(price),
        ~(price > 0),
    )
    reason = np.full(n, -1, np.int8)
    for k in range(len(failed) - 1, -1, -1):
        reason[failed[k]] = k
    customer = pc.replace_substring_regex(text["CustomerID"].combine_chunks(), r"\.0*$", "")
    whole = np.where(np.isfinite(units), units, 0).astype(np.int64)
    return _Lines(text, cancelled, ts, whole, price, customer, _places(invoice), reason)


def _bools(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """bool; null is False."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False))


def _numbers(column: pa.ChunkedArray, pattern: str) -> np.ndarray:
    """float64; NaN where the text does not match."""
    good = pc.match_substring_regex(column, pattern).fill_null(False)
    numbers = pc.if_else(good, column, pa.scalar(None, pa.string())).cast(pa.float64())
    return np.asarray(numbers.to_numpy())


def _times(column: pa.ChunkedArray) -> I64:
    """ms UTC of UK time; -1 where it is no time. The hour that comes twice in autumn is read as its first."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    instants = np.full(len(encoded.dictionary) + 1, -1, np.int64)
    for k, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=_ZONE)
        except ValueError:
            continue
        instants[k] = int(moment.astimezone(UTC).timestamp()) * 1000
    return np.asarray(instants[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()])


def _places(invoice: pa.Array) -> I64:
    """Place of each line within its invoice, from 1, in the order of the file."""
    codes = pc.dictionary_encode(invoice).indices.fill_null(-1).to_numpy()
    order = np.argsort(codes, kind="stable")
    grouped = codes[order]
    start = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])[: len(codes)]
    places = np.empty(len(codes), np.int64)
    places[order] = 1 + np.arange(len(codes)) - np.repeat(start, np.diff(np.r_[start, len(codes)]))
    return places


def _columns(lines: _Lines, index: I64) -> dict[str, Any]:
    at = pa.array(index)
    cancelled = pa.array(lines.cancelled[index])
    invoice = lines.text["InvoiceNo"].combine_chunks().take(at)
    place = pa.array(lines.place[index]).cast(pa.string())
    none = pa.scalar(None, pa.string())
    n = len(index)
    return {
        "event_id": pc.binary_join_element_wise(invoice, place, "-"),
        "type": np.where(lines.cancelled[index], Type.RETURN, Type.PURCHASE).astype(np.int8),
        "ts": lines.ts[index],
        "user_id": lines.customer.take(at).dictionary_encode(),
        "item_id": lines.text["StockCode"].combine_chunks().take(at).dictionary_encode(),
        "order_id": pc.if_else(cancelled, none, invoice),
        "line": pc.if_else(cancelled, none, place),
        "price": lines.price[index],
        "currency": pa.array(["GBP"] * n, pa.string()).dictionary_encode(),
        "quantity": lines.quantity[index],
    }


def _dead_letters(source: str, lines: _Lines, broken: list[tuple[int, str]]) -> Iterator[DeadLetter]:
    """Dead letters by line of the file (the header is line 1)."""
    for number, text in broken:
        yield rejected(
            source, number - 2, "bad_row", "the line has a wrong number of fields", {"text": text}, "unknown", header=1
        )
    bad = np.flatnonzero(lines.reason >= 0)
    skipped = np.sort(np.array([number - 2 for number, _ in broken], np.int64))
    rows = bad.copy()
    for row in skipped:  # rows of the table that stand after a broken line are one further down in the file
        rows[rows >= row] += 1
    for row, k, record in zip(rows.tolist(), bad.tolist(), lines.text.take(pa.array(bad)).to_pylist(), strict=True):
        reason, detail = REASONS[lines.reason[k]]
        kind = "return" if lines.cancelled[k] else "purchase"
        yield rejected(source, row, reason, detail, record, kind, header=1)


def _write_names(out: Path, text: pa.Table, good: I64) -> None:
    """The description that most of an item's good lines carry; ties go to the first in the alphabet."""
    lines = text.select(["StockCode", "Description"]).take(pa.array(good)).drop_null()
    counted = lines.group_by(["StockCode", "Description"]).aggregate([([], "count_all")])
    counted = counted.sort_by([("StockCode", "ascending"), ("count_all", "descending"), ("Description", "ascending")])
    codes = counted["StockCode"].combine_chunks()
    first = (
        np.flatnonzero(np.r_[True, _bools(pc.not_equal(codes[1:], codes[:-1]))])
        if len(codes)
        else np.zeros(0, np.int64)
    )
    write_names(out, codes.take(pa.array(first)), counted["Description"].combine_chunks().take(pa.array(first)))


def _notes(lines: _Lines, good: I64, customers: int) -> dict[str, int]:
    guest = _bools(lines.customer.is_null())[good]
    cancelled = lines.cancelled[good]
    return {
        "purchase lines with a customer": int((~guest & ~cancelled).sum()),
        "purchase lines of guests": int((guest & ~cancelled).sum()),
        "returns with a customer": int((~guest & cancelled).sum()),
        "returns of guests": int((guest & cancelled).sum()),
        "customers": customers,
        "items": pc.count_distinct(lines.text["StockCode"].combine_chunks().take(pa.array(good))).as_py(),
    }
