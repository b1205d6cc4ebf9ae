"""The command line `thalweg`: reads arguments, calls the commands, turns errors into one line and an exit status.

Data goes to stdout, all else to stderr. Exit status: 0 done; 1 it failed; 2 the command line or the configuration is
wrong; 3 done, but some input was dead-lettered; 130 interrupted. A user never sees a traceback, unless the variable
`THALWEG_DEBUG` is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from cyclopts import App, Parameter

from thalweg import __version__
from thalweg.graph_store import fault

from .commands import demo, live, logs, queries, replay, state
from .commands.output import explain, say

DONE, DEAD_LETTERED, INTERRUPTED, PIPE_CLOSED = 0, 3, 130, 141
"""Exit statuses, beside those of `output`; the last two are what a shell reports for SIGINT and SIGPIPE."""

_HELP = """Recommendations from a shop's event stream, from state that is seconds old.

A log of impressions, clicks, add-to-carts, purchases and returns goes in.
Three learned states stay up to date: a directed co-purchase graph, a
conversion model, a calibration table.

Start with `thalweg demo`, or with a log of yours:

    thalweg validate LOG.jsonl
    thalweg replay LOG.jsonl --state STATE --report report.html
    thalweg recommend --user USER --state STATE
"""


def make_app() -> App:
    """The application with all its commands.

    >>> make_app().name
    ('thalweg',)
    """
    app = App(
        name="thalweg",
        help=_HELP,
        version=__version__,
        help_format="plaintext",
        result_action="return_value",
        default_parameter=Parameter(negative=(), show_env_var=False),
    )
    commands = (
        demo.demo, logs.simulate, logs.convert, logs.validate, replay.replay, replay.verify,
        live.publish, live.worker, live.record, live.broker, queries.related, queries.recommend, queries.explain,
    )  # fmt: skip
    for order, command in enumerate(commands):
        app.command(cast(Callable[..., Any], command), sort_key=order)
    below = App(name="state", help="What a state directory holds: digests, tables, the books.", sort_key=len(commands))
    for each in (state.digest, state.inspect, state.export):
        below.command(each)
    app.command(below)
    topics = App(name="topics", help="The topics on the broker.", sort_key=len(commands))
    topics.command(live.create)
    app.command(topics)
    app["--help"].sort_key = app["--version"].sort_key = len(commands) + 1
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status.

    Parameters
    ----------
    arguments : those after the program's name; None: of the process

    Example
    -------
    >>> main(["--version"]) == DONE
    0.1.0
    True
    """
    try:
        fault.arm(os.environ.get("THALWEG_FAULT"))
        status = make_app()(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return int(status or DONE)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has all it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if os.environ.get("THALWEG_DEBUG"):
            raise
        return explain(error)


if __name__ == "__main__":
    sys.exit(main())
