"""The one feature function: equal to its slow twin, and what the learner and a query see is the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.feedback import indices_of
from thalweg.models.features import FeatureSpace
from thalweg.streams.configuration import from_builtins
from thalweg.streams.feedback import feature_space

CODE = st.integers(0, 2**32 - 1)
ID = st.integers(0, 2**64 - 1)
NAMES = ["a", "b", "c"]
CROSS = st.lists(st.sampled_from([*NAMES, "user_id", "item_id"]), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(ID, ID, st.lists(CODE, min_size=3, max_size=3), st.lists(CODE, min_size=3, max_size=3), st.data())
def test_equals_the_slow_twin(
    user: int, item: int, context: list[int], catalogue: list[int], data: st.DataObject
) -> None:
    configuration = from_builtins(
        {
            "features": [{"name": n, "source": data.draw(st.sampled_from(["context", "item"]))} for n in NAMES],
            "conversion": {
                "bits": data.draw(st.integers(8, 28)),
                "user_feature": data.draw(st.booleans()),
                "item_feature": data.draw(st.booleans()),
                "crosses": data.draw(st.lists(CROSS, max_size=3)),
            },
        }
    )
    space = feature_space(configuration)
    got = space.indices(
        np.array([user], np.uint64), np.array([item], np.uint64), np.array([context], np.uint32),
        np.array([catalogue], np.uint32),
    )  # fmt: skip
    assert got.tolist() == [indices_of(configuration, user, item, context, catalogue)]
    assert len(space.labels) == space.width == got.shape[1]


def test_an_absent_feature_has_an_index_of_its_own() -> None:
    space = FeatureSpace(["a", "b"], ["context", "context"], bits=20)
    one = np.ones(2, np.uint64)
    codes = np.array([[0, 0], [5, 0]], np.uint32)
    indices = space.indices(one, one, codes, codes)
    assert indices[0, 3] != indices[1, 3]
    assert indices[0, 4] == indices[1, 4] != indices[0, 3]  # absent is told apart by column


def test_columns_of_the_other_source_are_not_read() -> None:
    space = FeatureSpace(["a", "b"], ["context", "item"])
    one = np.ones(1, np.uint64)
    context, catalogue = np.array([[1, 2]], np.uint32), np.array([[3, 4]], np.uint32)
    assert (
        space.indices(one, one, context, catalogue)
        == space.indices(one, one, np.array([[1, 9]], np.uint32), np.array([[9, 4]], np.uint32))
    ).all()


def test_indices_spread_over_the_whole_space() -> None:
    space = FeatureSpace([], [], bits=10)
    users = np.arange(1, 20_001, dtype=np.uint64)
    none = np.zeros((len(users), 0), np.uint32)
    index = space.indices(users, users, none, none)[:, 1]
    counts = np.bincount(index, minlength=1024)
    assert index.max() < 1024
    assert ((counts - 20_000 / 1024) ** 2 / (20_000 / 1024)).sum() < 1250  # chi square of 1,023 degrees, 5 sd above


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="'colour', which is not declared"):
        FeatureSpace(["a"], ["context"], crosses=[("a", "colour")])
    with pytest.raises(ValueError, match="one source for each name"):
        FeatureSpace(["a"], [])
    with pytest.raises(ValueError, match="between 1 and 32"):
        FeatureSpace([], [], bits=40)
