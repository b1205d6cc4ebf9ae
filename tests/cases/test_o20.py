"""O20: killed in the middle, again and again, the numbers are those of an undisturbed run.

30,000 funnel events (seed 11) of all five types, and the catalogue; a replay that is killed ten times and stopped once
by SIGTERM, at moments drawn from a seed: five at named sites (inside a checkpoint, at a refresh, while a build is
waited for), five anywhere. Between them 0 to 2 s, here 0 to 0.2. One seed here; twenty, with the full pauses, by

    O20_SEEDS=20 .venv/bin/python -m pytest tests/cases/test_o20.py

Policy: a dead letter that a killed run wrote is written once, for its place is known.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.live import toml
from tests.processes import held_at_work, positions
from thalweg.streams.configuration import Configuration, from_builtins, to_builtins
from thalweg.streams.funnel import configuration as funnel_configuration
from thalweg.streams.funnel import simulate
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import verify

EVENTS, SEED = 30_000, 11
SEEDS = int(os.environ.get("O20_SEEDS", "1"))
PAUSE = 2.0 if SEEDS > 3 else 0.2
"""Longest wait between two runs, s."""
SITES = ("checkpoint batch ready", "checkpoint between stages", "refresh snapshot", "refresh wait", "block applied")
BAD = ("{", "null", '{"ts":1}', '{"type":"click","ts":"yesterday","item_id":"A"}')


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder: the funnel as Parquet, and a few lines beside it that are no events."""
    folder = tmp_path_factory.mktemp("o20") / "log"
    folder.mkdir()
    simulate(folder / "funnel.parquet", EVENTS, SEED, days=21, features=2, users=300, items=200)
    (folder / "more.jsonl").write_text("\n".join(BAD) + "\n")
    return folder


@pytest.fixture(scope="module")
def settings(log: Path) -> Configuration:
    """The funnel's configuration with small tables, a refresh in the middle and a checkpoint every other block."""
    raw = funnel_configuration({"features": 2})
    raw["graph"] |= {"refresh": "3w", "refresh_delay": "1d", "dimensions": 4, "epochs": 1}
    raw["conversion"] = {"bits": 10}
    raw["calibration"] = {"score_bins": 32, "uncertainty_bins": 4, "epochs_kept": 60}
    raw["store"] = {"checkpoint": "20ms"}
    return from_builtins(raw)


@pytest.fixture(scope="module")
def command(log: Path, settings: Configuration) -> list[str]:
    """The command line, without its state."""
    file = log.parent / "settings.toml"
    file.write_text(toml(to_builtins(settings)))
    return [
        sys.executable, "-m", "thalweg.streams.cli", "replay", str(log), "--config", str(file), "--block-rows", "250",
        "--close", "--allow-dead-letters", "--state",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a clean run."""
    state = tmp_path_factory.mktemp("clean") / "state"
    finished = subprocess.run([*command, str(state)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return state


def books(state: Path) -> dict[str, dict[str, int]]:
    """The books of a state."""
    with StateDirectory(state, read_only=True) as opened:
        return opened.attribution[0].books()


def letters(state: Path) -> list[dict[str, object]]:
    """Its dead letters."""
    return [json.loads(line) for line in (state / "dead_letters.jsonl").read_bytes().splitlines()]


def at_work(run: subprocess.Popen[bytes], state: Path) -> bool:
    """Wait until the run has opened its state; False where it ended before."""
    if not Path("/proc/self/fd").is_dir():  # no Linux: by the clock
        time.sleep(2)
        return run.poll() is None
    lock = f"{state}/calibration/0/LOCK"
    while run.poll() is None:
        try:
            if any(os.readlink(file) == lock for file in Path(f"/proc/{run.pid}/fd").iterdir()):
                return True
        except OSError:  # closed, or gone, while we looked
            pass
        time.sleep(0.005)
    return False


def disturb(command: list[str], state: Path, how: str, draw: random.Random) -> int:
    """One run that a signal or an armed site ends, if it does not end first; its return code."""
    environment = dict(os.environ)
    if how in SITES:
        environment["THALWEG_FAULT"] = f"{how}:{1 if how.startswith('refresh') else draw.randrange(1, 9)}"
    run = subprocess.Popen([*command, str(state)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if how not in SITES and at_work(run, state):
        time.sleep(draw.uniform(0, 0.4))
        run.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    _, said = run.communicate(timeout=600)
    allowed = {0, 130, -signal.SIGTERM} if how == "terminate" else {0, -signal.SIGKILL}
    assert run.returncode in allowed, (how, run.returncode, said[-2000:])
    return run.returncode


def kinds(draw: random.Random) -> list[str]:
    """Ten kills and one SIGTERM in an order drawn, those at the refresh early, while it is still to come."""
    rest = ["checkpoint batch ready", "checkpoint between stages", "block applied", "terminate", *["kill"] * 5]
    draw.shuffle(rest)
    for site in ("refresh wait", "refresh snapshot"):
        rest.insert(draw.randrange(4), site)
    return rest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_ten_times_it_ends_with_the_same_state(
    seed: int, command: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    draw, state = random.Random(seed), tmp_path / "state"
    ended = []
    for how in kinds(draw):
        before = positions(state)
        code = disturb(command, state, how, draw)
        after = positions(state)
        assert all(a >= b for a, b in zip(after, before, strict=False)), f"{how}: back from {before} to {after}"
        if code == 130:
            # a stage that a kill left ahead of the others stands where it was until they have caught up with it
            common, stood = min(after), before or [0] * len(after)
            assert after == [max(common, was) for was in stood], f"terminated, not all of it saved: {before}, {after}"
        ended.append((how, code))
        time.sleep(draw.uniform(0, PAUSE))
    finished = subprocess.run([*command, str(state)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    comparison = verify(undisturbed, state)
    assert comparison.equal, f"seed {seed}, {ended}: {'; '.join(str(each) for each in comparison.differences)}"
    assert comparison.late == (0, 0)
    assert books(state) == books(undisturbed)
    assert letters(state) == letters(undisturbed)
    # seven or more, but for a test that was held up itself: a run that ended before its signal leaves nothing to kill
    assert sum(code == -signal.SIGKILL for _, code in ended) >= 4, ended


@pytest.mark.slow
def test_terminated_it_leaves_nothing_unsaved(command: list[str], undisturbed: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    slow = [*command[: command.index("--block-rows")], "--block-rows", "20", *command[command.index("--close") :]]
    run = subprocess.Popen([*slow, str(state)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    held_at_work(run, state)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGCONT)
    _, said = run.communicate(timeout=600)
    assert run.returncode == 130, said[-2000:]
    assert f"interrupted and checkpointed in {state}; the same command goes on from here" in said
    stood = positions(state)
    assert len({*stood}) == 1 and 0 < stood[0] < EVENTS
    finished = subprocess.run([*command, str(state)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert verify(undisturbed, state).equal
    assert books(state) == books(undisturbed)


def test_the_log_has_all_five_types(log: Path, undisturbed: Path) -> None:
    found = books(undisturbed)
    assert all(found[name]["applied"] > 0 for name in ("impression", "click", "add_to_cart", "purchase", "return"))
    assert sum(terms["read"] for terms in found.values()) == pq.read_metadata(log / "funnel.parquet").num_rows + len(
        BAD
    )
    assert len(letters(undisturbed)) == len(BAD)
    with StateDirectory(undisturbed, read_only=True) as state:
        assert len(state.copurchase.manifests()) == 1
