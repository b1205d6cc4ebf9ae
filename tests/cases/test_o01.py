"""O01: empty, null and non-object payloads are set aside; the good message after them is an event."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases.log_files import Case
from tests.reference.log_reading import decode, read_log
from thalweg.streams.cli import main
from thalweg.streams.dead_letter import to_json

GOOD = b'{"event_id":"c8","ts":"2026-03-02T12:00:08Z","user_id":"u1","request_id":"r1","item_id":"A"}'
LIST = b'[{"event_id":"c6","ts":"2026-03-02T12:00:06Z","user_id":"u1","request_id":"r1","item_id":"A"}]'
MESSAGES = [None, None, b"", b"\n", b"null", b'"click"', LIST, b"\xff\xfe\x00A", GOOD]
REASONS = [
    "null_payload",
    "null_payload",
    "bad_json",
    "bad_json",
    "not_an_object",
    "not_an_object",
    "not_an_object",
    "bad_json",
]


def test_each_message_has_its_reason_and_the_good_one_is_an_event() -> None:
    reading = decode("click", MESSAGES)
    assert reading.reasons == REASONS
    assert [letter.row for letter in reading.rejects] == list(range(8))
    assert reading.column("event_id") == ["c8"]
    assert reading.column("type") == [2]


@pytest.mark.parametrize("cut", range(1, 9))
def test_groups_cut_anywhere_give_the_same(cut: int) -> None:
    first, second = decode("click", MESSAGES[:cut]), decode("click", MESSAGES[cut:])
    assert first.reasons + second.reasons == REASONS
    assert first.column("event_id") + second.column("event_id") == ["c8"]


def test_a_bad_message_last_in_its_group() -> None:
    assert decode("click", [GOOD, b""]).reasons == ["bad_json"]


def test_a_null_stays_null_in_its_dead_letter() -> None:
    null, text = decode("click", [None, b"null"]).rejects
    assert json.loads(to_json(null))["raw"] is None
    assert json.loads(to_json(text))["raw"] == "null"


def test_as_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(b"\n".join([b"", b" ", b"null", b'"click"', LIST, b"\xff\xfe\x00A", GOOD, b""]))
    reading = read_log(path, rows=2)
    assert reading.reasons == ["bad_json", "bad_json", "not_an_object", "not_an_object", "not_an_object", "bad_json"]
    assert [letter.line for letter in reading.rejects] == [1, 2, 3, 4, 5, 6]
    assert reading.column("event_id") == ["c8"]


LINES = [b"", b" ", b"null", b'"click"', LIST, b"\xff\xfe\x00A", GOOD]
LINE_REASONS = ["bad_json", "bad_json", "not_an_object", "not_an_object", "not_an_object", "bad_json"]


@pytest.mark.parametrize("block_rows", [1, 50_000])
def test_in_the_state_the_bad_are_set_aside_and_the_good_one_counts(case: Callable[..., Case], block_rows: int) -> None:
    found = case().write(clicks=LINES).run(block_rows=block_rows)
    assert found.reasons == LINE_REASONS
    assert (found.count("click", "read"), found.count("click", "dead_lettered"), found.count("click", "applied")) == (
        7,
        6,
        1,
    )
    assert found.marks == [7], "the position passes the bad lines, with no further line arriving"


def test_a_bad_line_last_moves_the_position_too(case: Callable[..., Case]) -> None:
    found = case().write(clicks=[GOOD, b"null"]).run()
    assert (found.marks, found.reasons, found.count("click", "applied")) == ([2], ["not_an_object"], 1)


def test_the_exit_status_says_that_something_was_set_aside(
    case: Callable[..., Case], capsys: pytest.CaptureFixture[str]
) -> None:
    made = case().write(clicks=LINES)
    arguments = ["replay", str(made.log), "--state", str(made.state)]
    assert main([*arguments, "--close"]) == 3
    assert "6 rows were dead-lettered (bad_json 3, not_an_object 3)" in capsys.readouterr().err
    assert main([*arguments, "--close", "--allow-dead-letters"]) == 0
