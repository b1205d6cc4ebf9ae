"""Compares two states by their audit trails and digests, and names the first stage and day where they part.

An audit trail has the digest of each stage at every audit boundary of event time. The first boundary at which the
trails differ, at the first stage in the order of the data, is where to look: everything before it was equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .heap import give_back_memory
from .state_directory import StateDirectory
from .topology import FLOWS

Trail = dict[int, int]


@dataclass(frozen=True)
class Difference:
    """Where two states part.

    Attributes
    ----------
    stage : the first stage, in the order of the data, among those that part earliest
    boundary : the first audit boundary at which its digests differ, ms; None where the trails agree and only the
        final digests differ
    """

    stage: str
    boundary: int | None

    def __str__(self) -> str:
        if self.boundary is None:
            return (
                f"{self.stage}: the audit trails agree, the final digests differ (after the last audit, or held rows)"
            )
        until = datetime.fromtimestamp(self.boundary / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        return f"{self.stage}: differs first in the span of event time that ends {until} UTC"


@dataclass(frozen=True)
class Comparison:
    """What `verify` found.

    Attributes
    ----------
    equal : trails and final digests of all stages agree
    differences : one for each stage that differs, the earliest first
    digests : stage -> final digests of the two states, in hex
    late : rows that came late in each of the two
    boundaries : number of audits compared
    """

    equal: bool
    differences: list[Difference]
    digests: dict[str, tuple[str, str]]
    late: tuple[int, int]
    boundaries: int


def verify(first: str | Path, second: str | Path) -> Comparison:
    """Compare the states in two directories; StateError where one holds none.

    The number of partitions may differ: digests of shards add up. Rows that came late are counted, for with late rows
    two runs over the same log may honestly differ. They are opened one after the other: each may fill the memory.
    """
    (trails, digests, late), (other_trails, other_digests, other_late) = _account(first), _account(second)
    differences = []
    boundaries = 0
    for flow in FLOWS:
        mine, other = trails[flow.stage], other_trails[flow.stage]
        boundaries += len(mine.keys() | other.keys())
        parted = first_difference(mine, other)
        if parted is not None or digests[flow.stage] != other_digests[flow.stage]:
            differences.append(Difference(flow.stage, parted))
    differences.sort(key=lambda found: (found.boundary is None, found.boundary or 0))
    hexes = {flow.stage: (f"{digests[flow.stage]:032x}", f"{other_digests[flow.stage]:032x}") for flow in FLOWS}
    return Comparison(not differences, differences, hexes, (late, other_late), boundaries)


def _account(path: str | Path) -> tuple[dict[str, Trail], dict[str, int], int]:
    """Trails and digests of a state, and how many rows were late; what it held in memory is given back."""
    with StateDirectory(path, read_only=True) as state:
        account = state.trails(), state.digests(), late_rows(state)
    del state
    give_back_memory()
    return account


def first_difference(a: Trail, b: Trail) -> int | None:
    """The first boundary at which two trails differ; None where they agree. A boundary that one lacks counts as 0.

    >>> first_difference({1: 5, 2: 6}, {1: 5, 2: 7}), first_difference({1: 5}, {1: 5})
    (2, None)
    """
    return min((boundary for boundary in a.keys() | b.keys() if a.get(boundary, 0) != b.get(boundary, 0)), default=None)


def late_rows(state: StateDirectory) -> int:
    """Rows that were applied, or set aside, below the clock they were stamped with."""
    books = [stage.books() for stage in state.attribution]
    return sum(terms.get("late", 0) + terms.get("set_aside", 0) for book in books for terms in book.values())
