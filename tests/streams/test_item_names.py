"""Names of items: kept by a replay, found whole, in part, or by id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thalweg.streams.configuration import ConfigurationError
from thalweg.streams.item_names import ItemNames, beside, keep

NAMES = {"0017": "Phone", "18": "case for a phone", "19": "case, red", "20": "case, red"}


def write(log: Path, names: dict[str, str]) -> Path:
    pq.write_table(pa.table({"item_id": list(names), "name": list(names.values())}), beside(log))
    return log


def test_an_id_is_itself_whatever_names_say() -> None:
    assert ItemNames({"case": "phone", "17": "case"}).find("case") == "case"


@pytest.mark.parametrize(("text", "item"), [
    ("phone", "0017"), ("PHONE", "0017"), ("for a", "18"), ("0017", "0017"), ("unheard of", "unheard of"),
])  # fmt: skip
def test_a_name_whole_goes_before_a_part_of_it(text: str, item: str) -> None:
    assert ItemNames(NAMES).find(text) == item


def test_of_several_the_weightiest_or_a_message_that_lists_them() -> None:
    names = ItemNames(NAMES)
    assert names.find("case, red", {"19": 1.0, "20": 2.0}.__getitem__) == "20"
    with pytest.raises(ConfigurationError, match=r"2 items: case, red \[19\]; case, red \[20\]; give an item id"):
        names.find("case, red")


def test_a_replay_keeps_the_names_of_its_logs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    assert keep([tmp_path / "none.parquet"], state) == 0 and not list(state.iterdir())
    first = write(tmp_path / "a.parquet", {"1": "one", "2": "two"})
    second = write(tmp_path / "b.jsonl.gz", {"2": "TWO", "3": "three"})
    assert keep([first, second], state) == 3
    assert [ItemNames.of_state(state).name(item) for item in "123"] == ["one", "TWO", "three"]
    assert keep([first], state) == 3, "an older name gives way to the log of this replay"
    assert ItemNames.of_state(state).name("2") == "two"
    assert keep([], state) == 3
    assert [path.name for path in state.iterdir()] == ["names.parquet"]


def test_without_names_ids_are_shown(tmp_path: Path) -> None:
    names = ItemNames.of_state(tmp_path)
    assert len(names) == 0 and names.show("5") == "5" and names.find("5") == "5" and names.name("5") is None
