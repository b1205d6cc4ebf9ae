"""The command `demo`: a year of shopping, end to end."""

from __future__ import annotations

from pathlib import Path

from .output import Flag


def demo(*, folder: Path = Path("demo"), replay_only: Flag = False) -> int:
    """Replay a year of shopping through everything, ask the state, then send its last weeks live through a broker.

    Leaves a report, demo/report.html, and a state directory, demo/state. The
    live part starts the embedded broker and a worker, which goes on from the
    state of two weeks before the end, asks that state meanwhile, and compares
    it with the replay's: exit with 1 where they differ. May be interrupted and
    run again.

    Parameters
    ----------
    folder
        Where the log, the states and the report go.
    replay_only
        Leave the live part out. It needs pip install 'thalweg[kafka,broker]', and is left out where that is missing.
    """
    from ..demo import run

    return run(folder, live=not replay_only)
