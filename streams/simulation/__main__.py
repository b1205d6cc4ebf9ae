"""The simulation's command: `python -m thalweg.streams.simulation --seeds 2000 --first 0`.

Prints seeds a second, how often each site was reached, and each seed that failed with the first stage and day that
differ. Exit status 1 where a seed fails, or where a site was reached by none of at least `ENOUGH` seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from .plan import SITES
from .run import simulate_seed

ENOUGH = 50
"""Seeds from which on every site has to be reached."""
EVERY = 10.0
"""Seconds between two lines that say how far it is."""


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds; the exit status.

    >>> main(["--seeds", "0"])
    0 seeds from 0: no seed failed
    0
    """
    parser = argparse.ArgumentParser(prog="python -m thalweg.streams.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    asked = parser.parse_args(arguments)
    sites: Counter[str] = Counter()
    failed = 0
    began = told = time.monotonic()
    for done in range(asked.seeds):
        verdict = simulate_seed(asked.first + done)
        sites += verdict.sites
        if verdict.failure is not None:
            failed += 1
            _say(f"seed {verdict.seed} {verdict.failure}\n  {verdict.plan}")
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            _say(f"{done + 1:,} seeds, {(done + 1) / (told - began):.1f} seeds/s, {failed} failed")
    return _sum_up(asked.seeds, asked.first, failed, sites, time.monotonic() - began)


def _sum_up(seeds: int, first: int, failed: int, sites: Counter[str], seconds: float) -> int:
    missing = [site for site in SITES if not sites[site]]
    if seeds:
        _say("\n".join(f"{sites[site]:>9,}  {site}" for site in SITES))
        _say(f"{seeds / seconds:.1f} seeds/s, {len(SITES) - len(missing)} of {len(SITES)} sites reached")
    _say(f"{seeds:,} seeds from {first}: {f'{failed} failed' if failed else 'no seed failed'}")
    if missing and seeds >= ENOUGH:
        _say(f"no seed reached: {', '.join(missing)}")
        return 1
    return int(failed > 0)


def _say(line: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
