"""What is lost for good: logs that are trimmed, topics that are made again.

A log may lose what everybody has read, and nothing happens. Where it loses what somebody has not, or where a topic is
another one than before, positions mean nothing any more, and the product must stop loudly: a stage with `Gap` or
`StateError`, ingest with `IngestError`, and again after each restart. A seed that reaches its end instead has to end as
its replay does.

The worker compares positions with the beginning of a log when it is given the partition. Here nobody does: a reader
goes on with what is left, as a consumer does whose log is trimmed under it, and the marks must tell.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

from ..topology import FLOWS
from .plan import Loss
from .process import IngestProcess, StageProcess, covered, last_block
from .world import RAW, World

OFTEN, UNREAD, KILLED = 0.5, 0.1, 0.5
"""Chances: that something is lost between two steps; that somebody has not read it; that who reads it dies then, so
that only what was committed, or sent, counts."""


def strike(world: World, stages: Sequence[StageProcess], ingesters: MutableSequence[IngestProcess]) -> None:
    """Something is lost, perhaps, as the plan's `loss` says.

    >>> world = World.example()
    >>> strike(world, [], [])
    >>> world.begins, world.made_again
    (Counter(), set())
    """
    draw = world.draw
    if world.plan.loss is None or world.calm or draw.random() >= OFTEN:
        return
    unread, kill = draw.random() < UNREAD, draw.random() < KILLED
    if world.plan.loss is Loss.TRIMMED:
        stage = draw.choice(stages)
        if _trim(world, stage, unread) and kill:
            stage.die()
    elif world.plan.loss is Loss.RAW_TRIMMED:
        if _trim_raw(world, draw.randrange(len(world.raw)), unread) and kill:
            ingesters.clear()
    elif unread and not world.made_again:
        _make_again(world, stages if kill else [])


def _trim(world: World, stage: StageProcess, unread: bool) -> bool:
    """A stage's log loses what the stage has committed, or more; whether more. Each shard of the events keeps its last
    block, for there ingest stands."""
    end = len(world.topics[stage.input])
    if stage.input[0] == "events":
        last = last_block(world, stage.partition)
        end = 0 if last is None else last[0]
    low, high = (stage.saved + 1, end) if unread else (0, min(stage.saved, end))
    return world.trim(stage.input, low, high, unread) and unread


def _trim_raw(world: World, source: int, unread: bool) -> bool:
    """A raw partition loses what every shard has got, or more; whether more. One of which no block tells yet is read
    from where it begins, wherever that is."""
    ends = covered(world, source)
    low, high = (min(ends) + 1, world.published[source]) if unread else (0, min(ends))
    return max(ends) > 0 and world.trim((RAW, source), low, high, unread) and unread


def _make_again(world: World, dying: Sequence[StageProcess]) -> None:
    """A topic is deleted and made again, empty, and those who read it die with it; a raw one once blocks tell of it."""
    if world.plan.loss is Loss.MADE_AGAIN:
        topic = world.draw.choice([flow.reads for flow in FLOWS])
    elif any(last_block(world, shard) for shard in range(world.plan.shards)):
        topic = RAW
    else:
        return
    world.make_again(topic)
    for stage in dying:
        if stage.input[0] == topic:
            stage.die()
