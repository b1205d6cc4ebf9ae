"""Questions to a state: related, recommend, explain, the life of a label. Nothing is written while they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import thalweg
from thalweg.graph_store.hash import hash_text
from thalweg.streams.configuration import ConfigurationError
from thalweg.streams.recommendation import as_probability
from thalweg.streams.row import Type
from thalweg.streams.view import View


@pytest.fixture(scope="module")
def view(funnel_state: Path) -> Iterator[View]:
    """The small funnel's state, opened."""
    with thalweg.open(funnel_state) as opened:
        yield opened


@pytest.fixture(scope="module")
def buyers(view: View) -> dict[str, list[str]]:
    """Users of the log with the items that the state says they bought lately, newest first."""
    users = {f"user{i}" for i in range(300)}
    names = view.neighbours.name
    found = {user: [names(item) for item, _ in view._recommender.recent(hash_text(user))] for user in users}
    return {user: items for user, items in sorted(found.items()) if items}


def test_related_is_ranked_and_directed(view: View) -> None:
    """Best first, never the item itself, each with its evidence; the two directions are told apart."""
    item = view.neighbours.name(view.neighbours.popular(1)[0])
    found = view.related(item, 10)
    scores = [one["relatedness"] for one in found]
    assert found and scores == sorted(scores, reverse=True)
    assert item not in [one["item"] for one in found] and len({one["item"] for one in found}) == len(found)
    back = {one["item"]: one for one in view.related(found[0]["item"], 200)}
    if item in back:
        assert back[item]["customers"] == pytest.approx(found[0]["reverse"])


def test_an_unknown_item_is_an_error(view: View) -> None:
    """One that names it."""
    with pytest.raises(ConfigurationError, match="'teapot' is not in the state"):
        view.related("teapot")


def test_who_bought_is_served_from_what_was_bought(view: View, buyers: dict[str, list[str]]) -> None:
    """Most users with history get personal candidates, in a log as thin as this; seeds are not offered again."""
    answers = {user: view.recommend(user, k=3) for user in list(buyers)[:60]}
    personal = [answer for answer in answers.values() if answer.items and answer.items[0].reason.rung == "personal"]
    assert len(personal) >= 0.7 * len(answers)
    for user, answer in answers.items():
        assert answer.seeds == buyers[user][:8]
        assert not {one.item for one in answer.items} & set(buyers[user])
        for one in answer.items:
            if one.reason.rung == "personal":
                assert one.reason.because in buyers[user] and one.reason.relatedness > 0


def test_answers_are_ranked_and_cut(view: View, buyers: dict[str, list[str]]) -> None:
    """Kept ones first, and inside a rung by calibrated rate; what stands below its threshold is said in the note."""
    for user in list(buyers)[:20]:
        answer = view.recommend(user, k=8)
        kept = [one.kept for one in answer.items]
        assert kept == sorted(kept, reverse=True)
        for side in (True, False):
            rates = [one.rate for one in answer.items if one.kept is side and one.reason.rung == "personal"]
            assert rates == sorted(rates, reverse=True)
        below = kept.count(False)
        assert answer.note == (f"{below} of {len(kept)} stand below their level's threshold" if below else "")
        assert all(one.low <= one.rate <= one.high for one in answer.items)
        assert len(answer.items) == 8 and answer.request_id != view.recommend(user, k=8).request_id


@pytest.mark.parametrize("user", [None, "", "undefined", "None", "never seen"])
def test_nobody_gets_the_popular(view: View, user: str | None) -> None:
    """A guest, a word for nobody and a stranger: the last rung of the ladder, labelled; no error, no other list."""
    answer = view.recommend(user, k=4)
    assert answer.rung == "popularity" and answer.seeds == [] and len(answer.items) == 4
    assert {one.reason.rung for one in answer.items} == {"popularity"}


def test_items_stand_for_a_user(view: View) -> None:
    """What somebody just bought is enough."""
    item = view.neighbours.name(view.neighbours.popular(1)[0])
    answer = view.recommend(items=[item], k=3)
    assert answer.seeds == [item] and answer.rung == "personal"


def test_context_must_be_declared(view: View) -> None:
    """A name that is not is refused; what is not given is listed."""
    with pytest.raises(ConfigurationError, match="'weather' is no declared context feature"):
        view.recommend("user1", context={"weather": "fine"})
    answer = view.recommend("user1", context={"f00": "v1"}, k=1)
    assert "f00" not in answer.context_missing and "f01" in answer.context_missing


def test_explain_adds_up(view: View, buyers: dict[str, list[str]]) -> None:
    """The parts of the logit sum to it; purchases that lead to the item are the user's."""
    user = next(iter(buyers))
    item = view.recommend(user, k=1).items[0].item
    said = view.explain(user, item)
    assert sum(part["logit"] for part in said["parts"]) == pytest.approx(said["logit"])
    assert {lead["because"] for lead in said["because"]} <= set(buyers[user])


def test_the_life_of_a_label(view: View, funnel_log: Path) -> None:
    """The last impressions of the log are kept; an unknown one is an error that says why."""
    table = pq.read_table(funnel_log, columns=["type", "event_id", "impression_id", "user_id", "ts"])
    at = int(np.flatnonzero(table["type"].to_numpy() == Type.IMPRESSION)[-1])
    name = (table["impression_id"][at].as_py() or table["event_id"][at].as_py(), table["user_id"][at].as_py())
    life = view.explain_label(*name)
    assert life["ts"] == table["ts"][at].as_py() and life["label"] is not None
    with pytest.raises(ConfigurationError, match="'nothing' is not kept"):
        view.explain_label("nothing")


def test_every_stage_tells_its_clock(view: View) -> None:
    """One clock a stage, all at the end of the log."""
    clocks = view.clocks()
    assert set(clocks) == {"attribution", "feedback", "copurchase", "calibration"} and len(set(clocks.values())) == 1


def test_probability_of_a_logit() -> None:
    """None where all or none are kept."""
    assert as_probability(-np.inf) is None and as_probability(0.0) == 0.5
