"""Committed pages in memory: what a state store asks of RocksDB, for a simulation that crashes and opens again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class MemoryBatch(dict[bytes, bytes]):
    """Puts that are written together: nothing of them is seen before `MemoryPages.write`.

    >>> batch = MemoryBatch()
    >>> batch.put(b"key", b"value"); dict(batch)
    {b'key': b'value'}
    """

    def put(self, key: bytes, value: bytes) -> None:
        """Add one."""
        self[key] = value


class MemoryPages:
    """Keys and values that outlive the store on them, as a folder does; one batch is written whole or not at all.

    >>> pages = MemoryPages()
    >>> batch = MemoryBatch()
    >>> batch.put(b"pb", b"2"); batch.put(b"pa", b"1"); pages.get(b"pa")
    >>> pages.write(batch); pages.copy().get(b"pa"), list(pages.scan(b"p"))
    (b'1', [(b'pa', b'1'), (b'pb', b'2')])
    """

    def __init__(self, content: dict[bytes, bytes] | None = None) -> None:
        self._content = {} if content is None else content

    def get(self, key: bytes) -> bytes | None:
        """The value, None where there is none."""
        return self._content.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with `prefix`, in order, with their values."""
        for key in sorted(key for key in self._content if key.startswith(prefix)):
            yield key, self._content[key]

    def write(self, batch: MemoryBatch, options: Any = None) -> None:
        """Write a batch."""
        self._content = {**self._content, **batch}

    def copy(self) -> MemoryPages:
        """The pages as they are now, which later writes do not change."""
        return MemoryPages(self._content)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """The pages stay."""
