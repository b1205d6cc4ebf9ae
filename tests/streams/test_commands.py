"""The commands on a small funnel: what they print, that they agree, and that queries change nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from thalweg.streams import cli
from thalweg.streams.row import Type

EVENTS = 6_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A funnel with four refreshes, replayed into `state`, with names, report and summary."""
    folder = tmp_path_factory.mktemp("funnel")
    log = folder / "funnel.parquet"
    dials = [f"--dial={dial}" for dial in ("users=60", "items=100", "features=3", "base_rate=0.05")]
    assert cli.main(["simulate", str(log), "--events", str(EVENTS), "--seed", "3", *dials]) == 0
    items = [f"item{i}" for i in range(100)]
    names = {"item_id": items, "name": [f"Thing {i}" for i in range(100)]}
    pq.write_table(pq.read_table(log).from_pydict(names), folder / "funnel.names.parquet")
    files = ["--report", str(folder / "report.html"), "--json", str(folder / "summary.json")]
    assert cli.main(["replay", str(log), "--state", str(folder / "state"), "--close", *files]) == 0
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
    return found


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command prints on stdout."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == status, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    """The same as JSON."""
    return json.loads(told(capsys, *arguments, "--json", status=status))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for RocksDB's own logs of secondary readers."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "LOG" not in p.name}


# ---- replay


def test_the_summary_counts_every_row(folder: Path, summary: dict[str, Any]) -> None:
    kinds = pc.value_counts(pq.read_table(folder / "funnel.parquet")["type"])
    counts = {Type(row["values"]).name.lower(): row["counts"] for row in kinds.to_pylist()}
    for kind, count in counts.items():
        assert summary["books"]["events"][kind]["read"] == count, kind
    assert summary["run"]["events"] == sum(counts.values())
    assert summary["books"]["balanced"] and summary["run"]["closed"] and not summary["run"]["interrupted"]


def test_the_summary_scores_the_model_beside_its_baselines(summary: dict[str, Any]) -> None:
    totals = summary["prequential"]["total"]
    assert [total["name"] for total in totals] == ["model", "base rate so far", "item's rate so far"]
    assert len({total["trials"] for total in totals}) == 1 and totals[0]["trials"] > 1_000
    weekly = [week for week in summary["prequential"]["weeks"] if week["name"] == "model"]
    assert sum(week["trials"] for week in weekly) == totals[0]["trials"]
    weighed = sum(week["log_loss"] * week["trials"] for week in weekly) / totals[0]["trials"]
    assert weighed == pytest.approx(totals[0]["log_loss"], rel=1e-6)


def test_reliability_covers_the_scored_epochs(summary: dict[str, Any]) -> None:
    calibration = summary["calibration"]
    scored = sum(epoch["trials"] for epoch in calibration["epochs"])
    assert sum(point["trials"] for point in calibration["points"]) == scored > 0
    for point in calibration["points"]:
        assert point["low"] <= point["actual"] <= point["high"]
        assert 0 <= point["predicted"] <= 1 and 0 <= point["raw"] <= 1


def test_the_report_is_of_this_replay(folder: Path, summary: dict[str, Any]) -> None:
    text = (folder / "report.html").read_text()
    found = re.search(r'<script type="application/json" id="summary">(.*?)</script>', text, re.S)
    assert found is not None and json.loads(found[1]) == summary


def test_an_old_state_needs_no_configuration(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A replay of what is done already changes nothing, and finds the configuration in the state."""
    before = told(capsys, "state", "digest", "--state", str(folder / "state"))
    shutil.copy(folder / "funnel.parquet", tmp_path / "funnel.parquet")
    told(capsys, "replay", str(tmp_path / "funnel.parquet"), "--state", str(folder / "state"), "--close")
    assert told(capsys, "state", "digest", "--state", str(folder / "state")) == before


