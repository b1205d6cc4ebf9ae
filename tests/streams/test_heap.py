"""keep_freed_memory: what a block frees serves the next one, and large tables go back."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from thalweg.streams.heap import LARGE, keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_arrays_are_made_again_in_the_same_place() -> None:
    """Below `LARGE` an array of the same size lies where the one before lay."""
    assert keep_freed_memory()
    places = set()
    for _ in range(20):
        array = np.ones(LARGE // 64, np.uint8)
        places.add(array.ctypes.data)
        del array
    assert len(places) < 5
