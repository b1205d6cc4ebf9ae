"""The worker: Faust agents that carry blocks from the internal topics to the stages, several workers a state.

Each agent hands messages to the post of their partition and waits; Faust does membership, assignment and fetching, the
positions are the stages' own. A stage that must not go on ends the process, for what is lost between two checkpoints is
read again. Group commits follow the checkpoints and are a hint about lag, nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from ..graph_store import fault
from ..graph_store.state_store import StateError
from .broker_error import BrokerError
from .configuration import Configuration
from .faust_app import make_app
from .kafka import end_of, internal, partitions, topic_ids
from .post import BEHIND, Post
from .state_directory import check_configuration, keep_configuration
from .status import StatusFile
from .topology import FLOWS
from .wire import Source

STOP_TIMEOUT = 10.0
"""Seconds that a graceful stop has for each of the last checkpoints, the farewell to the group and the closing."""

JOIN_TIMEOUT = 60.0
"""Seconds, or six session timeouts, within which the group gives a worker its partitions, or none."""

RAW_BEHIND = 50_000
"""Raw messages waiting for ingest at which its worker is pressed, see `post`: more than a few fetches bring."""

TOPICS = 30.0
"""Seconds between two looks whether the topics are still those that the worker began with."""

TICK = 0.1

log = logging.getLogger("thalweg.worker")


class Worker:
    """Runs the stages of the partitions that the group gives it.

    Parameters
    ----------
    configuration : its `partitions` must be those of the events topic
    state : state directory; workers on one host share it
    examples : send thalweg.examples, every emission of the learner
    until_idle : stop after so many seconds in which nothing was left to do: every raw partition idle, their clock
        through every stage here, all checkpointed; None: run until stopped

    Raises BrokerError, StateError or Gap where it must not go on.
    """

    def __init__(
        self, configuration: Configuration, state: Path, *, examples: bool = False, until_idle: float | None = None
    ) -> None:
        self.configuration = configuration
        self.state = state
        self._examples = examples
        self._until_idle = until_idle
        self._posts: dict[TP, Post] = {}
        self._looks: dict[TP, asyncio.Future[None]] = {}
        self._unsaved: dict[TP, list[Any]] = {}
        self._failure: BaseException | None = None
        self.rebalance_lock = asyncio.Lock()
        self._assignment: set[TP] | None = None
        self._assigned = False
        self._waiting_since = time.monotonic()
        kafka = configuration.kafka
        self._stages = {internal(kafka, flow.reads): flow.stage for flow in FLOWS}
        check_configuration(state, configuration)
        self._ids = _checked_topics(configuration, list(self._stages))
        keep_configuration(state, configuration)

    def run(self, stop: Callable[[], bool], ingest: Callable[[], dict[str, Any]] = dict) -> None:
        """Work until `stop` says so, or nothing is left to do for `until_idle` seconds; then checkpoint and leave.

        What `ingest` says is shown beside the stages, see `status`.
        """
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(
            self._run(stop, ingest)
        )  # no farewell to tasks that Faust may never finish: see exit_now

    async def _run(self, stop: Callable[[], bool], ingest: Callable[[], dict[str, Any]]) -> None:
        app = make_app(self.configuration.kafka, self, self.state / "workers" / "faust")
        app.on_partitions_revoked.connect(self._revoked)  # type: ignore[arg-type]
        for topic in self._stages:
            self._agent(app, topic)
        status = StatusFile(self.state)
        started = asyncio.ensure_future(app.start())  # it waits for the group, and a stop must not
        ended = asyncio.ensure_future(app.wait_until_stopped())
        quiet = 0  # ticks: a machine that stands still is not a system with nothing to do
        told, self._waiting_since = 0.0, time.monotonic()
        topics, looked = asyncio.ensure_future(asyncio.sleep(0)), time.monotonic()
        while not stop() and self._failure is None and not ended.done():
            await asyncio.sleep(TICK)
            if started.done() and started.exception() is not None:
                self._fail(started.exception() or RuntimeError("Faust did not start"))
            if not self._assigned and time.monotonic() - self._waiting_since > self._join_timeout():
                self._fail(_not_assigned(self.configuration))
            for partition, post in self._posts.items():
                with suppress(AssertionError):  # what Faust's client has between two assignments
                    post.behind = max(0, (app.consumer.highwater(partition) or 0) - post.host.position)
            self._press(ingest().get("sources", ()))
            self._checkpoint_where_due()
            self._acknowledge()
            quiet = quiet + 1 if self._quiet() else 0
            if time.monotonic() - told > 1.0:
                told = time.monotonic()
                status.write([post.status() for post in self._posts.values()], ingest=ingest())
            if topics.done() and time.monotonic() - looked > TOPICS:
                topics, looked = asyncio.ensure_future(self._check_topics()), time.monotonic()
            if self._until_idle is not None and quiet and quiet * TICK >= self._until_idle:
                break
        if ended.done():
            self._fail(BrokerError(f"{self.configuration.kafka.brokers}: Faust ended: {app.crash_reason!r}"))
        if not started.done():
            started.cancel()
        await self._leave(app)
        status.remove()
        if self._failure is not None:
            raise self._failure

    async def _check_topics(self) -> None:
        """A topic made again begins at 0, and what it brings up to the old position would be passed over."""
        kafka = self.configuration.kafka
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, topic_ids, kafka, list(self._ids))
        except BrokerError:  # away: the next look will tell
            return
        for topic, known in self._ids.items():
            if found[topic] is not None and str(found[topic]) != known:
                self._fail(
                    StateError(
                        f"{topic} was made again while the worker read it (id {known} before, {found[topic]} now); "
                        "give a new --state folder and a new kafka.application"
                    )
                )

    def _join_timeout(self) -> float:
        return max(JOIN_TIMEOUT, 6 * int(self.configuration.kafka.session_timeout) / 1000)

    def _agent(self, app: faust.App, topic: str) -> None:
        """The agent of one topic: messages to posts, one after the other."""

        async def carry(stream: Any) -> None:
            loop = asyncio.get_running_loop()
            async for event in stream.noack().events():
                message = event.message
                post = self._posts.get(message.tp)
                if post is None or self._failure is not None:  # revoked meanwhile: the new owner reads it again
                    event.ack()
                    continue
                try:
                    await loop.run_in_executor(post.thread, post.take, message.offset, event.value)
                except Exception as error:  # it must not go on, nor anything after it be taken
                    self._fail(error)
                self._unsaved.setdefault(message.tp, []).append(event)

        app.agent(app.topic(topic, value_serializer="raw"), name=f"{topic}-agent")(carry)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            log.error("stopping reason=%s", error)

    def _press(self, sources: Iterable[dict[str, int]]) -> None:
        """Tell every post whether much waits to be read, by the stages here or by the ingest beside them."""
        raw = sum(source["behind"] for source in sources)
        pressed = raw > RAW_BEHIND or any(post.behind > BEHIND for post in self._posts.values())
        for post in self._posts.values():
            post.pressed = pressed

    def _checkpoint_where_due(self) -> None:
        """Have every post look, on its own thread, that is not still at the look before: one may wait for a build.

        While the group shares out all of them save: Faust takes nothing away that is not acknowledged.
        """
        loop = asyncio.get_running_loop()
        for partition, post in self._posts.items():
            look = self._looks.get(partition)
            if look is None or look.done():
                self._looks[partition] = look = loop.run_in_executor(
                    post.thread, post.checkpoint if self._assignment is None else post.checkpoint_if_due
                )
                look.add_done_callback(self._looked)

    def _looked(self, look: asyncio.Future[None]) -> None:
        error = None if look.cancelled() else look.exception()
        if error is not None:
            self._fail(error)

    async def _checkpoint_all(self) -> None:
        """A last checkpoint of every post that is not still at work after `STOP_TIMEOUT`."""
        loop = asyncio.get_running_loop()
        pending = [loop.run_in_executor(post.thread, post.checkpoint) for post in self._posts.values()]
        for look in pending:
            look.add_done_callback(self._looked)
        if pending:
            await asyncio.wait(pending, timeout=STOP_TIMEOUT)

    def _acknowledge(self) -> None:
        """Let Faust commit what is checkpointed."""
        for partition, events in list(self._unsaved.items()):
            post = self._posts.get(partition)
            if post is None or not post.host.since:
                del self._unsaved[partition]
                for event in events:
                    event.ack()

    # ---- partitions come and go

    def assign(self, partitions: Iterable[TP] | None) -> None:
        """The group gives these partitions from now on; None: it shares out again."""
        self._assignment = None if partitions is None else {each for each in partitions if each.topic in self._stages}
        self._assigned = False
        self._waiting_since = math.inf if partitions is None else time.monotonic()  # None: until all is closed
        if self._assignment == set():  # Faust seeks nothing then
            self._assigned = True
            log.info("assigned nothing")

    async def positions(self, consumer: Any) -> dict[TP, int]:
        """Open the posts of the partitions assigned; where each is to be read from."""
        loop = asyncio.get_running_loop()
        wanted: dict[TP, int] = {}
        mine = sorted(self._assignment or ())
        for partition in mine:
            if partition not in self._posts:
                try:
                    self._posts[partition] = await loop.run_in_executor(None, self._open, partition)
                except Exception as error:
                    self._fail(error)
                    return {}
            wanted[partition] = self._posts[partition].host.position
        begins = await consumer.earliest_offsets(*mine) if mine else {}
        for partition, position in wanted.items():
            if begins.get(partition, 0) > position:
                self._fail(_trimmed(partition, begins[partition], position, self._posts[partition].name))
        if mine and self._assignment == set(mine):
            self._assigned = True
            log.info("assigned %s", " ".join(f"{p.topic}/{p.partition}@{wanted[p]}" for p in mine))
        return wanted

    def _open(self, partition: TP) -> Post:
        """The post of a partition; StateError where its log ends before the state."""
        source = Source(partition.topic, self._ids[partition.topic], partition.partition)
        post = Post(self.configuration, self.state, self._stages[partition.topic], source, self._examples)
        position = post.host.position
        if position:
            end = end_of(self.configuration.kafka, partition.topic, partition.partition)
            if end < position:
                post.close()
                raise StateError(
                    f"{partition.topic}/{partition.partition}: the state of {post.name} stands at {position:,}, the "
                    f"log ends at {end:,}: messages were lost, or the topic was made again. Give a new --state folder "
                    "and a new kafka.application"
                )
        return post

    async def _revoked(self, app: faust.App, partitions: Iterable[TP], **_: Any) -> None:
        """Close what is taken away; it is not saved here: its new owner reads on from the last checkpoint."""
        loop = asyncio.get_running_loop()
        async with self.rebalance_lock:
            for partition in partitions:
                self._looks.pop(partition, None)
                post = self._posts.pop(partition, None)
                if post is not None:
                    await loop.run_in_executor(post.thread, post.close)
                    post.thread.shutdown(wait=False)
        self._waiting_since = time.monotonic()
        self._acknowledge()

    # ---- the end

    def _quiet(self) -> bool:
        """Nothing is left to do here."""
        posts = list(self._posts.values())
        if not self._assigned or any(post.host.since or post.behind for post in posts):
            return False
        hosts = [post.host for post in posts]
        first = [host for host in hosts if host.stage.name == "attribution"]
        if not all(host.idle for host in first):
            return False
        clocks = {host.stage.clock for host in hosts}
        return not first or len(clocks) == 1

    async def _leave(self, app: faust.App) -> None:
        """Checkpoint (unless it failed), leave the group, within a bound."""
        if self._failure is None:
            await self._checkpoint_all()
            self._acknowledge()
        stopping = asyncio.ensure_future(app.stop())
        done, _ = await asyncio.wait([stopping], timeout=STOP_TIMEOUT if self._failure is None else 2.0)
        if not done:  # nor is it cancelled: that could hang as well
            log.warning("left the group without its farewell; it notices after the session timeout")
        fault.reach("worker leaves")
        posts = list(self._posts.values())
        closing = [post.thread.submit(post.close) for post in posts]
        wait(closing, timeout=STOP_TIMEOUT)
        await asyncio.sleep(TICK)  # what a late checkpoint raised is told by now
        for post, closed in zip(posts, closing, strict=True):
            if self._failure is None and (post.host.since or not closed.done()):
                log.warning("left %s at work; the next start reads again what it has not saved", post.name)
        self._posts = {}


def _checked_topics(configuration: Configuration, topics: list[str]) -> dict[str, str]:
    """Ids of the topics; BrokerError where one is missing or has another number of partitions than the state."""
    kafka = configuration.kafka
    found = topic_ids(kafka, topics)
    missing = [topic for topic, identity in found.items() if identity is None]
    if missing:
        raise BrokerError(
            f"{kafka.brokers}: there is no topic {', '.join(missing)}; run `thalweg topics create --brokers "
            f"{kafka.brokers} --partitions {configuration.partitions}`"
        )
    for topic, count in partitions(kafka, topics).items():
        wanted = configuration.partitions if topic == internal(kafka, "events") else 1
        if count != wanted:
            raise BrokerError(
                f"{topic} has {count} partitions, the configuration and the state say {wanted}; run with partitions = "
                f"{count} and a new --state folder, or take a topic with {wanted}"
            )
    return {topic: str(identity) for topic, identity in found.items()}


def _not_assigned(configuration: Configuration) -> BrokerError:
    kafka = configuration.kafka
    return BrokerError(
        f"{kafka.brokers}: the group {kafka.application} gave this worker no partitions in time; look whether another "
        "worker of it hangs. The embedded broker can lose a group whose members leave while it shares out: start it "
        "again, or take another kafka.application"
    )


def _trimmed(partition: TP, begins: int, position: int, stage: str) -> StateError:
    return StateError(
        f"{partition.topic}/{partition.partition}: the log begins at {begins:,}, the state of {stage} stands at "
        f"{position:,}: {begins - position:,} messages were deleted unread. Keep the topics longer; to go on, take a "
        "new kafka.application and a new --state folder"
    )


def exit_now(status: int) -> None:
    """End the process although threads of a client may hang; everything that matters is in the checkpoint."""
    logging.shutdown()
    os._exit(status)
