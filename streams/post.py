"""A post: one host in a running worker, with a thread of its own, its outbox, and the checkpoint rule.

A checkpoint is written only after everything that was sent for the rows before it is acknowledged; what arrives again
after a kill is dropped by the position, what is sent again by the marks of its reader. Waits for a builder or a disk
stop this stage alone.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..graph_store import fault
from ..graph_store.state_store import StateError, StateStore
from .configuration import Configuration
from .dead_letter import Reason, dead_letter, to_json
from .host import Aside, Host
from .kafka import DEAD_LETTERS, internal
from .outbox import Outbox
from .raw_reader import RawReader
from .state_directory import make_stage, open_store
from .wire import Source

TOLD = 10.0
"""Seconds between two lines in the log about checkpoints."""
HELD_ALARM = 1_000_000
"""Rows held in one stage at which a warning says so; again at twice as many."""

LOCK_WAIT = 20.0
"""Seconds that a folder may be in use by the worker that had the partition before."""

SHARE, SHARE_BEHIND, BEHIND = 4, 20, 8
"""A checkpoint waits at least so many times as long as the last one took; the second while the worker is pressed: more
than `BEHIND` messages wait for one of its stages, or much for its ingest. For then no answer is fresh anyway, and
reading on is what makes it so."""

log = logging.getLogger("thalweg.worker")


class Post:
    """One stage on one partition, in a worker.

    Parameters
    ----------
    state : state directory
    name, input : the stage, and the partition that it reads

    Attributes
    ----------
    thread : everything that touches the stage runs on it
    host : the stage's host
    handled : messages taken in this process
    behind : messages on the topic that it has not taken, set by the worker
    pressed : set by the worker, see `SHARE_BEHIND`
    broken : taking or saving failed; it saves nothing any more, for its state may hold half a block, or more than was
        sent: the next start reads on from the checkpoint before
    """

    def __init__(self, configuration: Configuration, state: Path, name: str, input: Source, examples: bool) -> None:
        self.configuration = configuration
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.name = name
        store = _open(state, name, input, configuration)
        try:
            stage = make_stage(name, input.partition, configuration, store, examples=examples)
            self.host = Host(stage, input)
        except BaseException:
            store.close()
            raise
        self._store = store
        self._outbox = Outbox(configuration.kafka)
        self._raw = RawReader(configuration.kafka)
        self._last, self._cost = time.monotonic(), 0.0
        self._told, self._alarm = 0.0, HELD_ALARM
        self.handled = self.behind = 0
        self.pressed = self.broken = False

    def take(self, offset: int, value: bytes | None) -> None:
        """Take one message; send what it yields, checkpoint where one is due."""
        if self.broken:
            return
        kafka = self.configuration.kafka
        self.broken = True
        for topic, message in self.host.take(offset, value):
            self._outbox.send(internal(kafka, topic), 0, message)
        self.broken = False
        self.handled += 1
        fault.reach(f"{self.name} block sent")
        self.checkpoint_if_due()

    def checkpoint_if_due(self) -> None:
        """Checkpoint where something was taken since the last one, and that is long enough ago."""
        waited = time.monotonic() - self._last
        share = SHARE_BEHIND if self.pressed else SHARE
        if self.host.since and waited >= max(int(self.configuration.kafka.checkpoint) / 1000, share * self._cost):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Wait for the acknowledgements, then commit; nothing where nothing was taken."""
        if not self.host.since or self.broken:
            return
        self.broken = True
        self._send_letters()
        self._outbox.flush()
        began = time.monotonic()
        fault.reach("checkpoint begins")
        self.host.checkpoint()
        fault.reach("checkpoint done")
        self.broken = False
        self._last = time.monotonic()
        self._cost = self._last - began
        if self._last - self._told >= TOLD:
            self._told = self._last
            log.info("saved %s clock=%d behind=%d", self._place(), self.host.stage.clock, self.behind)

    def _send_letters(self) -> None:
        letters, aside = self.host.take_letters()
        topic = internal(self.configuration.kafka, DEAD_LETTERS)
        for letter in letters:
            self._outbox.send(topic, 0, to_json(letter), str(letter.place).encode())
        self._send_aside(topic, aside)

    def _send_aside(self, topic: str, aside: list[Aside]) -> None:
        """Dead letters for raw rows that attribution set aside, with their bytes read again from their topics."""
        why = {(source, offset): (reason, kind) for source, offset, reason, kind in aside}
        for source, offset, name, raw, detail in self._raw.read(why):
            reason, kind = why[source, offset]
            letter = dead_letter((name, offset, offset + 1), Reason(reason), raw, detail=detail, kind=kind)
            self._outbox.send(topic, 0, to_json(letter), str(letter.place).encode())

    def close(self) -> None:
        """Give the folder back. What is not checkpointed is read again by the next owner."""
        builds = getattr(self.host.stage, "builds", None)
        if builds is not None:
            builds.close()
        self._raw.close()
        self._store.close()
        log.info("closed %s", self._place())

    def _place(self) -> str:
        return f"stage={self.name} partition={self.host.input.partition} position={self.host.position}"

    def status(self) -> dict[str, object]:
        """What an operator sees of it; where very many rows are held, a warning too."""
        stage = self.host.stage
        held = stage.merge.held
        if held >= self._alarm:
            self._alarm = 2 * held
            log.warning("holds %d rows %s: they wait for what another shard has still to send", held, self._place())
        return {
            "stage": self.name,
            "partition": self.host.input.partition,
            "position": self.host.position,
            "behind": self.behind,
            "clock": stage.clock,
            "held": held,
            "blocks": self.handled,
            "unacknowledged": self._outbox.waiting,
            "idle": self.host.idle,
        }


def _open(state: Path, name: str, input: Source, configuration: Configuration) -> StateStore:
    """The store; waits a while where the worker that had the partition before is still closing it."""
    until = time.monotonic() + LOCK_WAIT
    while True:
        try:
            return open_store(state, name, input.partition, configuration)
        except StateError as error:
            if "in use" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.1)
