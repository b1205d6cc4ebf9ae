"""O16, live: a state folder in use, a lock left behind, one that cannot be written, other settings, other partitions.

Each is refused in one line, before anything is read; a file that is not ours stays.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.brokers import new_kafka
from tests.cases.funnel_by_hand import draw_log
from tests.cases.log_files import line_of, small
from tests.live import Live
from thalweg.graph_store.state_store import StateError
from thalweg.streams import post
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.replay import replay
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import verify
from thalweg.streams.wire import Source
from thalweg.streams.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.broker]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The log of O12 in two parts."""
    folder, rows = tmp_path_factory.mktemp("o16"), draw_log()
    paths = [folder / "first.jsonl", folder / "second.jsonl"]
    for path, part in zip(paths, (rows[:500], rows[500:]), strict=True):
        path.write_bytes(b"".join(line_of(row) + b"\n" for row in part))
    return paths


@pytest.fixture(scope="module")
def live(logs: list[Path], brokers: str, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """A system whose topics hold the first part; a note lies in its state folder."""
    kafka = new_kafka(brokers)
    one = msgspec.structs.replace(kafka, topics={f"{kafka.application}.all": ""})  # one partition that is ever in order
    live = Live(tmp_path_factory.mktemp("live"), small(), one)
    live.create()
    live.publish(logs[0])
    live.state.mkdir()
    (live.state / "notes.txt").write_text("mine")
    return live


def listing(folder: Path) -> list[Path]:
    """Everything in a folder, but what RocksDB and a running worker keep for themselves."""
    return sorted(path for path in folder.glob("**/*") if path.is_dir() or path.parent == folder)


def refused(said: str, *words: str) -> None:
    """One line that has the words, and no traceback."""
    [line] = [line for line in said.splitlines() if line.startswith("thalweg: ")]
    assert all(word in line for word in words), said
    assert "Traceback" not in said


def test_a_and_b_two_on_one_folder_and_a_lock_left_behind(
    live: Live, logs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A replay and another application's stage on a running worker's folder; then kill -9 and a start."""
    monkeypatch.setattr(post, "LOCK_WAIT", 0.2)
    worker = live.start("worker", "--state", str(live.state))
    try:
        until = time.monotonic() + 600
        while not (live.state / "calibration" / "0" / "LOCK").exists():
            assert worker.poll() is None and time.monotonic() < until, worker.communicate()[1]
            time.sleep(0.1)
        before = listing(live.state)
        refused(live.run("replay", str(logs[0]), "--state", str(live.state), status=1), str(live.state), "in use")
        other = Source("other.events", "another id", 0)
        with pytest.raises(StateError, match=rf"{live.state}/attribution/0: .* in use by another process; stop that"):
            post.Post(live.configuration, live.state, "attribution", other, examples=False)
        assert listing(live.state) == before
        live.publish(logs[1], close=True)
        assert worker.poll() is None, "the first goes on"
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    assert (live.state / "attribution" / "0" / "LOCK").exists()
    live.worker()
    replay(logs, tmp_path / "replayed", small(), close=True)
    comparison = verify(tmp_path / "replayed", live.state)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    assert (live.state / "notes.txt").read_text() == "mine"


def test_f_other_settings_are_named_and_nothing_is_changed(live: Live, logs: list[Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    replay(logs[:1], state, small())
    with StateDirectory(state, read_only=True) as opened:
        before, listed = opened.digests(), listing(state)
    said = live.run("worker", "--state", str(state), status=1, THALWEG_ATTRIBUTION__WINDOW="60m")
    refused(said, str(state), "(attribution.window: 1w then, 1h now)")
    with StateDirectory(state, read_only=True) as opened:
        assert opened.digests() == before and listing(state) == listed


def test_d_other_partitions_are_named_with_both_numbers(live: Live, tmp_path: Path) -> None:
    two = msgspec.structs.replace(live.configuration, partitions=2)
    with pytest.raises(BrokerError, match=r"events has 1 partitions, the configuration and the state say 2"):
        Worker(two, tmp_path / "state")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_e_a_folder_that_cannot_be_written_is_named(live: Live) -> None:
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o500)
    try:
        with as_nobody(), pytest.raises(StateError, match=rf"{folder}/state: the state folder cannot be written: "):
            Worker(live.configuration, folder / "state")
        assert list(folder.iterdir()) == []
    finally:
        folder.chmod(0o700)
        folder.rmdir()
