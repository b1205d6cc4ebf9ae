"""Ingest in a process of its own, beside a worker's agents: decoding JSON and running stages do not share a GIL."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from typing import Any

from .configuration import Configuration, from_builtins, to_builtins
from .logs import log_to_stderr

STOP_TIMEOUT = 15.0
"""Seconds that it has to see its last blocks acknowledged."""


def spare_collector() -> None:
    """Let the cyclic collector look seldom: ten thousand messages at once are no garbage (measured: a fifth of all)."""
    gc.freeze()
    gc.set_threshold(200_000)


class IngestProcess:
    """The child. It ends with its parent, however that ends: it listens on a pipe that only the parent holds.

    Attributes
    ----------
    reason : why it ended by itself
    """

    def __init__(self, configuration: Configuration) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._pipe = here
        self._process = context.Process(
            target=_main,
            args=(to_builtins(configuration), there, logging.getLogger("thalweg").getEffectiveLevel()),
            name="thalweg-ingest",
            daemon=True,
        )
        kept = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is the parent's to act upon
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, kept)
        there.close()
        self._reason: str | None = None
        self.status: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether it ended by itself; takes what it reported."""
        try:
            while self._pipe.poll():
                said = self._pipe.recv()
                if isinstance(said, str):
                    self._reason = said
                else:
                    self.status = said
        except (EOFError, OSError):
            pass
        return not self._process.is_alive()

    @property
    def reason(self) -> str:
        """Why it ended."""
        if self._reason is not None:
            return self._reason
        code = self._process.exitcode
        return f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    def stop(self) -> None:
        """Ask it to stop, wait, and end it where it does not."""
        self._pipe.close()
        self._process.join(STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _main(raw: dict[str, Any], pipe: Any, level: int) -> None:
    """In the child: ingest until the pipe's other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from .ingester import Ingester

    log_to_stderr(level)
    spare_collector()
    stopped = threading.Event()

    def listen() -> None:
        try:
            pipe.recv()
        except (EOFError, OSError):
            pass
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()

    def report(said: dict[str, Any]) -> None:
        try:
            pipe.send(said)
        except OSError:  # the parent is gone
            stopped.set()

    try:
        Ingester(from_builtins(raw), report).run(stopped.is_set)
    except Exception as error:
        try:
            pipe.send(f"{error}")
        finally:
            os._exit(1)
