from __future__ import annotations

import numpy as np

from thalweg.graph_store.adjacency import Adjacency
from thalweg.graph_store.decay import Decay
from thalweg.graph_store.relatedness import Relatedness
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.row import DAY, Pairing

from ..reference.copurchases import ONE, make_rows

PHONE, CASE, CHARGER, SOCKS = 11, 12, 13, 14


def graph() -> Adjacency:
    rows = [(k, k, Pairing.PAIR, 1, k, PHONE, CASE, ONE) for k in range(1, 9)]
    rows += [(20 + k, 20 + k, Pairing.PAIR, 1, k, PHONE, CHARGER, ONE) for k in range(1, 4)]
    rows += [(40 + k, 40 + k, Pairing.PAIR, 1, k, SOCKS, SOCKS + 1, ONE) for k in range(1, 30)]
    rows += [(90 + k, 90 + k, Pairing.PURCHASE, 1, k, 0, SOCKS, 0) for k in range(5)]
    rows += [(99, 99, Pairing.PURCHASE, 1, 1, 0, CHARGER, 0)]
    table = make_rows(rows)
    out = Adjacency(StateStore.memory(), Decay(31 * DAY, 180 * DAY), 0)
    out.apply(table, np.zeros((len(table), 0), np.uint32), np.arange(len(table)))
    return out


def test_the_graph_alone_answers_before_the_first_version() -> None:
    answers = Relatedness(graph(), None).related([(PHONE, 1.0)], 4)
    assert [(a.item, a.kind) for a in answers[:3]] == [(CASE, "related"), (CHARGER, "related"), (SOCKS, "popular")]
    assert answers[0].source == PHONE and answers[0].customers == 8.0 and answers[0].z > answers[1].z > 0
    assert answers[0].score == np.float32(0.3) * np.float32(answers[0].z)


def test_the_reverse_is_not_related() -> None:
    answers = Relatedness(graph(), None).related([(CASE, 1.0)], 3)
    assert all(a.kind == "popular" for a in answers)


def test_several_sources_add_up_by_weight() -> None:
    asked = Relatedness(graph(), None)
    both = asked.related([(PHONE, 0.5), (SOCKS, 2.0)], 2)
    assert [a.item for a in both] == [SOCKS + 1, CASE]
    assert [a.source for a in both] == [SOCKS, PHONE]


def test_unknown_items_and_exclusions() -> None:
    asked = Relatedness(graph(), None)
    assert [a.item for a in asked.related([(999, 1.0)], 2)] == [SOCKS, CHARGER]
    assert [a.item for a in asked.related([(PHONE, 1.0)], 1, exclude=[CASE, 4242])] == [CHARGER]
    assert asked.related([], 0) == []
