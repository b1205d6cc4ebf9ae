"""Progress of long commands, on stderr: on a terminal a bar with rate and time left, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from .output import say

EVERY = 5.0
"""Seconds between two plain lines."""
STAGES, INGEST = "kernel.attribute_rows", "json_kernel.read"
"""Kernels each of which stands for all that a replay, and that ingest, compiles."""
TAKES = {STAGES: "a minute or two", INGEST: "some twenty seconds"}


class Progress:
    """Shows how far a command is. Call it with (what is being done, how much is done, how much there is or None).

    >>> with Progress(quiet=True) as progress:
    ...     progress("reading", 5, 10)
    """

    def __init__(self, unit: str = "rows", quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._quiet = quiet
        self._clock = clock
        self._what: str | None = None
        self._bar: Any = None
        self._task: Any = None
        self._first = 0
        self._started = self._last = clock()

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _bar(self._unit)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Say that `done` of `total` units of `what` are done."""
        if self._quiet:
            return
        if what != self._what:
            self._begin(what, done)
        if self._bar is not None:
            self._show(what, done, total)
        elif self._clock() - self._last >= EVERY:
            self._last = self._clock()
            say(line(what, done, total, (done - self._first) / max(self._last - self._started, 1e-9), self._unit))

    def rows(self, done: int, total: int | None, ts: int) -> None:
        """The same for a replay: event time in ms tells where in the log it is."""
        self(f"replay, {_day(ts)}" if self._bar is None else "replay", done, total)

    def _begin(self, what: str | None, done: int) -> None:
        stage = (what or "").split(",")[0]
        if self._what is not None and stage == self._what.split(",")[0]:
            self._what = what
            return
        self._what, self._first, self._task = what, done, None
        self._started = self._last = self._clock()

    def _show(self, what: str, done: int, total: int | None) -> None:
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, completed=done, total=total)


def announce_compilation(kernel: str = STAGES) -> bool:
    """Say so where kernels have to be compiled first: on a new machine, or after an upgrade. Whether it is so.

    `kernel` stands for all that are compiled with it: `STAGES`, or `INGEST`.
    """
    from thalweg.graph_store.kernel import cache_folder

    folder = cache_folder()
    if any(folder.parent.glob(f"{folder.name}*/*/{kernel}-*.nbi")):
        return False
    say(f"compiling kernels, once for this machine and version; it takes {TAKES[kernel]}")
    return True


def line(what: str, done: int, total: int | None, rate: float, unit: str = "rows") -> str:
    """A plain line of progress.

    >>> line("replay", 500_000, 2_000_000, 250_000.0)
    'replay: 500,000 of 2,000,000 rows (25 %), 250,000/s, 6 s left'
    >>> line("sort", 10, None, 5.0, "steps")
    'sort: 10 steps, 5/s'
    """
    if not total:
        return f"{what}: {done:,} {unit}, {rate:,.0f}/s"
    left = f", {span((total - done) / rate)} left" if rate > 0 else ""
    return f"{what}: {done:,} of {total:,} {unit} ({100 * done / total:.0f} %), {rate:,.0f}/s{left}"


def span(seconds: float) -> str:
    """A length of time as a person says it.

    >>> span(5.2), span(90), span(7200)
    ('5 s', '1 min 30 s', '2 h 0 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _day(ts: int) -> str:
    if abs(ts) > 253_402_300_799_000:  # no clock yet
        return "before the first row"
    return time.strftime("%Y-%m-%d", time.gmtime(ts / 1000))


def _bar(unit: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f} {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Rate(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), speed_estimate_period=10)
