"""The one feature function: user, item, catalogue row and request context to hashed indices.

The learner and `recommend` call the same kernel, so what is served is what was learnt. A feature's index is the top
`bits` bits of a 64-bit hash of its name and value: no dictionary is kept, two features meet in one weight with
probability 2**-bits, and a name seen for the first time needs no growth.

An absent feature (code 0; user 0 is a guest) is a value like any other: it has its own index. That a column is empty
tells something, and every example has the same number of indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.hash import hash_text, mix64, pair64
from thalweg.graph_store.kernel import kernel, lean_kernel
from thalweg.graph_store.prefetch import prefetch

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

INTERCEPT = "intercept"
USER = "user_id"
ITEM = "item_id"


class Plan(NamedTuple):
    """What the kernel needs to know of a feature space.

    Attributes
    ----------
    salts : uint64[2 + F + 1], hash of each field's name: user_id, item_id, declared features; then the intercept's
    from_item : int64[F], 1 where the declared feature comes from the catalogue row, else 0
    outputs : int64[m], fields that give an index themselves (0 user, 1 item, 2 + f declared feature f)
    crosses : int64[c, 2], pairs of fields
    shift : uint64, 64 - bits
    """

    salts: U64
    from_item: I64
    outputs: I64
    crosses: I64
    shift: np.uint64


@lean_kernel
def fill_indices(plan, user, item, context, i, catalogue, j, hashes, out, slot):  # type: ignore[no-untyped-def]
    """Write the indices of one (user, item, context row, catalogue row) to `out[slot]`.

    Parameters
    ----------
    plan : Plan
    user, item : uint64
    context, catalogue : uint32[., F], codes of the declared features; row `i` of the first, row `j` of the second is
        read; j < 0: the item is not in the catalogue, its features are absent
    hashes : uint64[2 + F], scratch
    out : uint32[., >= k]
    """
    shift = plan.shift
    salts = plan.salts
    features = plan.from_item.shape[0]
    hashes[0] = mix64(user ^ salts[0])
    hashes[1] = mix64(item ^ salts[1])
    for f in range(features):
        code = np.uint64(0)
        if plan.from_item[f] == 0:
            code = np.uint64(context[i, f])
        elif j >= 0:
            code = np.uint64(catalogue[j, f])
        hashes[2 + f] = mix64(code ^ salts[2 + f])
    out[slot, 0] = np.uint32(salts[2 + features] >> shift)
    position = 1
    for o in range(plan.outputs.shape[0]):
        out[slot, position] = np.uint32(hashes[plan.outputs[o]] >> shift)
        position += 1
    for c in range(plan.crosses.shape[0]):
        both = pair64(hashes[plan.crosses[c, 0]], hashes[plan.crosses[c, 1]])
        out[slot, position] = np.uint32(both >> shift)
        position += 1


@lean_kernel
def prefetch_weights(plan, user, item, weights):  # type: ignore[no-untyped-def]
    """Fetch the weights of a user and an item that `fill_indices` will soon name: the ones least likely at hand."""
    prefetch(weights, np.int64(mix64(user ^ plan.salts[0]) >> plan.shift))
    prefetch(weights, np.int64(mix64(item ^ plan.salts[1]) >> plan.shift))


@kernel
def _fill_many(plan, users, items, context, catalogue, hashes, out):  # type: ignore[no-untyped-def]
    for i in range(users.shape[0]):
        fill_indices(plan, users[i], items[i], context, i, catalogue, i, hashes, out, i)


class FeatureSpace:
    """The declared features, their crosses and the size of the hashed space.

    Parameters
    ----------
    names : declared features, in the order of their columns
    sources : `"context"` or `"item"` for each
    crosses : pairs of names, or of `"user_id"` and `"item_id"`
    user, item : whether the user and the item are features themselves
    bits : 2**bits weights, 1 to 32

    Attributes
    ----------
    width : int, number k of indices of an example
    labels : list[str], what each of the k positions is
    intercept : int, index of the intercept
    plan : Plan, for kernels

    Raises
    ------
    ValueError : a cross names what is not declared; sources and names differ in number; bits out of range

    >>> space = FeatureSpace(["channel", "brand"], ["context", "item"], crosses=[("item_id", "channel")])
    >>> space.width, space.labels[-1]
    (6, 'item_id x channel')
    >>> one = np.ones(1, np.uint64); codes = np.array([[7, 0]], np.uint32)
    >>> space.indices(one, one, codes, codes).shape
    (1, 6)
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[str],
        crosses: Sequence[tuple[str, str]] = (),
        user: bool = True,
        item: bool = True,
        bits: int = 20,
    ) -> None:
        if len(names) != len(sources):
            raise ValueError(f"{len(names)} feature names and {len(sources)} sources; give one source for each name")
        if not 1 <= bits <= 32:
            raise ValueError(f"bits is {bits}; it must lie between 1 and 32")
        fields = [USER, ITEM, *names]
        for cross in crosses:
            for name in cross:
                if name not in fields:
                    raise ValueError(
                        f"cross {tuple(cross)} names {name!r}, which is not declared; declare it or drop the cross"
                    )
        outputs = [field for field, used in ((0, user), (1, item)) if used] + list(range(2, len(fields)))
        self.features = len(names)
        self.bits = bits
        self.labels = [INTERCEPT, *(fields[o] for o in outputs), *(f"{a} x {b}" for a, b in crosses)]
        self.width = len(self.labels)
        self.intercept = hash_text(INTERCEPT) >> (64 - bits)
        self.plan = Plan(
            np.array([hash_text(name) for name in [*fields, INTERCEPT]], np.uint64),
            np.array([source == "item" for source in sources], np.int64),
            np.array(outputs, np.int64),
            np.array([[fields.index(a), fields.index(b)] for a, b in crosses], np.int64).reshape(-1, 2),
            np.uint64(64 - bits),
        )

    def scratch(self) -> U64:
        """A scratch array for `fill_indices`."""
        return np.zeros(2 + self.features, np.uint64)

    def indices(self, users: U64, items: U64, context: U32, catalogue: U32) -> U32:
        """Indices uint32[n, k] of n examples.

        Parameters
        ----------
        users, items : uint64[n], hashes; 0: none
        context, catalogue : uint32[n, F], codes of the context columns and of the item columns; columns of the other
            source are not read

        >>> space, none = FeatureSpace([], []), np.zeros((1, 0), np.uint32)
        >>> space.indices(np.zeros(1, np.uint64), np.ones(1, np.uint64), none, none).shape
        (1, 3)
        """
        out = np.zeros((len(users), self.width), np.uint32)
        _fill_many(self.plan, users, items, context, catalogue, self.scratch(), out)
        return out
