"""The funnel holds what its dials promise, and its truth is true of its log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from thalweg.streams.configuration import ConfigurationError, from_builtins, load
from thalweg.streams.funnel import Dials, configuration, feature_names, simulate
from thalweg.streams.funnel_journey import journeys
from thalweg.streams.funnel_population import Population, draw, zipf
from thalweg.streams.funnel_writer import arrivals
from thalweg.streams.row import Type

DAY = 86_400_000


class Made:
    """One simulated log, read back."""

    def __init__(self, folder: Path, events: int = 30_000, seed: int = 3, **dials: Any) -> None:
        self.summary = simulate(folder / "log.parquet", events, seed, folder / "truth.parquet", **dials)
        self.table = pq.read_table(self.summary.out)
        self.type = self.table["type"].to_numpy()
        self.ts = self.table["ts"].to_numpy()
        self.rows = self.table.select(
            [
                "event_id",
                "type",
                "ts",
                "user_id",
                "item_id",
                "impression_id",
                "request_id",
                "order_id",
                "line",
                "quantity",
            ]
        ).to_pylist()
        self.truth = pq.read_table(folder / "truth.parquet")
        self.pairs = pq.read_table(folder / "truth.pairs.parquet").to_pylist()

    def of(self, kind: Type) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["type"] == kind]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("funnel"))


def test_a_seed_is_one_file_and_another_seed_another(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.parquet"
        simulate(out, 2_000, seed, tmp_path / f"{name}.truth.parquet")
        files.append((out.read_bytes(), (tmp_path / f"{name}.truth.parquet").read_bytes()))
    assert files[0] == files[1]
    assert files[0][0] != files[2][0] and files[0][1] != files[2][1]


@pytest.mark.parametrize("events", [1, 7, 100, 3_001])
def test_as_many_rows_as_asked_after_one_an_item(tmp_path: Path, events: int) -> None:
    summary = simulate(tmp_path / "log.parquet", events, 1)
    table = pq.read_table(summary.out)
    assert len(table) == events + summary.rows["item"]
    assert sum(summary.rows.values()) == len(table)
    assert summary.truth is None and not list(tmp_path.glob("*truth*"))


def test_shares_are_near_85_10_3_2(made: Made) -> None:
    n = 30_000
    for name, share in (("impression", 0.85), ("click", 0.1), ("add_to_cart", 0.03), ("purchase", 0.02)):
        assert made.summary.rows[name] / n == pytest.approx(share, rel=0.2)
    assert made.summary.rows["return"] > 0


def test_no_row_is_later_than_lateness(made: Made) -> None:
    behind = np.maximum.accumulate(made.ts) - made.ts
    assert 0 < behind.max() < Dials().lateness


def test_late_rows_are_asked_for_and_counted(tmp_path: Path) -> None:
    made = Made(tmp_path, 5_000, late=0.02)
    behind = np.maximum.accumulate(made.ts) - made.ts
    late = int((behind > Dials().lateness).sum())
    assert 0 < late <= made.summary.late and behind.max() < Dials().late_by
    assert made.summary.late == pytest.approx(100, rel=0.4)


def test_duplicates_are_exact_copies_and_counted(made: Made) -> None:
    rows = Counter(tuple(sorted((k, v) for k, v in row.items() if v is not None)) for row in made.rows)
    ids = Counter((row["type"], row["event_id"]) for row in made.rows)
    assert max(rows.values()) == 2
    assert sum(n - 1 for n in rows.values()) == made.summary.duplicates > 0
    assert len(ids) == len(rows)  # no id with two contents


def test_a_request_shows_an_item_once(made: Made) -> None:
    shown = {row["event_id"]: (row["request_id"], row["item_id"]) for row in made.of(Type.IMPRESSION)}
    assert len(set(shown.values())) == len(shown)
    counts = Counter(item for _, item in shown.values()).most_common()
    assert counts[0][1] > 10 * counts[len(counts) // 2][1] / 2  # Zipf: the head is far above the middle


def test_named_effects_name_an_impression_of_their_user_and_item(made: Made) -> None:
    shown = {row["impression_id"]: row for row in made.of(Type.IMPRESSION)}
    by_request = {(row["request_id"], row["item_id"]) for row in shown.values()}
    named = [row for row in made.rows if row["type"] > Type.IMPRESSION and row["impression_id"]]
    requested = [
        row for row in made.rows if row["type"] in (2, 3, 4) and row["request_id"] and not row["impression_id"]
    ]
    assert len(named) > 9 * len(requested) > 0
    missing = [row for row in named if row["impression_id"] not in shown]
    assert len(missing) < 5  # of the log's end: an effect may arrive before its impression
    for row in named:
        cause = shown.get(row["impression_id"])
        if cause is not None:
            assert (row["user_id"], row["item_id"]) == (cause["user_id"], cause["item_id"])
            assert 0 <= row["ts"] - cause["ts"] < Dials().window
    assert sum((row["request_id"], row["item_id"]) not in by_request for row in requested) < 5


def test_returns_give_back_what_was_bought(made: Made) -> None:
    bought = {(row["order_id"], row["line"]): row for row in made.of(Type.PURCHASE) if row["order_id"]}
    known = [row for row in made.of(Type.RETURN) if row["order_id"]]
    assert known
    for row in known:
        line = bought[row["order_id"], row["line"]]
        assert row["item_id"] == line["item_id"] and row["user_id"] == line["user_id"]
        assert 1 <= row["quantity"] <= line["quantity"]
        assert 0 < row["ts"] - line["ts"] < Dials().return_window


def test_guests_have_requests_and_no_orders_from_impressions(made: Made) -> None:
    guests = [row for row in made.rows if row["user_id"] is None and row["type"] != Type.ITEM]
    assert guests and all(row["request_id"] for row in guests)
    assert all(row["order_id"] is None for row in guests)


def test_the_truth_is_calibrated(tmp_path: Path) -> None:
    made = Made(tmp_path, 120_000, seed=5, base_rate=0.05)
    p, y = made.truth["p"].to_numpy(), made.truth["converts"].to_numpy()
    assert p.mean() == pytest.approx(0.05, rel=0.03)
    order = np.argsort(p)
    for part in np.array_split(order, 10):
        expected, sd = p[part].sum(), np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(y[part].sum() - expected) < 4 * sd


def test_delays_follow_features_and_stage(tmp_path: Path) -> None:
    truth = Made(tmp_path, 120_000, seed=5, base_rate=0.05, window="60d", days=200.0).truth
    some = truth.filter(truth["converts"])
    delay = some["delay"].to_numpy()
    scale = some["delay_scale"].to_numpy()
    stage = (~some["click_delay"].is_null().to_numpy()).astype(int) + ~some["cart_delay"].is_null().to_numpy()
    factor = np.array(Dials().stage_delay)[stage]
    unit = delay / (scale * factor)  # exponential of mean 1 where the window is wide
    for k in range(3):
        assert unit[stage == k].mean() == pytest.approx(1, abs=0.1)
    assert np.log(scale).std() == pytest.approx(Dials().delay_spread, rel=0.1)


def test_signals_say_something_unless_the_dials_say_not(tmp_path: Path) -> None:
    for given, informative in ((0.8, True), (0.118, False)):
        truth = Made(tmp_path, 60_000, base_rate=0.05, click_given_conversion=given, cart_given_conversion=0.035).truth
        clicked = ~truth["click_delay"].is_null().to_numpy()
        converts = truth["converts"].to_numpy()
        assert clicked.mean() == pytest.approx(0.118, rel=0.05)
        assert bool(clicked[converts].mean() > 3 * clicked[~converts].mean()) == informative


def test_signals_come_before_the_conversion(made: Made) -> None:
    some = made.truth.filter(made.truth["converts"])
    for name in ("click_delay", "cart_delay"):
        there = some.filter(pc.is_valid(some[name]))
        assert (there[name].to_numpy() <= there["delay"].to_numpy()).all()


def test_thinning_keeps_positives_and_one_negative_in_ten(tmp_path: Path) -> None:
    truth = Made(tmp_path, 60_000, thin=10.0).truth
    p, p_log, y = (truth[name].to_numpy() for name in ("p", "p_log", "converts"))
    assert y.mean() == pytest.approx(0.0185 * 10 / (1 + 9 * 0.0185), rel=0.06)
    assert p_log == pytest.approx(p / (p + (1 - p) / 10))
    assert p_log.mean() == pytest.approx(y.mean(), rel=0.04)


def test_drift_turns_the_effects_and_none_leaves_them(tmp_path: Path) -> None:
    for drift, moved in ((0.0, False), (1.5, True)):
        dials = Dials.parse({"drift": drift, "features": 1, "item_effect": 0, "user_effect": 0, "cardinalities": [6]})
        imp = journeys(Population.draw(dials, 20_000, 4), 20_000).impressions
        third = len(imp.ts) // 3
        early, late = (
            np.array([imp.p[part][imp.codes[0][part] == v].mean() for v in range(6)])
            for part in (slice(0, third), slice(2 * third, None))
        )
        assert bool(np.abs(np.log(late / early)).max() > 0.3) == moved


def test_attributed_purchases_are_those_of_the_log(tmp_path: Path) -> None:
    named = Made(
        tmp_path, 30_000, named_by_impression=1.0, named_by_request=0.0, pairs=0, symmetric_pairs=0, extra_line=0.0
    )
    assert ((named.truth["attributed"].to_numpy() > 0) == named.truth["purchase_in_log"].to_numpy()).all()


def test_attribution_by_user_and_item_finds_the_latest_within_the_window(tmp_path: Path) -> None:
    made = Made(tmp_path, 20_000, named_by_impression=0.5, named_by_request=0.2, users=60)
    shown = made.of(Type.IMPRESSION)
    expected: Counter[str] = Counter()
    purchases = {row["event_id"]: row for row in made.of(Type.PURCHASE)}.values()
    for row in purchases:
        if row["impression_id"]:
            expected[row["impression_id"]] += 1
        elif row["request_id"]:
            names = {
                s["impression_id"]
                for s in shown
                if (s["request_id"], s["item_id"]) == (row["request_id"], row["item_id"])
            }
            expected.update(names)
        else:
            seen = [
                (s["ts"], int(s["impression_id"][1:]))
                for s in shown
                if (s["user_id"], s["item_id"]) == (row["user_id"], row["item_id"])
                and row["ts"] - Dials().window < s["ts"] <= row["ts"]
            ]
            if seen:
                expected[f"i{max(seen)[1]}"] += 1
    found = {row["impression_id"]: row["attributed"] for row in made.truth.to_pylist() if row["attributed"]}
    missing = {name for name in expected if name not in set(made.truth["impression_id"].to_pylist())}
    assert found == {name: n for name, n in expected.items() if name not in missing}


def test_one_way_pairs_have_a_direction_and_symmetric_ones_none(tmp_path: Path) -> None:
    made = Made(tmp_path, 150_000, seed=2, users=4_000)
    histories: dict[str, list[tuple[int, str, str]]] = {}
    for row in {row["event_id"]: row for row in made.of(Type.PURCHASE) if row["user_id"]}.values():
        histories.setdefault(row["user_id"], []).append((row["ts"], row["item_id"], row["order_id"]))
    counts: Counter[tuple[str, str]] = Counter()
    for lines in histories.values():
        lines.sort()
        counts.update({(u, v) for i, (_, u, o) in enumerate(lines) for _, v, p in lines[i + 1 :] if o != p})
    for one_way in (True, False):
        pairs = [pair for pair in made.pairs if pair["one_way"] is one_way]
        forth = sum(counts[pair["source"], pair["target"]] for pair in pairs)
        back = sum(counts[pair["target"], pair["source"]] for pair in pairs)
        assert len(pairs) == 20
        assert forth > 3 * back if one_way else abs(forth - back) < 4 * np.sqrt(forth + back)


def test_popularity_does_not_tell_a_source_from_its_target() -> None:
    population = Population.draw(Dials(pairs=200, symmetric_pairs=0, items=1000), 1000, 1)
    ahead = (population.pairs[:, 0] < population.pairs[:, 1]).mean()
    assert ahead == pytest.approx(0.5, abs=0.12)


def test_the_configuration_beside_the_log_declares_its_features(made: Made) -> None:
    read = load(made.summary.configuration, {})
    assert read == from_builtins(configuration(Dials()))
    assert [feature.name for feature in read.features] == [*feature_names(Dials()), "category", "brand"]
    assert set(made.table.column_names) >= {feature.name for feature in read.features}
    items = made.table.filter(pc.equal(made.table["type"], 0))
    assert items["category"].null_count == 0 and items["f00"].null_count == len(items)


@pytest.mark.parametrize(
    ("dials", "word"),
    [
        ({"colour": 1}, "colour"),
        ({"base_rate": 2}, "base_rate"),
        ({"window": "soon"}, "soon"),
        ({"start": "yesterday"}, "start"),
        ({"named_by_request": 0.5}, "named_by_request"),
        ({"click_rate": 0.001}, "click_rate"),
        ({"cart_given_conversion": 0.9}, "cart_given_conversion"),
        ({"items": 50}, "items"),
        ({"items": 3, "pairs": 0, "symmetric_pairs": 0}, "slots"),
        ({"late": 0.1, "late_by": "1s"}, "late_by"),
        ({"cardinalities": []}, "cardinalities"),
    ],
)
def test_a_wrong_dial_is_named(tmp_path: Path, dials: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        simulate(tmp_path / "log.parquet", 1_000, 1, **dials)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("events", "seed"), [(0, 1), (10, -1)])
def test_events_and_seed_have_bounds(tmp_path: Path, events: int, seed: int) -> None:
    with pytest.raises(ConfigurationError):
        simulate(tmp_path / "log.parquet", events, seed)


def test_draws_follow_their_probabilities() -> None:
    p = zipf(5, 1.0)
    counts = np.bincount(draw(p, (np.arange(100_000) + 0.5) / 100_000), minlength=5) / 100_000
    assert counts == pytest.approx(p, abs=1e-4)


def test_arrivals_are_cut_at_the_asked_rows() -> None:
    population = Population.draw(Dials(duplicates=0.0), 1_000, 1)
    order, copies, late = arrivals(population, np.arange(500, dtype=np.int64) * 60_000, 300)
    assert order.tolist() == list(range(300)) and copies == late == 0
