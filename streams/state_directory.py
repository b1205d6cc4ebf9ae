"""The state directory: `STATE/<stage>/<partition>/`, one RocksDB folder a stage and partition, and the configuration.

Opens the stages for writing (a driver) or as of their last commits (a query), never both on one folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ..graph_store import fault
from ..graph_store.state_store import StateError, StateStore, TornView
from .attribution import AttributionStage
from .calibration import CalibrationStage
from .configuration import Configuration, from_builtins, to_builtins
from .copurchase import CopurchaseStage
from .feedback import FeedbackStage
from .stage import Stage
from .topology import DOWNSTREAM_FIRST

MAX_SOURCES = 1024
"""Raw partitions (log files) that one state can have been made from."""

LOOKS, LOOK = 10, 0.02
"""So often, so many seconds apart, a stage is looked at before its folder is taken for damaged: a writer's flush may
have come in between."""

_CONFIGURATION = "configuration.json"


class StateDirectory:
    """The stages of one state.

    Parameters
    ----------
    path : the folder
    configuration : None: the one the folder was made with
    sources : raw partitions that attribution reads
    read_only : open as of the last commits, beside a live writer
    examples : have the feedback stage emit thalweg.examples

    Attributes
    ----------
    attribution : one stage a partition; `feedback`, `copurchase`, `calibration`: one each
    """

    def __init__(
        self,
        path: str | Path,
        configuration: Configuration | None = None,
        sources: int = MAX_SOURCES,
        read_only: bool = False,
        examples: bool = False,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.configuration = configuration or stored_configuration(self.path)
        self._stores: list[StateStore] = []
        try:
            if not read_only:
                check_configuration(self.path, self.configuration)
            self._make_stages(sources, examples)
        except BaseException:
            self.close()
            raise

    def _make_stages(self, sources: int, examples: bool) -> None:
        def made(name: str, partition: int = 0) -> Any:
            stood = len(self._stores)
            for left in reversed(range(LOOKS if self.read_only else 1)):
                try:
                    store = self._store(name, partition)
                    return make_stage(name, partition, self.configuration, store, sources, examples)
                except TornView:
                    if not left:
                        raise
                    if len(self._stores) > stood:
                        self._stores.pop().close()
                    time.sleep(LOOK)

        self.attribution: list[AttributionStage] = [
            made("attribution", q) for q in range(self.configuration.partitions)
        ]
        self.feedback: FeedbackStage = made("feedback")
        self.copurchase: CopurchaseStage = made("copurchase")
        self.calibration: CalibrationStage = made("calibration")

    def _store(self, stage: str, partition: int = 0) -> StateStore:
        if self.read_only:
            store = StateStore.view(self.path / stage / str(partition))
        else:
            store = open_store(self.path, stage, partition, self.configuration)
        self._stores.append(store)
        return store

    def stages(self) -> Iterator[Stage]:
        """Every stage, in the order of checkpoints: downstream first."""
        for name in DOWNSTREAM_FIRST:
            stage: Any = getattr(self, name)
            yield from stage if isinstance(stage, list) else [stage]

    def checkpoint(self) -> int:
        """Commit every stage, downstream first, so that no stage is ahead of the one that reads it; bytes written."""
        keep_configuration(self.path, self.configuration)
        fault.reach("checkpoint begins")
        written = 0
        for stage in self.stages():
            written += stage.checkpoint()
            fault.reach("checkpoint between stages")
        fault.reach("checkpoint done")
        return written

    def digests(self) -> dict[str, int]:
        """Digest of each stage, partitions summed modulo 2**128."""
        totals: dict[str, int] = {}
        for stage in self.stages():
            totals[stage.name] = (totals.get(stage.name, 0) + stage.digest()) % 2**128
        return dict(reversed(totals.items()))

    def trails(self) -> dict[str, dict[int, int]]:
        """Audit trail of each stage, partitions summed: stage -> boundary (ms) -> digest without held rows."""
        trails: dict[str, dict[int, int]] = {}
        for stage in self.stages():
            trail = trails.setdefault(stage.name, {})
            for boundary, digest in stage.trail().items():
                trail[boundary] = (trail.get(boundary, 0) + digest) % 2**128
        return {name: dict(sorted(trail.items())) for name, trail in reversed(trails.items())}

    def sizes(self) -> dict[str, dict[str, int]]:
        """Bytes in memory of each table of each stage, partitions summed."""
        sizes: dict[str, dict[str, int]] = {}
        for stage in self.stages():
            tables = sizes.setdefault(stage.name, {})
            for table, count in stage.store.sizes().items():
                tables[table] = tables.get(table, 0) + count
        return dict(reversed(sizes.items()))

    def close(self) -> None:
        """Give the folders back and end builds that run; what was not checkpointed is read again next time."""
        copurchase = getattr(self, "copurchase", None)  # None where opening failed half way
        if copurchase is not None:
            copurchase.builds.close()
        for store in self._stores:
            store.close()
        self._stores = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_stage(
    name: str,
    partition: int,
    configuration: Configuration,
    store: StateStore,
    sources: int = MAX_SOURCES,
    examples: bool = False,
) -> Stage:
    """The stage `name` on one partition of its topic; `sources` matters to attribution, `examples` to feedback.

    >>> make_stage("attribution", 1, Configuration(partitions=2), StateStore.memory()).shard
    1
    """
    if name == "attribution":
        stage: Stage = AttributionStage(configuration, store, sources)
    elif name == "feedback":
        stage = FeedbackStage(configuration, store, configuration.partitions, examples)
    elif name == "copurchase":
        stage = CopurchaseStage(configuration, store, configuration.partitions)
    else:
        stage = CalibrationStage(configuration, store, 1)
    stage.shard = partition
    return stage


def open_store(path: Path, stage: str, partition: int, configuration: Configuration) -> StateStore:
    """The store of one stage and partition, for writing; StateError where it is in use or another's."""
    settings = configuration.store
    return StateStore.open(path / stage / str(partition), configuration.fingerprint(), settings.page, settings.sync)


