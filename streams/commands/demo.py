"""The command `demo`: a year of shopping, end to end."""

from __future__ import annotations

from pathlib import Path


def demo(*, folder: Path = Path("demo")) -> int:
    """Replay a year of shopping through everything, then ask the state for recommendations.

    Leaves a report, demo/report.html, and a state directory, demo/state. May be interrupted and run again.

    Parameters
    ----------
    folder
        Where the log, the state and the report go.
    """
    from ..demo import run

    return run(folder)
