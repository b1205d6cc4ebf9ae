"""Logs: order of files, types from names, batches and resuming, headings, what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.log_reading import WIDE, read_log
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.log import expand, open_log
from thalweg.streams.log_file import LogError, type_of_stem
from thalweg.streams.time_bounds import Bounds

T0 = 1_772_452_800_000


def write_parquet(path: Path, n: int, group: int = 7, **more: pa.Array) -> Path:
    columns = {"event_id": pa.array([f"e{i}" for i in range(n)]), "ts": pa.array(np.arange(n) + T0)}
    items = pa.array([f"i{i % 5}" if i % 11 else None for i in range(n)])
    pq.write_table(pa.table({**columns, "item_id": items, **more}), path, row_group_size=group)
    return path


def write_lines(path: Path, n: int) -> Path:
    lines = [f'{{"event_id":"e{i}","ts":{T0 + i}' + (f',"item_id":"i{i % 5}"}}' if i % 11 else "}") for i in range(n)]
    data = ("\n".join(lines) + "\n").encode() if n else b""
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def write_csv(path: Path, n: int) -> Path:
    rows = [f"e{i},{T0 + i},{f'i{i % 5}' if i % 11 else ''}" for i in range(n)]
    data = ("\n".join(["event_id,ts,item_id", *rows]) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


WRITERS = {
    "clicks.parquet": write_parquet, "clicks.jsonl": write_lines, "clicks.ndjson.gz": write_lines,
    "clicks.csv": write_csv, "clicks.csv.gz": write_csv,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@given(n=st.integers(0, 40), start=st.integers(0, 45), rows=st.integers(1, 45))
def test_batches_cover_exactly_the_rows_from_any_start(
    name: str, n: int, start: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = open_log([WRITERS[name](tmp_path_factory.mktemp("log") / name, n)], WIDE).files[0]
    batches = list(file.batches(start, rows))
    assert [(b.start, b.end) for b in batches] == [(a, min(a + rows, n)) for a in range(start, n, rows)]
    seen = [int(o) for b in batches for o in b.offsets]
    assert seen == [i for i in range(start, n) if i % 11]
    assert [name for b in batches for name in b.events.column("event_id").to_pylist()] == [f"e{i}" for i in seen]
    assert [letter.row for b in batches for letter in b.rejects] == [i for i in range(start, n) if not i % 11]
    assert {letter.reason for b in batches for letter in b.rejects} <= {"missing_field:item_id"}


@pytest.mark.parametrize("name", WRITERS)
def test_lines_for_people_and_raw_rows(name: str, tmp_path: Path) -> None:
    letters = read_log(WRITERS[name](tmp_path / name, 12), rows=5).rejects
    first = 2 if ".csv" in name else 1
    assert [(letter.row, letter.line) for letter in letters] == [(0, first), (11, first + 11)]
    assert letters[1].raw is not None and b"e11" in letters[1].raw


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("clicks.csv", 2),
        ("clicks-2026.jsonl", 2),
        ("click.jsonl.gz", 2),
        ("impressions_2026_03.parquet", 1),
        ("carts.csv", 3),
        ("add_to_carts.csv", 3),
        ("purchases.2.csv", 4),
        ("Returns.csv", 5),
        ("items.csv", 0),
        ("clickstream.csv", -1),
        ("itemised.csv", -1),
        ("log.parquet", -1),
        ("my_clicks.csv", -1),
    ],
)
def test_the_type_that_a_name_says(name: str, kind: int) -> None:
    assert type_of_stem(name) == kind


def test_a_row_without_a_type_in_a_file_without_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"type,ts,item_id\nclick,{T0},A\n,{T0},A\n")
    reading = read_log(path)
    assert reading.column("event_id") == ["log.csv#0"]
    assert [(letter.reason, letter.type) for letter in reading.rejects] == [("bad_type", "unknown")]


def test_a_folder_is_sorted_by_name_and_paths_keep_their_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.jsonl", ".hidden.csv", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "x.csv").write_text("")
    names = [path.name for path in expand([tmp_path])]
    assert names == ["a.csv", "b.csv", "c.jsonl"]
    assert [path.name for path in expand([tmp_path / "c.jsonl", tmp_path / "a.csv"])] == ["c.jsonl", "a.csv"]


def refused(paths: list[Path], words: str) -> None:
    with pytest.raises(LogError, match=words):
        open_log(paths, Configuration())


def test_what_is_refused(tmp_path: Path) -> None:
    refused([], "no log given")
    refused([tmp_path / "nothing.csv"], "there is no such file or folder")
    refused([tmp_path], "holds no log file")
    (tmp_path / "log.txt").write_text("x")
    refused([tmp_path / "log.txt"], "is no log by its name")
    (tmp_path / "log.parquet").write_text("x")
    refused([tmp_path / "log.parquet"], "is no whole Parquet file")
    (tmp_path / "more").mkdir()
    refused(
        [write_csv(tmp_path / "a.csv", 1), write_csv(tmp_path / "more" / "a.csv", 1)],
        "is known by file name and number",
    )


def test_parquet_needs_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    pq.write_table(pa.table({"time": [1], "item_id": ["A"]}), path)
    refused([path], "has no column `ts`.*Columns found: time, item_id")
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names=["ts", "ts"]), path)
    refused([path], "column 'ts' is there twice")


def test_half_a_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "clicks.parquet", 1000)
    path.write_bytes(path.read_bytes()[:-100])
    refused([path], "is no whole Parquet file")


def test_unknown_columns_are_ignored_and_counted(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "clicks.parquet", 10, note=pa.array(["x"] * 10))
    assert read_log(path, rows=4).ignored == {"note": 10}
    (tmp_path / "clicks.csv").write_text(f"ts,item_id,note\n{T0},A,\n{T0},B,x\n")
    assert read_log(tmp_path / "clicks.csv").ignored == {"note": 2}


def test_dictionaries_that_differ_between_row_groups(tmp_path: Path) -> None:
    declared = from_builtins({"features": [{"name": "f"}], "time": {"latest": "2099-01-01T00:00:00Z"}})
    values = [f"v{i // 3}" if i % 4 else None for i in range(30)]
    path = write_parquet(tmp_path / "clicks.parquet", 30, group=4, f=pa.array(values).dictionary_encode())
    reading = read_log(path, declared, rows=11)
    assert reading.column("f") == [value for i, value in enumerate(values) if i % 11]


def test_canonical_types_by_number(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", 7, type=pa.array([1, 1, 2, 3, 4, 5, 9], pa.int8()))
    reading = read_log(path)
    assert reading.column("type") == [1, 2, 3, 4, 5]
    assert reading.reasons == ["missing_field:item_id", "bad_type"]


def test_quotes_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    rows = ['"A,1"', '"say ""hi"""', '"two\nlines"', '5" disk', '"open', "B", 'bad"quote"', '"x"y', "C"]
    path.write_text("ts,item_id\n" + "".join(f"{T0},{row}\n" for row in rows))
    reading = read_log(path, rows=2)
    assert reading.column("item_id") == ["A,1", 'say "hi"', "two\nlines", '5" disk', "B", 'bad"quote"', "C"]
    assert [(letter.reason, letter.line, letter.row) for letter in reading.rejects] == [
        ("bad_row", 7, 4),
        ("bad_row", 10, 7),
    ]


