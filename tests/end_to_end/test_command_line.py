"""The command line as processes: interrupted, killed, resumed, piped; the state is that of one quiet run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import held_at_work

EVENTS = 12_000
BLOCK = "60"
"""So many rows a block that a replay takes a while."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "thalweg.streams.cli", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=600)


def replay(log: Path, state: Path) -> list[str]:
    return command("replay", str(log), "--state", str(state), "--close", "--block-rows", BLOCK)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "funnel.parquet"
    done = run("simulate", str(path), "--events", str(EVENTS), "--seed", "11", "--dial", "features=2")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def quiet(log: Path) -> Path:
    """The state of a run that nobody disturbed."""
    state = log.parent / "quiet"
    done = run("replay", str(log), "--state", str(state), "--close")
    assert done.returncode == 0, done.stderr
    return state


def disturbed(log: Path, state: Path, disturb: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Start a replay, hold it at work and disturb it; its status and what it said."""
    environment = {**os.environ, "THALWEG_STORE__CHECKPOINT": "500ms"}
    with subprocess.Popen(
        replay(log, state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        held_at_work(process, state)
        try:
            disturb(process)
        finally:
            process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=300)
        return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_and_the_next_run_goes_on(
    number: signal.Signals, log: Path, quiet: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    status, said = disturbed(log, state, lambda process: process.send_signal(number))
    assert status == 130, said
    assert "the same command goes on from here" in said and "Traceback" not in said
    assert subprocess.run(replay(log, state), capture_output=True, check=False).returncode == 0
    assert run("verify", str(state), str(quiet)).stdout.startswith("equal\n")


@pytest.mark.slow
def test_a_kill_costs_nothing_but_time(log: Path, quiet: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    status, _ = disturbed(log, state, lambda process: process.kill())
    assert status == -signal.SIGKILL
    done = subprocess.run(replay(log, state), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compared = run("verify", str(state), str(quiet))
    assert compared.returncode == 0 and compared.stdout.startswith("equal\n"), compared.stdout


@pytest.mark.slow
def test_two_writers_are_one_too_many(log: Path, tmp_path: Path) -> None:
    """A second replay into a state that is being written says so and leaves it alone."""
    state = tmp_path / "state"
    second: list[subprocess.CompletedProcess[str]] = []

    def another(process: subprocess.Popen[str]) -> None:
        second.append(subprocess.run(replay(log, state), capture_output=True, text=True, check=False))
        process.send_signal(signal.SIGINT)

    status, said = disturbed(log, state, another)
    assert status == 130, said
    assert second[0].returncode == 1 and "in use" in second[0].stderr and "Traceback" not in second[0].stderr


def test_data_and_talk_do_not_mix(quiet: Path) -> None:
    """stdout alone is data: it is JSON, or a table, and nothing else."""
    import json

    done = run("recommend", "--items", "item1", "--state", str(quiet), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["items"] is not None
    done = run("state", "digest", "--state", str(quiet))
    assert len(done.stdout.splitlines()) == 4 and done.stderr == ""


def test_a_pipe_may_close_early(quiet: Path) -> None:
    shell = f"{sys.executable} -m thalweg.streams.cli state inspect --state {quiet} | head -1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("stage") and done.stderr == ""


def test_colours_are_left_to_terminals(quiet: Path) -> None:
    for arguments in (("--help",), ("state", "inspect", "--state", str(quiet)), ("nonsense",)):
        done = run(*arguments)
        assert "\x1b[" not in done.stdout + done.stderr, arguments
