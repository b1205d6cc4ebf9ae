from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from thalweg.graph_store.hash import hash_text
from thalweg.graph_store.relatedness import Relatedness
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.block import Block
from thalweg.streams.build import Builds
from thalweg.streams.configuration import Configuration, ConfigurationError, Duration, Feature, Graph
from thalweg.streams.copurchase import CopurchaseStage, builds_folder
from thalweg.streams.row import DAY, Pairing

from ..reference.copurchases import ONE, make_rows, planted_rows

WEEK = Duration.parse("7d")


def small(**graph: object) -> Configuration:
    settings = {
        "refresh": Duration.parse("14d"), "refresh_delay": Duration.parse("1d"), "dimensions": 8, "epochs": 10, **graph,
    }  # fmt: skip
    return Configuration(graph=Graph(**settings))  # type: ignore[arg-type]


def blocks(rows: np.ndarray, features: int = 0, size: int = 10**9, clock: int | None = None) -> list[Block]:
    out = []
    codes = np.zeros((len(rows), features), np.uint32)
    for start in range(0, len(rows), size):
        end = min(len(rows), start + size)
        top = int(rows["ts"][end - 1]) if end < len(rows) else clock or int(rows["ts"][-1]) + 1
        out.append(Block(rows[start:end], codes[start:end], {0: (start, end)}, top))
    return out


def run(stage: CopurchaseStage, parts: list[Block]) -> CopurchaseStage:
    for block in parts:
        stage.process(block, block.ranges[0][1])
    return stage


def memory(configuration: Configuration) -> CopurchaseStage:
    return CopurchaseStage(configuration, StateStore.memory())


def test_the_planted_direction_comes_out_and_never_the_reverse() -> None:
    stage = run(memory(small()), blocks(planted_rows(1, 900, 60)))
    answers = Relatedness(stage.graph, stage.embedding())
    assert stage.embedding() is not None
    for kind in range(6):
        phone, case = 100 + kind, 200 + kind
        after_phone = [a.item for a in answers.related([(phone, 1.0)], 3)]
        after_case = [a.item for a in answers.related([(case, 1.0)], 5) if a.kind == "related"]
        assert after_phone[0] == case
        assert phone not in after_case


def test_versions_serve_from_the_delay_on_and_are_numbered() -> None:
    stage = memory(small())
    rows = planted_rows(2, 300, 60)
    early = rows[rows["ts"] < 14 * DAY]
    run(stage, blocks(early, clock=15 * DAY - 1))
    assert stage.version is None and len(stage._versions.value["pending"]) == 1
    stage.process(Block(rows[:0], np.zeros((0, 0), np.uint32), {0: (len(early), len(early) + 1)}, 15 * DAY), 10**6)
    assert stage.version is not None and stage._versions.value["pending"] == []
    assert stage.manifests()[0].version == 1
    assert stage.manifests()[0].ts == 14 * DAY


def test_the_version_before_is_evaluated_on_the_period_since() -> None:
    stage = run(memory(small()), blocks(planted_rows(3, 900, 60)))
    manifests = stage.manifests()
    assert [m.version for m in manifests] == list(range(1, len(manifests) + 1))
    assert manifests[0].previous == {}
    for m in manifests[1:]:
        assert m.previous["version"] == m.version - 1
        assert m.previous["edges"] >= 4
        assert set(m.previous["hit_rate_10"]) == {"popularity", "count", "latest", "svd", "served", "score"}
        assert m.previous["mrr_10"]["score"] > m.previous["mrr_10"]["popularity"]


def test_nothing_new_no_refresh() -> None:
    stage = memory(small())
    rows = planted_rows(4, 100, 12)
    run(stage, blocks(rows, clock=100 * DAY))
    assert stage.store.counters["refreshes"] == 1
    assert len(stage.manifests()) == 1


def test_trail_and_digest_do_not_depend_on_the_cut() -> None:
    rows = planted_rows(5, 200, 45)
    builds = Builds(None, inline=True)
    one = run(CopurchaseStage(small(), StateStore.memory(), builds=builds), blocks(rows))
    two = run(CopurchaseStage(small(), StateStore.memory(), builds=builds), blocks(rows, size=37))
    assert one.digest() == two.digest()
    assert one.trail() == two.trail()
    assert one.version == two.version


@pytest.mark.parametrize("field", ["weight", "user", "source", "effect_ts"])
def test_one_changed_row_changes_the_digest(field: str) -> None:
    rows = planted_rows(6, 60, 10)
    kind = Pairing.PURCHASE if field == "effect_ts" else Pairing.PAIR
    place = int(np.flatnonzero(rows["kind"] == kind)[5])
    changed = rows.copy()
    changed[field][place] += 1 if field != "weight" else -ONE // 2
    assert run(memory(small()), blocks(rows)).digest() != run(memory(small()), blocks(changed)).digest()


