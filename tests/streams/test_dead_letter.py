"""Dead letters and their file."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams.dead_letter import RAW_LIMIT, DeadLetterFile, Reason, dead_letter, to_json


@given(st.one_of(st.none(), st.binary(max_size=50), st.text(max_size=20).map(str.encode)))
def test_a_record_is_one_line_of_strict_json_and_keeps_the_bytes(raw: bytes | None) -> None:
    line = to_json(dead_letter(("a", 0, 1), Reason.BAD_JSON, raw, detail="no\n"))
    assert b"\n" not in line
    record = json.loads(line)
    if raw is None:
        assert record["raw"] is None and "raw_base64" not in record
    elif record["raw"] is None:
        assert base64.b64decode(record["raw_base64"]) == raw
    else:
        assert record["raw"].encode() == raw
    assert record["length"] == len(raw or b"")
    assert record["digest"] == hashlib.blake2b(raw or b"", digest_size=16).hexdigest()


def test_the_bytes_are_cut_and_the_rest_is_not() -> None:
    raw = "é".encode() * RAW_LIMIT
    letter = dead_letter(("a", 0, 1), Reason.BAD_JSON, b"x" + raw)
    assert letter.raw is not None and len(letter.raw) == RAW_LIMIT
    assert letter.length == len(raw) + 1
    assert len(to_json(letter)) < 1_000_000


def letters(*rows: int) -> list:
    return [dead_letter(("a.jsonl", row, row + 1), Reason.BAD_JSON, b"x") for row in rows]


def test_a_place_is_written_once_however_often_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    with DeadLetterFile(path) as file:
        assert file.write(letters(1, 2)) == 2
        assert file.write(letters(2, 3)) == 1
    with DeadLetterFile(path) as file:
        assert file.written == 3
        assert file.write(letters(1, 2, 3, 4)) == 1
        assert file.repeated == 3
    rows = [json.loads(line)["row"] for line in path.read_text().splitlines()]
    assert rows == [1, 2, 3, 4]


def test_the_same_row_of_another_file_is_another_place(tmp_path: Path) -> None:
    other = dead_letter(("b.jsonl", 1, 2), Reason.BAD_JSON, b"x")
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        assert file.write([*letters(1), other]) == 2


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_record_that_a_kill_cut_off_is_written_anew(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    with DeadLetterFile(path) as file:
        file.write(letters(1, 2))
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    with DeadLetterFile(path) as file:
        assert file.written == 1
        file.write(letters(1, 2))
    assert path.read_bytes() == data


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_text("hello\n")
    with pytest.raises(ValueError, match=r"dead\.jsonl line 1: is no dead letter; name another file"):
        DeadLetterFile(path)
