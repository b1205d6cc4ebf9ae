from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from thalweg.graph_store.embedding import Embedding, EmbeddingError, Manifest, load_manifest, vectors_digest
from thalweg.graph_store.snapshot import BuildSettings, Snapshot


def make(version: int = 1, n: int = 7, d: int = 4, seed: int = 1) -> Embedding:
    draw = np.random.default_rng(seed)
    vectors = [draw.standard_normal((n, d)).astype(np.float32) for _ in range(4)]
    manifest = Manifest(
        version, 1000, "aa" * 16, vectors_digest(*vectors), "svd", "a test", 0.3, d, n, 2, {}, {}, {}
    )  # fmt: skip
    return Embedding(
        manifest, np.arange(1, n + 1).astype(np.uint64), np.ones(n, np.float32), *vectors,
        np.full((n, 10), -1, np.int32), np.array([0, 1], np.int32), np.array([1, 2], np.int32),
        np.ones(2, np.float32), np.ones(n), np.ones(n),
    )  # fmt: skip


def test_what_is_saved_is_loaded_as_memory_maps(tmp_path: Path) -> None:
    version = make()
    version.save(tmp_path / "v1")
    again = Embedding.load(tmp_path / "v1")
    assert again.manifest == version.manifest
    for name in Embedding.ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(version, name)), name
        assert isinstance(getattr(again, name), np.memmap)
        with pytest.raises(ValueError):
            getattr(again, name).reshape(-1)[0] = 1


def test_vectors_have_a_digest_of_their_own(tmp_path: Path) -> None:
    version = make()
    version.save(tmp_path / "v1")
    again = Embedding.load(tmp_path / "v1")
    bits = vectors_digest(again.source, again.target, again.svd_source, again.svd_target)
    assert bits == again.manifest.vectors != make(seed=2).manifest.vectors


def test_a_second_save_changes_nothing_and_leaves_no_draft(tmp_path: Path) -> None:
    make().save(tmp_path / "v1")
    before = (tmp_path / "v1" / "manifest.json").read_bytes()
    make(seed=2).save(tmp_path / "v1")
    assert (tmp_path / "v1" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_a_draft_that_a_kill_left_is_no_version(tmp_path: Path) -> None:
    (tmp_path / "v1.123").mkdir()
    with pytest.raises(EmbeddingError, match="replay"):
        Embedding.load(tmp_path / "v1")
    make().save(tmp_path / "v1")
    assert Embedding.load(tmp_path / "v1").manifest.version == 1


def test_a_newer_format_is_refused_with_the_mend(tmp_path: Path) -> None:
    make().save(tmp_path / "v1")
    newer = msgspec.structs.replace(load_manifest(tmp_path / "v1"), format=99)
    (tmp_path / "v1" / "manifest.json").write_bytes(msgspec.json.encode(newer))
    with pytest.raises(EmbeddingError, match="upgrade"):
        Embedding.load(tmp_path / "v1")


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    make().save(tmp_path / "v1")
    (tmp_path / "v1" / "manifest.json").write_bytes(b"{")
    with pytest.raises(EmbeddingError, match="manifest.json"):
        load_manifest(tmp_path / "v1")


def snapshot(**changed: object) -> Snapshot:
    two = np.array([1.0, 2.0])
    values: dict[str, object] = dict(  # noqa: C408
        version=3, ts=77, settings=BuildSettings(dimensions=4), prior="bb" * 16, items=np.array([5, 6], np.uint64),
        popularity=two, codes=np.zeros((2, 0), np.uint32), out=two, into=two, recent_out=two, recent_into=two,
        source=np.array([0], np.int32), target=np.array([1], np.int32), weight=np.array([1.5], np.float32),
        recent=np.array([1.0], np.float32), last=np.array([70]),
    )  # fmt: skip
    return Snapshot(**{**values, **changed})  # type: ignore[arg-type]


def test_a_snapshot_comes_back_with_the_same_digest(tmp_path: Path) -> None:
    one = snapshot()
    one.save(tmp_path / "s")
    again = Snapshot.load(tmp_path / "s")
    assert again.digest() == one.digest()
    assert (again.version, again.ts, again.prior, again.settings) == (3, 77, "bb" * 16, BuildSettings(dimensions=4))
    assert again.nodes == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 4}, {"ts": 78}, {"prior": None}, {"settings": BuildSettings(dimensions=4, seed=2)},
        {"weight": np.array([1.25], np.float32)}, {"items": np.array([5, 7], np.uint64)}, {"last": np.array([71])},
        {"codes": np.zeros((2, 1), np.uint32)}, {"recent": np.array([2.0], np.float32)},
    ],
)  # fmt: skip
def test_every_part_of_a_snapshot_is_in_its_digest(changed: dict[str, object]) -> None:
    assert snapshot(**changed).digest() != snapshot().digest()