def check_configuration(path: Path, configuration: Configuration) -> None:
    """Make the folder where it is missing; StateError where it was made with another configuration."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise StateError(f"{path}: the state folder cannot be written: {error.strerror}") from None
    if not (path / _CONFIGURATION).exists():
        return
    known = stored_configuration(path)
    if known.fingerprint() != configuration.fingerprint():
        raise StateError(
            f"{path}: the state was made with another configuration ({_difference(known, configuration)}); use that "
            "configuration, or replay into a new --state folder"
        )


def keep_configuration(path: Path, configuration: Configuration) -> None:
    """Write the configuration into the folder, once, before anything is committed under it."""
    file = path / _CONFIGURATION
    if not file.exists():
        part = file.with_suffix(f".{os.getpid()}.part")
        kept = to_builtins(configuration)
        kept.pop("kafka")  # where the broker is, and how to log in, is no business of the state
        part.write_bytes(msgspec.json.format(msgspec.json.encode(kept)))
        part.replace(file)


def stored_configuration(path: Path) -> Configuration:
    """The configuration that a state directory was made with; StateError where there is none."""
    file = path / _CONFIGURATION
    try:
        raw = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError):
        raise StateError(f"{path}: no state here; run `thalweg replay LOG --state {path}` first") from None
    return from_builtins(raw, str(file))


def _difference(before: Configuration, now: Configuration) -> str:
    """The first settings that differ, for a message."""
    a, b = to_builtins(before), to_builtins(now)
    found = []
    for key in a:
        if isinstance(a[key], dict):
            found += [
                f"{key}.{name}: {a[key][name]} then, {b[key][name]} now"
                for name in a[key]
                if a[key][name] != b[key][name]
            ]
        elif a[key] != b[key]:
            found.append(f"{key}: {a[key]} then, {b[key]} now")
    others = ("store.", "kafka.", "time.idle_timeout:", "time.max_future:")  # in no fingerprint
    return "; ".join(text for text in found if not text.startswith(others)) or "unknown"
