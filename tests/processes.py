"""Commands at work, for tests that disturb them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from thalweg.streams.state_directory import StateDirectory


def positions(state: Path) -> list[int]:
    """Where the stages stand; empty before the first checkpoint."""
    try:
        with StateDirectory(state, read_only=True) as opened:
            return [stage.position for stage in opened.stages()]
    except Exception:  # killed before the state was there
        return []


def held_at_work(process: subprocess.Popen[Any], state: Path) -> None:
    """Hold a command (SIGSTOP) after its first checkpoint: however long anybody looks, it does not end meanwhile."""
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None and time.monotonic() < deadline, process.args
        process.send_signal(signal.SIGSTOP)
        if any(positions(state)):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
