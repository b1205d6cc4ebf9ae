"""The command line: statuses, streams, messages; and that asking for help costs nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thalweg.streams import cli
from thalweg.streams.commands import logs, output, progress, settings, state
from thalweg.streams.commands.replay import interruptible
from thalweg.streams.configuration import ConfigurationError

COMMANDS = ["demo", "simulate", "convert", "validate", "replay", "verify", "related", "recommend", "explain", "state"]
HEAVY = ("numba", "torch", "pyarrow", "numpy", "rocksdict", "river", "pandas")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "thalweg.streams.cli", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


# ---- help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^│ {command}\b", text, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_each_of_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = (
        [[command, "--help"]]
        if command != "state"
        else [["state", c, "--help"] for c in ("digest", "inspect", "export")]
    )
    for page in pages:
        assert cli.main(page) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: thalweg {' '.join(page[:-1])}")
        for option in re.findall(r"^│ [* ] +(?:-k )?(--[a-z-]+)(.*)│$", text, re.M):
            assert option[1].strip(), f"{page}: {option[0]} is not explained"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, thalweg.streams.cli as c; c.main(['--help']); c.main(['replay', '--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from thalweg import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


# ---- errors


@pytest.mark.parametrize(("arguments", "said"), [
    (["bogus"], "bogus"),
    (["replay", "log.jsonl"], "--state"),
    (["replay", "--state", "s"], "LOGS"),
    (["related", "x", "--state", "s", "-k", "many"], "many"),
    (["simulate", "out.parquet", "--events", "10", "--seed", "1", "--dial", "base_rate"], "NAME=VALUE"),
    (["simulate", "out.parquet", "--events", "10", "--seed", "1", "--dial", "no_such=1"], "no_such"),
    (["convert", "nobody"], "name the log to write"),
    (["convert", "nobody", "out.parquet"], "complete-journey"),
    (["validate", "log.jsonl", "--config", "no_such.toml"], "no_such.toml"),
    (["broker", "--port", "99999"], "--port 99999: it lies between 1 and 65535"),
    (["topics", "create", "--raw", "0"], "--raw 0: a topic has at least one partition"),
    (["topics", "create", "--brokers", "a:1,"], "--brokers: kafka.brokers 'a:1,': '' is no address; write host:port"),
    (["publish", "log.jsonl", "--speed", "0"], "--speed 0.0: it is a number above 0"),
    (["publish", "log.jsonl", "--speed", "nan"], "--speed nan: it is a number above 0"),
])  # fmt: skip
def test_a_wrong_command_line_is_status_2_with_the_mend(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    caught = capsys.readouterr()
    assert said in caught.err and caught.err.startswith("thalweg: ")
    assert "Traceback" not in caught.err and caught.out == ""


def test_a_missing_log_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["replay", str(tmp_path / "none.jsonl"), "--state", str(tmp_path / "s")]) == 1
    caught = capsys.readouterr()
    assert "none.jsonl" in caught.err and "Traceback" not in caught.err


@pytest.mark.parametrize("arguments", [["state", "digest"], ["state", "inspect"], ["verify"], ["related", "x"]])
def test_no_state_is_said_with_the_mend(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = [str(tmp_path), str(tmp_path)] if arguments == ["verify"] else ["--state", str(tmp_path)]
    assert cli.main([*arguments, *empty]) == 1
    assert "thalweg replay LOG --state" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "a query leaves nothing behind"


class Broken:
    """A command that fails in a given way."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *_: object, **__: object) -> int:
        raise self._error


@pytest.mark.parametrize(("error", "status", "said"), [
    (ValueError("odd"), 1, "an error inside thalweg, ValueError: odd; set THALWEG_DEBUG=1"),
    (ConfigurationError("conversion.bits: too many; at most 28"), 2, "conversion.bits: too many; at most 28"),
    (OSError(errno.ENOSPC, "No space left on device", "/state/x"), 1, "/state/x: No space left on device"),
    (KeyboardInterrupt(), 130, "interrupted"),
])  # fmt: skip
def test_errors_are_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "make_app", lambda: Broken(error))
    assert cli.main([]) == status
    assert capsys.readouterr().err.startswith(f"thalweg: {said}")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "make_app", lambda: Broken(ValueError("odd")))
    monkeypatch.setenv("THALWEG_DEBUG", "1")
    with pytest.raises(ValueError, match="odd"):
        cli.main([])


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from thalweg.streams.commands.output import write\n"
        "from thalweg.streams import cli\n"
        "def much(*a, **k):\n    for i in range(100_000): write(str(i))\n"
        "cli.make_app = lambda: much\nraise SystemExit(cli.main([]))' | head -1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "0\n" and done.stderr == ""


