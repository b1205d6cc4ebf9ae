"""The state store: what was committed comes back, whole; a folder that cannot be used says why and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from thalweg.graph_store import fault
from thalweg.graph_store.memory_pages import MemoryPages
from thalweg.graph_store.state_store import FORMAT, StateError, StateStore, TornView, digest_value

ROW = np.dtype([("key", "<u8"), ("count", "<i8")])


class Tables:
    """One table of each kind, and something to do with them."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.array = store.array("array", np.float64, (600,))
        self.ring = store.ring("ring", ROW, 16)
        self.growing = store.growing("growing", ROW, 16)
        self.value = store.value("value", {"n": 0})

    def work(self, seed: int) -> None:
        """Write here and there, append, drop from the tail of the ring."""
        draw = np.random.default_rng(seed)
        self.array.values[draw.integers(0, 600, 3)] = draw.random(3)
        n = int(draw.integers(0, 40))
        self.ring.reserve(n)
        for _ in range(n):
            self.ring.rows[self.ring.ends[1] & (len(self.ring.rows) - 1)] = (seed, self.ring.ends[1])
            self.ring.ends[1] += 1
        self.ring.ends[0] += draw.integers(0, len(self.ring) + 1)
        self.growing.reserve(n)
        self.growing.rows[len(self.growing) : len(self.growing) + n] = (seed, n)
        self.growing.count[0] += n
        if len(self.growing):
            self.growing.rows["count"][draw.integers(0, len(self.growing))] += 1
        self.value.value = {"n": seed}
        self.store.count("work")
        self.store.count("nothing", 0)

    def content(self) -> tuple[object, ...]:
        return (
            self.array.values.tolist(), self.ring.ends.tolist(), self.ring.entries().tolist(),
            self.growing.entries().tolist(), self.value.value, self.store.counters,
        )  # fmt: skip


def opened(path: Path, fingerprint: str = "f") -> Tables:
    return Tables(StateStore.open(path, fingerprint, page=512))


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 1000), max_size=3), min_size=1, max_size=5))
def test_reopening_gives_what_was_committed(sessions):
    """Each session opens, works, commits, works on without committing, and closes."""
    with tempfile.TemporaryDirectory() as folder:
        expected = None
        for number, seeds in enumerate(sessions):
            tables = opened(Path(folder) / "s")
            if expected is not None:
                assert tables.content() == expected
                assert tables.store.position == {"number": number - 1} and not tables.store.fresh
            for seed in seeds:
                tables.work(seed)
                tables.store.commit({"number": number})
            tables.store.commit({"number": number})
            expected = _plain(tables)
            tables.work(7)
            tables.store.close()


def _plain(tables: Tables) -> tuple[object, ...]:
    content = tables.content()
    return (*content[:5], dict(tables.store.counters))


def test_only_changed_pages_are_written(tmp_path):
    tables = opened(tmp_path / "s")
    tables.array.values[:] = 1.0
    first = tables.store.commit({})
    meta = tables.store.commit({})
    assert first > 600 * 8 > meta
    tables.array.values[64] = 2.0  # the first of page 1
    assert tables.store.commit({}) - meta == 512
    tables.array.values[0], tables.array.values[599] = 3.0, 3.0
    assert tables.store.commit({}) - meta == 512 + 600 * 8 % 512
    assert tables.store.written_bytes == first + 3 * meta + 2 * 512 + 600 * 8 % 512
    tables.store.close()


def test_a_memory_store_keeps_nothing_and_a_view_writes_nothing(tmp_path):
    assert Tables(StateStore.memory()).store.commit({"p": 1}) == 0
    tables = opened(tmp_path / "s")
    tables.store.commit({})
    view = StateStore.view(tmp_path / "s")
    with pytest.raises(StateError, match="opened read-only"):
        view.commit({})
    view.close()
    tables.store.close()


def test_a_view_beside_a_live_writer_sees_the_last_commit(tmp_path):
    tables = opened(tmp_path / "s")
    tables.work(1)
    tables.store.commit({"at": 1})
    committed = _plain(tables)
    tables.work(2)
    first = Tables(StateStore.view(tmp_path / "s"))
    assert first.content() == committed and first.store.position == {"at": 1} and first.store.fingerprint == "f"
    tables.store.commit({"at": 2})
    assert first.content() == committed
    second = Tables(StateStore.view(tmp_path / "s"))
    assert second.content() == _plain(tables) and second.store.position == {"at": 2}
    for each in (first, second, tables):
        each.store.close()
    assert opened(tmp_path / "s").store.position == {"at": 2}