def test_another_configuration_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.toml"
    other.write_text((folder / "funnel.toml").read_text() + "\n[conversion]\nbits = 12\n")
    log, state = str(folder / "funnel.parquet"), str(folder / "state")
    assert cli.main(["replay", log, "--state", state, "--config", str(other)]) == 1
    said = capsys.readouterr().err
    assert "conversion.bits" in said and "new --state folder" in said


def test_dead_letters_are_status_3_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    good = {"type": "click", "event_id": "c1", "ts": "2026-03-02T12:00:00Z", "user_id": "u1", "item_id": "A"}
    log.write_text(json.dumps(good) + "\nnot json\n")
    for name, more, status in (("a", [], 3), ("b", ["--allow-dead-letters"], 0)):
        state = tmp_path / name
        assert cli.main(["replay", str(log), "--state", str(state), "--close", *more]) == status
        assert "1 rows were dead-lettered (bad_json 1)" in capsys.readouterr().err
        assert (
            b"not json" in (state / "dead_letters.jsonl").read_bytes() or (state / "dead_letters.jsonl").stat().st_size
        )


def test_strict_refuses_late_rows_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    lines = []
    for number, minute in enumerate((0, 30, 1)):
        row = {
            "type": "click",
            "event_id": f"c{number}",
            "ts": f"2026-03-02T12:{minute:02}:00Z",
            "user_id": "u",
            "item_id": "A",
        }
        lines.append(json.dumps(row))
    log.write_text("\n".join(lines) + "\n")
    assert cli.main(["replay", str(log), "--state", str(tmp_path / "s"), "--strict"]) == 1
    said = capsys.readouterr().err
    assert "log.jsonl" in said and "time.lateness" in said
    assert cli.main(["replay", str(log), "--state", str(tmp_path / "t"), "--close"]) == 0
    assert "late 1" in capsys.readouterr().out


def test_an_interrupted_replay_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped before its second block it is status 130, says how to go on, and the next run ends with equal digests."""
    from contextlib import contextmanager

    from thalweg.streams.commands import replay

    @contextmanager
    def soon() -> Any:
        asked = iter([False])
        yield lambda: next(asked, True)

    state, log = str(tmp_path / "state"), str(folder / "funnel.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "interruptible", soon)
        assert cli.main(["replay", log, "--state", state, "--close", "--block-rows", "500"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert cli.main(["replay", log, "--state", state, "--close", "--block-rows", "500"]) == 0
    assert told(capsys, "verify", state, str(folder / "state")).startswith("equal\n")


# ---- verify and state


def test_verify_names_stage_and_day(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log without its last purchase: not equal, from attribution on."""
    table = pq.read_table(folder / "funnel.parquet")
    last = max(i for i, kind in enumerate(table["type"].to_pylist()) if kind == Type.PURCHASE)
    log = tmp_path / "cut.parquet"
    pq.write_table(table.take([i for i in range(len(table)) if i != last]), log)
    config = ["--config", str(folder / "funnel.toml")]
    assert cli.main(["replay", str(log), "--state", str(tmp_path / "cut"), "--close", *config]) == 0
    text = told(capsys, "verify", str(folder / "state"), str(tmp_path / "cut"), status=1)
    assert text.startswith("different\n  attribution: ")
    found = answer(capsys, "verify", str(folder / "state"), str(tmp_path / "cut"), status=1)
    assert not found["equal"] and found["differences"][0]["stage"] == "attribution"


def test_digests_are_one_line_a_stage(
    folder: Path, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys, "state", "digest", "--state", str(folder / "state")).splitlines()
    assert [line.split()[0] for line in lines] == ["attribution", "feedback", "copurchase", "calibration"]
    assert all(re.fullmatch(r"[a-z]+ [0-9a-f]{32}", line) for line in lines)
    assert dict(line.split() for line in lines) == {each["stage"]: each["digest"] for each in summary["audit"]}
    found = answer(capsys, "state", "digest", "--state", str(folder / "state"))
    assert found["digests"] == dict(line.split() for line in lines)
    trail = told(capsys, "state", "digest", "--trail", "--state", str(folder / "state")).splitlines()
    assert len(trail) == len(found["trail"]) == sum(each["entries"] for each in summary["audit"])