def test_debug_is_no_setting_of_the_configuration() -> None:
    settings.configuration_for([], None)
    assert os.environ.get("THALWEG_DEBUG") is None
    os.environ["THALWEG_DEBUG"] = "1"
    try:
        settings.configuration_for([], None)
    finally:
        del os.environ["THALWEG_DEBUG"]


# ---- configuration


def test_the_configuration_beside_a_log_is_found_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "year.jsonl.gz"
    assert settings.configuration_for([log]).partitions == 1 and capsys.readouterr().err == ""
    (tmp_path / "year.toml").write_text("partitions = 3")
    assert settings.configuration_for([log]).partitions == 3
    assert "year.toml" in capsys.readouterr().err
    assert settings.configuration_for([log], partitions=2).partitions == 2, "the command line goes first"
    other = tmp_path / "other.toml"
    other.write_text("partitions = 5")
    assert settings.configuration_for([log], other).partitions == 5


def test_variables_stand_between_file_and_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thalweg.toml").write_text("partitions = 3")
    monkeypatch.setenv("THALWEG_PARTITIONS", "4")
    assert settings.configuration_for([tmp_path]).partitions == 4
    assert settings.configuration_for([tmp_path], partitions=2).partitions == 2


# ---- output and progress


def test_json_has_no_nan_and_knows_numpy() -> None:
    import numpy as np

    value = {"rate": float("inf"), "n": np.int64(3), "rows": np.arange(2), "path": Path("a")}
    assert json.loads(output.to_json(value)) == {"rate": None, "n": 3, "rows": [0, 1], "path": "a"}


def test_tables_align() -> None:
    lines = output.table(("name", "n"), [("a", 1), ("long one", 12345), ("none", None)]).splitlines()
    assert lines[0] == "name           n" and lines[2] == "long one  12,345"
    assert output.table(("name",), []) == "name"
    assert output.cell(True) == "yes" and output.cell(12345.6) == "12,346"


class Clock:
    """A clock that goes forward by a second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_off_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("events", clock=Clock()) as show:
        for done in range(0, 1_000, 10):
            show("replay", done, 1_000)
    caught = capsys.readouterr()
    lines = caught.err.splitlines()
    assert caught.out == "" and 5 < len(lines) < 40, "a line every five seconds of the clock"
    assert re.fullmatch(r"thalweg: replay: [\d,]+ of 1,000 events \(\d+ %\), [\d,]+/s, .+ left", lines[0])


def test_progress_can_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(quiet=True, clock=Clock()) as show:
        for done in range(100):
            show("replay", done, 100)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress.Progress("events") as show:
        show.rows(10, 100, 0)
        show("build", 1, None)
    text = capsys.readouterr().err
    assert "replay" in text and "events/s" in text and "build" in text


def test_replay_progress_says_where_in_the_log_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("events", clock=Clock()) as show:
        for done in range(0, 100, 10):
            show.rows(done, 100, -(2**63) if done < 60 else 1_700_000_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert "before the first row" in lines[0] and "2023-11-14" in lines[-1]


def test_compilation_is_announced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from thalweg.graph_store.kernel import cache_folder

    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    assert progress.announce_compilation()
    assert "compiling kernels" in capsys.readouterr().err
    folder = tmp_path / f"{cache_folder().name}-0123" / "attribution_0123"
    folder.mkdir(parents=True)
    (folder / "kernel.attribute_rows-10.py311.nbi").touch()
    assert not progress.announce_compilation()
    assert progress.announce_compilation(progress.INGEST)
    assert "compiling kernels" in capsys.readouterr().err
    (folder / "json_kernel.read-10.py311.nbi").touch()
    assert not progress.announce_compilation(progress.INGEST)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds", [0, 59.6, 61, 3_599, 3_600, 90_000])
def test_spans_never_show_sixty(seconds: float) -> None:
    assert " 60 " not in f" {progress.span(seconds)}"


def test_dials_are_pairs() -> None:
    assert logs._pair("base-rate = 0.5") == ("base_rate", "0.5")


def test_instants() -> None:
    assert state.instant(1_767_225_600_000) == "2026-01-01T00:00:00Z"
    assert state.instant(2**62) is None


# ---- interruption


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler, "the handlers are given back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_insists(
    number: signal.Signals, handlers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while not asked() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert asked() and "checkpoint" in capsys.readouterr().err
        os.kill(os.getpid(), number)
        time.sleep(5)
