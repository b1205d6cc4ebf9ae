"""Named fault sites: where a test can have the process killed, in shipping code, without a mock.

`reach("checkpoint written")` counts; nothing else happens unless the command line armed a site (`THALWEG_FAULT=SITE:N`
kills with SIGKILL at the N-th time the site is reached). The sites are listed in `SITES`, so that a test can prove
that each was hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

SITES = (
    "block applied",  # replay: a block went through all stages, nothing is checkpointed yet
    "checkpoint begins",  # before the first stage's batch
    "checkpoint batch ready",  # a stage's batch is complete in memory, not written
    "checkpoint between stages",  # one stage's batch is written, the next one's is not
    "checkpoint done",
    "refresh snapshot",  # the snapshot of a refresh is written and its build begun, nothing is committed
    "refresh wait",  # the stage waits for the build of a version
    "ingest dead letters sent",  # the dead letters of a block are acknowledged, the block is not sent
    "ingest between shards",  # the block of one shard is on its way, that of the next is not
    "ingest block sent",  # the blocks of all shards are on their way, none is acknowledged
    "attribution block sent",  # worker: what the stage emitted is on its way, nothing is checkpointed
    "feedback block sent",
    "copurchase block sent",
    "calibration block sent",
    "worker leaves",  # everything is checkpointed, the group is left, the folders are not closed
)

_armed: tuple[str, int] | None = None
hits: dict[str, int] = {}
watch: Callable[[str], None] | None = None
"""Told each site that is reached; the simulation has it raise, where a process would die."""


def arm(text: str | None) -> None:
    """Arm one site: `"SITE:N"`, kill at the N-th hit; None disarms. ValueError where the site is unknown.

    >>> arm("no such site:1")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: no fault site 'no such site'; sites: block applied, checkpoint begins, ...
    """
    global _armed
    if text is None:
        _armed = None
        return
    site, _, count = text.rpartition(":")
    if site not in SITES:
        raise ValueError(f"no fault site {site!r}; sites: {', '.join(SITES)}")
    _armed = (site, int(count))


def reach(site: str) -> None:
    """Say that `site` was reached; kill -9 if it is armed for this hit.

    >>> before = hits.get("checkpoint done", 0)
    >>> reach("checkpoint done"); hits["checkpoint done"] - before
    1
    """
    hits[site] = hits.get(site, 0) + 1
    if watch is not None:
        watch(site)
    if _armed is not None and _armed == (site, hits[site]):
        os.kill(os.getpid(), signal.SIGKILL)
