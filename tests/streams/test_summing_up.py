"""Summing up: the books' sums are checked term by term, and nothing that is no number reaches JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams import summing_up
from thalweg.streams.commands.output import to_json
from thalweg.streams.configuration import Configuration
from thalweg.streams.replay import Summary
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.summing_up import EFFECTS, gaps_in_events, gaps_in_labels

counts = st.integers(0, 2**40)
READ = ("applied", "held", "duplicate", "set_aside", "dead_lettered")
APPLIED = ("attributed", "unattributed", "orphan", "waiting")
LABELS = ("negatives_open", "negatives_retracted", "negatives_confirmed", "negatives_dropped")


def balanced(terms: dict[str, int]) -> dict[str, int]:
    """Terms of one effect with the sums that make them balance."""
    applied = sum(terms[name] for name in APPLIED)
    rest = sum(terms[name] for name in READ if name != "applied")
    return {**terms, "applied": applied, "read": applied + rest}


effects = st.fixed_dictionaries(dict.fromkeys((*READ[1:], *APPLIED), counts)).map(balanced)


@given(effects, st.sampled_from(EFFECTS))
def test_books_that_balance_have_no_gap(terms: dict[str, int], kind: str) -> None:
    assert gaps_in_events({kind: terms}) == []


@given(effects, st.sampled_from(("read", *READ[1:], *APPLIED)), st.integers(1, 1000), st.sampled_from(EFFECTS))
def test_one_row_too_many_anywhere_is_found(terms: dict[str, int], term: str, more: int, kind: str) -> None:
    gaps = gaps_in_events({kind: {**terms, term: terms[term] + more}})
    assert len(gaps) == 1 and gaps[0].startswith(f"{kind}: ")


@given(st.fixed_dictionaries(dict.fromkeys(READ, counts)))
def test_what_is_no_effect_need_not_be_attributed(terms: dict[str, int]) -> None:
    assert gaps_in_events({"impression": {**terms, "read": sum(terms.values())}}) == []


@given(st.fixed_dictionaries(dict.fromkeys(LABELS, counts)), st.integers(0, 3))
def test_labels_balance(terms: dict[str, int], more: int) -> None:
    emitted = sum(terms.values()) + more
    gaps = gaps_in_labels({**terms, "negatives_emitted": emitted})
    assert bool(gaps) == bool(more)
    assert not more or f"{emitted:,}" in gaps[0]


def test_terms_that_are_not_there_are_zero() -> None:
    assert gaps_in_events({"click": {}}) == [] and gaps_in_labels({}) == []


@pytest.mark.parametrize(("value", "shown"), [(0.5, 0.5), (float("nan"), None), (float("-inf"), None), (0.0, 0.0)])
def test_numbers_for_json(value: float, shown: float | None) -> None:
    assert summing_up.number(value) == shown


def test_a_fresh_state_sums_up_to_nothing(tmp_path: Any) -> None:
    with StateDirectory(tmp_path / "state", Configuration()) as state:
        found = summing_up.sum_up(state, Summary("state", []))
        assert found["books"]["balanced"] and found["run"]["clock"] is None
        assert found["prequential"] == {"total": [], "weeks": [], "intervals": []}
        assert found["related"] == {"total": [], "refreshes": []}
        assert found["graph"] == {"items": 0, "edges": 0, "versions": []}
        assert found["calibration"]["epochs"] == [] and found["calibration"]["points"] == []
        assert found["dropped"] == {} and found["dead_letters"] == {}
        assert [each["stage"] for each in found["audit"]] == ["attribution", "feedback", "copurchase", "calibration"]
        assert all(set(each["digest"]) == {"0"} or each["entries"] == 0 for each in found["audit"])
        assert json.loads(to_json(found))["run"]["events"] == 0


def test_what_bounds_dropped_is_named_by_stage(tmp_path: Any) -> None:
    with StateDirectory(tmp_path / "state", Configuration()) as state:
        state.feedback.store.count("items_dropped", 3)
        state.feedback.store.count("impressions", 5)
        assert summing_up.dropped_of(state) == {"feedback: items_dropped": 3}
        (stands,) = [each for each in summing_up.stages_of(state) if each["stage"] == "feedback"]
        assert stands["counters"]["items_dropped"] == 3 and stands["held"] == 0


def test_partitions_add_up(tmp_path: Any) -> None:
    """Two shards: a line a shard where each stands, one book for both."""
    from thalweg.streams.configuration import from_builtins

    with StateDirectory(tmp_path / "state", from_builtins({"partitions": 2})) as state:
        stands = summing_up.stages_of(state)
        assert sorted(each["shard"] for each in stands if each["stage"] == "attribution") == [0, 1]
        books = summing_up.books_of(state)
        assert books["balanced"] and books["events"]["click"]["read"] == 0
        stages = [(each["stage"], each["table"]) for each in summing_up.sizes_of(state)]
        assert len(set(stages)) == len(stages)
