"""Known public logs, one a file, to canonical Parquet: `thalweg convert SOURCE_NAME IN... OUT.parquet`.

A converter is `convert(inputs, out, progress) -> Report`. It writes `out` sorted by time, what cannot be used to
`OUT.dead_letters.jsonl`, and readable item names to `OUT.names.parquet`. docs/converters.md gives every number that
each yields on the real file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..configuration import ConfigurationError
from .report import Progress, Report

CONVERTERS = {
    "complete-journey": "complete_journey",
    "online-retail": "online_retail",
}
"""Name on the command line -> module of this package, which has a function `convert`."""

Converter = Callable[[list[Path], Path, Progress | None], Report]


def converter(name: str) -> Converter:
    """The converter called `name`, imported on first use; ConfigurationError lists the names there are.

    >>> converter("online-retail").__name__
    'convert'
    """
    if name not in CONVERTERS:
        raise ConfigurationError(f"no converter is called {name!r}; there are: {', '.join(sorted(CONVERTERS))}")
    convert: Converter = import_module(f".{CONVERTERS[name]}", __name__).convert
    return convert


__all__ = ["CONVERTERS", "Converter", "Progress", "Report", "converter"]
