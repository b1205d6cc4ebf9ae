"""Commands of the live system: broker, topics, publish, worker, record."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import Flag, explain, say
from .progress import INGEST, Progress, announce_compilation
from .replay import INTERRUPTED, interruptible
from .settings import configuration_for

if TYPE_CHECKING:
    from ..configuration import Configuration

DEAD_LETTERED = 3


def broker(*, port: int = 9092) -> int:
    """Run the embedded broker in the foreground, for trying out: it keeps everything in memory.

    What it holds is gone when it stops (Ctrl-C). For data that matter take
    Apache Kafka; docker-compose.yml shows how.

    Parameters
    ----------
    port
        Loopback port to listen on.
    """
    from ..broker import EmbeddedBroker
    from ..configuration import ConfigurationError

    if not 0 < port < 65_536:
        raise ConfigurationError(f"--port {port}: it lies between 1 and 65535")
    with EmbeddedBroker(port) as running, interruptible() as asked:
        say(f"the embedded broker listens on {running.address}; Ctrl-C stops it, and what it holds is gone")
        while not asked():
            if running.process is None or running.process.poll() is not None:
                say("the embedded broker ended by itself")
                return 1
            time.sleep(0.2)
    return 0


def create(
    *, brokers: str | None = None, partitions: int | None = None, raw: int = 1, config: Path | None = None
) -> int:
    """Make the topics that are missing: the raw ones and those between the stages. Run again, it changes nothing.

    Parameters
    ----------
    brokers
        Addresses, host:port, separated by commas; overrides the configuration.
    partitions
        Partitions of the events topic, which workers share; fixed for an application. Overrides the configuration.
    raw
        Partitions of a raw topic that is missing.
    config
        TOML file; names of topics and how to log in stand under [kafka].
    """
    from ..configuration import ConfigurationError
    from ..kafka import create_topics

    if raw < 1:
        raise ConfigurationError(f"--raw {raw}: a topic has at least one partition")
    configuration = live_configuration(config, brokers, partitions=partitions)
    made = create_topics(configuration.kafka, configuration.partitions, raw)
    say(f"made {', '.join(made)}" if made else "all topics are there")
    return 0


def publish(
    logs: list[Path],
    /,
    *,
    brokers: str | None = None,
    speed: float = 1.0,
    flat_out: Flag = False,
    close: Flag = False,
    again: Flag = False,
    config: Path | None = None,
) -> int:
    """Send logs to the raw topics, each event to the topic of its type, in the order of event time.

    Heartbeats between the events let the clock pass. Ctrl-C stops; the same
    command goes on from there, by the heartbeats that it finds.

    Parameters
    ----------
    logs
        Files or folders, as for replay.
    brokers
        Addresses, host:port, separated by commas; overrides the configuration.
    speed
        How many times faster than it happened.
    flat_out
        As fast as the broker takes it, whatever the speed.
    close
        End with heartbeats that let everything through, as replay --close does.
    again
        From the beginning, although it was published before.
    config
        TOML file. Without one, LOG.toml beside the first file, if it is there.
    """
    from ..configuration import ConfigurationError
    from ..publish import publish as send

    if not 0 < speed < float("inf"):
        raise ConfigurationError(f"--speed {speed}: it is a number above 0; --flat-out sends as fast as it goes")
    configuration = live_configuration(config, brokers, logs)
    with Progress("events") as progress, interruptible() as asked:
        result = send(
            logs, configuration, speed=None if flat_out else speed, close=close, again=again,
            progress=lambda done, total, ts: progress("publish", done, total), stop=asked,
        )  # fmt: skip
    rate = (result.events + result.broken) / max(result.seconds, 1e-9)
    say(
        f"published {result.events:,} events in {result.seconds:.1f} s ({rate:,.0f}/s)"
        + (f", {result.resumed:,} were there already" if result.resumed else "")
        + (f", {result.broken:,} broken rows as they are" if result.broken else "")
        + (f", {result.dead_letters:,} dead letters" if result.dead_letters else "")
    )
    if result.interrupted:
        say("interrupted; the same command goes on from here")
        return INTERRUPTED
    return DEAD_LETTERED if result.dead_letters else 0


def record(
    folder: Path,
    /,
    *,
    brokers: str | None = None,
    state: Path | None = None,
    config: Path | None = None,
) -> int:
    """Copy the topics between the stages to a folder, which `thalweg replay` runs again message by message.

    With late rows a live run can differ from a replay of the raw log; it never
    differs from the replay of its recording. Run again, it goes on.

    Parameters
    ----------
    folder
        Where the recording is kept.
    brokers
        Addresses, host:port, separated by commas; overrides the configuration.
    state
        A state directory of the same run: its configuration is taken.
    config
        TOML file, as the worker has it.
    """
    from ..record import record as copy

    configuration = live_configuration(config, brokers, state=state)
    with Progress("messages") as progress, interruptible() as asked:
        result = copy(folder, configuration, progress, asked)
    say(f"recorded {sum(result.messages.values()):,} messages in {folder}")
    if result.interrupted:
        say("interrupted; the same command goes on from here")
        return INTERRUPTED
    return 0


def worker(
    *,
    state: Path | None = None,
    brokers: str | None = None,
    only: str | None = None,
    until_idle: float | None = None,
    examples: Flag = False,
    config: Path | None = None,
    verbose: Flag = False,
) -> int:
    """Run the live system: ingest, and the stages on their topics. Several may share the work.

    Ctrl-C checkpoints and leaves; so does SIGTERM. After a kill the next start
    reads again what was not checkpointed, and nothing counts twice.

    Parameters
    ----------
    state
        Folder that keeps the state; one made by `thalweg replay` goes on live from where the log ended.
    brokers
        Addresses, host:port, separated by commas; overrides the configuration.
    only
        "ingest": raw topics to blocks; a --state is only for `state inspect` to see it. "agents": the stages alone.
    until_idle
        Stop after so many seconds in which nothing was left to do; else run until stopped.
    examples
        Send every emission of the learner to the examples topic, for another trainer.
    config
        TOML file. Without one, the one that the state was made with.
    verbose
        Log positions as partitions come and go, and every ten seconds what is checkpointed.
    """
    from ..configuration import ConfigurationError
    from ..logs import log_to_stderr

    if only not in (None, "ingest", "agents"):
        raise ConfigurationError(f"--only {only}: it is ingest or agents")
    if state is None and only != "ingest":
        raise ConfigurationError("--state is missing: the folder that keeps the state (only --only ingest needs none)")
    configuration = live_configuration(config, brokers, state=state)
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    if os.environ.get("THALWEG_DEBUG"):
        logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.DEBUG)
    with interruptible() as asked:
        if only == "ingest":
            announce_compilation(INGEST)
            return _ingest(configuration, state, asked, until_idle)
        if not announce_compilation() and only is None:
            announce_compilation(INGEST)
        assert state is not None
        return _agents(configuration, state, asked, until_idle, examples, with_ingest=only is None)


def _ingest(
    configuration: Configuration, state: Path | None, stop: Callable[[], bool], until_idle: float | None
) -> int:
    from ..ingest_process import spare_collector
    from ..ingester import Ingester
    from ..status import StatusFile

    spare_collector()
    status = None if state is None else StatusFile(state, "ingest")

    def report(said: dict[str, Any]) -> None:
        if status is not None:
            with suppress(OSError):  # a full disk is no reason to read no more
                status.write([], ingest=said)

    ingester = Ingester(configuration, report)

    def done() -> bool:
        since = ingester.idle_since
        return stop() or (until_idle is not None and since is not None and time.monotonic() - since >= until_idle)

    try:
        ingester.run(done)
    finally:
        if status is not None:
            status.remove()
    say(f"ingest: {ingester.rows:,} raw messages read")
    return 0


def _agents(
    configuration: Configuration,
    state: Path,
    stop: Callable[[], bool],
    until_idle: float | None,
    examples: bool,
    with_ingest: bool,
) -> int:
    from ..ingest_process import IngestProcess
    from ..worker import Worker, exit_now

    threading.excepthook = _unless_cancelled
    job = Worker(configuration, state, examples=examples, until_idle=until_idle)
    ingest = IngestProcess(configuration) if with_ingest else None
    try:
        job.run(lambda: stop() or (ingest is not None and ingest.ended), lambda: ingest.status if ingest else {})
        if ingest is not None and ingest.ended and not stop():
            say(f"ingest ended: {ingest.reason}")
            status = 1
        else:
            status = 0
    except Exception as error:
        if os.environ.get("THALWEG_DEBUG"):
            traceback.print_exc()
        status = explain(error)
    finally:
        if ingest is not None:
            ingest.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    exit_now(status)
    return status


def _unless_cancelled(told: threading.ExceptHookArgs) -> None:
    """Faust's client cancels its thread where a broker is away at the end: no trace of that is for people."""
    from asyncio import CancelledError

    if not issubclass(told.exc_type, CancelledError):
        threading.__excepthook__(told)


def live_configuration(
    config: Path | None,
    brokers: str | None,
    logs: list[Path] | None = None,
    state: Path | None = None,
    **overrides: Any,
) -> Configuration:
    """The configuration of a live command: a file, else LOG.toml or the one the state was made with; then --brokers."""
    import msgspec

    from ..configuration import from_builtins, to_builtins
    from ..state_directory import stored_configuration

    configuration = configuration_for(logs or [], config, **overrides)
    if config is None and state is not None and (state / "configuration.json").exists():
        stored = stored_configuration(state)
        configuration = msgspec.structs.replace(
            stored, kafka=configuration.kafka, store=configuration.store,
            time=msgspec.structs.replace(
                stored.time, idle_timeout=configuration.time.idle_timeout, max_future=configuration.time.max_future
            ),
        )  # fmt: skip
    if brokers is not None:
        said = to_builtins(configuration)
        said["kafka"]["brokers"] = brokers
        configuration = from_builtins(said, "--brokers")
    return configuration
