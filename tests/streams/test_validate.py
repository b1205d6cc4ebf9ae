"""`validate`: each check fails on the log that has its fault, and on no other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.log_check import Check, Report
from thalweg.streams.validate import validate

T0 = 1_772_452_800_000
FEATURES = from_builtins({"features": [{"name": "channel"}]})


def sound() -> list[dict[str, Any]]:
    """A small log without a fault."""
    rows: list[dict[str, Any]] = [{"type": "item", "event_id": f"i{i}", "ts": T0, "item_id": f"A{i}"} for i in range(5)]
    for i in range(40):
        seen = {"user_id": f"u{i % 7}", "item_id": f"A{i % 5}", "request_id": f"r{i}"}
        at = T0 + 60_000 * i
        rows.append(
            {"type": "impression", "event_id": f"m{i}", "ts": at, "impression_id": f"n{i}", "channel": "mail", **seen}
        )
        rows.append({"type": "click", "event_id": f"c{i}", "ts": at + 1000, "impression_id": f"n{i}", **seen})
        rows.append({"type": "purchase", "event_id": f"p{i}", "ts": at + 2000, "order_id": f"o{i}", **seen})
        rows.append({"type": "return", "event_id": f"t{i}", "ts": at + 3000, "order_id": f"o{i}", **seen})
    return rows


def check(folder: Path, rows: list[Any], configuration: Configuration = FEATURES, name: str = "log.jsonl") -> Report:
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(lines)[:-9] if name.endswith(".gz") else lines)
    return validate([folder / name], configuration)


def failed(report: Report) -> list[str]:
    return [each.name for each in report.checks if not each.passed]


def test_a_sound_log_passes_every_check(tmp_path: Path) -> None:
    report = check(tmp_path, sound())
    assert failed(report) == []
    assert report.passed and report.dead_letters == 0 and report.rows == len(sound())
    assert all(line.startswith("PASS") for line in report.lines())
    assert report.bounds.endswith("(scan)")


BROKEN = {
    "rows can be parsed": "{",
    "types are known": {"type": "view", "ts": T0, "item_id": "A1"},
    "times are plausible": {"type": "click", "ts": 0, "item_id": "A1"},
    "ids are ids": {"type": "click", "ts": T0, "item_id": 1.5},
    "required fields are there": {"type": "click", "ts": T0},
    "numbers are numbers": {"type": "purchase", "ts": T0, "item_id": "A1", "price": "6,795"},
    "features can be read": {"type": "impression", "ts": T0, "item_id": "A1", "channel": []},
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_row_fails_one_check(name: str, tmp_path: Path) -> None:
    report = check(tmp_path, [BROKEN[name], *sound()])
    assert failed(report) == [name]
    assert report.dead_letters == 1
    assert report.passed, "dead letters are counted, not failed: the exit status says 3"
    lines = report.lines()
    at = next(i for i, line in enumerate(lines) if line.startswith("FAIL"))
    assert lines[at + 1].startswith("      log.jsonl line 1: ")
    assert lines[at + 2].startswith("      mend: ")


def test_late_rows_by_the_clock(tmp_path: Path) -> None:
    rows = sound()
    report = check(tmp_path, [*rows[:60], {"type": "click", "event_id": "x", "ts": T0, "item_id": "A1"}, *rows[60:]])
    assert failed(report) == ["rows come in order"] and not report.passed
    late = next(each for each in report.checks if not each.passed)
    behind = max(row["ts"] for row in rows[:60]) - T0
    assert late.examples == [f"log.jsonl line 61: {(behind - 10_000) / 60_000:,.1f} min late"]
    assert late.mend == f"sort the log by ts, or set time.lateness to {behind // 1000}s or more"
    wider = from_builtins({"features": [{"name": "channel"}], "time": {"lateness": f"{behind // 1000}s"}})
    assert validate([tmp_path / "log.jsonl"], wider).passed


def test_a_reversed_log_fails(tmp_path: Path) -> None:
    assert "rows come in order" in failed(check(tmp_path, sound()[::-1]))


def test_copies_are_told_and_many_fail(tmp_path: Path) -> None:
    rows = sound()
    few = check(tmp_path, [*rows, rows[-1]])
    assert failed(few) == []
    assert "PASS  no event comes twice: 1 copies, dropped and counted" in few.lines()
    assert "no event comes twice" in failed(check(tmp_path, [row for row in rows for _ in range(2)]))


def test_one_id_with_two_contents(tmp_path: Path) -> None:
    rows = sound()
    report = check(tmp_path, [*rows, {**rows[-1], "quantity": 2}])
    assert failed(report) == ["an event id has one content"]
    same_id_of_another_type = {**rows[-1], "type": "click", "event_id": "p1"}
    assert failed(check(tmp_path, [*rows, same_id_of_another_type])) == []


@pytest.mark.parametrize(
    ("name", "kinds", "change"),
    [
        ("effects find the impression they name", {"click", "purchase"}, {"impression_id": "n-404"}),
        (
            "effects find the impression they name",
            {"click", "purchase"},
            {"impression_id": None, "request_id": "r-404"},
        ),
        ("returns find the order they name", {"return"}, {"order_id": "o-404"}),
        ("items are in the catalogue", {"return"}, {"item_id": "B", "order_id": None}),
    ],
)
def test_causes_that_are_missing(name: str, kinds: set[str], change: dict[str, Any], tmp_path: Path) -> None:
    rows = [{**row, **change} if row["type"] in kinds else row for row in sound()]
    assert failed(check(tmp_path, rows)) == [name]
    few = [{**row, **change} if row["event_id"] == "t3" else row for row in sound()]
    if name != "items are in the catalogue":
        assert failed(check(tmp_path, few)) == []


def test_features_that_never_come_and_fields_that_are_ignored(tmp_path: Path) -> None:
    rows = [{**row, "channel": None, "note": "x"} for row in sound()]
    report = check(tmp_path, rows)
    assert failed(report) == ["declared features are there"]
    assert report.lines()[-1] == f"PASS  fields are used: ignored: note ({len(rows)})"


def test_a_cut_off_file(tmp_path: Path) -> None:
    report = check(tmp_path, sound(), name="log.jsonl.gz")
    assert "files are whole" in failed(report) and not report.passed


def test_ids_that_end_in_a_point_and_zero(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(f"ts,user_id,item_id\n{T0},17850.0,A\n")
    assert failed(validate([tmp_path / "clicks.csv"], Configuration())) == ["ids keep their form"]


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    report = validate([tmp_path / "nothing.csv"], Configuration())
    assert not report.passed
    assert "there is no such file or folder" in report.lines()[1]


def test_several_files_are_read_as_a_replay_reads_them(tmp_path: Path) -> None:
    for kind in ("items", "impressions", "clicks", "purchases", "returns"):
        rows = [{k: v for k, v in row.items() if k != "type"} for row in sound() if kind.startswith(row["type"])]
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert failed(validate([tmp_path], FEATURES)) == []


def test_the_report_as_data(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sound()))
    report = validate([tmp_path / "log.jsonl"], FEATURES, lambda *seen: told.append(seen))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["passed"] and data["rows"] == 165 and len(data["checks"]) == len(report.checks)
    assert told[-1] == ("checking the log", 165, 165)
    assert Check("x", True).lines() == ["PASS  x"]
