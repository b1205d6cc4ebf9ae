"""Where a command's configuration comes from: the command line, then THALWEG_* variables, then a TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import say

if TYPE_CHECKING:
    from ..configuration import Configuration


def configuration_for(logs: Sequence[Path], config: Path | None = None, **overrides: Any) -> Configuration:
    """The configuration in `config`; without one, in LOG.toml beside the first log, which is then said.

    `overrides` are top-level keys given on the command line; None leaves a key alone.

    >>> configuration_for([], partitions=3).partitions
    3
    """
    from ..configuration import load

    if config is None and logs:
        beside = _beside(logs[0])
        if beside.is_file():
            say(f"configuration: {beside}")
            config = beside
    return load(config, **overrides)


def _beside(log: Path) -> Path:
    """`year.jsonl.gz` -> `year.toml`; a folder's own is `FOLDER/thalweg.toml`."""
    return log / "thalweg.toml" if log.is_dir() else log.with_name(f"{log.name.split('.')[0]}.toml")
