"""A log file is known again by name and first bytes: it may grow, and another file of its name is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thalweg.graph_store.state_store import StateError
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.replay import replay
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import verify

T0 = 1_772_452_800_000


def line(number: int) -> str:
    """One purchase, a minute after the one before."""
    row = {"type": "purchase", "event_id": f"p{number}", "ts": T0 + 60_000 * number, "user_id": "u", "item_id": "i"}
    return json.dumps({**row, "order_id": f"o{number}"}) + "\n"


def test_a_small_log_that_grows_adds_only_the_rest(tmp_path: Path) -> None:
    """Two lines, then three more behind them: the state of five lines at once, nothing late, nothing twice."""
    log = tmp_path / "purchases.jsonl"
    log.write_text(line(0) + line(1))
    assert replay([log], tmp_path / "state").rows == 2
    log.write_text("".join(map(line, range(5))))
    summary = replay([log], tmp_path / "state", close=True)
    assert (summary.rows, summary.late, summary.dead_letters) == (3, 0, {})
    replay([log], tmp_path / "whole", close=True)
    assert verify(tmp_path / "state", tmp_path / "whole").equal


def test_another_file_of_the_name_is_refused(tmp_path: Path) -> None:
    """Its rows could not be told from the old ones by place."""
    log = tmp_path / "purchases.jsonl"
    log.write_text(line(0))
    replay([log], tmp_path / "state")
    log.write_text(line(7))
    with pytest.raises(StateError, match=r"purchases\.jsonl: .* another file of this name; rename"):
        replay([log], tmp_path / "state")


def test_a_refused_first_run_binds_nothing(tmp_path: Path) -> None:
    """A configuration that a stage refuses, or a log that cannot be read, is not kept: the mended run goes through."""
    log = tmp_path / "purchases.jsonl"
    log.write_text(line(0))
    with pytest.raises(ValueError, match="refresh_delay"):
        replay([log], tmp_path / "state", from_builtins({"graph": {"refresh": "1d"}}))
    replay([log], tmp_path / "state", Configuration())
    with StateDirectory(tmp_path / "state", read_only=True) as state:
        assert state.attribution[0].books()["purchase"]["applied"] == 0  # held: not closed
