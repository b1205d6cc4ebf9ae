"""The state store: the tables of one stage and partition in one RocksDB folder, written in one atomic batch.

A commit writes the pages that changed and one meta record (table layouts, values, counters, position, marks, clock,
fingerprint, format version) in a single WriteBatch: after a kill -9 the folder holds the commit before or the one
after, never a mixture. The write-ahead log without fsync survives the death of the process; `sync=True` also survives
the loss of power, at the price of an fsync a commit.

Keys: `m` for the meta record; `p`, a table's name, a zero byte and the page number (8 bytes, big-endian) for a page.

The meta record has a sum over the page hashes of each table, and whoever opens the folder compares. A RocksDB secondary
reads the list of files and the write-ahead log one after the other: where the writer flushes in between, it sees pages
of two commits and reports nothing. (Seen by a scratch program that flushed at each commit, without a pause.)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from rocksdict import AccessType, Options, Rdict, WriteBatch, WriteOptions

from . import fault
from .memory_pages import MemoryBatch, MemoryPages
from .page import page_hashes
from .table import Array, Growing, Ring, Table, Value, describe_dtype

FORMAT = 1
FLUSH = 64 << 20
"""Bytes of a commit from which its memory is given back at once."""
_META = b"m"

_T = TypeVar("_T", Array, Ring, Growing)


class StateError(RuntimeError):
    """A state folder cannot be used; the message names the folder, what is wrong and the mend."""


class TornView(StateError):
    """What was read beside a live writer are pages of several commits: look again."""


class StateStore:
    """Tables in memory, and the folder they are committed to.

    Parameters
    ----------
    path : folder, or None to keep nothing (tests)
    fingerprint : of the configuration; another one than the stored is refused
    page : bytes a page of an array, a multiple of 8; rings have pages 16 times as large, growing tables 4 times
    sync : fsync each commit
    read_only : open beside a live writer, as a RocksDB secondary
    pages : instead of a folder, memory that outlives the store (a simulation's)

    >>> store = StateStore.memory()
    >>> store.array("weights", np.float64, (4,)).values.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        path: Path | None,
        fingerprint: str = "",
        page: int = 4096,
        sync: bool = False,
        read_only: bool = False,
        pages: MemoryPages | None = None,
    ) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.page = page
        self.tables: dict[str, Table] = {}
        self.values: dict[str, Value] = {}
        self.counters: dict[str, int] = {}
        self.position: dict[str, Any] = {}
        self.read_only = read_only
        self.written_bytes = 0
        self._sync = sync
        self._hashes: dict[str, npt.NDArray[np.uint64]] = {}
        self._meta: dict[str, Any] = {}
        self._secondary: str | None = None
        self._db: Rdict | MemoryPages | None = pages
        try:
            if path is not None:
                self._db = self._open(path)
            if self._db is not None:
                self._read_meta()
        except BaseException:
            self.close()
            raise

    @classmethod
    def memory(cls) -> StateStore:
        """A store without a folder: commits go nowhere."""
        return cls(None)

    @classmethod
    def in_pages(cls, pages: MemoryPages, fingerprint: str, page: int = 4096) -> StateStore:
        """A store that commits to memory: another one opens on the same pages after this one is gone."""
        return cls(None, fingerprint, page, pages=pages)

    @classmethod
    def open(cls, path: Path, fingerprint: str, page: int = 4096, sync: bool = False) -> StateStore:
        """Open or create the folder for writing. StateError where it is in use, newer, or of another configuration."""
        return cls(Path(path), fingerprint, page, sync)

    @classmethod
    def view(cls, path: Path) -> StateStore:
        """Open an existing folder read-only, as of its last commit; a live writer goes on untouched.

        A table of it may raise TornView: the view is to be closed and taken again.
        """
        return cls(Path(path), read_only=True)

    def _open(self, path: Path) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(not self.read_only)
        options.set_max_open_files(-1)
        try:
            if self.read_only:
                if not (path / "CURRENT").exists():
                    raise StateError(f"{path}: no state here; run `thalweg replay LOG --state DIR` first")
                self._secondary = tempfile.mkdtemp(prefix="thalweg-view-")
                view = Rdict(str(path), options, access_type=AccessType.secondary(self._secondary))
                view.try_catch_up_with_primary()  # a writer that opens meanwhile moves its log into a table
                return view
            path.mkdir(parents=True, exist_ok=True)
            os.chmod(path, path.stat().st_mode & 0o700)  # nobody else's; a folder made read-only stays so
            return Rdict(str(path), options)
        except StateError:
            raise
        except OSError as error:
            raise StateError(f"{path}: the state folder cannot be written: {error.strerror or error}") from None
        except Exception as error:  # rocksdict raises plain Exception with RocksDB's text
            if not self.read_only and "lock" in str(error).lower():
                raise StateError(
                    f"{path}: the state folder is in use by another process; stop that one, or give another --state"
                ) from None
            kind: type[StateError] = TornView if self.read_only else StateError  # a file of the list may be gone by now
            raise kind(f"{path}: the state folder cannot be opened: {error}") from None

    def _read_meta(self) -> None:
        assert self._db is not None
        raw = self._db.get(_META)
        if raw is None:
            if self.read_only:
                raise TornView(f"{self.path}: nothing has been committed here yet")
            return
        meta = msgspec.json.decode(raw)
        if meta["format"] > FORMAT:
            raise StateError(
                f"{self.path}: written in format {meta['format']}, this version reads up to {FORMAT}; upgrade thalweg, "
                "or replay into a new --state folder"
            )
        if self.read_only:
            self.fingerprint = meta["fingerprint"]
        elif meta["fingerprint"] != self.fingerprint:
            raise StateError(
                f"{self.path}: written under another configuration (fingerprint {meta['fingerprint']}, now "
                f"{self.fingerprint}); use that configuration, or replay into a new --state folder"
            )
        self._meta = meta
        self.page = meta["page"]
        self.counters = dict(meta["counters"])
        self.position = meta["position"]

    @property
    def fresh(self) -> bool:
        """True where nothing has been committed yet."""
        return not self._meta

    # ---- tables

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        """A fixed-size table, filled from disk where it was committed before."""
        return self._add(Array(name, dtype, shape))

    def ring(self, name: str, dtype: npt.DTypeLike, capacity: int = 1024) -> Ring:
        """A ring, filled from disk where it was committed before."""
        return self._add(Ring(name, dtype, capacity))

    def growing(self, name: str, dtype: npt.DTypeLike, capacity: int = 1024) -> Growing:
        """A growing table, filled from disk where it was committed before."""
        return self._add(Growing(name, dtype, capacity))

    def value(self, name: str, default: Any) -> Value:
        """A small value, as committed before, else `default`."""
        stored = self._meta.get("values", {})
        self.values[name] = Value(name, stored.get(name, default))
        return self.values[name]

    def count(self, counter: str, more: int = 1) -> None:
        """Raise a counter; counters are committed, and are in no digest."""
        if more:
            self.counters[counter] = self.counters.get(counter, 0) + int(more)

    def _add(self, table: _T) -> _T:
        if table.name in self.tables:
            raise ValueError(f"table {table.name} exists already")
        description = self._meta.get("tables", {}).get(table.name)
        if description is not None:
            if description["dtype"] != describe_dtype(table.data.dtype):
                raise StateError(
                    f"{self.path}: table {table.name} has another record type; replay into a new --state folder"
                )
            table.restore(description)
            table.pages = description.get("pages", 1)
            self._load(table, description.get("sum"))
        self.tables[table.name] = table
        return table

    def _load(self, table: Table, expected: str | None) -> None:
        flat = table.data.view(np.uint8).reshape(-1) if table.data.size else np.zeros(0, np.uint8)
        prefix = _prefix(table.name)
        whole = True
        for key, page in self._scan(prefix):
            start = int.from_bytes(key[len(prefix) :], "big") * self.page * table.pages
            place = flat[start : start + len(page)]
            whole &= len(place) == len(page)
            place[:] = np.frombuffer(page, np.uint8)[: len(place)]
        self._hashes[table.name] = hashes = page_hashes(flat, self.page * table.pages)
        if not whole or expected not in (None, _sum(hashes)):
            kind: type[StateError] = TornView if self.read_only else StateError
            raise kind(
                f"{self.path}: table {table.name} is not what was committed last: the folder is damaged, or parts of "
                "it were copied while it was written; replay into a new --state folder"
            )

    def _scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        assert self._db is not None
        if isinstance(self._db, MemoryPages):
            yield from self._db.scan(prefix)
            return
        iterator = self._db.iter()
        iterator.seek(prefix)
        while iterator.valid():
            key = iterator.key()
            if not key.startswith(prefix):
                break
            yield key, iterator.value()
            iterator.next()

    # ---- commit

    def commit(self, position: dict[str, Any]) -> int:
        """Write what changed, and `position`, in one atomic batch; the number of bytes written."""
        self.position = position
        if self._db is None:
            return 0
        if self.read_only:
            raise StateError(f"{self.path}: opened read-only")
        batch: Any = MemoryBatch() if isinstance(self._db, MemoryPages) else WriteBatch(raw_mode=True)
        hashes: dict[str, npt.NDArray[np.uint64]] = {}
        written = sum(self._put_pages(batch, table, hashes) for table in self.tables.values())
        meta = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "page": self.page,
            "tables": {
                name: {**table.describe(), "pages": table.pages, "sum": _sum(hashes.get(name))}
                for name, table in self.tables.items()
            },
            "values": {name: value.value for name, value in self.values.items()},
            "counters": self.counters,
            "position": position,
        }
        raw = msgspec.json.encode(meta)
        batch.put(_META, raw)
        fault.reach("checkpoint batch ready")
        options = WriteOptions()
        options.sync = self._sync
        self._db.write(batch, options)
        self._hashes.update(hashes)  # only now: a page of a write that failed is still to be written
        self._meta = meta
        if written > FLUSH:
            self._db.flush()  # RocksDB would keep the whole batch in memory until the next one
        self.written_bytes += written + len(raw)
        return written + len(raw)

    def _put_pages(
        self, batch: WriteBatch | MemoryBatch, table: Table, written_hashes: dict[str, npt.NDArray[np.uint64]]
    ) -> int:
        data = table.data
        if data.size == 0:
            return 0
        flat = data.view(np.uint8).reshape(-1)
        size = self.page * table.pages
        hashes = page_hashes(flat, size)
        before = self._hashes.get(table.name, hashes[:0])
        if len(before) < len(hashes):  # a page that was never written reads as zeros
            blank = page_hashes(np.zeros(len(flat), np.uint8), size)
            before = np.concatenate([before, blank[len(before) :]])
        changed = (hashes != before).any(axis=1)
        prefix, written = _prefix(table.name), 0
        for page in np.flatnonzero(changed).tolist():
            piece = flat[page * size : (page + 1) * size].tobytes()
            batch.put(prefix + page.to_bytes(8, "big"), piece)
            written += len(piece)
        written_hashes[table.name] = hashes
        return written

    def sizes(self) -> dict[str, int]:
        """Bytes of each table in memory."""
        return {name: table.data.nbytes for name, table in self.tables.items()}

    def close(self) -> None:
        """Give the folder's lock back; nothing is committed here."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._secondary is not None:
            shutil.rmtree(self._secondary, ignore_errors=True)
            self._secondary = None


def _prefix(table: str) -> bytes:
    return b"p" + table.encode() + b"\0"


def _sum(hashes: npt.NDArray[np.uint64] | None) -> str:
    """Sum of page hashes modulo 2**64, each half: equal tables have equal ones, whatever the order."""
    first, second = (0, 0) if hashes is None else hashes.sum(axis=0, dtype=np.uint64).tolist()
    return f"{first:016x}{second:016x}"


def digest_value(table: str, value: Any) -> int:
    """128-bit hash of one entry of a value that JSON can say.

    >>> digest_value("reading", [1, 2]) == digest_value("reading", [1, 2])
    True
    """
    raw = table.encode() + b"\0" + msgspec.json.encode(value, order="deterministic")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=16).digest(), "big")
