"""Records the internal topics to a folder, and replays such a recording: the live run again, message by message.

With late rows a live run may differ from a replay of the raw log: what came late depends on the moment. It never
differs from the replay of its recording, for each stage gets the very messages that it got live: attribution those of
thalweg.events, feedback those of thalweg.labels, copurchase those of thalweg.copurchases; calibration gets what
feedback emits.

A recording is a folder: `manifest.json` (configuration, ids of the topics) and for each topic and partition a folder of
Parquet files (offset, value) in the order of the offsets. Recording again goes on where it ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from .configuration import Configuration, from_builtins, to_builtins
from .host import PARTS, Host
from .replay import Progress, Summary
from .state_directory import StateDirectory
from .topology import FLOWS
from .verify import late_rows
from .wire import Source, made_under

RECORDED = tuple(flow for flow in FLOWS if flow.stage != "calibration")
"""Flows whose input is recorded."""
FILE_BYTES = 32 << 20
"""Values that one file holds, about."""
_SCHEMA = pa.schema([("offset", pa.int64()), ("value", pa.binary())])
_MANIFEST = "manifest.json"


class RecordingError(RuntimeError):
    """A folder is no recording, or one of other topics; the message names it and the mend."""


@dataclass
class Recorded:
    """What was recorded in this run.

    Attributes
    ----------
    messages : by topic and partition
    """

    messages: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


def record(
    folder: str | Path,
    configuration: Configuration,
    progress: Callable[[str, int, int | None], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Recorded:
    """Copy what the internal topics hold now into `folder`, from where it ends.

    BrokerError where the broker cannot be read; RecordingError where the folder holds other topics, or they are of
    another configuration.
    """
    from .kafka import internal, topic_ids

    kafka, path = configuration.kafka, Path(folder)
    _check_topics(configuration)
    ids = topic_ids(kafka, [internal(kafka, flow.reads) for flow in RECORDED])
    _begin(path, configuration, {name: str(identity) for name, identity in ids.items()})
    result = Recorded()
    for flow in RECORDED:
        for partition in range(configuration.partitions if flow.sharded else 1):
            place = f"{flow.reads}/{partition}"
            result.messages[place] = _copy(
                path, configuration, flow.reads, partition, progress or (lambda what, done, total: None),
                stop or (lambda: False),
            )  # fmt: skip
    result.interrupted = stop is not None and stop()
    return result


def _check_topics(configuration: Configuration) -> None:
    """All partitions are recorded, or none: a recording without one is no run."""
    from .kafka import internal, partitions

    kafka = configuration.kafka
    asked = {internal(kafka, flow.reads): configuration.partitions if flow.sharded else 1 for flow in RECORDED}
    for name, count in partitions(kafka, asked).items():
        if not count:
            raise RecordingError(f"{kafka.brokers}: there is no topic {name}; is kafka.application the worker's?")
        if count != asked[name]:
            raise RecordingError(
                f"{kafka.brokers}: {name} has {count} partitions, the configuration says {asked[name]}; record with "
                "the worker's --config or its --state"
            )
    for partition in range(configuration.partitions):
        _check_fingerprint(configuration, partition)


def _check_fingerprint(configuration: Configuration, partition: int) -> None:
    """A recording under a configuration that is not the run's could not be replayed."""
    from .kafka import internal, tail

    name = internal(configuration.kafka, "events")

    found = tail(configuration.kafka, name, partition, lambda value: made_under(value) is not None)
    if found is not None and made_under(found[1]) != configuration.fingerprint():
        raise RecordingError(
            f"{configuration.kafka.brokers}: {name}/{partition} was made under another configuration than this one; "
            "record with the worker's --config or its --state"
        )


def _begin(path: Path, configuration: Configuration, ids: dict[str, str]) -> None:
    """Write the manifest; refuse a folder with that of other topics."""
    kept = to_builtins(configuration)
    kept.pop("kafka")
    said = {"recording": 1, "configuration": kept, "topics": ids}
    file = path / _MANIFEST
    if file.exists():
        known = _manifest(path)
        if known["topics"] != ids:
            raise RecordingError(f"{path}: holds a recording of other topics ({known['topics']}); name another folder")
        if recorded_configuration(path).fingerprint() != configuration.fingerprint():
            raise RecordingError(f"{path}: was begun under another configuration; take that, or name another folder")
        return
    path.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(said)))
    part.replace(file)


def _copy(
    path: Path,
    configuration: Configuration,
    topic: str,
    partition: int,
    progress: Callable[[str, int, int | None], None],
    stop: Callable[[], bool],
) -> int:
    """One partition to its end; the number of messages copied."""
    from .kafka import internal, read_on, tail

    kafka = configuration.kafka
    name = internal(kafka, topic)
    folder = path / f"{topic}-{partition}"
    folder.mkdir(exist_ok=True)
    last = tail(kafka, name, partition)
    begin, end = _next(folder), 0 if last is None else last[0] + 1
    copied, offsets, values, size = 0, [], [], 0  # type: ignore[var-annotated]
    for offset, value in read_on(kafka, name, partition, begin, end):
        offsets.append(offset)
        values.append(value)
        size += len(value or b"")
        copied += 1
        if size > FILE_BYTES or stop():
            _write(folder, offsets, values)
            offsets, values, size = [], [], 0
            progress(f"{topic}/{partition}", offset + 1, end)
            if stop():
                break
    if offsets:
        _write(folder, offsets, values)
    return copied


