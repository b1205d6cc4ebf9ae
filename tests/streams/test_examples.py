"""thalweg.examples as files: each emission once, also after a kill; the state is that without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thalweg.streams.configuration import load
from thalweg.streams.replay import replay
from thalweg.streams.row import Example
from thalweg.streams.verify import verify


def emissions(folder: Path) -> list[tuple[int, int, int, float]]:
    """(label key, number of emission, kind, mass) of every row, sorted."""
    table = pq.read_table(folder)
    columns = [table[name].to_pylist() for name in ("id", "id2", "kind", "mass")]
    return sorted(zip(*columns, strict=True))


def test_each_emission_stands_there_once(funnel_log: Path, funnel_state: Path, tmp_path: Path) -> None:
    """Of one run, and of one that was killed in its third checkpoint and went on; the state is that without them."""
    configuration = load(funnel_log.with_suffix(".toml"))
    replay([funnel_log], tmp_path / "whole", configuration, examples=tmp_path / "once", close=True)
    assert verify(funnel_state, tmp_path / "whole").equal
    command = [
        sys.executable, "-m", "thalweg.streams.cli", "replay", str(funnel_log), "--state", str(tmp_path / "killed"),
        "--config", str(funnel_log.with_suffix(".toml")), "--close", "--block-rows", "500", "--examples",
        str(tmp_path / "twice"),
    ]  # fmt: skip
    environment = {**os.environ, "THALWEG_STORE__CHECKPOINT": "1ms"}
    killed = subprocess.run(command, env={**environment, "THALWEG_FAULT": "checkpoint begins:3"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-500:]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    once, twice = emissions(tmp_path / "once"), emissions(tmp_path / "twice")
    assert once == twice and len({row[:2] for row in once}) == len(once)


def test_masses_of_a_label_add_up_to_its_story(funnel_log: Path, tmp_path: Path) -> None:
    """Emissions of a label are numbered without a gap; a positive mass comes with a conversion, a negative without."""
    replay([funnel_log], tmp_path / "state", load(funnel_log.with_suffix(".toml")), examples=tmp_path / "e", close=True)
    rows = emissions(tmp_path / "e")
    keys = np.array([row[0] for row in rows], np.uint64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(rows)], strict=True):
        assert [row[1] for row in rows[start:end]] == list(range(end - start))
    kinds = {kind: [mass for *_, k, mass in rows if k == kind] for kind in map(int, Example)}
    assert min(kinds[Example.RETRACTION] + kinds[Example.POSITIVE]) > 0
    assert max(kinds[Example.PROVISIONAL_NEGATIVE] + kinds[Example.CONFIRMED_NEGATIVE] + kinds[Example.REVERSAL]) <= 0
