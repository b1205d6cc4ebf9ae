"""O15: quantities and prices are numbers or dead letters, never another number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.log_files import Case
from tests.reference.log_reading import decode, read_log

ROW = '{"ts":"2026-03-02T12:00:00Z","order_id":"o1","item_id":"A",%s}'
BAD_QUANTITIES = [
    "0",
    "-1",
    "1.5",
    '""',
    "true",
    "1000000000000",
    '"1_0"',
    "[]",
    '"three"',
    '"１"',
    "-0.0",
]
GOOD_QUANTITIES = {"1": 1, '"3"': 3, "3.0": 3, "1.0000": 1, '"3.0"': 3, "1000000": 1000000, "2e2": 200, "null": None}
BAD_PRICES = [
    '"6,795"',
    '"$6,795"',
    '"1,299.00"',
    '"1.234,56"',
    '"—"',
    '""',
    '"1_000"',
    '"１２"',
    '"nan"',
    '"NaN"',
    '"inf"',
    '" 5"',
    '"5 "',
    '"+5"',
    '".5"',
    '"5."',
    '"0x10"',
    "true",
    "[5]",
    '{"value":5}',
    "-5",
    '"-5"',
    '"1e999"',
    '"٣"',
]
GOOD_PRICES = {
    "0": 0.0,
    '"1e3"': 1000.0,
    "175.0000": 175.0,
    '"1299.00"': 1299.0,
    "null": None,
    '"0"': 0.0,
    "1e-3": 0.001,
}


@pytest.mark.parametrize("value", BAD_QUANTITIES)
@pytest.mark.parametrize("kind", ["purchase", "return", "add_to_cart"])
def test_bad_quantities(kind: str, value: str) -> None:
    assert decode(kind, [(ROW % f'"quantity":{value}').encode()]).reasons == ["bad_quantity"]


@pytest.mark.parametrize(("value", "expected"), GOOD_QUANTITIES.items())
def test_good_quantities(value: str, expected: int | None) -> None:
    assert decode("purchase", [(ROW % f'"quantity":{value}').encode()]).column("quantity") == [expected]


@pytest.mark.parametrize("value", BAD_PRICES)
def test_bad_prices(value: str) -> None:
    assert decode("purchase", [(ROW % f'"price":{value}').encode()]).reasons == ["bad_number:price"]


@pytest.mark.parametrize(("value", "expected"), GOOD_PRICES.items())
def test_good_prices(value: str, expected: float | None) -> None:
    assert decode("purchase", [(ROW % f'"price":{value}').encode()]).column("price") == [expected]


def test_from_csv_an_empty_field_is_missing_and_text_is_a_number(tmp_path: Path) -> None:
    rows = ["3,5", ",", "0,5", '1,"6,795"', "1,nan", "true,5", "1,1_000"]
    lines = [f"2026-03-02T12:00:00Z,o1,A,{row}" for row in rows]
    (tmp_path / "purchases.csv").write_text("ts,order_id,item_id,quantity,price\n" + "\n".join(lines))
    reading = read_log(tmp_path / "purchases.csv")
    assert reading.column("quantity") == [3, None]
    assert reading.column("price") == [5.0, None]
    assert reading.reasons == [
        "bad_quantity",
        "bad_number:price",
        "bad_number:price",
        "bad_quantity",
        "bad_number:price",
    ]


@pytest.mark.parametrize(
    ("quantity", "kept"),
    [
        (pa.array([1, 0, -1, 10**12, 3]), [1, 3]),
        (pa.array([1.0, 0.0, 1.5, float("inf"), 3.0]), [1, 3]),
        (pa.array(["1", "0", "1.5", "", "3"]), [1, 3]),
        (pa.array(["1", "0", "1.5", "x", "3"]).dictionary_encode(), [1, 3]),
        (pa.array([1, 0, 0, 0, 3]).cast(pa.decimal128(22, 2)), [1, 3]),
    ],
)
def test_typed_columns(quantity: pa.Array, kept: list[int], tmp_path: Path) -> None:
    table = pa.table({"ts": [1772452800] * 5, "item_id": ["A"] * 5, "quantity": quantity})
    pq.write_table(table, tmp_path / "purchases.parquet")
    reading = read_log(tmp_path / "purchases.parquet")
    assert reading.column("quantity") == kept
    assert reading.reasons == ["bad_quantity"] * 3


def test_booleans_in_typed_columns(tmp_path: Path) -> None:
    table = pa.table({"ts": [1772452800] * 2, "item_id": ["A"] * 2, "quantity": [True, None], "price": [None, False]})
    pq.write_table(table, tmp_path / "purchases.parquet")
    assert read_log(tmp_path / "purchases.parquet").reasons == ["bad_quantity", "bad_number:price"]


def test_a_flat_table_may_fill_fields_that_a_type_does_not_use() -> None:
    line = b'{"ts":1772452800,"item_id":"A","quantity":0,"price":"-","position":3}'
    reading = decode("impression", [line])
    assert (reading.column("quantity"), reading.column("price"), reading.column("position")) == ([None], [None], [3])


@pytest.mark.parametrize("value", ["-1", "1.5", '"x"', "true", "3000000000"])
def test_bad_positions(value: str) -> None:
    line = f'{{"ts":1772452800,"item_id":"A","position":{value}}}'
    assert decode("impression", [line.encode()]).reasons == ["bad_number:position"]


def sale(number: int, **values: str) -> str:
    """A purchase of item `i<number>` in an order of its own; values are JSON text."""
    rest = "".join(f',"{name}":{value}' for name, value in values.items())
    return (
        f'{{"event_id":"p{number}","ts":{1772452800 + number},"user_id":"u1","order_id":"o{number}",'
        f'"item_id":"i{number}"{rest}}}'
    )


def test_units_in_the_state_are_numbers_or_nothing(case: Callable[..., Case]) -> None:
    """Policies: quantity 0 is `bad_quantity`; text is read as a number from JSON too; a missing one is 1."""
    good = {**GOOD_QUANTITIES, "missing": None}
    bad = [sale(i, quantity=value) for i, value in enumerate(BAD_QUANTITIES)]
    sound = [sale(100 + i, **({} if v == "missing" else {"quantity": v})) for i, v in enumerate(good)]
    found = case().write(purchases=[*bad, *sound]).run()
    assert found.reasons == ["bad_quantity"] * len(BAD_QUANTITIES)
    assert found.bought == found.left == {f"i{100 + i}": units or 1 for i, units in enumerate(good.values())}
    assert {item for edge in found.edges for item in edge} <= set(found.bought), "no edge from what was set aside"
    assert found.count("return", "read") == 0, "a negative purchase is no return"


def test_a_price_is_read_or_the_row_is_set_aside(case: Callable[..., Case]) -> None:
    """Policy: a price that is no number dead-letters its row. A missing one does not: the units count."""
    bad = [sale(i, price=value) for i, value in enumerate(BAD_PRICES)]
    good = [sale(100 + i, price=value) for i, value in enumerate(GOOD_PRICES)]
    found = case().write(purchases=[*bad, *good, sale(200)]).run()
    assert found.reasons == ["bad_number:price"] * len(BAD_PRICES)
    assert found.bought == {**{f"i{100 + i}": 1 for i in range(len(GOOD_PRICES))}, "i200": 1}


def test_csv_into_the_state(case: Callable[..., Case]) -> None:
    values = {"3,5": 3, ",": 1, "0,5": None, '1,"6,795"': None, '1,"$6,795"': None, "1.0000,175.0000": 1}
    lines = [f"2026-03-02T12:00:0{i}Z,o{i},i{i},{text}" for i, text in enumerate(values)]
    made = case()
    made.put("purchases.csv", "\n".join(["ts,order_id,item_id,quantity,price", *lines]).encode(), len(lines))
    found = made.run()
    assert found.bought == {f"i{i}": units for i, units in enumerate(values.values()) if units is not None}
    assert found.reasons == ["bad_quantity", "bad_number:price", "bad_number:price"]


def test_a_return_of_no_quantity_takes_nothing(case: Callable[..., Case]) -> None:
    back = [json.dumps({"event_id": f"t{i}", "ts": 1772453800, "user_id": "u1", "order_id": "o1", "item_id": "i1"} | {"quantity": q}) for i, q in enumerate([0, -1, 1.5, True, ""])]  # fmt: skip # noqa: E501
    found = case().write(purchases=[sale(1, quantity="3")], returns=back).run()
    assert (found.left, found.reasons) == ({"i1": 3}, ["bad_quantity"] * 5)
