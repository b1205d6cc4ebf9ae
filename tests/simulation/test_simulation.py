"""A hundred seeds: the live topology ends where the fault-free replay ends, whatever went wrong, and every site is hit.

Two classes, so that two test processes share them.
"""

from __future__ import annotations

from collections import Counter

import pytest

from thalweg.streams.simulation import simulate_seed
from thalweg.streams.simulation.plan import SITES

pytestmark = pytest.mark.slow

SEEDS, STEP = 50, 10


class Fifty:
    """Fifty seeds from `first` on, some a test; the last test asks for the sites."""

    first: int
    sites: Counter[str]

    @pytest.mark.parametrize("begin", range(0, SEEDS, STEP))
    def test_seeds_end_as_their_replay_does(self, begin: int) -> None:
        for seed in range(self.first + begin, self.first + begin + STEP):
            verdict = simulate_seed(seed)
            assert verdict.failure is None, f"seed {seed} {verdict.failure}\n{verdict.plan}"
            self.sites.update(verdict.sites)

    def test_the_seeds_reach_every_site(self) -> None:
        assert not [site for site in SITES if not self.sites[site]]


class TestFirstFifty(Fifty):
    first, sites = 0, Counter()


class TestSecondFifty(Fifty):
    first, sites = SEEDS, Counter()
