"""Thalweg: recommendations from a shop's event stream, from state that is seconds old.

    import thalweg
    with thalweg.open("state") as view:
        view.related("phone")
        view.recommend(user="u1").items

`open` gives a `View` of a state directory, `replay` runs logs into one, `verify` compares two. Imports are lazy: the
heavy libraries come with the first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .streams.replay import replay
    from .streams.verify import verify
    from .streams.view import View

__version__ = "0.1.0"
__all__ = ["View", "__version__", "open", "replay", "verify"]

_HOMES = {"View": "view", "replay": "replay", "verify": "verify"}


def open(state: str | Path) -> View:
    """Open a state directory for questions, read-only; a context manager. StateError where there is no state."""
    from .streams.view import View

    return View(state)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".streams.{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
