"""What workers say beside a state, and what `thalweg state inspect` shows of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thalweg.streams import status
from thalweg.streams.cli import main
from thalweg.streams.configuration import Configuration
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.status import StatusFile, running

STAGE = {
    "stage": "feedback", "partition": 0, "position": 5, "behind": 1, "clock": 0, "held": 2, "blocks": 1,
    "unacknowledged": 3, "idle": False,
}  # fmt: skip

INGEST = {
    "clock": 0, "idle": False, "rows": 9, "waiting": 0, "unacknowledged": 0,
    "sources": [{"source": "clicks/0", "position": 7, "behind": 2}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FRESH", 1e9)


def test_it_is_there_while_it_is_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StatusFile(tmp_path)
    assert running(tmp_path) == []
    file.write([STAGE], note="x")
    [said] = running(tmp_path)
    assert (said["pid"], said["note"], said["stages"]) == (os.getpid(), "x", [STAGE])
    with monkeypatch.context() as patch:
        patch.setattr(status, "FRESH", -1.0)
        assert running(tmp_path) == []
    file.remove()
    file.remove()
    assert running(tmp_path) == []


def test_a_half_written_one_is_passed_over(tmp_path: Path) -> None:
    StatusFile(tmp_path).write([])
    (tmp_path / "workers" / "worker-x-1.json").write_text('{"at":')
    assert len(running(tmp_path)) == 1


def test_inspect_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StateDirectory(tmp_path, Configuration(partitions=2)) as state:
        state.checkpoint()
    assert main(["state", "inspect", "--state", str(tmp_path)]) == 0
    assert "unacknowledged" not in capsys.readouterr().out
    for ingest, shown in (({}, "feedback"), ({"standby": True}, "stands by"), (INGEST, "clicks/0")):
        StatusFile(tmp_path).write([STAGE], ingest=ingest)
        assert main(["state", "inspect", "--state", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "unacknowledged" in out and shown in out
