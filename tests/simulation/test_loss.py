"""What is lost for good: the product stops, says what is missing, and stops again; what was read may go."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from thalweg.streams.simulation import simulate_seed
from thalweg.streams.simulation.plan import Loss, Plan
from thalweg.streams.simulation.shop import Traits

SEEDS = 8

ROUGH = Plan(Traits(rows=80), shards=2, block_rows=5, reads=8, rates={"crash": 0.05, "twice": 0.05, "late output": 0.5})
SAYS = {
    Loss.TRIMMED: r"Gap: \w+: a block of source \d begins at \d+, the mark is \d+; the rows between were lost",
    Loss.RAW_TRIMMED: r"IngestError: shop/\d: begins at offset \d+, the blocks end at \d+: \d+ messages were deleted",
    Loss.MADE_AGAIN: r"StateError: \w+/\d: the state of \w+ stands at \d+ in the topic of id .* another topic of that",
    Loss.RAW_MADE_AGAIN: r"IngestError: shop/\d: is another topic than before: its id was",
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", Loss)
def test_what_is_lost_unread_stops_it(loss: Loss) -> None:
    """What was read may go before, any number of times: without a stop a seed ends as the replay of the whole log."""
    said, harmless = [], 0
    for seed in range(SEEDS):
        verdict = simulate_seed(seed, replace(ROUGH, loss=loss))
        assert verdict.failure is None, f"seed {seed} {verdict.failure}"
        assert (verdict.stopped is None) == (verdict.sites["loud stop"] == 0)
        said += [verdict.stopped] if verdict.stopped else []
        harmless += verdict.sites["log trimmed"]
    assert len(said) >= SEEDS // 2
    assert (harmless > SEEDS) == (loss in (Loss.TRIMMED, Loss.RAW_TRIMMED))
    assert any(re.match(SAYS[loss], text) for text in said), said


def test_nothing_is_lost_where_nothing_is_planned() -> None:
    verdict = simulate_seed(1, replace(ROUGH, shop=Traits(rows=30)))
    lost = ("log trimmed", "log trimmed unread", "topic re-created", "loud stop")
    assert verdict.failure is verdict.stopped is None and not any(verdict.sites[site] for site in lost)
