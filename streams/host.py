"""A host: one stage on one partition of its topic, messages in, messages out. Worker, recording and simulation use it.

A block may be cut into several messages (`wire.rows_per_message`), so an offset of the input becomes a span of
`PARTS` numbers in what is emitted: part k of the outputs for offset n covers [n * PARTS + k, n * PARTS + k + 1), the
last part what is left of it. Marks and the gap check work on these numbers as on any others.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from ..graph_store.state_store import StateError
from .attribution import AttributionStage
from .block import NO_CLOCK, Block, no_names
from .dead_letter import DeadLetter, Reason, dead_letter
from .stage import Gap, Stage
from .wire import Message, Reject, Source, WireError, decode, encode, rows_per_message

PARTS = 1 << 20
"""Numbers that one input offset has for what it emits."""

Sent = tuple[str, bytes]
"""A message to be sent: the topic by its name in `topology`, the bytes."""
Aside = tuple[Source, int, str, str]
"""A raw row that attribution set aside: where it stands, its offset, the reason and its type."""


class Host:
    """One stage, fed with the messages of the partition that it reads.

    Parameters
    ----------
    stage : its state says where it stands
    input : the partition, with the id that the broker gave the topic

    Attributes
    ----------
    idle : of the last block: whether every raw partition was idle (attribution only)
    letters : dead letters for messages that were no blocks, until `take_letters`
    aside : raw rows that attribution set aside, until `take_letters`

    Raises StateError where the state stands in another topic, an earlier one of the same name.
    """

    def __init__(self, stage: Stage, input: Source) -> None:
        self.stage = stage
        self.input = input
        self.idle = False
        self.since = 0
        """Messages taken since the last checkpoint."""
        self.letters: list[DeadLetter] = []
        self.aside: list[Aside] = []
        self._fingerprint = stage.configuration.fingerprint()
        self._lineage = stage.store.value("lineage", "")
        if stage.input is None:
            stage.attach(input.id)
            seed = f"{input.id}/{input.partition} {self._fingerprint} {stage.digest():032x}"
            self._lineage.value = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
        elif stage.input != input.id:
            raise StateError(
                f"{input}: the state of {stage.name} stands at {stage.position:,} in the topic of id {stage.input}, "
                f"and the broker now has another topic of that name, id {input.id}; give a new --state folder, or "
                "bring the old topic back"
            )

    @property
    def position(self) -> int:
        """Offset of the next message it wants."""
        return self.stage.position

    def take(self, offset: int, value: bytes | None) -> list[Sent]:
        """Take the message at `offset`; what the stage emits for it. One that was taken before gives nothing.

        What is no block is set aside among `letters`. Gap where blocks between are missing; StateError where the block
        comes from another configuration or another state than those before.
        """
        if offset < self.position:
            return []
        stage = self.stage
        self.since += 1
        try:
            message = decode(value, stage.row_type, stage.width)
        except WireError as error:
            place = (str(self.input), offset, offset + 1)
            self.letters.append(dead_letter(place, Reason.BAD_BLOCK, value, detail=str(error)))
            stage.store.count("bad_blocks")
            return self._sent(stage.skip(offset + 1))
        self._check(message, offset)
        out = stage.process(self._block(message), offset + 1)
        if isinstance(stage, AttributionStage):
            self.idle = message.idle
            for source, at, reason, kind in stage.take_rejected():
                self.aside.append((Source(*stage.registry.value[source]), at, reason, kind))
        return self._sent(out)

    def take_letters(self) -> tuple[list[DeadLetter], list[Aside]]:
        """What was set aside since the last call: messages that were no blocks, and raw rows."""
        letters, aside, self.letters, self.aside = self.letters, self.aside, [], []
        return letters, aside

    def checkpoint(self) -> int:
        """Commit the state; only once everything that `take` gave is acknowledged. Bytes written."""
        written = self.stage.checkpoint()
        self.since = 0
        return written

    def _check(self, message: Message, offset: int) -> None:
        if message.fingerprint != self._fingerprint:
            raise StateError(
                f"{self.input} offset {offset:,}: made under another configuration (fingerprint {message.fingerprint}, "
                f"here {self._fingerprint}); run every process with one configuration, or take new topics with "
                "kafka.application"
            )
        if self.stage.one_clock:
            return
        for source in message.block.ranges:
            known = self.stage.origins.setdefault(source, message.origin)
            if known != message.origin:
                raise StateError(
                    f"{self.input} offset {offset:,}: sent from another state (lineage {message.origin}) than what "
                    f"came before ({known}): two --state folders feed one set of topics. Keep one; or take new topics "
                    "with kafka.application and a new --state folder"
                )

    def _block(self, message: Message) -> Block:
        """The message's block; of events, with sources numbered as the state numbers them and rejects not seen yet."""
        block = message.block
        if not isinstance(self.stage, AttributionStage):
            return block
        stage = self.stage
        index = self._indexes(stage, message.sources)
        if len(block.rows):
            block.rows["source"] = np.array([index[i] for i in range(len(message.sources))])[block.rows["source"]]
        for source, begin in message.begins:
            mark = int(stage.marks[index[source]])
            if 0 < mark < begin:
                raise Gap(
                    f"{message.sources[source]}: read up to offset {mark:,}, its log began at {begin:,} when ingest "
                    f"found no block any more: {begin - mark:,} messages were deleted unread. Keep raw and internal "
                    "topics longer; to go on without them, take a new kafka.application and a new --state folder"
                )
        fresh = [each for each in message.rejects if each.offset >= stage.marks[index[each.source]]]
        return replace(
            block,
            ranges={index[source]: span for source, span in block.ranges.items()},
            tops={index[source]: top for source, top in block.tops.items()},
            rejected=_counted(fresh) if stage.shard == 0 else {},
        )

    def _indexes(self, stage: AttributionStage, sources: tuple[Source, ...]) -> dict[int, int]:
        """Number in the message -> number in the state, which learns new ones."""
        known = {tuple(each): i for i, each in enumerate(stage.registry.value)}
        for source in sources:
            if tuple(source) not in known:
                if len(known) == len(stage.marks):
                    raise StateError(f"{self.input}: more than {len(known)} raw partitions and log files in one state")
                known[tuple(source)] = len(known)
                stage.registry.value.append(list(source))
        return {number: known[tuple(source)] for number, source in enumerate(sources)}

    def _sent(self, out: dict[str, Block]) -> list[Sent]:
        return [
            (topic, encode(Message(part, self._fingerprint, self._lineage.value)))
            for topic, block in out.items()
            for part in parts(block)
        ]