def test_a_table_cannot_be_made_twice_nor_in_another_shape(tmp_path):
    tables = opened(tmp_path / "s")
    with pytest.raises(ValueError, match="table ring exists already"):
        tables.store.ring("ring", ROW)
    tables.store.commit({})
    tables.store.close()
    store = StateStore.open(tmp_path / "s", "f")
    with pytest.raises(StateError, match="table ring has another record type; replay into a new --state folder"):
        store.ring("ring", np.dtype([("key", "<u8")]))
    with pytest.raises(ValueError, match=r"table array is stored with shape \[600\], wanted \[5\]"):
        store.array("array", np.float64, (5,))
    store.close()


# ---- death


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.graph_store.test_state_store import opened
from thalweg.graph_store import fault
tables = opened(Path({path!r}))
fault.arm("checkpoint batch ready:{hit}")
for seed in (1, 2, 3):
    tables.work(seed)
    tables.store.commit({{"seed": seed}})
"""


@pytest.mark.parametrize("hit", [1, 2, 3])
def test_a_kill_inside_a_commit_leaves_the_commit_before(tmp_path, hit):
    root = str(Path(__file__).resolve().parents[2])
    code = KILLED.format(root=root, path=str(tmp_path / "s"), hit=hit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    tables, twin = opened(tmp_path / "s"), Tables(StateStore.memory())
    for seed in range(1, hit):
        twin.work(seed)
    assert tables.content() == twin.content()  # the LOCK file that the dead writer left is no obstacle
    assert tables.store.position == ({"seed": hit - 1} if hit > 1 else {})
    tables.store.close()


# ---- folders that cannot be used


def committed(path: Path) -> None:
    tables = opened(path)
    tables.work(1)
    tables.store.commit({"at": 1})
    tables.store.close()


def test_a_newer_format_is_refused_with_the_mend_and_left_alone(tmp_path):
    committed(tmp_path / "s")
    database = Rdict(str(tmp_path / "s"), Options(raw_mode=True))
    meta = msgspec.json.decode(database[b"m"])
    newer = msgspec.json.encode({**meta, "format": FORMAT + 1})
    database[b"m"] = newer
    database.close()
    refusal = f"written in format {FORMAT + 1}, this version reads up to {FORMAT}; upgrade"
    with pytest.raises(StateError, match=refusal):
        opened(tmp_path / "s")
    with pytest.raises(StateError, match="upgrade thalweg"):
        StateStore.view(tmp_path / "s")
    database = Rdict(str(tmp_path / "s"), Options(raw_mode=True))
    assert database[b"m"] == newer
    database.close()


def test_another_configuration_is_refused_and_the_right_one_still_opens(tmp_path):
    committed(tmp_path / "s")
    with pytest.raises(StateError, match=r"another configuration \(fingerprint f, now g\); use that configuration"):
        opened(tmp_path / "s", "g")
    tables = opened(tmp_path / "s")
    assert tables.store.position == {"at": 1}
    tables.store.close()


def test_a_second_writer_is_refused_naming_the_folder(tmp_path):
    tables = opened(tmp_path / "s")
    code = (
        "from pathlib import Path\nfrom thalweg.graph_store.state_store import StateError, StateStore\n"
        f"try:\n    StateStore.open(Path({str(tmp_path / 's')!r}), 'f')\n"
        "except StateError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"{tmp_path / 's'}: the state folder is in use by another process; stop that one, or give another --state\n"
    )
    with pytest.raises(StateError, match="in use"):
        opened(tmp_path / "s")
    tables.store.close()


def test_a_folder_without_state_has_no_view(tmp_path, monkeypatch):
    with pytest.raises(StateError, match="no state here; run `thalweg replay LOG --state DIR` first"):
        StateStore.view(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    opened(tmp_path / "s").store.close()
    (tmp_path / "views").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "views"))
    with pytest.raises(StateError, match="nothing has been committed here yet"):
        StateStore.view(tmp_path / "s")
    assert list((tmp_path / "views").iterdir()) == []


READ_ONLY = """
import os, sys
from pathlib import Path
from thalweg.graph_store.state_store import StateError, StateStore
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    StateStore.open(Path({path!r}), "f")
except StateError as error:
    print(error)
"""


@pytest.mark.parametrize("new", [True, False], ids=["parent", "folder"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, new):
    """As nobody, where the tests run as root; the owner's own read-only folder stays read-only."""
    folder = Path(tempfile.mkdtemp())
    state = folder / "s"
    if not new:
        committed(state)
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o500 if path.is_dir() else 0o400)
    code = READ_ONLY.format(path=str(state))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith(f"{state}: the state folder cannot be written: "), (done.stdout, done.stderr)
    assert new or state.stat().st_mode & 0o777 == 0o500
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "s").write_text("no folder")
    with pytest.raises(StateError, match="the state folder cannot be written: "):
        opened(tmp_path / "s")


