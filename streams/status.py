"""What a running worker says of itself, in a small file beside its state: `STATE/workers/worker-<host>-<pid>.json`.

`thalweg state inspect` shows it beside what the state holds. It is no part of the state.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

FRESH = 10.0
"""Seconds after which a status is that of a process that is gone."""


class StatusFile:
    """The status of this process, written anew each second.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     StatusFile(Path(folder)).write([{"stage": "feedback", "partition": 0}])
    ...     [worker["stages"][0]["stage"] for worker in running(folder)]
    ['feedback']
    """

    def __init__(self, state: Path, name: str = "worker") -> None:
        folder = state / "workers"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name = name
        self._path = folder / f"{name}-{socket.gethostname()}-{os.getpid()}.json"

    def write(self, stages: list[dict[str, Any]], **more: Any) -> None:
        """Replace what is there."""
        part = self._path.with_suffix(".part")
        said = {"process": self._name, "pid": os.getpid(), "at": time.time(), **more, "stages": stages}
        part.write_bytes(msgspec.json.encode(said))
        part.replace(self._path)

    def remove(self) -> None:
        """Say nothing more."""
        self._path.unlink(missing_ok=True)


def running(state: str | Path) -> list[dict[str, Any]]:
    """The processes that work on a state now, by what they said within the last `FRESH` seconds."""
    found = []
    for path in sorted(Path(state, "workers").glob("*.json")):
        try:
            said = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            continue
        if time.time() - said["at"] < FRESH:
            found.append(said)
    return found
