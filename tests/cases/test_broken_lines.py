"""A log with one broken line in a hundred: every good event is processed, every bad one is a dead letter."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.cases.funnel_by_hand import draw_log
from tests.cases.log_files import Case, line_of, look
from thalweg.streams.cli import main
from thalweg.streams.replay import replay
from thalweg.streams.verify import verify


def with_field(line: bytes, field: str, value: Any) -> bytes:
    """The event with one field set; without it for `...`."""
    row = {**json.loads(line), field: value}
    return line_of({name: each for name, each in row.items() if each is not ...})


BREAKS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bad_json": lambda line, draw: line[: draw.randrange(1, len(line) - 1)],
    "bad_json ": lambda line, draw: line + line,
    "bad_json  ": lambda line, draw: line.replace(b'"item', b'"\xff\xfe\x00item', 1),
    "bad_json   ": lambda line, draw: b"",
    "bad_json    ": lambda line, draw: b"\x00\x01\x02 binary \xf0\x28\x8c\x28",
    "bad_json     ": lambda line, draw: line[:-1] + b',"price":NaN}',
    "not_an_object": lambda line, draw: b"[" + line + b"]",
    "not_an_object ": lambda line, draw: b"null",
    "duplicate_key": lambda line, draw: line[:-1] + b',"item_id":"other"}',
    "bad_type": lambda line, draw: with_field(line, "type", "view"),
    "bad_type ": lambda line, draw: with_field(line, "type", ...),
    "reserved_type": lambda line, draw: with_field(line, "type", "forget"),
    "bad_timestamp": lambda line, draw: with_field(line, "ts", "yesterday"),
    "bad_timestamp ": lambda line, draw: with_field(line, "ts", ...),
    "bad_timestamp  ": lambda line, draw: with_field(line, "ts", 253402300799000),
    "bad_id:item_id": lambda line, draw: with_field(line, "item_id", {"id": 17850}),
    "bad_id:user_id": lambda line, draw: with_field(line, "user_id", 17850.5),
    "missing_field:item_id": lambda line, draw: with_field(line, "item_id", " "),
    "missing_field:item_id ": lambda line, draw: with_field(line, "item_id", ...),
    "bad_quantity": lambda line, draw: with_field(with_field(line, "type", "purchase"), "quantity", 0),
    "bad_number:price": lambda line, draw: with_field(with_field(line, "type", "purchase"), "price", "6,795"),
    "bad_number:position": lambda line, draw: with_field(with_field(line, "type", "click"), "position", -1),
}
"""What is done to a line, by the reason that its dead letter must have (blanks apart)."""


def draw_lines() -> list[tuple[bytes, str | None]]:
    """About 20,000 lines, each with the reason for which it must be rejected; None: it is good."""
    draw = random.Random(100)
    good = [line_of({**row, "event_id": f"{row['event_id']}-{k}", "user_id": f"{row['user_id']}-{k}"}) for k in range(19) for row in draw_log(k)]  # fmt: skip # noqa: E501
    good.sort(key=lambda line: json.loads(line)["ts"])
    out: list[tuple[bytes, str | None]] = []
    kinds = list(BREAKS)
    for n, line in enumerate(good):
        out.append((line, None))
        if n % 99 == 0:
            kind = kinds[n // 99 % len(kinds)]
            out.append((BREAKS[kind](line, draw), kind.strip()))
    return out


@pytest.fixture(scope="module")
def lines() -> list[tuple[bytes, str | None]]:
    return draw_lines()


def test_every_good_one_counts_and_every_bad_one_is_kept(
    case: Callable[..., Case], lines: list[tuple[bytes, str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    good = [line for line, reason in lines if reason is None]
    bad = [(n, line, reason) for n, (line, reason) in enumerate(lines) if reason is not None]
    assert len(lines) > 20_000 and 0.009 < len(bad) / len(lines) < 0.011
    clean = case().write(events=good)
    assert clean.run().letters == []
    broken = case().write(events=[line for line, _ in lines])
    summary = broken.replay(block_rows=3_000)
    found = look(broken.state)
    comparison = verify(clean.state, broken.state)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    assert [(letter["row"], letter["reason"]) for letter in found.letters] == [(n, reason) for n, _, reason in bad]
    for letter, (n, line, _) in zip(found.letters, bad, strict=True):
        assert (letter["source"], letter["line"], letter["length"]) == ("events.jsonl", n + 1, len(line))
        assert letter.get("raw") is None or letter["raw"].encode() == line
    assert sum(summary.dead_letters.values()) == len(bad)
    assert summary.dead_letters == {r: sum(reason == r for *_, reason in bad) for r in sorted({r for *_, r in bad})}

    config = broken.folder / "config.toml"
    config.write_text(
        '[time]\nearliest = "2000-01-01T00:00:00Z"\nlatest = "2099-01-01T00:00:00Z"\n[conversion]\nbits = 8\n'
    )
    status = main(
        ["replay", str(broken.log), "--state", str(broken.folder / "cli"), "--config", str(config), "--close"]
    )
    said = capsys.readouterr()
    assert status == 3
    assert f"{len(bad)} rows were dead-lettered (bad_id:item_id " in said.err
    assert f"dead-lettered {len(bad)}; the books balance" in said.out


def test_beside_a_log_lies_what_is_no_log(case: Callable[..., Case]) -> None:
    """A folder's dead letters, names and truth are not read as events; named themselves they are."""
    made = case().write(events=draw_log()[:50])
    for name in ("events.dead_letters.jsonl", "dead_letters.jsonl", "events.names.parquet", "truth.parquet", "events.truth.parquet", "truth.pairs.parquet"):  # fmt: skip # noqa: E501
        made.put(name, b"{}\n", 0)
    assert made.run().letters == []
    other = case()
    summary = replay([made.log / "dead_letters.jsonl"], other.state, other.configuration)
    assert summary.dead_letters == {"bad_type": 1}
