"""The demo's live part on a small funnel: live ends where the replay does; a difference is noticed; nothing is left."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from thalweg.streams import demo, demo_live
from thalweg.streams.funnel import simulate
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.status import running
from thalweg.streams.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.broker]


def source(out: Path) -> None:
    """A small log in place of the year: 60 days, so that a block is some days."""
    simulate(out, 60_000, 5, days=60, users=600, returns=0.1, base_rate=0.05)


def never(out: Path) -> None:
    raise AssertionError("the log is there already")


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """The weeks in three seconds; few households asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_live, "SECONDS", 3)
        patch.setattr(demo, "SAMPLED", 5)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The whole demo, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "demo"
    with nothing_left() as started, redirect_stdout(io.StringIO()) as printed:
        assert demo.run(folder, source) == 0
    assert [child.command for child in started] == ["worker", "publish"]
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def done(whole: tuple[Path, str]) -> Path:
    """The folder of the whole demo."""
    return whole[0]


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A demo whose live part is still to be done."""
    folder = tmp_path / "demo"
    shutil.copytree(done, folder)
    for path in (folder / "live").iterdir():
        if path.name == "state":
            shutil.rmtree(path)
        elif path.name != "start":
            path.unlink()
    return folder


def processes(field: int, number: int) -> list[str]:
    """Command lines of the processes of a group (field 2) or a session (field 3), zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[field]) == number and fields[0] != "Z":
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended
    return found


def gone(field: int, *numbers: int) -> None:
    """Of groups or sessions nothing is left; one that has ended may still be taken down."""
    until = time.monotonic() + 60
    while left := [line for number in numbers for line in processes(field, number)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


@contextmanager
def nothing_left() -> Iterator[list[demo_live.Child]]:
    """Of all that is started inside, no process is left; yields them."""
    started: list[demo_live.Child] = []
    begin = demo_live.Child.__init__

    def note(self: demo_live.Child, folder: Path, words: list[str]) -> None:
        begin(self, folder, words)
        started.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_live.Child, "__init__", note)
        yield started
    gone(2, *(child.process.pid for child in started))


def test_it_ends_where_the_replay_does(done: Path) -> None:
    """By the project's own comparison; and both are far from where the live part began."""
    comparison = verify(done / "state", done / "live" / "state")
    assert comparison.equal and comparison.late == (0, 0) and comparison.boundaries > 100
    assert len(verify(done / "live" / "start", done / "live" / "state").differences) == 4
    with StateDirectory(done / "live" / "state", read_only=True) as state:
        first = state.attribution[0]
        assert first.input is not None, "no worker was at it"
        assert first.store.counters["already_replayed"] > 100, "what was published overlaps what was replayed"
    with StateDirectory(done / "live" / "start", read_only=True) as state:
        assert state.attribution[0].clock >= demo_live.boundary(done / "log" / demo.LOG)
        assert state.attribution[0].input is None


