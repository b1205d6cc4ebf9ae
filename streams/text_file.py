"""Lines of a text file, plain or gzip, with what is wrong at its end told and nothing partial passed on.

A gzip file is read member by member with its own small reader: whatever can be decompressed is used, once; a file that
ends in the middle gives all its complete lines, and a last line that may have been cut is left out. What a file is
(UTF-16, a Git LFS pointer) is seen before anything is read, and refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .log_file import LogError

_CHUNK = 262_144
_MAGIC = b"\x1f\x8b"
_LFS = b"version https://git-lfs"
_MARK = b"\xef\xbb\xbf"
_MARKS_16 = (b"\xff\xfe", b"\xfe\xff")


class TextFile:
    """A text file that is read from its beginning as often as asked.

    Attributes
    ----------
    compressed : it is gzip, whatever its name says
    unfinished : after reading, what was wrong with its end; None for a whole file

    >>> import gzip, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.csv.gz")
    ...     _ = path.write_bytes(gzip.compress(b"one\\ntwo\\n")[:-4])
    ...     file = TextFile(path)
    ...     list(file.lines()), file.unfinished
    ([b'one', b'two'], 'a.csv.gz: the last bytes of the gzip are gone; all its rows were used; send it again')
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unfinished: str | None = None
        try:
            with path.open("rb") as file:
                self.compressed = file.read(2) == _MAGIC
            head = next(self._chunks(), b"")
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror}") from None
        if head.startswith(_LFS):
            raise LogError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
        if head.startswith(_MARKS_16):
            raise LogError(f"{path}: is UTF-16 text; convert it, for example with `iconv -f UTF-16 -t UTF-8`")

    def lines(self) -> Iterator[bytes]:
        """Each line without its line feed, a byte-order mark at the very beginning removed."""
        self.unfinished = None
        rest = b""
        first = True
        for chunk in self._chunks():
            if first and chunk:
                chunk, first = chunk.removeprefix(_MARK), False
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
        if rest and not self._cut:
            yield rest

    def _chunks(self) -> Iterator[bytes]:
        self._cut = False
        with self.path.open("rb") as file:
            if self.compressed:
                yield from self._members(file)
                return
            if self.path.suffix.lower() == ".gz" and not file.peek(1):  # type: ignore[attr-defined]
                self._report("is empty, 0 bytes; send it again", cut=False)
            while chunk := file.read(_CHUNK):
                yield chunk

    def _report(self, what: str, cut: bool) -> None:
        self.unfinished = f"{self.path.name}: {what}"
        self._cut = cut

    def _members(self, file: BinaryIO) -> Iterator[bytes]:
        """Decompressed bytes of every gzip member; zeros after the last one are padding."""
        held = _Held(file)
        number = 0
        while True:
            head = held.peek(2)
            if number and head and not head.strip(b"\0"):
                held.drop_zeros()
                head = held.peek(2)
            if not head:
                return
            if head != _MAGIC:
                self._report("bytes that are no gzip follow the data; the rows before them were used", cut=False)
                return
            number += 1
            if not _skip_header(held):
                self._report("the gzip is cut off in a header; send the file again", cut=True)
                return
            yield from self._member(held)
            if self.unfinished is not None:
                return

    def _member(self, held: _Held) -> Iterator[bytes]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        check, size = 0, 0
        while not inflate.eof:
            raw = held.take()
            if not raw:
                self._report("the gzip is cut off; the complete rows before the cut were used; send it again", cut=True)
                return
            before = inflate.copy()
            try:
                data = inflate.decompress(raw)
            except zlib.error:
                yield _salvage(before, raw)
                self._report(
                    "the gzip is damaged; the complete rows before the damage were used; send it again", cut=True
                )
                return
            check, size = zlib.crc32(data, check), size + len(data)
            yield data
        held.give_back(inflate.unused_data)
        trailer = held.read(8)
        if len(trailer) < 8:
            self._report("the last bytes of the gzip are gone; all its rows were used; send it again", cut=False)
        elif trailer != check.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"):
            self._report("the checksum of the gzip is wrong; its rows were used; send it again", cut=False)


def _salvage(inflate: zlib._Decompress, raw: bytes) -> bytes:
    """What can still be decompressed of a chunk in which the data breaks off."""
    out = []
    try:
        for i in range(len(raw)):
            out.append(inflate.decompress(raw[i : i + 1]))
    except zlib.error:
        pass
    return b"".join(out)


class _Held:
    """A file with bytes that can be given back."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.rest = b""

    def take(self) -> bytes:
        """Some bytes; none at the end."""
        taken, self.rest = self.rest, b""
        return taken or self.file.read(_CHUNK)

    def give_back(self, data: bytes) -> None:
        self.rest = data + self.rest

    def peek(self, n: int) -> bytes:
        while len(self.rest) < n and (more := self.file.read(_CHUNK)):
            self.rest += more
        return self.rest[:n]

    def read(self, n: int) -> bytes:
        taken = self.peek(n)
        self.rest = self.rest[len(taken) :]
        return taken

    def drop_zeros(self) -> None:
        while True:
            self.rest = (self.rest or self.file.read(_CHUNK)).lstrip(b"\0")
            if self.rest or not self.file.peek(1):  # type: ignore[attr-defined]
                return


def _skip_header(held: _Held) -> bool:
    """Read a member's header (RFC 1952, section 2.3); False where the file ends in it."""
    head = held.read(10)
    if len(head) < 10:
        return False
    flags = head[3]
    if flags & 4:
        size = held.read(2)
        if len(size) < 2 or len(held.read(int.from_bytes(size, "little"))) < int.from_bytes(size, "little"):
            return False
    for flag in (8, 16):
        while flags & flag:
            byte = held.read(1)
            if not byte:
                return False
            if byte == b"\0":
                break
    return not flags & 2 or len(held.read(2)) == 2
