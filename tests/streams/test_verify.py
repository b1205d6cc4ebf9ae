"""verify: equal states are equal, and the first differing stage and span are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.graph_store.state_store import StateError
from thalweg.streams.verify import Difference, first_difference, verify

TRAIL = st.dictionaries(st.integers(0, 9), st.integers(1, 3))


@given(TRAIL, TRAIL)
def test_first_difference_is_the_least(a: dict[int, int], b: dict[int, int]) -> None:
    """Everything before it agrees, it does not; a boundary that one lacks counts as 0."""
    found = first_difference(a, b)
    if found is None:
        assert a == b
    else:
        assert a.get(found, 0) != b.get(found, 0)
        assert all(a.get(t, 0) == b.get(t, 0) for t in range(found))
    assert found == first_difference(b, a)


def test_a_state_equals_itself(funnel_state: Path) -> None:
    """Trails, digests and books agree; nothing was late."""
    comparison = verify(funnel_state, funnel_state)
    assert comparison.equal and comparison.late == (0, 0) and comparison.boundaries > 100
    assert set(comparison.digests) == {"attribution", "feedback", "copurchase", "calibration"}


def test_no_state_is_an_error(tmp_path: Path, funnel_state: Path) -> None:
    """The message names the folder and the mend."""
    with pytest.raises(StateError, match="no state here; run `thalweg replay"):
        verify(funnel_state, tmp_path)


def test_differences_say_where() -> None:
    """In words: the stage and the span, or that only the end differs."""
    assert str(Difference("feedback", 86_400_000)) == (
        "feedback: differs first in the span of event time that ends 1970-01-02 00:00 UTC"
    )
    assert "the final digests differ" in str(Difference("feedback", None))
