"""Fixtures of the cases: a folder of log files, and the labels that a replay emits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.log_files import Case, small
from thalweg.streams.replay import Replay


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    """Makes cases: `case(attribution={"window": "1d"})`; each has a folder of its own."""
    made: list[Case] = []

    def make(**sections: Any) -> Case:
        made.append(Case(tmp_path / f"case-{len(made)}", small(**sections)))
        return made[-1]

    return make


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The label operations that replays emit while the test runs, a record array a block."""
    emitted: list[np.ndarray] = []
    deliver = Replay._deliver

    def record(self: Replay, out: dict[str, Any], end: int) -> None:
        emitted.append(out["labels"].rows.copy())
        deliver(self, out, end)

    monkeypatch.setattr(Replay, "_deliver", record)
    return emitted
