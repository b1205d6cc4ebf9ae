"""O07: units, resolution, absurd years, local time: the right instant or a dead letter, whatever TZ says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.log_files import Case
from tests.reference.log_reading import WIDE, decode, read_log
from thalweg.streams.configuration import from_builtins

NOON = 1774785600000  # 2026-03-29T12:00:00Z
SAME = [
    "1774785600",
    "1774785600000",
    "1774785600000000",
    "1774785600000000000",
    '"1774785600"',
    "1774785600.0",
    '"2026-03-29T12:00:00Z"',
    '"2026-03-29T14:00:00+02:00"',
    '"2026-03-29T12:00:00.123456789Z"',
    '"1774785600000"',
    '"1774785600.0"',
    '"2026-03-29 12:00:00"',
    '"2026-03-29T12:00Z"',
    '"2026-03-29T07:00:00-0500"',
    "1774785600000.0",
]
ABSURD = [
    '"10013-12-10T01:09:46Z"',
    '"9999-05-28T13:13:23Z"',
    '"-0025-01-01T23:01:01Z"',
    '"0000-00-00 00:00:00"',
    "0",
    "-1",
    "1",
    "1e300",
    "9223372036854775807",
    '"yesterday"',
    '""',
    "null",
    "true",
    "[]",
    "{}",
    '"2026-03-29"',
    '"2026-02-30T00:00:00Z"',
    '"2026-03-29T25:00:00Z"',
    '"2026-03-29T12:00:60Z"',
    '"２０２６-03-29T12:00:00Z"',
    '" 1774785600"',
    '"1_774_785_600"',
    "-1774785600",
    "99999999999999999999",
    '"2026-03-29T12:00:00+25:00"',
    '"2026-W13-7T12:00:00Z"',
]
NEW_YORK = from_builtins({"time": {"zone": "America/New_York", "earliest": "2000-01-01T00:00:00Z"}})


@pytest.fixture(params=["UTC", "Asia/Kathmandu", "America/New_York"], autouse=True)
def _machine_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def row(ts: str) -> bytes:
    return f'{{"item_id":"A","ts":{ts}}}'.encode()


def test_nine_ways_to_say_one_instant() -> None:
    reading = decode("click", [row(ts) for ts in SAME])
    assert reading.rejects == []
    expected = [NOON + (123 if ".123" in ts else 0) for ts in SAME]
    assert reading.column("ts") == expected


def test_the_same_from_csv(tmp_path: Path) -> None:
    texts = [str(json.loads(ts)) if ts.startswith('"') else ts for ts in SAME]
    (tmp_path / "clicks.csv").write_text("ts,item_id\n" + "".join(f"{text},A\n" for text in texts))
    reading = read_log(tmp_path / "clicks.csv")
    assert reading.column("ts") == [NOON + (123 if ".123" in ts else 0) for ts in SAME]


@pytest.mark.parametrize("ts", ABSURD)
def test_absurd_times_are_dead_letters(ts: str) -> None:
    assert decode("click", [row(ts)]).reasons == ["bad_timestamp"]


def test_no_time_at_all() -> None:
    assert decode("click", [b'{"item_id":"A"}']).reasons == ["bad_timestamp"]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_typed_columns_use_their_own_unit(unit: str, zone: str | None, tmp_path: Path) -> None:
    per = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    ts = pa.array([NOON // 1000 * per, None], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"ts": ts, "item_id": ["A", "B"]}), tmp_path / "clicks.parquet", version="2.6")
    reading = read_log(tmp_path / "clicks.parquet")
    assert reading.column("ts") == [NOON]
    assert reading.reasons == ["bad_timestamp"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.string()])
def test_untyped_columns_follow_the_bands(kind: pa.DataType, tmp_path: Path) -> None:
    values = [1774785600, 1774785600000, 1774785600000000, 1774785600000000000, 0, 1]
    ts = pa.array(values, pa.int64()).cast(kind, safe=False)
    pq.write_table(pa.table({"ts": ts, "item_id": ["A"] * 6}), tmp_path / "clicks.parquet")
    reading = read_log(tmp_path / "clicks.parquet")
    assert reading.column("ts") == [NOON] * 4
    assert reading.reasons == ["bad_timestamp"] * 2


def test_a_date_column_is_no_time(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": pa.array([20000], pa.date32()), "item_id": ["A"]}), tmp_path / "clicks.parquet")
    assert read_log(tmp_path / "clicks.parquet").reasons == ["bad_timestamp"]


LOCAL = {
    "2026-03-08 02:30:00": None,  # skipped by the clocks
    "2026-11-01 01:30:00": 1793511000000,  # twice: the first, 05:30Z
    "2026-03-02 07:00:00": 1772452800000,  # 12:00Z
}


def test_naive_text_in_a_zone() -> None:
    reading = decode("click", [row(f'"{text}"') for text in LOCAL], NEW_YORK)
    assert reading.reasons == ["bad_timestamp"]
    assert reading.column("ts") == [value for value in LOCAL.values() if value is not None]


def test_naive_typed_columns_in_a_zone(tmp_path: Path) -> None:
    ts = pa.array([text.replace(" ", "T") for text in LOCAL]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"ts": ts, "item_id": ["A"] * 3}), tmp_path / "clicks.parquet")
    reading = read_log(tmp_path / "clicks.parquet", NEW_YORK)
    assert reading.reasons == ["bad_timestamp"]
    assert reading.column("ts") == [value for value in LOCAL.values() if value is not None]


@pytest.mark.parametrize(
    ("unit", "value"), [("s", 1774785600), ("ms", NOON), ("us", NOON * 1000), ("ns", NOON * 10**6)]
)
def test_a_declared_unit_takes_no_other(unit: str, value: int) -> None:
    declared = from_builtins({"time": {"unit": unit, "latest": "2099-01-01T00:00:00Z"}})
    others = [v for v in (1774785600, NOON, NOON * 1000, NOON * 10**6) if v != value]
    reading = decode("click", [row(str(v)) for v in [value, *others]], declared)
    assert reading.column("ts") == [NOON]
    assert reading.reasons == ["bad_timestamp"] * 3


def test_bounds_of_the_configuration_hold_at_both_ends() -> None:
    bounds = from_builtins({"time": {"earliest": "2026-03-29T12:00:00Z", "latest": "2026-03-29T12:00:01Z"}})
    reading = decode("click", [row(str(NOON + d)) for d in (-1, 0, 1000, 1001)], bounds)
    assert reading.column("ts") == [NOON, NOON + 1000]
    assert WIDE.time.earliest is not None


@pytest.mark.parametrize("bounds", [{}, {"earliest": None, "latest": None}])
def test_in_the_state_no_absurd_time_moves_the_clock(case: Callable[..., Case], bounds: dict[str, None]) -> None:
    """With bounds of the configuration, and with those of a scan."""
    lines = [f'{{"event_id":"e{i}","item_id":"A","ts":{ts}}}' for i, ts in enumerate([*SAME, *ABSURD])]
    found = case(time=bounds).write(impressions=lines).run()
    assert {one["ts"] // 1000 for one in found.impressions} == {NOON // 1000}
    assert len(found.impressions) == len(SAME)
    assert found.reasons == ["bad_timestamp"] * len(ABSURD)
    assert (found.clock, found.count("impression", "late")) == (NOON + 124, 0)


def test_one_wrong_clock_costs_one_event(case: Callable[..., Case]) -> None:
    """A year too far ahead, and plausible to every rule but a look at the log: the others are not late for it."""
    rows = [{"event_id": f"e{i}", "ts": NOON + i * 1000, "item_id": "A"} for i in range(50)]
    rows.insert(25, {"event_id": "ahead", "ts": NOON + 366 * 86_400_000, "item_id": "A"})
    found = case(time={"earliest": None, "latest": None}).write(impressions=rows).run()
    assert (found.reasons, len(found.impressions), found.count("impression", "late")) == (["bad_timestamp"], 50, 0)
