"""Which stage reads and writes which topic: the one place that says it."""

from __future__ import annotations

from typing import NamedTuple


class Flow(NamedTuple):
    """One stage: the topic it reads, the topics it writes, and whether it has a state for each partition."""

    stage: str
    reads: str
    writes: tuple[str, ...]
    sharded: bool


FLOWS = (
    Flow("attribution", "events", ("labels", "copurchases"), True),
    Flow("feedback", "labels", ("outcomes", "examples"), False),
    Flow("copurchase", "copurchases", (), False),
    Flow("calibration", "outcomes", (), False),
)
"""In the order of the data; `events` has N partitions, the others have one. `examples` is read by others."""

DOWNSTREAM_FIRST = tuple(flow.stage for flow in reversed(FLOWS))
"""The order of checkpoints in one process: a stage is never ahead of the one that reads it."""
