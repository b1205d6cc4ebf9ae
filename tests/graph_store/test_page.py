"""Page hashes: a changed bit changes the hash of its page and of no other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thalweg.graph_store.page import page_hashes


@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_changed_byte_changes_its_page_alone(data, draw):
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] ^= 1 << draw.draw(st.integers(0, 7))
    differs = (page_hashes(data, 64) != page_hashes(bytes(changed), 64)).all(axis=1)
    assert differs.tolist() == [page == at // 64 for page in range((len(data) + 63) // 64)]


def test_equal_pages_at_two_places_hash_differently():
    """Else a swap of two pages could not be seen."""
    hashes = page_hashes(np.zeros(256, np.uint8), 64)
    assert len(np.unique(hashes, axis=0)) == 4


def test_swapped_words_change_the_hash():
    words = np.arange(1, 9, dtype=np.uint64)
    for i in range(8):
        for j in range(i):
            other = words.copy()
            other[[i, j]] = words[[j, i]]
            assert (page_hashes(words.view(np.uint8), 64) != page_hashes(other.view(np.uint8), 64)).any(), (i, j)


def test_the_hashes_are_part_of_the_format():
    """Sums of them stand in every state that was ever committed."""
    hashes = page_hashes(np.arange(13, dtype=np.uint64).view(np.uint8), 64)
    assert [[f"{half:016x}" for half in page] for page in hashes.tolist()] == [
        ["1ffbda1e20dc2c8f", "f29fee8c46569d41"],
        ["85deacf25a07a0c4", "e3b19cda1163c110"],
    ]


def test_no_data_has_no_pages():
    assert page_hashes(b"", 64).shape == (0, 2)
