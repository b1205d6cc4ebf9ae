"""Answers as text: every number of an answer is in its text, and what is not known is not made up."""

from __future__ import annotations

import pytest

from thalweg.streams.commands import queries
from thalweg.streams.item_names import ItemNames
from thalweg.streams.recommendation import Answer, Reason, Recommended

DAY = 86_400_000
NAMES = ItemNames({"17": "phone", "18": "case"})


def offered(reason: Reason, threshold: float | None = 0.2, kept: bool = True) -> Recommended:
    return Recommended(
        item="18", score=0.31, uncertainty=-2.0, rate=0.25, low=0.2, high=0.3, level=1, threshold=threshold, kept=kept,
        reason=reason,
    )  # fmt: skip


def answer(*items: Recommended, version: int | None = 3, reading: int | None = 20_000, note: str = "") -> Answer:
    return Answer(
        request_id="abc", user="u1", rung="personal", items=list(items), version=version,
        clocks={"attribution": 20 * DAY, "feedback": 19 * DAY}, version_ts=None if version is None else 14 * DAY,
        reading=reading, note=note, seeds=["17"],
    )  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [
    (Reason("personal", "17", DAY, 0.5, 0.3, 12.4), "bought phone [17] on 1970-01-02, as 12 others did"),
    (Reason("personal", "17", DAY, 0.5, 0.0, 0.0), "bought phone [17] on 1970-01-02"),
    (Reason("personal", "99", None, 0.5, 0.0, 1.2), "bought 99"),
    (Reason("category", "17", DAY), "popular beside phone [17], bought on 1970-01-02"),
    (Reason("category", "17", None), "popular beside phone [17], bought"),
    (Reason("popularity"), "popular"),
])  # fmt: skip
def test_reasons_are_sentences(reason: Reason, text: str) -> None:
    assert queries.reason_text(reason, NAMES) == text


def test_an_answer_shows_rate_interval_and_threshold() -> None:
    head, line = queries.recommended_table(answer(offered(Reason("popularity"))), NAMES).splitlines()
    assert head.split() == ["item", "rate", "90", "%", "interval", "score", "level", "threshold", "reason"]
    assert line.split() == ["1", "case", "[18]", "0.2500", "0.2000", "to", "0.3000", "0.3100", "1", "0.2000", "popular"]


def test_no_threshold_is_left_blank() -> None:
    line = queries.recommended_table(answer(offered(Reason("popularity"), None)), NAMES).splitlines()[1]
    assert line.split() == ["1", "case", "[18]", "0.2500", "0.2000", "to", "0.3000", "0.3100", "1", "popular"]


def test_an_empty_answer_is_a_heading() -> None:
    assert len(queries.recommended_table(answer(), NAMES).splitlines()) == 1


def test_what_an_answer_stands_on() -> None:
    (line,) = queries.standing(answer())
    assert line == "request abc, state of 1970-01-20T00:00:00Z, embeddings 3 of 1970-01-15, reading of epoch 20000"
    line, note = queries.standing(answer(version=None, reading=None, note="nothing passes"))
    assert "embeddings none yet, reading none yet" in line and note == "nothing passes"


@pytest.mark.parametrize(("words", "found"), [
    (None, {}), ([], {}), (["a=b"], {"a": "b"}), (["a = b ", "c=d=e"], {"a": "b", "c": "d=e"}), (["a="], {"a": ""}),
])  # fmt: skip
def test_context_words(words: list[str] | None, found: dict[str, str]) -> None:
    assert queries.pairs(words) == found


def test_related_shows_both_directions() -> None:
    found = [
        {"item": "18", "relatedness": 0.9, "similarity": 0.8, "evidence": 0.7, "customers": 40.0, "reverse": 2.0},
        {"item": "77", "relatedness": 0.1, "similarity": 0.1, "evidence": 0.0, "customers": 0.0, "reverse": 0.0},
    ]
    lines = queries.related_table(found, NAMES).splitlines()
    assert lines[1].split() == ["case", "[18]", "0.9000", "0.8000", "0.7000", "40.0000", "2.0000"]
    assert lines[2].split()[0] == "77"
    assert queries.related_table([], NAMES).split()[0] == "item"


def explanation(threshold: float, because: list[dict[str, object]]) -> dict[str, object]:
    said = {"rate": 0.2, "low": 0.1, "high": 0.3, "level": 2, "threshold": threshold, "kept": True}
    parts = [{"feature": "intercept", "logit": -1.5}, {"feature": "brand", "logit": 0.25}]
    return {
        "user": None, "item": "18", "name": "case", "score": 0.22, "logit": -1.25, "uncertainty": -3.0,
        "parts": parts, "calibrated": said, "because": because,
    }  # fmt: skip


def test_an_explanation_has_its_parts() -> None:
    lead = {"because": "17", "name": "phone", "bought": DAY, "relatedness": 0.5, "customers": 3.0}
    text = queries.explanation_text(explanation(0.0, [lead]), NAMES)
    assert text.startswith("case [18] for a guest\nscore 0.2200 (logit -1.250), uncertainty -3.000: level 2")
    assert "threshold 0.5000 of this level: kept" in text
    assert "intercept  -1.500" in text and "brand      +0.250" in text
    assert "phone [17]  1970-01-02" in text


@pytest.mark.parametrize("threshold", [float("inf"), float("-inf")])
def test_an_open_or_shut_cut_is_no_number(threshold: float) -> None:
    text = queries.explanation_text(explanation(threshold, []), NAMES)
    assert "no threshold" in text and "inf" not in text and "after" not in text


def test_a_label_is_told_fact_by_fact() -> None:
    found = {
        "impression": "v1", "item": "18", "name": "case", "ts": DAY, "clicked": 1, "carted": 0, "expired": 0,
        "converted": True, "label": {"prediction": 0.02, "stage": 1, "flags": ["SEEN", "CONVERTED"]},
    }  # fmt: skip
    lines = dict(line.split(None, 1) for line in queries.label_text(found).splitlines())
    assert lines["impression"] == "v1" and lines["ts"] == "1970-01-02T00:00:00Z"
    assert lines["converted"] == "yes" and lines["prediction"] == "0.0200" and lines["flags"] == "SEEN, CONVERTED"
