"""What one seed does: the shop, the shards, and how often what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from .shop import Traits

SITES = (
    # a stage's process
    "crash before outputs are sent",
    "crash between outputs",
    "crash after outputs are sent",
    "crash before checkpoint",
    "checkpoint batch ready",  # a torn checkpoint: sites with these three names stand in product code (`fault`)
    "refresh snapshot",
    "refresh wait",
    "crash after checkpoint",
    "write torn",  # RocksDB: the process dies in the middle of the batch's way to the log
    "RocksDB killed",  # it is opened from what was in its files when the process died
    "output twice",  # a lost acknowledgement
    "output late",  # of a process that is dead by then
    "message delivered again",
    "rebalance",
    "rebalance during recovery",
    "rubbish on an internal topic",
    # ingest
    "ingest crash between shards",
    "ingest crash after blocks",
    "ingest block twice",
    "ingest block late",
    "two ingesters",
    # the input
    "partition idle",
    "idle partition wakes",
    "heartbeat",
    "empty message",
    "late rows",
    "hand-over",
    # what is lost for good
    "log trimmed",
    "log trimmed unread",
    "topic re-created",
    "loud stop",
    # the checkers' own
    "stale reader",
    "RocksDB",
    "reading",
    "refresh",
    "audit",
    "expiry",
    "reversal",
    "duplicate",
    "dead letter",
)
"""Every place where a seed can do something; one that no seed of a run reaches fails the run."""


class Loss(StrEnum):
    """What may be lost for good, see `loss`: messages of a log, or a topic with its id."""

    TRIMMED = "log trimmed"
    RAW_TRIMMED = "raw log trimmed"
    MADE_AGAIN = "topic re-created"
    RAW_MADE_AGAIN = "raw topic re-created"


@dataclass
class Plan:
    """What one seed does.

    Attributes
    ----------
    shop : the shop's traits
    shards : partitions of the events topic
    block_rows : rows a block of ingest at most
    reads : raw messages read at once at most
    rates : chance of each kind of fault where it can happen
    faults : number after which nothing goes wrong any more
    checkpoint : chance of a checkpoint behind a message
    backlog : everything is in the raw topics from the start
    apart : raw partitions are written apart from one another: one that wakes brings old rows
    rocks : real RocksDB
    handover : share of the log that is replayed before, by the replay driver; 0: live from the start
    loss : what is lost for good; None: nothing
    """

    shop: Traits = field(default_factory=Traits)
    shards: int = 1
    block_rows: int = 20
    reads: int = 30
    rates: dict[str, float] = field(default_factory=dict)
    faults: int = 100
    checkpoint: float = 0.3
    backlog: bool = False
    apart: bool = False
    rocks: bool = False
    handover: float = 0.0
    loss: Loss | None = None

    @property
    def late(self) -> bool:
        """Whether rows may arrive below the clock they are stamped with."""
        return self.shop.late > 0 or self.apart


KINDS = ("crash", "ingest crash", "twice", "second ingester", "rebalance", "rubbish", "again", "look")


def draw_plan(draw: Random) -> Plan:
    """A plan: some calm, some brutal.

    >>> 1 <= draw_plan(Random(4)).shards <= 3
    True
    """
    shop = Traits(
        rows=draw.randrange(100, 200),
        partitions=draw.randrange(2, 5),
        tied=draw.choice((0.33, 0.33, 0.7)),
        resent=draw.choice((0, 0.05, 0.15)),
        changed=draw.choice((0.2, 0.2, 0.8)),
        echoed=draw.choice((0, 0, 0.2)),
        broken=draw.choice((0, 0, 0.04)),
        silence=draw.choice((0.01, 0.03, 0.06)),
        shared=draw.choice((0, 0.2)),
    )
    late = draw.random() < 0.2
    plan = Plan(
        shop=shop,
        shards=draw.randrange(1, 4),
        block_rows=draw.choice((5, 20, 60)),
        reads=draw.choice((6, 25, 60)),
        rates={kind: draw.choice((0, 0.02, 0.1)) for kind in KINDS}
        | {"refresh crash": draw.choice((0, 0.1, 0.4)), "late output": draw.choice((0, 0.3, 0.9))},
        faults=draw.choice((15, 40, 100)),
        checkpoint=draw.choice((0.1, 0.3, 1.0)),
        backlog=draw.random() < 0.3,
        rocks=draw.random() < 0.12,
    )
    if late:
        shop.late, plan.apart = draw.choice(((0.1, False), (0.0, True), (0.1, True)))
        plan.backlog = plan.backlog and shop.late > 0
    elif draw.random() < 0.15:
        plan.handover, plan.rocks = draw.uniform(0.2, 0.8), True
    if not late and draw.random() < 0.25:
        plan.loss = draw.choice(list(Loss))
    return plan