def test_a_checkpoint_in_the_middle_of_a_refresh_recovers(tmp_path: Path) -> None:
    rows = planted_rows(7, 300, 45)
    whole = run(memory(small()), blocks(rows, size=50))
    parts = blocks(rows, size=50)
    path = tmp_path / "state" / "copurchase" / "0"
    middle = next(i for i, block in enumerate(parts) if block.clock > 14 * DAY)
    builds = Builds(tmp_path / "state" / "builds", inline=True)
    stage = CopurchaseStage(small(), StateStore.open(path, "f"), builds=builds)
    run(stage, parts[: middle + 1])
    assert stage._versions.value["pending"]
    stage.checkpoint()
    run(stage, parts[middle + 1 : middle + 2])
    stage.store.close()  # what came after the checkpoint is lost
    again = CopurchaseStage(small(), StateStore.open(path, "f"), builds=builds)
    run(again, parts[middle + 1 :])
    assert again.digest() == whole.digest()
    assert again.trail() == whole.trail()
    again.store.close()


def test_the_builder_is_a_process_and_a_killed_one_is_started_again(tmp_path: Path) -> None:
    rows = planted_rows(8, 300, 20)
    path = tmp_path / "state" / "copurchase" / "0"
    stage = CopurchaseStage(small(), StateStore.open(path, "f"))
    assert stage.builds.folder == builds_folder(stage.store) == tmp_path / "state" / "builds"
    early = rows[rows["ts"] < 14 * DAY]
    run(stage, blocks(early, clock=14 * DAY + 1))
    assert stage._versions.value["pending"]
    stage.builds.close()
    run(stage, [Block(rows[:0], np.zeros((0, 0), np.uint32), {0: (len(early), len(early) + 1)}, 15 * DAY + 1)])
    assert stage.version is not None
    inline = run(memory(small()), blocks(early, clock=15 * DAY + 1))
    assert stage.version == inline.version
    assert not list((tmp_path / "state" / "builds").glob("*-snapshot"))
    stage.store.close()


def test_names_categories_recents_and_popularity() -> None:
    configuration = Configuration(
        features=(Feature("price_band"), Feature("category", source="item")), graph=Graph(category="category")
    )
    stage = memory(configuration)
    tea, cup = hash_text("tea"), hash_text("cup")
    rows = make_rows(
        [(1, 1, Pairing.ITEM, 1, 0, 0, tea, 0)]
        + [(10 + k, 10 + k, Pairing.PURCHASE, 1, 3, 0, (tea, cup, tea)[k], 0) for k in range(3)]
    )
    codes = np.zeros((4, 2), np.uint32)
    codes[0, 1] = 77
    names = (np.array([tea, cup], np.uint64), ["tea", "cup"])
    stage.process(Block(rows, codes, {0: (0, 4)}, 100, names), 4)
    assert stage.names.get(tea) == "tea" and stage.names.get(5) is None
    assert stage.category_of(tea) == 77 and stage.category_of(cup) == 0 and stage.category_of(5) == 0
    assert stage.recent(3) == [(tea, 12), (cup, 11), (tea, 10)]
    assert [item for item, _ in stage.popular(5)] == [tea, cup]
    assert stage.popular(5, category=77) == [(tea, pytest.approx(2.0))]


def test_old_vectors_go_and_manifests_stay() -> None:
    stage = memory(small(refresh=WEEK))
    for block in blocks(planted_rows(9, 400, 80), size=300):
        stage.process(block, block.ranges[0][1])
        stage.checkpoint()
    made = stage.manifests()
    assert len(made) >= 8
    with_vectors = [m.version for m in made if (stage.builds.folder / m.inputs / "source.npy").exists()]
    assert with_vectors[-1] == made[-1].version
    assert len(made) - 5 <= min(with_vectors) <= len(made) - 2
    assert stage.embedding() is not None


def test_wrong_settings_are_refused_with_the_mend() -> None:
    with pytest.raises(ConfigurationError, match="refresh_delay"):
        memory(small(refresh=WEEK, refresh_delay=WEEK))
    with pytest.raises(ConfigurationError, match="half_life"):
        memory(small(half_life=Duration.parse("1d")))


def test_settings_are_part_of_the_inputs() -> None:
    rows = planted_rows(10, 150, 20)
    one = run(memory(small()), blocks(rows))
    two = run(
        memory(msgspec.structs.replace(small(), graph=msgspec.structs.replace(small().graph, seed=2))), blocks(rows)
    )
    assert one.version != two.version


def test_a_reader_sees_the_last_commit_and_its_version(tmp_path: Path) -> None:
    rows = planted_rows(11, 300, 20)
    path = tmp_path / "state" / "copurchase" / "0"
    builds = Builds(tmp_path / "state" / "builds", inline=True)
    writer = run(CopurchaseStage(small(), StateStore.open(path, "f"), builds=builds), blocks(rows))
    writer.checkpoint()
    reader = CopurchaseStage(small(), StateStore.view(path))
    assert reader.digest() == writer.digest()
    assert reader.version == writer.version is not None
    seen, known = reader.embedding(), writer.embedding()
    assert seen is not None and known is not None and np.array_equal(seen.source, known.source)
    answer = Relatedness(reader.graph, seen).related([(101, 1.0)], 1)
    assert [a.item for a in answer] == [201]
    assert reader.recent(5) == writer.recent(5)
    reader.store.close()
    writer.store.close()