def _counted(rejects: list[Reject]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for each in rejects:
        counts[each.type, each.reason] = counts.get((each.type, each.reason), 0) + 1
    return counts


def parts(block: Block, limit: int | None = None) -> list[Block]:
    """Cut what a stage emitted for [start, end) of its input into blocks of at most `limit` rows, in wire numbers.

    Only the last part carries the clock, for rows of the same span may still follow the others.

    >>> from .row import LABEL_ROW
    >>> whole = Block(np.zeros(3, LABEL_ROW), np.zeros((3, 0), np.uint32), {1: (4, 5)}, clock=9)
    >>> [(len(part), part.clock == NO_CLOCK) for part in parts(whole, limit=2)]
    [(2, True), (1, False)]
    >>> [part.ranges[1][0] - 4 * PARTS for part in parts(whole, limit=2)], parts(whole, 2)[-1].ranges[1][1] == 5 * PARTS
    ([0, 1], True)
    """
    if limit is None:
        limit = rows_per_message(block.rows.dtype, block.features.shape[1])
    ((source, (start, end)),) = block.ranges.items()
    count = max(1, -(-len(block.rows) // limit))
    out = []
    for k in range(count):
        last = k == count - 1
        begin = start * PARTS if k == 0 else (end - 1) * PARTS + k
        until = end * PARTS if last else (end - 1) * PARTS + k + 1
        out.append(
            Block(
                block.rows[k * limit : (k + 1) * limit], block.features[k * limit : (k + 1) * limit],
                {source: (begin, until)}, block.clock if last else NO_CLOCK, block.names if k == 0 else no_names(),
            )
        )  # fmt: skip
    return out