def test_inspect_shows_what_the_summary_says(
    folder: Path, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "state", "inspect", "--state", str(folder / "state"))
    assert found["books"] == summary["books"]
    assert {(t["stage"], t["table"]) for t in found["tables"]} == {(t["stage"], t["table"]) for t in summary["tables"]}
    assert all(stage["held"] == 0 for stage in found["stages"]), "the log was closed"
    text = told(capsys, "state", "inspect", "--state", str(folder / "state"))
    assert "the books balance" in text and "attribution" in text


def test_export_writes_the_entries(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "state", "export", str(tmp_path / "out"), "--state", str(folder / "state"))
    for line in text.splitlines():
        path, rows = line.rsplit(" ", 1)
        assert pq.ParquetFile(path).metadata.num_rows == int(rows)
    one = told(
        capsys, "state", "export", str(tmp_path / "one"), "--state", str(folder / "state"), "--stage", "feedback"
    )
    assert 0 < len(one.splitlines()) < len(text.splitlines()) and "attribution" not in one


# ---- queries


def test_related_by_id_and_by_name_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(folder / "state")
    popular = answer(capsys, "recommend", "--user", "never seen", "--state", state, "-k", "6")["items"]
    seen = 0
    for number in (int(each["item"].removeprefix("item")) for each in popular):
        by_name = answer(capsys, "related", f"thing {number}", "--state", state, "-k", "5")
        assert by_name["item"] == f"item{number}" and by_name["name"] == f"Thing {number}"
        assert answer(capsys, "related", f"item{number}", "--state", state, "-k", "5") == by_name
        found = by_name["related"]
        assert len(found) <= 5 and f"item{number}" not in [each["item"] for each in found]
        assert [each["relatedness"] for each in found] == sorted((e["relatedness"] for e in found), reverse=True)
        text = told(capsys, "related", f"item{number}", "--state", state, "-k", "5")
        assert all(each["name"] in text for each in found)
        seen += len(found)
    assert seen > 3


def test_an_unknown_item_is_status_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["related", "no such thing", "--state", str(folder / "state")]) == 2
    assert "'no such thing' is not in the state" in capsys.readouterr().err


def test_recommend_ranks_with_reasons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(folder / "state")
    found = answer(capsys, "recommend", "--items", "item7,item9", "--state", state, "-k", "4")
    assert found["seeds"] == ["item7", "item9"] and 0 < len(found["items"]) <= 4
    assert {each["item"] for each in found["items"]}.isdisjoint({"item7", "item9"})
    for each in found["items"]:
        assert each["low"] <= each["rate"] <= each["high"]
        assert each["reason"]["rung"] in ("personal", "category", "popularity")
    text = told(capsys, "recommend", "--items", "item7,item9", "--state", state, "-k", "4")
    assert len(text.splitlines()) == 1 + len(found["items"])
    assert "bought Thing" in text or "popular" in text


