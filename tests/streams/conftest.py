"""A small funnel and its replayed state, made once for the tests that ask a state."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg.streams.configuration import load
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import replay


@pytest.fixture(scope="session")
def funnel_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 thousand events over 40 days, with returns and planted pairs; the configuration lies beside it."""
    path = tmp_path_factory.mktemp("funnel") / "funnel.parquet"
    simulate(path, 20_000, seed=3, days=40, users=300, returns=0.2)
    return path


@pytest.fixture(scope="session")
def funnel_state(funnel_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of one closed replay of the funnel."""
    state = tmp_path_factory.mktemp("funnel_state") / "state"
    replay([funnel_log], state, load(funnel_log.with_suffix(".toml")), close=True)
    return state
