"""The demo on a small funnel: every step is kept, and an interruption anywhere costs at most the step it came in.

Its live part is tried in tests/end_to_end/test_demo_live.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from thalweg.streams import demo, demo_live
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import Summary
from thalweg.streams.state_directory import StateDirectory


def source(out: Path) -> None:
    """A small log in place of the year."""
    simulate(out, 4_000, 5, users=40, features=2, base_rate=0.05)


def never(out: Path) -> None:
    raise AssertionError("the log is there already")


def digests(folder: Path) -> dict[str, int]:
    with StateDirectory(folder / "state", read_only=True) as state:
        return state.digests()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "demo"
    assert demo.run(folder, source, live=False) == 0
    return folder


def test_it_leaves_report_state_and_answers(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (done / "report.html").stat().st_size > 500_000
    assert json.loads((done / "summary.json").read_bytes())["books"]["balanced"]
    assert sorted(p.name for p in done.iterdir()) == ["log", "report.html", "state", "summary.json"]
    demo.ask(done / "state", done / "log" / demo.LOG)
    text = capsys.readouterr().out
    assert text.count("bought after") == demo.SHOWN and text.count("recommended to household") == demo.SHOWN
    assert "get candidates of their own" in text


def test_a_second_run_only_asks(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (done / "report.html").stat().st_mtime_ns, digests(done)
    assert demo.run(done, never, live=False) == 0
    assert ((done / "report.html").stat().st_mtime_ns, digests(done)) == before
    assert "done already" in capsys.readouterr().err


def test_a_conversion_that_was_cut_off_starts_anew(tmp_path: Path) -> None:
    def cut(out: Path) -> None:
        out.write_bytes(b"half a file")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.make_log(tmp_path, cut)
    assert not (tmp_path / "log").exists()
    assert demo.make_log(tmp_path, source).stat().st_size > 1_000
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_an_interrupted_replay_ends_as_one_that_was_not(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def at_once() -> Iterator[Any]:
        yield lambda: True

    with monkeypatch.context() as patch:
        patch.setattr(demo, "interruptible", at_once)
        assert demo.run(tmp_path, source, live=False) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists() and not (tmp_path / "report.html").exists()
    assert demo.run(tmp_path, never, live=False) == 0
    assert digests(tmp_path) == digests(done)


def test_the_live_part_is_left_out_where_it_cannot_be(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extras that are missing, and a replay that was made without it, are said in a line."""
    with monkeypatch.context() as patch:
        patch.setattr(demo_live, "_is_there", lambda name: name != "faust")
        assert demo.run(done, never) == 0
    said = capsys.readouterr().err
    assert "4 of 4: the live part is left out: without faust; pip install 'thalweg[kafka,broker]'" in said
    monkeypatch.setattr(demo_live, "lacking", lambda: None)
    assert demo.run(done, never) == 0
    assert f"remove {done / 'summary.json'} and {done / 'state'} to have it" in capsys.readouterr().err
    assert not (done / "live").exists()


def test_a_replay_in_two_stretches_is_told_as_one() -> None:
    first, second = (Summary("state", ["log"], rows, 2.0, 1, 10) for rows in (100, 20))
    assert demo.together(first, second) == Summary("state", ["log"], 120, 4.0, 2, 20)


def test_kernels_are_compiled_in_a_process_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: asked.append(command))
    demo.compile_kernels()
    assert [command[3] for command in asked] == ["simulate", "replay"]
    assert asked[0][4] == asked[1][4]


def test_a_failed_conversion_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "SOURCE", "no such source")
    with pytest.raises(demo.DemoError, match="complete-journey"):
        demo.convert(tmp_path / "log.parquet")


def test_households_come_in_the_order_of_their_last_purchase(done: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(done / "log" / demo.LOG, columns=["type", "user_id"]).to_pylist()
    bought = [row["user_id"] for row in rows if row["type"] == 4 and row["user_id"]]
    found = demo.households(done / "log" / demo.LOG)
    assert set(found) == set(bought) and len(found) == len(set(bought))
    assert found[-1] == bought[-1]
    assert found == sorted(found, key=lambda user: max(i for i, each in enumerate(bought) if each == user))