def test_the_folder_is_private_and_other_peoples_files_stay(tmp_path):
    (tmp_path / "s").mkdir(mode=0o755)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    for seed in range(5):
        tables = opened(tmp_path / "s")
        tables.work(seed)
        tables.store.commit({})
        tables.store.close()
    assert (tmp_path / "s" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_stale_lock_file_is_no_obstacle(tmp_path):
    committed(tmp_path / "s")
    (tmp_path / "s" / "LOCK").write_text("4242")
    tables = opened(tmp_path / "s")
    assert tables.store.position == {"at": 1}
    tables.store.close()


def test_sizes_and_digests_of_values():
    tables = Tables(StateStore.memory())
    assert tables.store.sizes()["array"] == 4800
    assert (
        digest_value("a", {"x": 1, "y": 2})
        == digest_value("a", {"y": 2, "x": 1})
        != digest_value("b", {"x": 1, "y": 2})
    )


def test_a_store_in_memory_comes_back_as_committed() -> None:
    """What was not committed is gone, a copy of the pages is not moved by later commits, a torn commit is none."""
    pages = MemoryPages()
    tables = Tables(StateStore.in_pages(pages, "f"))
    tables.work(1)
    tables.store.commit({"position": 1})
    before, copy = opened_in(pages).content(), pages.copy()
    assert before[:-1] == tables.content()[:-1]
    tables.work(2)
    fault.watch = _die
    try:
        with pytest.raises(InterruptedError):
            tables.store.commit({"position": 2})
    finally:
        fault.watch = None
    for kept in (pages, copy):
        again = opened_in(kept)
        assert again.content() == before and again.store.position == {"position": 1}
    again = opened_in(pages)
    again.work(3)
    again.store.commit({"position": 3})
    assert opened_in(pages).content() == again.content()
    assert opened_in(copy).content() == before
    with pytest.raises(StateError, match="another configuration"):
        StateStore.in_pages(pages, "g")


def opened_in(pages: MemoryPages) -> Tables:
    return Tables(StateStore.in_pages(pages, "f"))


def _die(site: str) -> None:
    if site == "checkpoint batch ready":
        raise InterruptedError(site)


# ---- a view beside a writer


def older_page(path: Path) -> None:
    """Put back one page of an earlier commit: what a view sees when a flush comes between its two looks."""
    tables = opened(path)
    for value in (1.0, 2.0):
        tables.array.values[:] = value
        tables.store.commit({"at": int(value)})
        if value == 1.0:
            tables.store.close()
            database = Rdict(str(path), Options(raw_mode=True))
            key = b"parray\0" + (1).to_bytes(8, "big")
            page = database[key]
            database.close()
            tables = opened(path)
    tables.store.close()
    database = Rdict(str(path), Options(raw_mode=True))
    database[key] = page
    database.close()


def test_pages_of_two_commits_are_not_taken_for_one(tmp_path: Path) -> None:
    older_page(tmp_path / "s")
    view = StateStore.view(tmp_path / "s")
    with pytest.raises(TornView, match="table array is not what was committed last"):
        view.array("array", np.float64, (600,))
    view.close()
    with pytest.raises(StateError, match="the folder is damaged, .*; replay into a new --state folder"):
        opened(tmp_path / "s")


def test_a_state_without_sums_still_opens(tmp_path: Path) -> None:
    committed(tmp_path / "s")
    database = Rdict(str(tmp_path / "s"), Options(raw_mode=True))
    meta = msgspec.json.decode(database[b"m"])
    for table in meta["tables"].values():
        del table["sum"]
    database[b"m"] = msgspec.json.encode(meta)
    database.close()
    tables = opened(tmp_path / "s")
    assert tables.store.position == {"at": 1}
    tables.store.close()


FLUSHING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.graph_store.test_state_store import opened
from thalweg.graph_store import state_store
state_store.FLUSH = 0
tables = opened(Path({path!r}))
at = 0
while True:
    at += 1
    tables.array.values[:] = at
    tables.growing.reserve(1)
    tables.growing.rows[len(tables.growing) % 16] = (at, at)
    tables.growing.count[0] = 16
    tables.value.value = at
    tables.store.commit({{"at": at}})
    time.sleep(0.01)  # a secondary that opens follows the writer until it has nothing new to say
"""


@pytest.mark.slow
def test_a_view_beside_a_writer_that_flushes_is_one_commit_or_torn(tmp_path: Path) -> None:
    root, path = str(Path(__file__).resolve().parents[2]), tmp_path / "s"
    code = FLUSHING.format(root=root, path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as writer:
        try:
            seen: set[int] = set()
            until = time.monotonic() + 600
            while len(seen) < 50:
                assert writer.poll() is None and time.monotonic() < until
                view = None
                try:
                    view = StateStore.view(path)
                    tables = Tables(view)
                except StateError:  # none yet, or torn
                    continue
                finally:
                    if view is not None:
                        view.close()
                at = view.position["at"]
                assert set(tables.array.values.tolist()) == {at} and tables.value.value == at
                assert tables.growing.rows["count"].max() == at
                seen.add(at)
        finally:
            writer.kill()
