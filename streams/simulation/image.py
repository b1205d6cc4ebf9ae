"""What a kill -9 leaves of a RocksDB folder: a copy of its files, taken while the store is still open.

`StateStore.close` is no death: it flushes what RocksDB holds in memory, so that a commit that was never logged would
survive it. What a process has given to the system when it is killed stays: the whole of the write-ahead log where a
write was over, some beginning of it where it was under way.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random


def take_image(folder: Path) -> Path:
    """Copy the files of an open store, as they stand at one moment, to a folder beside it; that folder.

    RocksDB works behind the scenes: a copy during which files came, went or grew is taken again. Its own report, `LOG`,
    says nothing of the state and is left out.
    """
    image = folder.with_name(f"{folder.name}.image")
    while True:
        before = _sizes(folder)
        shutil.rmtree(image, ignore_errors=True)
        image.mkdir()
        try:
            for name in before:
                shutil.copyfile(folder / name, image / name)
        except FileNotFoundError:  # it went meanwhile
            continue
        if _sizes(folder) == before:
            return image


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file; one that goes between its being listed and its being looked at is one that went before."""
    sizes = {}
    for name in os.listdir(folder):
        if not name.startswith("LOG"):
            with suppress(FileNotFoundError):
                sizes[name] = (folder / name).stat().st_size
    return sizes


def logged_bytes(folder: Path) -> int:
    """Bytes of the write-ahead log that is being written, 0 where there is none yet.

    >>> logged_bytes(Path("no such folder"))
    0
    """
    log = _log(folder)
    return 0 if log is None else log.stat().st_size


def tear(image: Path, start: int, draw: Random) -> None:
    """Cut the write that began at byte `start` of the log off somewhere: nothing, or a part, of it was written."""
    log = _log(image)
    if log is not None and log.stat().st_size > start:
        os.truncate(log, draw.randrange(start, log.stat().st_size))


def _log(folder: Path) -> Path | None:
    return max(folder.glob("*.log"), key=lambda path: int(path.stem), default=None)