def test_rows_of_another_width_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(f"ts,item_id\n{T0},A\n\n{T0}\n{T0},B,C\n{T0},D")
    reading = read_log(path)
    assert reading.column("item_id") == ["A", "D"]
    assert [letter.detail for letter in reading.rejects] == [
        "an empty line", "1 fields where the heading has 2", "3 fields where the heading has 2",
    ]  # fmt: skip


def test_an_empty_csv_is_said(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("")
    assert read_log(tmp_path / "clicks.csv").unfinished == [
        "clicks.csv: is empty, without a heading line; send it again"
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_a_scan_sees_all_times_and_counts_the_rows(name: str, tmp_path: Path) -> None:
    log = open_log([WRITERS[name](tmp_path / name, 33)], Configuration())
    file = log.files[0]
    assert sorted(np.concatenate(list(file.times())).tolist()) == [T0 + i for i in range(33)]
    assert file.rows == 33
    assert log.bounds.origin == "scan"


def test_one_wrong_clock_is_one_dead_letter(tmp_path: Path) -> None:
    rows = [f"{T0 + i},A" for i in range(50)] + ["2062-03-02T12:00:00Z,A"]
    (tmp_path / "clicks.csv").write_text("ts,item_id\n" + "\n".join(rows))
    assert read_log(tmp_path / "clicks.csv", Configuration()).reasons == ["bad_timestamp"]
    assert read_log(tmp_path / "clicks.csv", WIDE).reasons == []


def test_bounds_handed_in_are_used(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "clicks.csv", 5)
    log = open_log([path], Configuration(), Bounds(T0 + 1, T0 + 2))
    assert [b.events.column("ts").to_pylist() for b in log.files[0].batches()] == [[T0 + 1, T0 + 2]]


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    open_log(
        [write_parquet(tmp_path / "clicks.parquet", 20)], Configuration(), progress=lambda *seen: told.append(seen)
    )
    assert told == [("looking at the times of clicks.parquet", 20, 20)]


def test_a_rejected_parquet_row_is_kept_as_json(tmp_path: Path) -> None:
    table = pa.table({"ts": [T0], "item_id": ["A"], "price": [float("inf")], "quantity": pa.array([None], pa.int64())})
    pq.write_table(table, tmp_path / "purchases.parquet")
    letter = read_log(tmp_path / "purchases.parquet").rejects[0]
    assert letter.reason == "bad_number:price"
    assert letter.raw == b'{"ts":1772452800000,"item_id":"A","price":"inf"}'
