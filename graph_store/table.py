"""Tables of a state store: arrays, rings and growing tables of flat records, and small values.

A kernel works on `rows`, `values`, `ends`, `count` as they are; the store writes the pages that changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Dtype = np.dtype[Any]


def whole(rows: np.ndarray[Any, Dtype]) -> np.ndarray[Any, Dtype]:
    """A view of structured rows as things of so many bytes: numpy copies these at once, the others field by field.

    >>> rows = np.ones(2, np.dtype([("a", "<i8"), ("b", "<u8")]))
    >>> whole(rows)[[1]].view(rows.dtype)["b"].tolist()
    [1]
    """
    return rows.view(f"V{rows.dtype.itemsize}")


class Array:
    """A fixed-size array.

    Attributes
    ----------
    values : array of the dtype and shape asked for, zeros at first
    """

    kind = "array"
    pages = 1  # small pages: writes scatter

    def __init__(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self.name = name
        self.values: np.ndarray[Any, Dtype] = np.zeros(shape, np.dtype(dtype))

    @property
    def data(self) -> np.ndarray[Any, Dtype]:
        """The array that is cut into pages."""
        return self.values

    def describe(self) -> dict[str, Any]:
        """What a reader needs to lay the table out again."""
        return {"kind": self.kind, "dtype": describe_dtype(self.values.dtype), "shape": list(self.values.shape)}

    def restore(self, description: dict[str, Any]) -> None:
        """Take the stored layout; ValueError where it is not this table's."""
        if description["shape"] != list(self.values.shape):
            raise ValueError(
                f"table {self.name} is stored with shape {description['shape']}, wanted {list(self.values.shape)}"
            )


class Ring:
    """Records in order of arrival, the oldest dropped at the tail.

    Attributes
    ----------
    rows : structured array whose length is a power of two; entry number i stands at slot i & (len(rows) - 1)
    ends : int64[2], numbers of the oldest entry and of the next one: entries are ends[0] .. ends[1] - 1

    >>> ring = Ring("open", np.dtype([("ts", "<i8")]))
    >>> ring.reserve(3); ring.rows["ts"][:3] = [5, 6, 7]; ring.ends[1] = 3
    >>> ring.entries()["ts"].tolist()
    [5, 6, 7]
    """

    kind = "ring"
    pages = 16  # large pages: writes follow one another

    def __init__(self, name: str, dtype: npt.DTypeLike, capacity: int = 1024) -> None:
        self.name = name
        self.rows: np.ndarray[Any, Dtype] = np.zeros(_power_of_two(capacity), np.dtype(dtype))
        self.ends = np.zeros(2, np.int64)

    def __len__(self) -> int:
        return int(self.ends[1] - self.ends[0])

    def reserve(self, more: int) -> None:
        """Make room for `more` further entries; may replace `rows`."""
        need = len(self) + int(more)
        if need <= len(self.rows):
            return
        rows = np.zeros(_power_of_two(need), self.rows.dtype)
        numbers = np.arange(self.ends[0], self.ends[1])
        whole(rows)[numbers & (len(rows) - 1)] = whole(self.rows)[numbers & (len(self.rows) - 1)]
        self.rows = rows

    def slices(self) -> list[np.ndarray[Any, Dtype]]:
        """The live entries as at most two views, oldest first."""
        mask = len(self.rows) - 1
        if not len(self):
            return []
        begin, end = int(self.ends[0]) & mask, int(self.ends[1]) & mask
        return [self.rows[begin:end]] if begin < end else [self.rows[begin:], self.rows[:end]]

    def entries(self) -> np.ndarray[Any, Dtype]:
        """A copy of the live entries, oldest first."""
        numbers = np.arange(self.ends[0], self.ends[1])
        return np.asarray(whole(self.rows)[numbers & (len(self.rows) - 1)].view(self.rows.dtype))

    @property
    def data(self) -> np.ndarray[Any, Dtype]:
        """The array that is cut into pages."""
        return self.rows

    def describe(self) -> dict[str, Any]:
        """What a reader needs to lay the table out again."""
        ends = [int(self.ends[0]), int(self.ends[1])]
        return {"kind": self.kind, "dtype": describe_dtype(self.rows.dtype), "shape": [len(self.rows)], "ends": ends}

    def restore(self, description: dict[str, Any]) -> None:
        """Take the stored capacity and ends."""
        self.rows = np.zeros(description["shape"][0], self.rows.dtype)
        self.ends[:] = description["ends"]


class Growing:
    """A dense table of records that only grows; entries are updated in place.

    Attributes
    ----------
    rows : structured array; the first count[0] entries are live
    count : int64[1]

    >>> table = Growing("items", np.dtype([("item", "<u8")]))
    >>> table.reserve(2000); len(table.rows) >= 2000, len(table)
    (True, 0)
    """

    kind = "growing"
    pages = 4

    def __init__(self, name: str, dtype: npt.DTypeLike, capacity: int = 1024) -> None:
        self.name = name
        self.rows: np.ndarray[Any, Dtype] = np.zeros(capacity, np.dtype(dtype))
        self.count = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self.count[0])

    def reserve(self, more: int) -> None:
        """Make room for `more` further entries; may replace `rows`."""
        need = len(self) + int(more)
        if need <= len(self.rows):
            return
        rows = np.zeros(need + need // 4, self.rows.dtype)  # a quarter more: large tables are the bulk of the memory
        whole(rows)[: len(self)] = whole(self.rows)[: len(self)]
        self.rows = rows

    def entries(self) -> np.ndarray[Any, Dtype]:
        """A view of the live entries."""
        return self.rows[: len(self)]

    @property
    def data(self) -> np.ndarray[Any, Dtype]:
        """The array that is cut into pages."""
        return self.rows

    def describe(self) -> dict[str, Any]:
        """What a reader needs to lay the table out again."""
        return {
            "kind": self.kind, "dtype": describe_dtype(self.rows.dtype), "shape": [len(self.rows)], "count": len(self),
        }  # fmt: skip

    def restore(self, description: dict[str, Any]) -> None:
        """Take the stored capacity and count."""
        self.rows = np.zeros(description["shape"][0], self.rows.dtype)
        self.count[0] = description["count"]


class Value:
    """Something small that JSON can say.

    Attributes
    ----------
    value : anything `msgspec.json` encodes
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


Table = Array | Ring | Growing


def _power_of_two(least: int) -> int:
    return 1 << max(4, (int(least) - 1).bit_length())


def describe_dtype(dtype: Dtype) -> str:
    """A dtype as text, equal for equal dtypes."""
    return repr(dtype.descr)
