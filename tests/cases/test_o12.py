"""O12: replay speed, the order of files, shuffling within the lateness: one digest of state and labels.

Policies: files of a folder are sorted by name; each is a raw partition, and they are merged by event time. Rows beyond
the lateness are applied late and counted; `validate` fails such a log, `replay --strict` refuses it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cases.funnel_by_hand import HOUR, draw_log
from tests.cases.log_files import BASE, Case
from thalweg.streams import replay as driver
from thalweg.streams.replay import LateRows
from thalweg.streams.validate import validate
from thalweg.streams.verify import verify

ROWS = draw_log()
Labels = list[np.ndarray]


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shuffled inside each hour."""
    draw = random.Random(12)
    return sorted(rows, key=lambda row: ((row["ts"] - BASE) // HOUR, draw.random()))


def reversed_within(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The whole log the wrong way round."""
    return rows[::-1]


def taken(labels: Labels) -> bytes:
    """The labels emitted since the last call, sorted."""
    rows = np.sort(np.concatenate(labels), order=["ts", "rank", "id", "id2", "tie"])
    labels.clear()
    return rows.tobytes()


@pytest.fixture
def sorted_run(case: Callable[..., Case], labels: Labels) -> tuple[Case, bytes]:
    """(i): one sorted file at full speed, with its labels."""
    made = case(time={"lateness": "1h"}).write(events=ROWS)
    found = made.run()
    assert found.trials == 1000 and found.count("click", "attributed") == 80
    assert found.count("purchase", "attributed") == 12 and found.count("return", "reversal") == 2
    return made, taken(labels)


def assert_same(first: tuple[Case, bytes], other: Case, labels: Labels) -> None:
    """Trails and digests of every stage, and the labels."""
    comparison = verify(first[0].state, other.state)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    assert comparison.late == (0, 0)
    assert taken(labels) == first[1]


def test_shuffled_or_split_it_is_one_state(
    case: Callable[..., Case], sorted_run: tuple[Case, bytes], labels: Labels
) -> None:
    """(iii) shuffled inside each hour; (iv) in three files whose names are not in the order of their times."""
    mixed = case(time={"lateness": "1h"}).write(events=shuffled(ROWS))
    mixed.run()
    assert_same(sorted_run, mixed, labels)
    third = len(ROWS) // 3
    split = case(time={"lateness": "1h"}).write(b=ROWS[:third], a=ROWS[third : 2 * third], c=ROWS[2 * third :])
    for path in list(split.log.glob("*.jsonl")):
        path.rename(path.with_suffix(".part"))
    for path in list(split.log.glob("*.part")):
        lines = path.read_text().splitlines()
        path.unlink()
        split.put(f"{path.stem}.csv", as_csv(lines), 0)
    split.run()
    assert_same(sorted_run, split, labels)


def as_csv(lines: list[str]) -> bytes:
    """JSON lines as CSV."""
    import json

    names = ["type", "event_id", "ts", "user_id", "request_id", "item_id", "order_id"]
    rows = [json.loads(line) for line in lines]
    return "\n".join([",".join(names), *(",".join(str(row.get(n, "")) for n in names) for row in rows), ""]).encode()


def test_paced_it_is_the_same(
    case: Callable[..., Case], sorted_run: tuple[Case, bytes], labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(ii): sleeps between blocks, on a clock that runs seven seconds a look, so that every block is a checkpoint."""
    begun, looks = time.monotonic(), [0.0]

    def clock() -> float:
        looks[0] += 7.0
        return begun + looks[0]

    monkeypatch.setattr(driver.time, "monotonic", clock)
    monkeypatch.setattr(driver, "CHECKPOINT_SHARE", 0)
    paced = case(time={"lateness": "1h"}, store={"checkpoint": "1s"}).write(events=ROWS)
    summary = paced.replay(block_rows=120, progress=lambda done, total, ts: time.sleep(0.05))
    assert summary.checkpoints >= 9 and looks[0] > 20
    assert_same(sorted_run, paced, labels)


def late_by_hand(rows: list[dict[str, Any]], lateness: int) -> int:
    """Rows below the greatest time before them minus the lateness."""
    top, late = -(2**62), 0
    for row in rows:
        late += row["ts"] < top - lateness
        top = max(top, row["ts"])
    return late


@pytest.mark.parametrize("lateness", ["1h", "24h"])
def test_reversed_every_late_row_is_counted(case: Callable[..., Case], lateness: str) -> None:
    """(v): the number late is exact, nothing is lost, `validate` fails the log and a strict replay refuses it."""
    hours = int(lateness[:-1])
    expected = late_by_hand(ROWS[::-1], hours * HOUR)
    assert expected > 0
    made = case(time={"lateness": lateness}).write(events=ROWS[::-1])
    report = validate([made.log], made.configuration)
    assert not report.passed
    with pytest.raises(LateRows, match=f"^{expected:,} rows lie more than {'1h' if hours == 1 else '1d'} behind"):
        made.replay(strict=True)
    found = made.run()
    counted = sum(terms["late"] + terms["set_aside"] for name, terms in found.books.items())
    assert counted == expected
    assert found.trials == 1000 and found.count("purchase", "applied") == 12
    assert found.count("return", "set_aside") == 0
