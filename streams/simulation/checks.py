"""Checkers: marks and clocks never fall, the books balance, a reader sees whole commits, two runs end alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..attribution import AttributionStage
from ..feedback import FeedbackStage
from ..stage import Stage
from ..summing_up import add_up, gaps_in_events, gaps_in_labels
from ..topology import FLOWS
from ..verify import Difference, Trail, first_difference


class CheckFailed(AssertionError):
    """Something that must hold does not; the message says what."""


class Forward:
    """Marks, position and clocks of one stage: they never fall within a life, nor from one commit to the next.

    >>> Forward("feedback/0")._check(None, "life", None)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._life: list[int] | None = None
        self._commit: list[int] | None = None

    def opened(self, stage: Stage, committed: int | None) -> None:
        """A process was opened: it stands where the last commit stood, digest and all."""
        now = _standing(stage)
        if self._commit is not None and now != self._commit:
            raise CheckFailed(f"{self._name}: opened at {now}, committed at {self._commit}")
        if committed is not None and stage.digest() != committed:
            raise CheckFailed(f"{self._name}: opened with another digest than was committed")
        self._life = None

    def moved(self, stage: Stage) -> None:
        """It took a message."""
        now = _standing(stage)
        self._check(self._life, "message", now)
        self._life = now

    def committed(self, stage: Stage) -> None:
        """It was committed."""
        now = _standing(stage)
        self._check(self._commit, "commit", now)
        self._commit = now

    def _check(self, before: list[int] | None, what: str, now: list[int] | None) -> None:
        if before is not None and now is not None and any(a > b for a, b in zip(before, now, strict=True)):
            raise CheckFailed(f"{self._name}: something fell from one {what} to the next: {before} to {now}")


def _standing(stage: Stage) -> list[int]:
    return [stage.position, *stage.marks.tolist(), *stage.tops.tolist(), *stage.merge.clocks.tolist()]


def check_books(stages: Iterable[Stage], where: str) -> dict[str, dict[str, int]]:
    """CheckFailed where the books of some stages do not balance; those of the events, shards summed.

    >>> from ...graph_store.state_store import StateStore
    >>> from ..configuration import Configuration
    >>> check_books([AttributionStage(Configuration(), StateStore.memory(), 1)], "at first")["click"]["read"]
    0
    """
    events: dict[str, dict[str, int]] = {}
    for stage in stages:
        if isinstance(stage, AttributionStage):
            for kind, terms in stage.books().items():
                add_up(events.setdefault(kind, {}), terms)
        if isinstance(stage, FeedbackStage) and (gaps := gaps_in_labels(stage.books())):
            raise CheckFailed(f"{where}: {'; '.join(gaps)}")
    if gaps := gaps_in_events(events):
        raise CheckFailed(f"{where}: {'; '.join(gaps)}")
    return events


State = dict[str, tuple[int, Trail]]
"""Stage -> digest and audit trail, shards summed."""


def state_of(stages: Iterable[Stage]) -> State:
    """Digests and trails of some stages.

    >>> state_of([])["feedback"]
    (0, {})
    """
    out: State = {flow.stage: (0, {}) for flow in FLOWS}
    for stage in stages:
        digest, trail = out[stage.name]
        for boundary, value in stage.trail().items():
            trail[boundary] = (trail.get(boundary, 0) + value) % 2**128
        out[stage.name] = ((digest + stage.digest()) % 2**128, trail)
    return out


def differences(live: State, reference: State) -> list[Difference]:
    """Where two states part, the earliest first.

    >>> empty = {flow.stage: (0, {}) for flow in FLOWS}
    >>> [str(each)[:8] for each in differences(empty, empty | {"feedback": (0, {5: 1})})]
    ['feedback']
    """
    found = []
    for flow in FLOWS:
        (digest, trail), (other, expected) = live[flow.stage], reference[flow.stage]
        parted = first_difference(trail, expected)
        if parted is not None or digest != other:
            found.append(Difference(flow.stage, parted))
    return sorted(found, key=lambda each: (each.boundary is None, each.boundary or 0))


def late_rows_of(stages: Iterable[Stage]) -> int:
    """Rows that came below the clock they were stamped with.

    >>> late_rows_of([])
    0
    """
    books = [stage.books() for stage in stages if isinstance(stage, AttributionStage)]
    return int(np.sum([terms.get("late", 0) + terms.get("set_aside", 0) for book in books for terms in book.values()]))
