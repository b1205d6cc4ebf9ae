"""The theorem on a real log: one state, whatever the cut, the shards, the order within L, the resends and the kills.

300 thousand funnel events with returns, at least 3 refreshes and 2 readings of two levels; trails and final digests of
every stage are compared with those of one undisturbed run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from thalweg.graph_store import fault
from thalweg.streams.configuration import load
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import Summary, replay
from thalweg.streams.row import DAY, Type
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.summing_up import books_of
from thalweg.streams.verify import verify

EVENTS = 300_000
LATENESS = 10_000
SETTINGS = {
    "retraction": {"THALWEG_CONVERSION__POLICY": "retraction"},
    # a learner that sees one negative in ten: uncertainty levels are worth having, and go into service
    "sampled": {"THALWEG_CONVERSION__POLICY": "vanilla", "THALWEG_CONVERSION__NEGATIVE_SAMPLING": "10"},
}


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The funnel, with returns."""
    path = tmp_path_factory.mktemp("parity") / "funnel.parquet"
    simulate(path, EVENTS, seed=5, returns=0.1, days=60)
    return path


@pytest.fixture(scope="session", params=sorted(SETTINGS))
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings beside those of the funnel."""
    return SETTINGS[request.param]


@pytest.fixture(scope="session")
def undisturbed(log: Path, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of one run, start to end."""
    state = tmp_path_factory.mktemp("undisturbed") / "state"
    run(log, state, settings)
    return state


def run(log: Path, state: Path, settings: dict[str, str], block_rows: int = 50_000, partitions: int = 1) -> Summary:
    """Replay `log` under its own configuration and `settings`."""
    configuration = load(log.parent / "funnel.toml", settings, partitions=partitions)
    return replay([log], state, configuration, block_rows=block_rows)


def assert_equal(undisturbed: Path, other: Path) -> None:
    """Trails and digests agree."""
    comparison = verify(undisturbed, other)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    assert comparison.late == (0, 0)


def test_the_log_is_worth_the_trial(undisturbed: Path, settings: dict[str, str]) -> None:
    """It has returns, three refreshes and two readings with two levels or more, and its books balance."""
    with StateDirectory(undisturbed, read_only=True) as state:
        books = state.attribution[0].books()
        assert sum(terms["read"] for terms in books.values()) >= EVENTS
        assert books["return"]["reversal"] > 100
        assert len(state.copurchase.manifests()) >= 3
        readings = [state.calibration.reading_at(epoch) for epoch in state.calibration.shelf.epochs()]
        if settings is SETTINGS["sampled"]:
            assert sum(reading is not None and reading.levels >= 2 for reading in readings) >= 2
        books = books_of(state)
        assert books["balanced"], books["gaps"]


@pytest.mark.parametrize("block_rows", [97, 1_000])
def test_blocks_do_not_matter(
    log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path, block_rows: int
) -> None:
    """Cut into 97 or 1,000 rows: the state of 50,000."""
    run(log, tmp_path / "state", settings, block_rows)
    assert_equal(undisturbed, tmp_path / "state")


def test_a_second_run_is_the_same(log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """Nothing depends on the moment or the process."""
    run(log, tmp_path / "state", settings)
    assert_equal(undisturbed, tmp_path / "state")


def test_shards_do_not_matter(log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """Three partitions give what one gives."""
    run(log, tmp_path / "state", settings, 20_000, partitions=3)
    assert_equal(undisturbed, tmp_path / "state")


def rewritten(log: Path, folder: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """The log with its table changed, under the same name and configuration."""
    folder.mkdir()
    pq.write_table(change(pq.read_table(log)), folder / log.name, row_group_size=100_000)
    (folder / "funnel.toml").write_bytes((log.parent / "funnel.toml").read_bytes())
    return folder / log.name


def shuffle(table: pa.Table) -> pa.Table:
    """Rows out of order by less than L: sorted by time plus a draw below L."""
    ts = table.column("ts").to_numpy()
    drawn = np.random.default_rng(1).integers(0, LATENESS, len(ts))
    return table.take(pa.array(np.argsort(ts + drawn, kind="stable")))


def send_twice(table: pa.Table) -> pa.Table:
    """Every twentieth row once more, behind itself."""
    n = table.num_rows
    return table.take(pa.array(np.sort(np.concatenate([np.arange(n), np.arange(0, n, 20)]))))


@pytest.mark.parametrize("change", [shuffle, send_twice])
def test_disorder_and_resends_do_not_matter(
    log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    """Rows shuffled within L; 5 % of the events sent twice."""
    run(rewritten(log, tmp_path / "log", change), tmp_path / "state", settings)
    assert_equal(undisturbed, tmp_path / "state")


def test_one_changed_row_shows_in_every_stage(
    log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """A purchase that earned a conversion goes to another user: all four digests differ, stage and day are named."""
    table = pq.read_table(log)
    named = pc.and_(pc.equal(table.column("type"), int(Type.PURCHASE)), pc.is_valid(table.column("impression_id")))
    known = pc.and_(named, pc.is_valid(table.column("user_id")))
    at = int(np.flatnonzero(known.to_numpy(zero_copy_only=False))[100])

    def give_away(table: pa.Table) -> pa.Table:
        users = table.column("user_id").to_pylist()
        users[at] = "somebody-else"
        return table.set_column(table.schema.get_field_index("user_id"), "user_id", pa.array(users))

    run(rewritten(log, tmp_path / "log", give_away), tmp_path / "state", settings)
    comparison = verify(undisturbed, tmp_path / "state")
    assert not comparison.equal
    assert {difference.stage for difference in comparison.differences} == {
        "attribution", "feedback", "copurchase", "calibration",
    }  # fmt: skip
    first = comparison.differences[0]
    day = int(table.column("ts")[at].as_py()) // DAY * DAY + DAY
    assert (first.stage, first.boundary) == ("attribution", day)


KILLS = (
    "block applied:7",
    "checkpoint begins:1",
    "checkpoint between stages:2",
    "checkpoint batch ready:3",
    "refresh snapshot:2",
)


def test_kills_do_not_matter(log: Path, undisturbed: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """kill -9 at five named sites, one inside a checkpoint and one inside a refresh; the same command goes on."""
    state = tmp_path / "state"
    command = [
        sys.executable, "-m", "thalweg.streams.cli", "replay", str(log), "--state", str(state), "--block-rows", "20000",
        "--config", str(log.parent / "funnel.toml"),
    ]  # fmt: skip
    environment = {**os.environ, **settings, "THALWEG_STORE__CHECKPOINT": "500ms"}
    for site in KILLS:
        killed = subprocess.run(command, env={**environment, "THALWEG_FAULT": site}, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, (site, killed.returncode, killed.stderr[-2000:])
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert_equal(undisturbed, state)


def test_sites_are_known() -> None:
    """Every site that is armed above exists."""
    assert {site.rpartition(":")[0] for site in KILLS} <= set(fault.SITES)
