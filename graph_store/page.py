"""Pages: how flat arrays are cut for the store, and how the changed ones are found.

A page that differs from what was last written is found by its 128-bit hash, not by a flag that a kernel would have to
set: no kernel can forget one, and a pass over the state runs at memory speed. Sums of these hashes are committed with
the pages: another hash would be another format of the store.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .hash import mix64
from .kernel import kernel

_C1 = np.uint64(0x9E3779B97F4A7C15)
_C2 = np.uint64(0xBF58476D1CE4E5B9)
_S32 = np.uint64(32)


@kernel
def _hash_pages(words, per_page, out):  # type: ignore[no-untyped-def]
    n = words.shape[0]
    for page in range(out.shape[0]):
        a = np.uint64(page + 1) * _C1
        b = a ^ _C2
        c = a + _C2
        d = b + _C1
        i = page * per_page
        end = min(i + per_page, n)
        while i + 4 <= end:
            a = (a ^ words[i]) * _C1
            b = (b ^ words[i + 1]) * _C2
            c = (c ^ words[i + 2]) * _C1
            d = (d ^ words[i + 3]) * _C2
            a ^= a >> _S32
            b ^= b >> _S32
            c ^= c >> _S32
            d ^= d >> _S32
            i += 4
        while i < end:
            a = (a ^ words[i]) * _C1
            a ^= a >> _S32
            i += 1
        out[page, 0] = mix64(a ^ mix64(c))
        out[page, 1] = mix64(b ^ mix64(d ^ a))


def page_hashes(data: bytes | memoryview | npt.NDArray[np.uint8], page: int) -> npt.NDArray[np.uint64]:
    """Hash of each page of `page` bytes (a multiple of 8) of `data`: uint64[pages, 2]. The last page may be short.

    >>> page_hashes(np.zeros(20, np.uint8), 16).shape
    (2, 2)
    """
    flat = np.frombuffer(data, np.uint8)
    if len(flat) % 8:
        flat = np.concatenate([flat, np.zeros(8 - len(flat) % 8, np.uint8)])
    words = flat.view(np.uint64)
    out = np.empty(((len(flat) + page - 1) // page, 2), np.uint64)
    _hash_pages(words, page // 8, out)
    return out
