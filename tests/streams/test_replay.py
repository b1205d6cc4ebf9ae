"""The replay driver: it goes on where it stopped, refuses what it was asked to, and knows its log files again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thalweg.graph_store.state_store import StateError
from thalweg.streams.configuration import Configuration, load
from thalweg.streams.log import open_log
from thalweg.streams.replay import LateRows, Replay, read_back, replay
from thalweg.streams.state_directory import StateDirectory, stored_configuration
from thalweg.streams.topology import DOWNSTREAM_FIRST, FLOWS
from thalweg.streams.verify import verify


@pytest.fixture(scope="module")
def configuration(funnel_log: Path) -> Configuration:
    """The funnel's own."""
    return load(funnel_log.with_suffix(".toml"))


def stop_after(blocks: int) -> Callable[[], bool]:
    """A stop function that says yes after so many blocks."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > blocks

    return stop


def test_a_stopped_replay_goes_on(
    funnel_log: Path, funnel_state: Path, tmp_path: Path, configuration: Configuration
) -> None:
    """Stopped three times, with another block size each time: the state of one run."""
    state = tmp_path / "state"
    rows = 0
    for block_rows in (3_000, 1_100, 4_700):
        summary = replay([funnel_log], state, configuration, block_rows=block_rows, stop=stop_after(2), close=True)
        assert summary.interrupted
        rows += summary.rows
    summary = replay([funnel_log], state, configuration, close=True)
    assert not summary.interrupted and summary.closed
    assert rows + summary.rows == pq.read_metadata(funnel_log).num_rows
    assert verify(funnel_state, state).equal


def test_a_second_run_over_the_same_log_adds_nothing(
    funnel_log: Path, funnel_state: Path, tmp_path: Path, configuration: Configuration
) -> None:
    """Its rows are below the marks."""
    state = tmp_path / "state"
    for expected in (pq.read_metadata(funnel_log).num_rows, 0):
        assert replay([funnel_log], state, configuration, close=True).rows == expected
    assert verify(funnel_state, state).equal


def test_the_rest_of_a_log_in_another_file(
    funnel_log: Path, funnel_state: Path, tmp_path: Path, configuration: Configuration
) -> None:
    """Two halves one after the other, in two runs: the state of one log. The second needs no configuration."""
    table = pq.read_table(funnel_log)
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), tmp_path / "a.parquet")
    pq.write_table(table.slice(half), tmp_path / "b.parquet")
    state = tmp_path / "state"
    replay([tmp_path / "a.parquet"], state, configuration)
    replay([tmp_path / "b.parquet"], state, close=True)
    assert verify(funnel_state, state).equal


def test_an_unfinished_replay_wants_its_own_files_first(
    funnel_log: Path, tmp_path: Path, configuration: Configuration
) -> None:
    """Where stages stand apart after a kill, another log is refused, and the message names the files to finish."""
    state = tmp_path / "state"
    run = Replay([funnel_log], state, configuration, block_rows=4_000)
    for piece in run._reader().pieces(4_000):
        run._apply(piece)
        break
    next(run.state.stages()).checkpoint()  # calibration alone: as if killed between two stages
    run.close()
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(funnel_log).slice(10), other)
    with pytest.raises(StateError, match=r"interrupted replay of funnel\.parquet is not finished"):
        replay([other], state, configuration)
    replay([funnel_log], state, configuration)


def test_strict_refuses_late_rows(funnel_log: Path, tmp_path: Path, configuration: Configuration) -> None:
    """With their number and first place, before anything is applied; without strict they are applied and counted."""
    table = pq.read_table(funnel_log)
    late = pq.write_table  # the last thousand rows first
    late(table.take(list(range(19_000, table.num_rows)) + list(range(19_000))), tmp_path / "late.parquet")
    with pytest.raises(LateRows, match=r"rows lie more than 10s behind .* late\.parquet row"):
        replay([tmp_path / "late.parquet"], tmp_path / "strict", configuration, strict=True)
    summary = replay([tmp_path / "late.parquet"], tmp_path / "state", configuration)
    assert summary.late > 10_000
    with StateDirectory(tmp_path / "strict", read_only=True) as state:
        assert state.attribution[0].books()["impression"]["read"] == 0


def test_a_state_belongs_to_its_configuration(
    funnel_state: Path, funnel_log: Path, configuration: Configuration
) -> None:
    """Another one is refused, and the setting that differs is named."""
    assert stored_configuration(funnel_state).fingerprint() == configuration.fingerprint()
    with pytest.raises(StateError, match="partitions: 1 then, 3 now"):
        replay([funnel_log], funnel_state, load(funnel_log.with_suffix(".toml"), partitions=3))


def test_read_back_finds_rows(funnel_log: Path, configuration: Configuration) -> None:
    """The canonical content of some raw rows, by number."""
    file = open_log([funnel_log], configuration).files[0]
    found = dict(read_back(file, [700, 15_000]))
    ids = pq.read_table(funnel_log, columns=["event_id"])["event_id"]
    assert all(ids[row].as_py().encode() in raw for row, raw in found.items()) and set(found) == {700, 15_000}


def test_the_topology_is_a_chain() -> None:
    """Every topic that a stage reads is written by one before it; checkpoints run the other way."""
    written = {"events"}
    for flow in FLOWS:
        assert flow.reads in written
        written.update(flow.writes)
    assert DOWNSTREAM_FIRST == tuple(flow.stage for flow in reversed(FLOWS))