def _next(folder: Path) -> int:
    """Offset behind the last one recorded."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return 0
    return int(pq.read_table(files[-1], columns=["offset"]).column("offset")[-1].as_py()) + 1


def _write(folder: Path, offsets: list[int], values: list[bytes | None]) -> None:
    part = folder / f".{os.getpid()}.part"
    pq.write_table(pa.table([offsets, values], schema=_SCHEMA), part, compression="none")  # blocks are compressed
    part.replace(folder / f"{offsets[0]:020d}.parquet")


def is_recording(path: str | Path) -> bool:
    """Whether a folder holds a recording.

    >>> is_recording("no such folder")
    False
    """
    return Path(path, _MANIFEST).is_file()


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode((path / _MANIFEST).read_bytes())
        if found["recording"] != 1:
            raise RecordingError(f"{path}: a recording of version {found['recording']}; upgrade thalweg")
        found["configuration"], found["topics"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        raise RecordingError(f"{path}: is no recording; make one with `thalweg record`") from None
    return found


def recorded_configuration(path: str | Path) -> Configuration:
    """The configuration that a recording was made under.

    >>> recorded_configuration("no such folder")
    Traceback (most recent call last):
    thalweg.streams.record.RecordingError: no such folder: is no recording; make one with `thalweg record`
    """
    return from_builtins(_manifest(Path(path))["configuration"], str(path))


class RecordedReplay:
    """Replays a recording into a state directory; goes on where an interrupted run stopped.

    Parameters
    ----------
    folder : the recording
    state : state directory, new or of this recording
    """

    def __init__(self, folder: str | Path, state: str | Path) -> None:
        self.folder = Path(folder)
        manifest = _manifest(self.folder)
        self.configuration = recorded_configuration(folder)
        self.state = StateDirectory(state, self.configuration)
        self.summary = Summary(str(state), [str(folder)])
        try:
            self._hosts = {
                (flow.stage, stage.shard): Host(stage, Source(flow.reads, _id(manifest, flow.reads), stage.shard))
                for flow in FLOWS
                for stage in ([*self.state.attribution] if flow.sharded else [getattr(self.state, flow.stage)])
            }
        except BaseException:
            self.state.close()
            raise

    def go(self, progress: Progress | None = None, stop: Callable[[], bool] | None = None) -> Summary:
        """Every message through its stage, or until `stop`; checkpoint; the summary."""
        began = last = time.monotonic()
        every = int(self.configuration.store.checkpoint) / 1000
        read, done = self._read(), 0
        for name, host, offset, value in self._all():
            if stop is not None and stop():
                self.summary.interrupted = True
                break
            self._take(name, host, offset, value)
            done += 1
            if progress is not None:
                progress(done, None, host.stage.clock)
            if time.monotonic() - last > every:
                self.state.checkpoint()
                last = time.monotonic()
        self.state.checkpoint()
        self.summary.seconds = time.monotonic() - began
        self.summary.rows = self._read() - read
        self.summary.late = late_rows(self.state)
        for each in self.state.attribution:
            for reason, count in each.dead_letters().items():
                self.summary.dead_letters[reason] = self.summary.dead_letters.get(reason, 0) + count
        return self.summary

    def _read(self) -> int:
        return sum(terms["read"] for each in self.state.attribution for terms in each.books().values())

    def _all(self) -> Iterator[tuple[str, Host, int, bytes | None]]:
        for (name, partition), host in self._hosts.items():
            if name != "calibration":
                for offset, value in self._messages(name, partition, host.position):
                    yield name, host, offset, value

    def _take(self, name: str, host: Host, offset: int, value: bytes | None) -> None:
        """One message; what feedback emits goes to calibration at once, at an offset that a second run gives it too."""
        sent = host.take(offset, value)
        if name == "feedback":
            outcomes = [message for topic, message in sent if topic == "outcomes"]
            for k, message in enumerate(outcomes):
                self._hosts["calibration", 0].take(offset * PARTS + k, message)
        host.take_letters()

    def _messages(self, stage: str, partition: int, position: int) -> Iterator[tuple[int, bytes | None]]:
        topic = next(flow.reads for flow in RECORDED if flow.stage == stage)
        for file in sorted((self.folder / f"{topic}-{partition}").glob("*.parquet")):
            for batch in _batches(file):
                for offset, value in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    if offset >= position:
                        yield offset, value

    def close(self) -> None:
        """Give the state back."""
        self.state.close()


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from pq.ParquetFile(file).iter_batches(64)
    except (pa.ArrowException, OSError) as error:
        raise RecordingError(f"{file}: is damaged ({error}); record again, into another folder") from None


def _id(manifest: dict[str, Any], topic: str) -> str:
    found = [identity for name, identity in manifest["topics"].items() if name.endswith(f".{topic}")]
    return found[0] if found else f"recorded {topic}"
