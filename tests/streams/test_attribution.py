"""Attribution equals its slow twin, label by label and pair by pair, whatever the cut, the shards and the restarts."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.attribution import NAMES, PURCHASE, Reference, events_of, mix64
from tests.reference.event_streams import CONFIGURATIONS, FIELDS, START, Stream, event, random_drafts, stream
from tests.reference.event_streams import configuration as configuration_of
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.attribution import AttributionStage
from thalweg.streams.configuration import Configuration
from thalweg.streams.row import DAY, Op, Pairing

DRAFTS = st.lists(st.tuples(*(st.integers(low, high) for low, high in FIELDS.values())), min_size=1, max_size=60)
WHICH = st.sampled_from(CONFIGURATIONS)
EFFECTS = ("click", "add_to_cart", "purchase", "return")

CASES = [
    *(f"{kind} {how}" for kind in ("click", "add_to_cart", "purchase") for how in (
        "found its impression at once by label", "found its impression at once by request",
        "found its impression at once by nothing", "found its impression while waiting by label",
        "found its impression while waiting by request", "found its impression while waiting by nothing",
        "waited in vain: orphan", "waited in vain: unattributed",
    )),
    *(f"late {kind}" for kind in NAMES),
    *(f"{kind}.{book}" for kind in NAMES[:6] for book in ("applied", "duplicate", "conflict")),
    *(f"{kind}.set_aside" for kind in NAMES[1:6]), "progress.applied",
    "return waited in vain: orphan", "return waited in vain: unattributed",
    "return found its line while waiting by order",
    "return found its line while waiting by item", "partial return", "return.over_return", "return.reversal",
    "a return takes from several lines", "returned or forgotten while it waited", "a line returned, another stands",
    "reversed without an impression", "converted again after a reversal", "a second line for one impression",
    "expiry", "click.repeat", "add_to_cart.repeat", "click.late_click", "add_to_cart.late_click",
    "purchase.late_conversion", "purchase.late_label", "purchase.duplicate_order_line",
    "impression.duplicate_impression",
    "attributed to an impression a little later", "named impression, out of reach", "pair", "a pair still stands",
    "pair withdrawn by its later line", "pair withdrawn by its earlier line", "purchase.history_capped",
]  # fmt: skip
"""Every case of the table; the volume test must reach each."""


class Run:
    """A stage and what it has emitted: rows with their codes, as tuples."""

    def __init__(self, configuration: Configuration, store: StateStore | None = None) -> None:
        self.configuration = configuration
        self.stage = AttributionStage(configuration, store or StateStore.memory(), sources=1)
        self.labels: list[tuple[Any, ...]] = []
        self.copurchases: list[tuple[Any, ...]] = []
        self.rejects: list[tuple[int, int, str, str]] = []

    def feed(self, events: Stream, start: int, end: int) -> None:
        """One block; what it emits lies between the clock before and the clock after."""
        before = self.stage.clock
        out = self.stage.process(events.block(start, end), end)
        for topic, rows in (("labels", self.labels), ("copurchases", self.copurchases)):
            block = out[topic]
            assert block.clock == self.stage.clock
            assert bool((block.rows["ts"] >= before).all()) and bool((block.rows["ts"] <= self.stage.clock).all())
            rows += [(*row, *codes) for row, codes in zip(block.rows.tolist(), block.features.tolist(), strict=True)]
        self.rejects += self.stage.take_rejected()

    def feed_cut(self, events: Stream, cuts: Sequence[int] = ()) -> Run:
        """The whole stream, in blocks."""
        ends = [*sorted({min(cut, len(events)) for cut in cuts}), len(events)]
        for start, end in zip([0, *ends], ends):
            self.feed(events, start, end)
        return self

    def outcome(self) -> tuple[Any, ...]:
        """Everything that must not depend on how the rows were delivered."""
        return (
            sorted(self.labels), sorted(self.copurchases), sorted(self.rejects), self.stage.digest(),
            self.stage.trail(), self.stage.books(),
        )  # fmt: skip


def reference(events: Stream, configuration: Configuration) -> Reference:
    slow = Reference(configuration.attribution, events.codes.shape[1])
    for row in events_of(events.rows, events.codes):
        slow.arrive(row)
    slow.advance(int(events.clocks[-1]))
    return slow


def assert_equal(run: Run, slow: Reference) -> None:
    assert sorted(run.labels) == sorted(slow.labels)
    assert sorted(run.copurchases) == sorted(slow.copurchases)
    assert sorted(run.rejects) == sorted(slow.rejects)
    held, waiting = Counter(e["rank"] for e in slow.held), Counter(w["event"]["rank"] for w in slow.waiting)
    for number, name in enumerate(NAMES):
        book = {**slow.books[name], "held": held[number], "waiting": waiting[number]}
        book["dead_lettered"] = book.get("conflict", 0)
        assert {k: v for k, v in run.stage.books()[name].items() if v} == {k: v for k, v in book.items() if v}, name


def assert_sound(run: Run) -> None:
    """The books balance, nothing goes below zero, no two rows have one place in the order."""
    for name, terms in run.stage.books().items():
        book = Counter(terms)
        parts = ("applied", "held", "duplicate", "set_aside", "dead_lettered")
        assert book["read"] == sum(book[part] for part in parts), name
        if name in EFFECTS:
            assert book["applied"] == sum(book[part] for part in ("attributed", "unattributed", "orphan", "waiting"))
    for rows in (run.labels, run.copurchases):
        assert len({row[:5] for row in rows}) == len(rows)
    totals: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in sorted(run.copurchases):
        kind, sign, user, source, target, weight, quantity = row[6:13]
        if kind != Pairing.ITEM:
            totals[user, source, target] += sign * (weight if kind == Pairing.PAIR else quantity)
            assert totals[user, source, target] >= 0
    converted: dict[tuple[int, int], int] = defaultdict(int)
    for row in sorted(run.labels):
        label = row[7], row[8]  # a name may come again once its impression is forgotten
        converted[label] += {Op.CONVERSION: 1, Op.REVERSAL: -1}.get(row[6], 0)
        assert converted[label] in (0, 1)


# ---- the twin


@settings(max_examples=150)
@given(DRAFTS, WHICH, st.booleans())
def test_stage_equals_its_twin(drafts, configuration, close):
    events = stream(drafts, close=close)
    slow = reference(events, configuration)
    for case in slow.cases:
        hypothesis.event(case)
    run = Run(configuration).feed_cut(events)
    assert_equal(run, slow)
    assert_sound(run)


def test_every_case_is_reached_and_equals_the_twin():
    cases: Counter[str] = Counter()
    for seed in range(72):
        configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
        events = stream(random_drafts(seed, 250), in_order=seed % 5 == 4)
        slow = reference(events, configuration)
        cases += slow.cases
        cases += Counter({f"{kind}.{book}": n for kind, terms in slow.books.items() for book, n in terms.items()})
        run = Run(configuration).feed_cut(events, (90, 91, 200))
        assert_equal(run, slow)
        assert_sound(run)
    assert [case for case in CASES if not cases[case]] == []


# ---- late entries that outlive an earlier one


def by_hand(*steps: dict[str, int]) -> Stream:
    """Rows of user 1 and item 0: each says `kind`, `at` and, where it comes late, `clock`, in ms after START."""
    events = stream([tuple(low for low, _ in FIELDS.values())] * len(steps), close=False)
    clock = START - 1000
    for number, step in enumerate(steps):
        draft = {name: low for name, (low, _) in FIELDS.items()} | {"user": 1, "identity": 9} | step
        clock = max(clock, START + step.get("clock", -1000))
        row = {**event({name: draft[name] for name in FIELDS}, number, START + step["at"]), "clock": clock}
        events.rows[number] = np.array(tuple(row.get(name, 0) for name in events.rows.dtype.names), events.rows.dtype)
    events.clocks[:-1], events.clocks[-1] = events.rows["clock"], START + 1000
    return events


def test_a_late_impression_is_found_when_the_one_before_it_is_forgotten():
    """In order of time: 20 (came at 75), 50, 100. At 131 the one of 50 is forgotten; a click of 75 means that of 20."""
    view, click = 1, 8
    events = by_hand(
        {"kind": view, "at": 50}, {"kind": view, "at": 20, "clock": 75}, {"kind": view, "at": 100},
        {"kind": click, "at": 75, "clock": 131},
    )  # fmt: skip
    run = Run(CONFIGURATIONS[0]).feed_cut(events)
    assert_equal(run, reference(events, CONFIGURATIONS[0]))
    assert [row[8] - START for row in run.labels if row[6] == Op.CLICK] == [20]


@pytest.mark.parametrize("order", [0, 1], ids=["by item", "by order"])
@pytest.mark.parametrize("cuts", [(), (4,)])
def test_a_late_order_line_is_found_when_the_one_before_it_is_forgotten(order, cuts):
    """In order of time: 20 (came at 75), 50, 100. At 150 that of 50 is forgotten; returns take those of 100 and 20."""
    buy, give = {"kind": 12, "order": order}, {"kind": 17, "order": order}
    events = by_hand(
        {**buy, "at": 50, "line": 1}, {**buy, "at": 20, "line": 2, "clock": 75}, {**buy, "at": 100},
        {"kind": 12, "item": 1, "at": 141}, {**give, "at": 104, "clock": 150}, {**give, "at": 105, "clock": 150},
    )  # fmt: skip
    run = Run(CONFIGURATIONS[0]).feed_cut(events, cuts)
    assert_equal(run, reference(events, CONFIGURATIONS[0]))
    taken = [row[5] - START for row in run.copurchases if row[6] == Pairing.PURCHASE and row[7] == -1]
    assert taken == [100, 20] and not run.stage.books()["return"]["over_return"]
    if cuts:
        assert_survives_reopening(events, CONFIGURATIONS[0], list(cuts))


def test_of_two_items_last_bought_at_one_time_the_later_line_is_visited_first():
    """Where the newest line of an item is forgotten, the late one behind it takes its place among those of its time."""
    buy = {"kind": 12}
    events = by_hand(
        {**buy, "item": 0, "at": 50}, {**buy, "item": 0, "at": 45, "clock": 75, "line": 1},
        {**buy, "item": 1, "at": 45, "clock": 75}, {**buy, "item": 2, "at": 142, "clock": 100},
        {**buy, "item": 2, "at": 60, "clock": 145},
    )  # fmt: skip
    configuration = configuration_of(history=1, window="60ms", return_window="90ms", horizon="70ms")
    run = Run(configuration).feed_cut(events)
    assert_equal(run, reference(events, configuration))


# ---- cuts, shards, restarts


@settings(max_examples=60)
@given(DRAFTS, WHICH, st.lists(st.integers(0, 60), max_size=12))
def test_any_cut_into_blocks_gives_the_same(drafts, configuration, cuts):
    events = stream(drafts)
    assert Run(configuration).feed_cut(events, cuts).outcome() == Run(configuration).feed_cut(events).outcome()


@settings(max_examples=60)
@given(DRAFTS, WHICH, st.booleans(), st.booleans())
def test_three_shards_give_what_one_gives(drafts, configuration, in_order, close):
    events = stream(drafts, in_order=in_order, close=close)
    one = Run(configuration).feed_cut(events)
    home = np.array([mix64(key) % 3 for key in events.rows["key"].tolist()])
    shards = [Run(configuration).feed_cut(events.only(home == shard), (3, 7)) for shard in range(3)]
    assert sorted(row for run in shards for row in run.labels) == sorted(one.labels)
    assert sorted(row for run in shards for row in run.copurchases) == sorted(one.copurchases)
    assert sum(run.stage.digest() for run in shards) % 2**128 == one.stage.digest()
    trails = [run.stage.trail() for run in shards]
    for boundary, digest in one.stage.trail().items():
        assert sum(trail.get(boundary, 0) for trail in trails) % 2**128 == digest
    for name in NAMES:
        total = Counter[str]()
        for run in shards:
            total.update(run.stage.books()[name])
        assert dict(total) == one.stage.books()[name]
    if in_order:
        assert all(book["late"] + book["set_aside"] == 0 for book in one.stage.books().values())


@settings(max_examples=60)
@given(DRAFTS, WHICH, st.randoms(use_true_random=False))
def test_arrival_in_another_order_changes_nothing_where_no_row_is_late(drafts, configuration, random):
    """Rows within the allowed lateness of each other may be interleaved in any way."""
    events = stream(drafts, in_order=True)
    shuffled = list(range(len(events)))
    random.shuffle(shuffled)
    rows, codes = events.rows[shuffled].copy(), events.codes[shuffled]
    rows["clock"], rows["offset"] = events.clocks[0], np.arange(len(rows))
    other = Stream(rows, codes, np.append(rows["clock"], events.clocks[-1]))
    one, two = Run(configuration).feed_cut(events), Run(configuration).feed_cut(other, (len(rows) // 2,))
    assert sorted(one.copurchases) == sorted(two.copurchases)
    assert sorted(one.labels) == sorted(two.labels)
    assert one.stage.digest() == two.stage.digest() and one.stage.trail() == two.stage.trail()


@settings(max_examples=12)
@given(DRAFTS, WHICH, st.sets(st.integers(0, 60), min_size=1, max_size=3))
def test_checkpoint_and_reopening_change_nothing(drafts, configuration, cuts):
    assert_survives_reopening(stream(drafts), configuration, sorted(cuts))


@pytest.mark.parametrize("seed", range(6))
def test_reopening_a_long_run_changes_nothing(seed):
    configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    assert_survives_reopening(stream(random_drafts(900 + seed, 400)), configuration, [60, 61, 150, 222, 333, 390])


def test_reopening_finds_an_order_beside_lines_without_one():
    """A line without an order must not stand in the way of the first line of one (its link once said "entry 0")."""
    base = {name: low for name, (low, _) in FIELDS.items()} | {"user": 1, "identity": 9, "step": 1}
    bought = {**base, "kind": 12, "order": 1}
    drafts = [bought, {**bought, "order": 0}, {**base, "kind": 17, "order": 1}]
    events = stream(tuple(draft.values()) for draft in drafts)
    events.rows["clock"][2] = events.rows["ts"][2]
    events.clocks[2] = events.rows["ts"][2]
    plain = Run(CONFIGURATIONS[0]).feed_cut(events, (2,))
    assert plain.stage.books()["return"]["attributed"] == 1
    assert_survives_reopening(events, CONFIGURATIONS[0], [2])


def assert_survives_reopening(events: Stream, configuration: Configuration, cuts: list[int]) -> None:
    plain = Run(configuration).feed_cut(events, cuts)
    ends = [*(min(cut, len(events)) for cut in cuts), len(events)]
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore.open(Path(folder) / "s", configuration.fingerprint())
        run = Run(configuration, store)
        for start, end in zip([0, *ends], ends):
            run.feed(events, start, end)
            run.stage.checkpoint()
            store.close()
            before = run.stage.digest(), run.stage.trail(), run.stage.books(), run.stage.clock, run.stage.position
            store = StateStore.open(Path(folder) / "s", configuration.fingerprint())
            run.stage = AttributionStage(configuration, store, sources=1)
            after = run.stage.digest(), run.stage.trail(), run.stage.books(), run.stage.clock, run.stage.position
            assert after == before
        store.close()
    assert run.outcome() == plain.outcome()


# ---- digests, books


def one_of_each() -> Stream:
    """An item, an impression, a click, a cart, two purchases and a return, all of one user, all of them applied."""
    drafts = []
    for kind, item in ((0, 0), (1, 0), (8, 0), (10, 0), (12, 0), (12, 1), (17, 0)):
        values = {name: low for name, (low, _) in FIELDS.items()}
        drafts.append(tuple({**values, "kind": kind, "item": item, "user": 1, "step": 1, "identity": 9}.values()))
    return stream(drafts, close=False)


def test_each_changed_row_changes_the_digest():
    configuration = Configuration(features=CONFIGURATIONS[0].features)
    events = one_of_each()
    events.clocks[-1] = START + 2 * DAY
    digest = Run(configuration).feed_cut(events).stage.digest()
    assert sorted(set(events.rows["rank"].tolist())) == list(range(6))
    for row in range(len(events)):
        for field in ("ts", "id", "item", "tie", "key"):
            if field == "item" and row == 0:
                continue  # the catalogue row: K and its content hash say it
            rows = events.rows.copy()
            rows[field][row] += 1
            if field == "key":
                rows["user"][row] = rows["key"][row]
            changed = Stream(rows, events.codes, events.clocks)
            assert Run(configuration).feed_cut(changed).stage.digest() != digest, (NAMES[rows["rank"][row]], field)


def test_a_changed_row_that_is_still_held_changes_the_digest():
    events = one_of_each()
    configuration = CONFIGURATIONS[0]
    digest = Run(configuration).feed_cut(events).stage.digest()
    rows = events.rows.copy()
    rows["price"][-1] += 1.0
    assert Run(configuration).feed_cut(Stream(rows, events.codes, events.clocks)).stage.digest() != digest
    codes = events.codes.copy()
    codes[-1, 0] += 1
    assert Run(configuration).feed_cut(Stream(events.rows, codes, events.clocks)).stage.digest() != digest


def test_offsets_and_stamps_are_in_no_digest():
    events = one_of_each()
    rows = events.rows.copy()
    rows["offset"] += 5
    other = Run(CONFIGURATIONS[0])
    other.stage.marks[:] = 5
    block = Stream(rows, events.codes, events.clocks).block(0, len(rows))
    block.ranges[0] = (5, 5 + len(rows))
    other.stage.process(block, 5 + len(rows))
    assert other.stage.digest() == Run(CONFIGURATIONS[0]).feed_cut(events).stage.digest()


def test_two_users_with_one_event_id_keep_their_rows_apart():
    """Event ids are matched inside one K; the rows that they cause still have places of their own in the order."""
    drafts = [(12, 0, 0, user, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0) for user in (1, 4)]
    run = Run(CONFIGURATIONS[0]).feed_cut(stream(drafts))
    assert len(run.copurchases) == 2
    assert_sound(run)


def test_what_the_reader_dead_lettered_is_in_the_books():
    run = Run(CONFIGURATIONS[0])
    events = stream(random_drafts(5, 40))
    block = events.block(0, len(events))
    block.rejected.update({("click", "no_item"): 3, ("purchase", "bad_price"): 1, ("", "no_type"): 2})
    run.stage.process(block, len(events))
    books = run.stage.books()
    assert books["click"]["dead_lettered"] == 3 + books["click"]["conflict"]
    assert books["unknown"] == {"read": 2, "dead_lettered": 2}
    assert_sound(run)


def test_a_thousand_pairs_and_labels_in_one_block_grow_the_buffers():
    """One user buys 300 items within the horizon: the output buffers and the ring of pairs must grow midway."""
    configuration = Configuration(features=CONFIGURATIONS[0].features)
    rows = np.concatenate([one_of_each().rows[-3:-2]] * 300)
    numbers = np.arange(300)
    rows["ts"], rows["offset"], rows["order"], rows["rank"] = START + numbers, numbers, 0, PURCHASE
    rows["id"], rows["item"], rows["tie"] = 5000 + numbers, 9000 + numbers, 7000 + numbers
    events = Stream(rows, np.ones((300, 2), np.uint32), np.append(rows["clock"], START + 40 * DAY))
    run = Run(configuration).feed_cut(events)
    history = configuration.attribution.history
    pairs = sum(min(n, history) for n in range(300))
    assert len(run.copurchases) == 300 + pairs
    assert run.stage.books()["purchase"]["history_capped"] == 300 - history - 1
    assert run.outcome() == Run(configuration).feed_cut(events, (1, 130, 131)).outcome()


def test_drafts_can_make_every_kind():
    values = {name: low for name, (low, _) in FIELDS.items()}
    kinds = {event({**values, "kind": kind}, 0, START)["rank"] for kind in range(20)}
    assert kinds == set(range(7))
