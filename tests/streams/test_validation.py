"""The rules: one reason a row, the first; guests; whole batches against row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.log_reading import WIDE, decode, read_log
from thalweg.streams.configuration import from_builtins
from thalweg.streams.event import ID_FIELDS, NOBODY, is_nobody
from thalweg.streams.instant import OUTSIDE
from thalweg.streams.time_bounds import configured
from thalweg.streams.validation import Candidate, Rules, without_nobody, word_table

WORDS = st.one_of(
    st.none(),
    st.sampled_from([*NOBODY, "", " ", "\t\n", " null ", "nul", "nullx", "None ", "0", " 0", "u1", "[object", "N"]),
    st.text(max_size=5),
)
ZERO = from_builtins({"attribution": {"keep_user_zero": False}, "time": {"latest": "2099-01-01T00:00:00Z"}})


@given(st.lists(WORDS, max_size=12), st.booleans(), st.booleans(), st.integers(0, 3))
def test_nobody_on_columns_equals_nobody_on_words(words: list[str | None], zero: bool, encode: bool, skip: int) -> None:
    column = pa.array([*["null"] * skip, *words], pa.string()).slice(skip)
    column = column.dictionary_encode() if encode else column
    found = without_nobody(column, word_table((*NOBODY, "0") if zero else NOBODY))
    assert found.to_pylist() == [None if is_nobody(word, zero) else word for word in words]


def candidate(n: int = 1, **changes: Any) -> Candidate:
    """n good clicks, some parts changed."""
    parts = {
        "rows": np.arange(n, dtype=np.int64),
        "types": np.full(n, 2, np.int8),
        "ts": np.full(n, 1_772_452_800_000, np.int64),
        "columns": {"item_id": pa.array(["A"] * n)},
    }
    return Candidate(**{**parts, **changes})


RULES = Rules(WIDE, configured(WIDE), "clicks")


def test_all_good_rows_pass_as_they_are() -> None:
    verdict = RULES.judge(candidate(3))
    assert verdict.kept is None and verdict.findings == []
    assert verdict.events.column("event_id").to_pylist() == ["clicks#0", "clicks#1", "clicks#2"]


def test_no_row_at_all() -> None:
    assert len(RULES.judge(candidate(0)).events) == 0


def test_each_row_has_one_reason_the_first() -> None:
    wrong = {"user_id": np.array([False, True, True, True, True])}
    verdict = RULES.judge(
        candidate(
            5,
            types=np.array([2, 2, 2, -1, -2], np.int8),
            ts=np.array([OUTSIDE, OUTSIDE, 1_772_452_800_000, OUTSIDE, 1_772_452_800_000]),
            columns={"item_id": pa.array(["A", None, None, None, "A"])},
            bad=wrong,
        )
    )
    reasons = {int(at): str(finding.reason) for finding in verdict.findings for at in finding.at}
    assert reasons == {0: "bad_timestamp", 1: "bad_timestamp", 2: "bad_id", 3: "bad_type", 4: "reserved_type"}
    assert sum(len(finding.at) for finding in verdict.findings) == 5


def test_ids_that_are_missing_are_made_and_others_kept() -> None:
    names = pa.array(["x", None, "undefined", ""])
    for column in (names, names.dictionary_encode(), names.cast(pa.large_string())):
        events = RULES.judge(candidate(4, columns={"item_id": pa.array(["A"] * 4), "event_id": column})).events
        assert events.column("event_id").to_pylist() == ["x", "clicks#1", "clicks#2", "clicks#3"]


GUESTS = [
    "",
    '"user_id":null,',
    '"user_id":"",',
    '"user_id":"   ",',
    '"user_id":"undefined",',
    '"user_id":"None",',
    '"user_id":"NaN",',
]


def test_guests_are_guests_and_zero_by_the_setting() -> None:
    lines = [f'{{{guest}"ts":1772452800,"order_id":"g","item_id":"A"}}'.encode() for guest in [*GUESTS, '"user_id":0,']]
    assert decode("purchase", lines).column("user_id") == [None] * 7 + ["0"]
    assert decode("purchase", lines, ZERO).column("user_id") == [None] * 8


def test_zero_is_an_id_everywhere_else() -> None:
    line = b'{"ts":1772452800,"order_id":0,"item_id":0,"request_id":"0"}'
    reading = decode("purchase", [line], ZERO)
    assert [reading.column(name) for name in ("order_id", "item_id", "request_id")] == [["0"], ["0"], ["0"]]


@pytest.mark.parametrize("word", [*NOBODY, "", "  "])
def test_a_word_for_nobody_is_no_id_of_any_kind(word: str) -> None:
    fields = ",".join(f'"{name}":"{word}"' for name in ID_FIELDS if name != "item_id")
    reading = decode("purchase", [f'{{"ts":1772452800,"item_id":"A",{fields}}}'.encode()])
    assert all(reading.column(name) == [None] for name in ID_FIELDS if name not in ("item_id", "event_id"))
    assert reading.column("event_id") == ["purchases#0"]
    missing = decode("purchase", [f'{{"ts":1772452800,"item_id":"{word}"}}'.encode()])
    assert missing.reasons == ["missing_field:item_id"]


def test_a_purchase_without_an_order_is_accepted() -> None:
    assert decode("purchase", [b'{"ts":1772452800,"item_id":"A"}']).rejects == []


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["click", "purchase", "item", "progress", "forget", "what", None, "return"]),
            "ts": st.sampled_from([1772452800, 0, None]),
            "item_id": st.sampled_from(["A", None, "", "null"]),
            "user_id": st.sampled_from(["u", None, "None"]),
            "quantity": st.sampled_from([1, 0, 3, None]),
            "price": st.sampled_from([1.5, -1.0, None, 0.0]),
            "position": st.sampled_from([1, -1, None]),
            "channel": st.sampled_from(["m", "", None]),
        }
    ),
    min_size=1,
    max_size=20,
)
DECLARED = from_builtins({"features": [{"name": "channel"}], "time": {"latest": "2099-01-01T00:00:00Z"}})


@given(rows=ROWS, encode=st.booleans(), cut=st.integers(1, 7))
def test_parquet_and_json_agree_row_by_row(
    rows: list[dict[str, Any]], encode: bool, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import json

    folder = tmp_path_factory.mktemp("log")
    kinds = {"ts": pa.int64(), "quantity": pa.int64(), "price": pa.float64(), "position": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    table = pa.Table.from_pylist(rows, schema=schema)
    if encode:
        table = pa.table(
            {n: c.dictionary_encode() if c.type == pa.string() else c for n, c in zip(schema.names, table.columns)}
        )
    pq.write_table(table, folder / "clicks.parquet", row_group_size=3)
    (folder / "clicks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = read_log(folder / "clicks.parquet", DECLARED, cut), read_log(folder / "clicks.jsonl", DECLARED, cut)
    assert [(letter.row, letter.reason, letter.type) for letter in one.rejects] == [
        (letter.row, letter.reason, letter.type) for letter in other.rejects
    ]
    for left, right in zip(one.events, other.events, strict=True):
        assert left.pop("event_id").removeprefix("clicks.parquet") == right.pop("event_id").removeprefix("clicks.jsonl")
        assert left == right
