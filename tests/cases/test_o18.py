"""O18: cut-off gzip: whole rows before the cut are used once, the file is named, and the good file is read."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from tests.reference.log_reading import Reading, read_log
from thalweg.streams.log_file import LogError

HEADINGS = "event_id,ts,user_id,request_id,item_id\n"
ROWS = [f"c{i},{1772452800 + i},u{i},r{i},i{i}" for i in range(1000)]
TEXT = (HEADINGS + "\n".join(ROWS) + "\n").encode()
WHOLE = gzip.compress(TEXT, mtime=0)
IDS = [f"c{i}" for i in range(1000)]


def read(folder: Path, data: bytes, name: str = "clicks.csv.gz") -> Reading:
    (folder / "good.csv").write_text("type,event_id,ts,item_id\nclick,g1,1772452800,G\n")
    (folder / name).write_bytes(data)
    return read_log(folder, rows=300)


def clicks(reading: Reading) -> list[str]:
    """Events of the other file; the good one is read in each case."""
    ids = reading.column("event_id")
    assert ids.count("g1") == 1
    return [name for name in ids if name != "g1"]


def complete_rows(data: bytes) -> int:
    """How many rows a streaming decompressor gets whole."""
    text = zlib.decompressobj(31).decompress(data)
    return text.count(b"\n") - 1


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_a_part_of_the_bytes(share: float, tmp_path: Path) -> None:
    data = WHOLE[: int(len(WHOLE) * share)]
    reading = read(tmp_path, data)
    assert clicks(reading) == IDS[: complete_rows(data)]
    assert reading.column("item_id")[: len(clicks(reading))] == [f"i{i}" for i in range(complete_rows(data))]
    assert reading.rejects == []
    assert len(reading.unfinished) == 1 and "clicks.csv.gz: the gzip is cut off" in reading.unfinished[0]


def test_json_lines_that_are_cut(tmp_path: Path) -> None:
    text = "".join(f'{{"event_id":"c{i}","ts":{1772452800 + i},"item_id":"i{i}"}}\n' for i in range(1000)).encode()
    data = gzip.compress(text, mtime=0)
    data = data[: len(data) // 2]
    reading = read(tmp_path, data, "clicks.jsonl.gz")
    assert clicks(reading) == IDS[: complete_rows(data) + 1]
    assert reading.rejects == [] and len(reading.unfinished) == 1


@pytest.mark.parametrize("text", [TEXT, TEXT.rstrip(b"\n")])
@pytest.mark.parametrize("gone", range(1, 9))
def test_the_last_bytes_gone(gone: int, text: bytes, tmp_path: Path) -> None:
    reading = read(tmp_path, gzip.compress(text, mtime=0)[:-gone])
    assert clicks(reading) == IDS
    assert reading.unfinished == [
        "clicks.csv.gz: the last bytes of the gzip are gone; all its rows were used; send it again"
    ]


def test_two_members(tmp_path: Path) -> None:
    body = ("\n".join(ROWS) + "\n").encode()
    reading = read(tmp_path, WHOLE + gzip.compress(body, mtime=0))
    assert clicks(reading) == IDS * 2
    assert reading.unfinished == []


def test_zeros_appended(tmp_path: Path) -> None:
    reading = read(tmp_path, WHOLE + b"\0" * 1000)
    assert (clicks(reading), reading.unfinished) == (IDS, [])


def test_garbage_appended(tmp_path: Path) -> None:
    reading = read(tmp_path, WHOLE + b"garbage")
    assert clicks(reading) == IDS
    assert reading.unfinished == [
        "clicks.csv.gz: bytes that are no gzip follow the data; the rows before them were used"
    ]


def test_an_empty_file(tmp_path: Path) -> None:
    reading = read(tmp_path, b"")
    assert clicks(reading) == []
    assert reading.unfinished == ["clicks.csv.gz: is empty, 0 bytes; send it again"]


def test_plain_text_under_the_name(tmp_path: Path) -> None:
    reading = read(tmp_path, TEXT)
    assert (clicks(reading), reading.unfinished) == (IDS, [])


def test_a_pointer_is_refused(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"
    with pytest.raises(LogError, match=r"clicks\.csv\.gz: is a Git LFS pointer"):
        read(tmp_path, pointer)


def test_damage_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    reading = read(tmp_path, bytes(data))
    assert len(reading.unfinished) == 1 and reading.unfinished[0].startswith("clicks.csv.gz: the")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    reading = read(tmp_path, WHOLE[:-8] + b"\1\2\3\4" + WHOLE[-4:])
    assert clicks(reading) == IDS
    assert "checksum of the gzip is wrong" in reading.unfinished[0]


def test_after_a_cut_the_whole_file_adds_only_the_rest(tmp_path: Path) -> None:
    from tests.reference.log_reading import WIDE
    from thalweg.streams.log import open_log

    path = tmp_path / "clicks.csv.gz"
    path.write_bytes(WHOLE[: len(WHOLE) // 2])
    first = list(open_log([path], WIDE).files[0].batches())
    path.write_bytes(WHOLE)
    rest = list(open_log([path], WIDE).files[0].batches(first[-1].end))
    ids = [name for batch in first + rest for name in batch.events.column("event_id").to_pylist()]
    assert ids == IDS
    assert rest[0].start == first[-1].end
