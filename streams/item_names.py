"""Readable names of items: a Parquet file with the columns item_id and name, beside a log or in a state directory.

A converter writes `LOG.names.parquet`; a replay keeps what it finds in `STATE/names.parquet`, so that queries can be
asked and answered by name. Nothing that is learnt depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .configuration import ConfigurationError

FILE = "names.parquet"
SHOWN = 5
"""Candidates that a message lists."""


class ItemNames:
    """Names by item id.

    >>> names = ItemNames({"17": "phone", "18": "case"})
    >>> names.show("17"), names.show("99"), names.find("Case")
    ('phone [17]', '99', '18')
    """

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    @classmethod
    def of_state(cls, state: str | Path) -> ItemNames:
        """The names kept in a state directory; none where it has none."""
        path = Path(state) / FILE
        if not path.exists():
            return cls({})
        table = pq.read_table(path)
        return cls(dict(zip(table["item_id"].to_pylist(), table["name"].to_pylist(), strict=True)))

    def __len__(self) -> int:
        return len(self._names)

    def name(self, item: str) -> str | None:
        """The name of an item id, None where there is none."""
        return self._names.get(item)

    def show(self, item: str) -> str:
        """Name and id, or the id alone."""
        name = self._names.get(item)
        return item if name is None else f"{name} [{item}]"

    def find(self, text: str, weight: Callable[[str], float] | None = None) -> str:
        """The id that `text` means: an id itself, else a name, else part of a name; case does not matter.

        Of several the one of greatest `weight` is taken. Without `weight`, ConfigurationError lists some of them. What
        is like no name is returned as it is: an id that has no name.
        """
        if text in self._names:
            return text
        low = text.casefold()
        found = [item for item, name in self._names.items() if name.casefold() == low]
        found = found or [item for item, name in self._names.items() if low in name.casefold()]
        if len(found) <= 1:
            return found[0] if found else text
        if weight is not None:
            return max(found, key=lambda item: (weight(item), item))
        some = "; ".join(self.show(item) for item in found[:SHOWN])
        raise ConfigurationError(f"{text!r} may be any of {len(found):,} items: {some}; give an item id")


def beside(log: Path) -> Path:
    """Where a log's names lie.

    >>> beside(Path("logs/year.parquet")).name
    'year.names.parquet'
    """
    return log.with_name(f"{log.name.split('.')[0]}.{FILE}")


def keep(logs: Iterable[Path], state: Path) -> int:
    """Put the names that lie beside `logs` into the state directory, over those it has; how many it has then."""
    tables = [pq.read_table(path, columns=["item_id", "name"]) for log in logs if (path := beside(log)).is_file()]
    if not tables:
        return len(ItemNames.of_state(state))
    target = state / FILE
    if target.exists():
        tables.insert(0, pq.read_table(target))
    joined = pa.concat_tables(
        [table.cast(pa.schema({"item_id": pa.string(), "name": pa.string()})) for table in tables]
    )
    rows = joined.append_column("row", pa.array(range(len(joined))))
    last = rows.group_by("item_id").aggregate([("row", "max")])["row_max"]
    kept = joined.take(last.combine_chunks().sort())
    part = target.with_suffix(".part")
    pq.write_table(kept, part)
    part.replace(target)
    return len(kept)
