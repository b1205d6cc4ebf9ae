"""Blocks on a topic: one message is one Arrow record batch (IPC stream, LZ4) and a header in its schema's metadata.

The header says where the rows come from (ranges, and for events the raw partitions themselves), the clock that stands
at their end, and who made them. Columns are those of the topic's row type (`streams/row.py`), then `features`, a fixed
list of uint32 a row: any Arrow reader can read the public topics. Nothing that a kernel reads lies in the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from ..graph_store.hash import hash_strings
from .block import Block

MESSAGE_BYTES = 800_000
"""Bytes that the rows of one message come to before compression, at most: brokers take 1 MB unless told otherwise,
and the header, with names and rejects (`ingest`), needs some of it."""

VERSION = 1
_HEADER = b"thalweg"


class WireError(ValueError):
    """A message on an internal topic is no block; the message says what is wrong."""


class Source(NamedTuple):
    """A raw partition: the topic by name and by the id that the broker gave it, and the partition's number."""

    topic: str
    id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Reject(NamedTuple):
    """A raw row that ingest dead-lettered: index of its source, its offset, its type's name and the reason code."""

    source: int
    offset: int
    type: str
    reason: str


@dataclass(frozen=True)
class Message:
    """A block and what a topic's reader must know of it.

    Attributes
    ----------
    block : its `rejected` is empty: `rejects` has them one by one, so that marks can tell which were counted
    fingerprint : of the configuration that it was made under
    origin : lineage of the state that emitted it; empty where ingest did
    sources : events only: what `source` in the rows, and the keys of the block's ranges and tops, stand for
    idle : events only: every raw partition was idle when the block was made
    begins : events only: (index of a source, offset) where its log began later than at 0 when its first block was
        made; who has read it before, and not so far, has missed what was between
    """

    block: Block
    fingerprint: str
    origin: str = ""
    sources: tuple[Source, ...] = ()
    rejects: tuple[Reject, ...] = ()
    idle: bool = False
    begins: tuple[tuple[int, int], ...] = ()


class _Header(msgspec.Struct):
    version: int
    fingerprint: str
    origin: str
    ranges: list[tuple[int, int, int]]
    clock: int
    tops: list[tuple[int, int]]
    names: list[str]
    sources: list[tuple[str, str, int]]
    rejects: list[tuple[int, int, str, str]]
    idle: bool
    begins: list[tuple[int, int]] = []


def rows_per_message(row_type: np.dtype[Any], features: int) -> int:
    """How many rows a message may have; a function of the row alone, so that a cut made twice is the same cut.

    >>> from .row import EVENT_ROW
    >>> rows_per_message(EVENT_ROW, 20) > 3_000
    True
    """
    return MESSAGE_BYTES // (row_type.itemsize + 4 * features)


def encode(message: Message) -> bytes:
    """The message as bytes; `decode` gives it back.

    >>> import numpy as np
    >>> from .row import LABEL_ROW
    >>> block = Block(np.zeros(2, LABEL_ROW), np.zeros((2, 1), np.uint32), {0: (5, 6)}, clock=7)
    >>> read = decode(encode(Message(block, "f", "o")), LABEL_ROW, 1)
    >>> len(read.block), read.block.ranges, read.block.clock, read.origin
    (2, {0: (5, 6)}, 7, 'o')
    """
    block = message.block
    header = _Header(
        VERSION, message.fingerprint, message.origin, [(source, *span) for source, span in block.ranges.items()],
        block.clock, list(block.tops.items()), block.names[1], list(message.sources), list(message.rejects),
        message.idle, list(message.begins),
    )  # fmt: skip
    names = block.rows.dtype.names or ()
    columns = [pa.array(np.ascontiguousarray(block.rows[name])) for name in names]
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip(names, columns, strict=True)]
    width = block.features.shape[1]
    flat = pa.array(np.ascontiguousarray(block.features).reshape(-1))
    if width:
        columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
        fields.append(pa.field("features", pa.list_(pa.field("item", pa.uint32()), width), nullable=False))
    schema = pa.schema(fields, metadata={_HEADER: msgspec.json.encode(header)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue().to_pybytes()


_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


def made_under(data: bytes | None) -> str | None:
    """Fingerprint of the configuration under which a block was made; None where `data` is no block.

    >>> made_under(b"rubbish") is None
    True
    """
    try:
        with pa.ipc.open_stream(pa.BufferReader(data or b""), options=_READ) as reader:
            return msgspec.json.decode((reader.schema.metadata or {})[_HEADER], type=_Header).fingerprint
    except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError, ValueError):
        return None


def decode(data: bytes | None, row_type: np.dtype[Any], features: int) -> Message:
    """The message in `data`, of a topic whose rows are of `row_type`, with `features` features each.

    WireError where it is no such block: empty, cut off, of another topic, of a newer version.
    """
    if not data:
        raise WireError("an empty message, no block")
    try:
        with pa.ipc.open_stream(pa.BufferReader(data), options=_READ) as reader:
            schema, batch = reader.schema, reader.read_next_batch()
        header = msgspec.json.decode((schema.metadata or {})[_HEADER], type=_Header)
    except (pa.ArrowException, OSError, StopIteration, KeyError, msgspec.MsgspecError, ValueError) as error:
        raise WireError(f"no block: {type(error).__name__}: {error}") from None
    if header.version > VERSION:
        raise WireError(f"a block of version {header.version}; this thalweg reads up to {VERSION}: upgrade it")
    names = row_type.names or ()
    if schema.names != [*names, *(["features"] if features else [])]:
        raise WireError(f"a block with the columns {schema.names}, not those of this topic's rows")
    rows = np.empty(len(batch), row_type)
    try:
        for name in names:
            rows[name] = batch.column(name).to_numpy(zero_copy_only=True)
        codes = np.zeros((len(batch), features), np.uint32)  # of our own: Arrow's memory is read-only
        if features and len(batch):
            codes[:] = batch.column("features").flatten().to_numpy(zero_copy_only=True).reshape(len(batch), features)
    except (pa.ArrowException, ValueError) as error:
        raise WireError(f"a block whose columns do not fit: {error}") from None
    block = Block(
        rows, codes, {source: (start, end) for source, start, end in header.ranges}, header.clock,
        (hash_strings(pa.array(header.names, pa.string())), header.names), {}, dict(header.tops),
    )  # fmt: skip
    return Message(
        block, header.fingerprint, header.origin, tuple(Source(*source) for source in header.sources),
        tuple(Reject(*reject) for reject in header.rejects), header.idle, tuple(header.begins),
    )  # fmt: skip
