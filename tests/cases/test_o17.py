"""O17: byte-order marks, headings, encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.log_reading import Reading, read_log
from thalweg.streams.log_file import LogError

HEADINGS = "ts,event_id,user_id,request_id,item_id"
ROWS = ["2026-03-02T12:00:01Z,c1,u1,r1,A", "2026-03-02T12:00:02Z,c2,u2,r2,B"]
PLAIN = "\n".join([HEADINGS, *ROWS, ""])
MARK = b"\xef\xbb\xbf"


def read(folder: Path, data: bytes, name: str = "clicks.csv") -> Reading:
    (folder / name).write_bytes(data)
    return read_log(folder / name)


@pytest.fixture
def plain(tmp_path: Path) -> Reading:
    reading = read(tmp_path, PLAIN.encode())
    assert reading.column("event_id") == ["c1", "c2"]
    return reading


def test_a_mark_changes_nothing(plain: Reading, tmp_path: Path) -> None:
    assert read(tmp_path, MARK + PLAIN.encode()).events == plain.events


def test_a_mark_and_quoted_headings(plain: Reading, tmp_path: Path) -> None:
    quoted = ",".join(f'"{name}"' for name in HEADINGS.split(","))
    assert read(tmp_path, MARK + PLAIN.replace(HEADINGS, quoted).encode()).events == plain.events


def test_windows_line_ends(plain: Reading, tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN.replace("\n", "\r\n").encode()).events == plain.events


def test_utf_16_is_refused_by_name(tmp_path: Path) -> None:
    for data in (b"\xff\xfe" + PLAIN.encode("utf-16-le"), b"\xfe\xff" + PLAIN.encode("utf-16-be")):
        with pytest.raises(LogError, match=r"clicks\.csv: is UTF-16 text; convert it"):
            read(tmp_path, data)


def test_json_lines_with_a_mark(plain: Reading, tmp_path: Path) -> None:
    names = HEADINGS.split(",")
    lines = ["{" + ",".join(f'"{n}":"{v}"' for n, v in zip(names, row.split(","), strict=True)) + "}" for row in ROWS]
    assert read(tmp_path, MARK + "\n".join(lines).encode(), "clicks.jsonl").events == plain.events


def test_two_marked_files_joined(tmp_path: Path) -> None:
    more = PLAIN.replace("c1", "c3").replace("c2", "c4")
    reading = read(tmp_path, MARK + PLAIN.encode() + MARK + more.encode())
    assert reading.column("event_id") == ["c1", "c2", "c3", "c4"]
    assert [(letter.reason, letter.line) for letter in reading.rejects] == [("header_row", 4)]


def test_no_ts(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"clicks\.csv: has no column `ts`.*headings found: time, event_id"):
        read(tmp_path, PLAIN.replace("ts,", "time,", 1).encode())


def test_ts_twice(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"column `ts` is there twice.*headings found: ts, ts, event_id"):
        read(tmp_path, PLAIN.replace("ts,", "ts,ts,", 1).encode())


def test_semicolons(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"not separated by commas.*headings found: ts;event_id;user_id"):
        read(tmp_path, PLAIN.replace(",", ";").encode())


def test_a_row_in_latin_1(tmp_path: Path) -> None:
    reading = read(tmp_path, PLAIN.encode() + "2026-03-02T12:00:03Z,c3,u3,r3,café\n".encode("latin-1"))
    assert reading.column("item_id") == ["A", "B"]
    assert reading.reasons == ["bad_encoding"]
    assert reading.rejects[0].raw == b"2026-03-02T12:00:03Z,c3,u3,r3,caf\xe9"


def test_a_row_in_utf_8(tmp_path: Path) -> None:
    reading = read(tmp_path, PLAIN.encode() + "2026-03-02T12:00:03Z,c3,u3,r3,café\n".encode())
    assert reading.column("item_id") == ["A", "B", "café"]


def test_headings_in_latin_1(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"its headings are no CSV in UTF-8"):
        read(tmp_path, PLAIN.replace("ts,", "ts,prénom,", 1).encode("latin-1"))
