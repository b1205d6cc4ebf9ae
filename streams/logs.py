"""What a live process says of itself on stderr: its own lines with their places, and not too much of its libraries."""

from __future__ import annotations

import logging
import sys
import time

LIBRARIES = ("faust", "mode", "aiokafka")
SELDOM = 10.0
"""Seconds between two lines of the libraries, unless all of them are asked for: a broker that is away makes 80 a s."""


def log_to_stderr(level: int) -> None:
    """Have Thalweg's own lines from `level` on, and everybody's warnings, on stderr with the time.

    Of Faust and its client errors only, and seldom; from INFO on their warnings, and all of them.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("thalweg").setLevel(level)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING if level <= logging.INFO else logging.ERROR)
    if level > logging.INFO:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_Seldom())


class _Seldom(logging.Filter):
    """Lets a line of `LIBRARIES` pass once in `SELDOM`, and every other."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -SELDOM

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] not in LIBRARIES:
            return True
        now = time.monotonic()
        if now - self._last < SELDOM:
            return False
        self._last = now
        return True