def test_recommend_to_a_user_and_to_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(folder / "state")
    table = pq.read_table(folder / "funnel.parquet")
    bought = table.filter(pc.equal(table["type"], int(Type.PURCHASE)))["user_id"].drop_null().to_pylist()
    own = answer(capsys, "recommend", "--user", bought[-1], "--state", state)
    assert own["rung"] == "personal" and own["seeds"]
    stranger = answer(capsys, "recommend", "--user", "never seen", "--state", state)
    assert stranger["rung"] == "popularity" and stranger["items"] and not stranger["seeds"]
    assert own["request_id"] != stranger["request_id"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["recommend"], "--user USER"), (["recommend", "--user", "u", "--context", "page"], "NAME=VALUE"),
    (["recommend", "--user", "u", "--context", "nothing=1"], "no declared context feature"),
    (["explain"], "--item ITEM"), (["explain", "--impression", "never"], "is not kept"),
])  # fmt: skip
def test_questions_that_make_no_sense_are_status_2(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--state", str(folder / "state")]) == 2
    assert said in capsys.readouterr().err


def test_explain_adds_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parts of the logit sum to the logit, and `recommend` gives the same score for the same question."""
    state = str(folder / "state")
    found = answer(capsys, "explain", "--user", "user1", "--item", "thing 7", "--state", state)
    assert sum(part["logit"] for part in found["parts"]) == pytest.approx(found["logit"], abs=1e-6)
    text = told(capsys, "explain", "--user", "user1", "--item", "thing 7", "--state", state)
    assert "Thing 7 [item7] for user1" in text and "intercept" in text
    offered = answer(capsys, "recommend", "--user", "user1", "--state", state)["items"][0]
    again = answer(capsys, "explain", "--user", "user1", "--item", offered["item"], "--state", state)
    assert again["score"] == pytest.approx(offered["score"])
    assert again["calibrated"]["rate"] == pytest.approx(offered["rate"])


def test_the_life_of_a_label(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(folder / "funnel.parquet")
    last = table.filter(pc.equal(table["type"], int(Type.IMPRESSION))).slice(0).to_pylist()[-1]
    name = last["impression_id"] or last["event_id"]
    found = answer(capsys, "explain", "--impression", name, "--state", str(folder / "state"))
    assert found["item"] == last["item_id"] and found["ts"] == last["ts"] and not found["converted"]
    text = told(capsys, "explain", "--impression", name, "--state", str(folder / "state"))
    assert name in text and "prediction" in text


def test_questions_change_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(folder / "state")
    state = str(folder / "state")
    told(capsys, "related", "item7", "--state", state)
    told(capsys, "recommend", "--user", "user1", "--state", state)
    told(capsys, "explain", "--user", "user1", "--item", "item7", "--state", state)
    told(capsys, "state", "inspect", "--state", state)
    assert tree(folder / "state") == before


# ---- simulate, convert, validate


def test_simulate_is_reproducible(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for log in logs:
        told(capsys, "simulate", str(log), "--events", "500", "--seed", "9", "--truth", str(tmp_path / "truth.parquet"))
    assert pq.read_table(logs[0]).equals(pq.read_table(logs[1]))
    found = answer(capsys, "simulate", str(logs[0]), "--events", "500", "--seed", "9")
    assert sum(found["rows"].values()) >= 500


def test_validate_passes_what_simulate_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "validate", str(folder / "funnel.parquet"))
    assert text and all(line.startswith("PASS") for line in text.splitlines())
    assert answer(capsys, "validate", str(folder / "funnel.parquet"))["passed"]


def test_validate_fails_with_example_and_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"type": "click", "event_id": "c", "ts": "2026-03-02T12:00:00Z", "user_id": "u"}\n')
    text = told(capsys, "validate", str(log), status=3)
    assert "FAIL" in text and "log.jsonl line 1" in text and "mend:" in text
    told(capsys, "validate", str(log), "--allow-dead-letters")


def test_convert_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "online_retail.csv"
    fields = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerow(("536365", "85123A", "HOLDER", "6", "2010-12-01 08:26:00", "2.55", "17850", "United Kingdom"))
        writer.writerow(("536366", "85123A", "HOLDER", "0", "2010-12-01 08:28:00", "2.55", "17850", "United Kingdom"))
    out = tmp_path / "log.parquet"
    status = cli.main(["convert", "online-retail", str(source), str(out)])
    caught = capsys.readouterr()
    if status == 3:
        assert out.exists() and "dead letters" in caught.out and "dead_letters.jsonl" in caught.err
    else:
        assert status in (1, 2) and "Traceback" not in caught.err
