"""O04: ids are names; the same id is the same on every route."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases.log_files import Case, Found
from tests.reference.log_reading import WIDE, decode, read_log
from thalweg.streams.configuration import Configuration
from thalweg.streams.log import open_log

CSV = """event_id,ts,user_id,request_id,item_id
c1,2026-03-02T12:00:01Z,17850,r1,0108775015
c2,2026-03-02T12:00:02Z,,r2,0108775015
c3,2026-03-02T12:00:03Z,17850,r3,108775015
"""
TIMES = [f"2026-03-02T12:00:0{i}Z" for i in (1, 2, 3)]
ITEMS = ["0108775015", "0108775015", "108775015"]


def write_csv(folder: Path) -> Path:
    path = folder / "clicks.csv"
    path.write_text(CSV)
    return path


def write_parquet(folder: Path, users: pa.Array, items: pa.Array) -> Path:
    path = folder / "clicks.parquet"
    columns = {"event_id": ["c1", "c2", "c3"], "ts": TIMES, "user_id": users, "request_id": ["r1", "r2", "r3"]}
    pq.write_table(pa.table({**columns, "item_id": items}), path)
    return path


def floats(folder: Path) -> Path:
    return write_parquet(folder, pa.array([17850.0, None, 17850.0]), pa.array(ITEMS))


def floats_with_nan(folder: Path) -> Path:
    return write_parquet(folder, pa.array([17850.0, float("nan"), 17850.0]), pa.array(ITEMS))


def dictionary(folder: Path) -> Path:
    return write_parquet(folder, pa.array([17850.0, None, 17850.0]), pa.array(ITEMS).dictionary_encode())


def decimals(folder: Path) -> Path:
    users = pa.array([Decimal(17850), None, Decimal(17850)], pa.decimal128(10, 0))
    return write_parquet(folder, users, pa.array(ITEMS))


def decimals_with_scale(folder: Path) -> Path:
    users = pa.array([Decimal("17850.00"), None, Decimal("17850.00")], pa.decimal128(10, 2))
    return write_parquet(folder, users, pa.array(ITEMS))


def integers(folder: Path) -> Path:
    return write_parquet(folder, pa.array([17850, None, 17850], pa.int16()), pa.array(ITEMS, pa.large_string()))


def json_lines(folder: Path) -> Path:
    path = folder / "clicks.jsonl"
    users = ['"user_id":17850,', "", '"user_id":17850.0,']
    lines = [
        f'{{"event_id":"c{i + 1}","ts":"{TIMES[i]}",{users[i]}"request_id":"r{i + 1}","item_id":"{ITEMS[i]}"}}'
        for i in range(3)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


ROUTES: list[Callable[[Path], Path]] = [
    write_csv,
    floats,
    floats_with_nan,
    dictionary,
    decimals,
    decimals_with_scale,
    integers,
    json_lines,
]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_the_same_events(route: Callable[[Path], Path], tmp_path: Path) -> None:
    reading = read_log(route(tmp_path))
    assert reading.rejects == []
    assert reading.column("user_id") == ["17850", None, "17850"]
    assert reading.column("item_id") == ITEMS
    assert reading.column("ts") == [1772452801000, 1772452802000, 1772452803000]


@pytest.mark.parametrize("user", ["17850.5", "true", '["17850"]', '{"id":17850}', "1e300"])
def test_what_is_no_id_in_json(user: str) -> None:
    line = f'{{"ts":1772452800,"item_id":"A","user_id":{user}}}'
    assert decode("click", [line.encode()]).reasons == ["bad_id:user_id"]


@pytest.mark.parametrize(
    "users",
    [pa.array([17850.5]), pa.array([True]), pa.array([["17850"]]), pa.array([{"id": 17850}]), pa.array([2.0**60])],
)
def test_what_is_no_id_in_parquet(users: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": [1772452800], "item_id": ["A"], "user_id": users}), tmp_path / "clicks.parquet")
    assert read_log(tmp_path / "clicks.parquet").reasons == ["bad_id:user_id"]


def test_text_that_ends_in_a_point_and_zero_is_kept_and_said_once(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(CSV.replace("17850", "17850.0"))
    assert read_log(path).column("user_id") == ["17850.0", None, "17850.0"]
    log = open_log([path], Configuration())
    assert ["user_id ends in `.0`" in note for note in log.files[0].notes] == [True]
    assert open_log([write_csv(tmp_path)], WIDE).files[0].notes == []


SHOWN = [
    {"event_id": f"i{i + 1}", "ts": f"2026-03-02T12:00:0{i}Z", "request_id": f"r{i + 1}", "item_id": ITEMS[i]}
    | ({} if i == 1 else {"user_id": "17850"})
    for i in range(3)
]


@pytest.fixture(scope="module")
def known() -> list[Found]:
    """What the routes before found: all must be one."""
    return []


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_the_same_state(
    route: Callable[[Path], Path], case: Callable[..., Case], known: list[Found]
) -> None:
    made = case().write(impressions=SHOWN)
    route(made.log)
    made.rows += 3
    found = made.run()
    assert found.clicked() == {"0108775015": 2, "108775015": 1}
    assert (found.users, found.letters) == (1, [])
    assert found.count("click", "attributed") == 3
    known.append(found)
    assert (found.digests, found.trails) == (known[0].digests, known[0].trails)


def test_what_is_no_id_reaches_no_table(case: Callable[..., Case]) -> None:
    users = ["17850.5", "true", '["17850"]', '{"id":17850}']
    lines = [f'{{"event_id":"c{i}","ts":1772452800,"item_id":"A","user_id":{user}}}' for i, user in enumerate(users)]
    found = case().write(impressions=lines).run()
    assert found.reasons == ["bad_id:user_id"] * 4
    assert (found.impressions, found.users) == ([], 0)