def test_the_replay_ends_as_one_that_did_not_stop(done: Path, tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(done / "log")
    assert demo.run(tmp_path, never, live=False) == 0
    assert verify(tmp_path / "state", done / "state").equal


def test_a_second_run_compares_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_left() as started:
        assert demo.run(done, never) == 0
    said = capsys.readouterr()
    assert not started and "the last weeks went live already" in said.err
    assert "live against replay, from the same state: equal" in said.out


def test_what_is_printed(whole: tuple[Path, str]) -> None:
    """Clocks and rows grow from line to line, up to the log's end; and the digests are those of the states."""
    folder, printed = whole
    lines = printed.split("events to")[1].splitlines()
    looks = [line for line in lines if line.startswith("20")]
    assert len(looks) >= 2 and looks == sorted(looks)
    rows = [int(line[36:43].replace(",", "")) for line in looks]
    assert rows[0] == 0 and rows == sorted(rows) and rows[-1] > 1_000
    with StateDirectory(folder / "state", read_only=True) as state:
        for stage, digest in state.digests().items():
            assert f"{stage:<11}  {digest:032x}  {digest:032x}" in lines


@pytest.mark.parametrize("where", ["state", "live/state"])
def test_a_difference_is_noticed(done: Path, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One weight of the model, in one of the two states."""
    folder = tmp_path / "demo"
    shutil.copytree(done, folder)
    with StateDirectory(folder / where) as state:
        state.feedback.store.tables["weights"].data["weight"][7] += 1e-9
        state.checkpoint()
    assert demo.run(folder, never) == 1
    said = capsys.readouterr()
    assert "DIFFERENT" in said.out and "feedback: the audit trails agree, the final digests differ" in said.out
    assert "live and replay differ" in said.err and "done in" not in said.err


def test_rows_that_are_not_published_are_noticed(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison is of what the worker read: a topic that lacks one purchase ends elsewhere."""
    import pyarrow.parquet as pq

    whole = demo_live._cut

    def lossy(log: Path, out: Path) -> tuple[int, int, str]:
        found = whole(log, out)
        rows = pq.read_table(out)
        lost = max(i for i, kind in enumerate(rows["type"].to_pylist()) if kind == 4 and i < len(rows) - 2_000)
        pq.write_table(rows.take([i for i in range(len(rows)) if i != lost]), out)
        return found

    monkeypatch.setattr(demo_live, "_cut", lossy)
    assert demo.run(copy, never) == 1
    assert "attribution: differs first in the span" in capsys.readouterr().out


def test_interrupted_while_events_flow_it_starts_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the worker says that it took some blocks; the rest would take a minute."""

    def flows() -> bool:
        stages = [stage for worker in running(copy / "live" / "state") for stage in worker["stages"]]
        return any(stage["stage"] == "attribution" and stage["blocks"] > 3 for stage in stages)

    @contextmanager
    def while_they_flow() -> Iterator[Callable[[], bool]]:
        yield flows

    with monkeypatch.context() as patch, nothing_left() as started:
        patch.setattr(demo_live, "SECONDS", 60)
        patch.setattr(demo_live, "interruptible", while_they_flow)
        assert demo.run(copy, never) == 130
    assert len(started) == 2 and not (copy / "live" / "finished").exists()
    assert demo.run(copy, never) == 0
    assert verify(copy / "state", copy / "live" / "state").equal


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_process(copy: Path, signal_: int) -> None:
    """As from a terminal, to all that is in the demo's group; and the session is empty afterwards."""
    command = [sys.executable, "-m", "thalweg.streams.cli", "demo", "--folder", str(copy)]
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", *command],  # under nohup it is ignored, and that is right
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 600
    while not (copy / "live" / "publish.log").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal_)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130 and "the live part starts again" in said, said
    gone(3, process.pid)


def test_a_worker_that_fails_ends_it(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THALWEG_FAULT", "attribution block sent:2")
    with nothing_left(), pytest.raises(demo_live.DemoLiveError, match="thalweg worker ended with -9"):
        demo.run(copy, never)
    assert not (copy / "live" / "finished").exists()


def test_a_copy_that_was_cut_off_is_made_anew(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a copy shares no file with its original but those that are never written again."""
    shutil.rmtree(copy / "live")
    with monkeypatch.context() as patch:
        patch.setattr(demo_live.shutil, "copy2", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demo_live.keep_start(copy)
    assert not demo_live.has_start(copy)
    demo_live.keep_start(copy)
    assert verify(copy / "live" / "start", copy / "state").equal
    shared = [path for path in (copy / "live" / "start").rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert all(path.suffix == ".sst" for path in shared)
    with StateDirectory(copy / "live" / "start") as state:
        state.feedback.store.tables["weights"].data["weight"][7] += 1e-9
        state.checkpoint()
    assert not verify(copy / "live" / "start", copy / "state").equal
    assert verify(copy / "state", copy / "state").equal
