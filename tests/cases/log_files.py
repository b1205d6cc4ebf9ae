"""A case as log files: its rows written out, replayed into a real state directory, and what the state then says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.graph_store.hash import hash_text
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.replay import Summary, replay
from thalweg.streams.row import DAY
from thalweg.streams.state_directory import StateDirectory

Row = Mapping[str, Any]
BASE = 1772452800000
"""2026-03-02T12:00:00Z in ms, the base instant of the cases."""
SMALL: dict[str, dict[str, Any]] = {
    "time": {"lateness": "10s", "earliest": "2000-01-01T00:00:00Z", "latest": "2099-01-01T00:00:00Z"},
    "attribution": {
        "window": "7d", "skew_tolerance": "5s", "orphan_wait": "1d", "late_conversion": "1d", "return_window": "30d",
        "horizon": "30d",
    },
    "conversion": {"bits": 8},
    "calibration": {"score_bins": 8, "uncertainty_bins": 2, "epochs_kept": 200, "levels": 2},
    "graph": {"refresh": "1000w", "refresh_delay": "1d", "dimensions": 2, "epochs": 0},
}  # fmt: skip
"""Windows as DESIGN says, tables as small as they may be, no build in the middle of a case."""
EFFECTS = ("click", "add_to_cart", "purchase", "return")


def small(**sections: Mapping[str, Any]) -> Configuration:
    """`SMALL` with some keys of some sections set otherwise."""
    raw = {name: {**keys, **sections.pop(name, {})} for name, keys in SMALL.items()}
    return from_builtins({**raw, **sections})


def line_of(row: Row | str | bytes) -> bytes:
    """One line of a JSONL file: a row as JSON, text and bytes as they are."""
    if isinstance(row, bytes):
        return row
    return (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)).encode()


@dataclass
class Found:
    """What a state says, as plain data; items stand under their ids.

    Attributes
    ----------
    letters : records of the dead-letter file
    impressions : those remembered: item, ts, clicked, carted, expired, lines (attributed and not returned)
    bought, left : units by item, over the order lines remembered: as bought, and what is not returned
    lines : number of order lines remembered
    purchases : decayed purchases by item
    edges : (earlier item, later item) -> weight, above 0
    users : known users in any table
    histories : purchases kept for queries, over all known users
    trials, positives : sums of the calibration table
    cells : its cells that hold anything: (epoch, cell, trials, positives)
    remembered : live entries of each table of attribution
    """

    books: dict[str, dict[str, int]]
    letters: list[dict[str, Any]]
    labels: dict[str, int]
    impressions: list[dict[str, Any]]
    bought: dict[str, int]
    left: dict[str, int]
    lines: int
    purchases: dict[str, float]
    edges: dict[tuple[str, str], float]
    users: int
    histories: int
    cells: list[tuple[int, int, int, int]]
    marks: list[int]
    clock: int
    remembered: dict[str, int]
    digests: dict[str, int]
    trails: dict[str, dict[int, int]]
    sizes: dict[str, dict[str, int]] = field(repr=False)

    @property
    def reasons(self) -> list[str]:
        """Reason codes of the dead letters, in order of place."""
        return [letter["reason"] for letter in sorted(self.letters, key=lambda x: (x["source"], x["row"]))]

    @property
    def trials(self) -> int:
        return sum(cell[2] for cell in self.cells)

    @property
    def positives(self) -> int:
        return sum(cell[3] for cell in self.cells)

    def clicked(self) -> Counter[str]:
        """Clicked impressions by item."""
        return Counter(one["item"] for one in self.impressions if one["clicked"])

    def shown(self) -> Counter[str]:
        """Impressions remembered by item."""
        return Counter(one["item"] for one in self.impressions)

    def count(self, type_: str, term: str) -> int:
        """One term of the books."""
        return self.books[type_][term]


def look(folder: Path, state: StateDirectory | None = None) -> Found:
    """Read a state directory (with one partition); its books must balance."""
    if state is None:
        with StateDirectory(folder, read_only=True) as opened:
            return look(folder, opened)
    graph = state.copurchase.graph

    def name(item: int) -> str:
        return state.copurchase.names.get(int(item)) or f"#{item:016x}"

    [stage] = state.attribution
    credits = stage._tables.rings["credits"]

    def lines_of(credit: int) -> int:
        return 0 if credit < 0 else int(credits.rows[int(credit) & (len(credits.rows) - 1)]["lines"])

    impressions = [
        {
            "item": name(one["item"]), "ts": int(one["ts"]), "lines": lines_of(one["credit"]),
            **{flag: bool(one[flag]) for flag in ("clicked", "carted", "expired")},
        }
        for one in stage.impressions()
    ]  # fmt: skip
    lines = stage.purchases()
    bought: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for line in lines:
        bought[name(line["item"])] += int(line["quantity"])
        left[name(line["item"])] += int(line["left"])
    hashes = graph.hashes()
    pairs = graph.pairs.entries()
    edges = {
        (name(hashes[pair["source"]]), name(hashes[pair["target"]])): float(weight)
        for pair, weight in zip(pairs, graph.weights(), strict=True)
        if weight != 0
    }
    recents = graph.recents.entries()
    users = {*stage.impressions()["user"].tolist(), *lines["user"].tolist(), *recents["user"].tolist()} - {0}
    letters = folder / "dead_letters.jsonl"
    found = Found(
        books=stage.books(),
        letters=[json.loads(line) for line in letters.read_bytes().splitlines()] if letters.exists() else [],
        labels=state.feedback.books(),
        impressions=impressions,
        bought=dict(bought),
        left=dict(left),
        lines=len(lines),
        purchases={name(item): float(n) for item, n in zip(hashes, graph.popularity(), strict=True)},
        edges=edges,
        users=len(users),
        histories=int((recents["alive"] == 1).sum()),
        cells=[tuple(int(v) for v in cell) for cell in state.calibration.grid.entries()],  # type: ignore[misc]
        marks=[int(mark) for mark in stage.marks if mark],
        clock=stage.clock,
        remembered={name: len(ring) for name, ring in stage._tables.rings.items()},
        digests=state.digests(),
        trails=state.trails(),
        sizes=state.sizes(),
    )
    assert_sound(found)
    assert_finite(state)
    return found


def assert_finite(state: StateDirectory) -> None:
    """No number that the conversion model keeps is infinite or NaN."""

    def check(table: str, values: Any) -> None:
        if isinstance(values, tuple | list):
            for part in values:
                check(table, part)
        elif values.dtype.names is not None:
            check(table, [values[name] for name in values.dtype.names])
        elif values.dtype.kind == "f":
            assert np.isfinite(values).all(), table

    for table, rows in state.feedback.entries():
        if table == "weights":
            check(table, rows)


def assert_sound(found: Found) -> None:
    """The books balance, every dead letter is a row of them, nothing is below zero, no cell passes its trials."""
    aside = 0
    for name, terms in found.books.items():
        if name == "unknown":
            assert terms["read"] == terms["dead_lettered"], terms
            aside += terms["dead_lettered"]
            continue
        assert min(terms.values()) >= 0, (name, terms)
        ends = ("applied", "held", "duplicate", "set_aside", "dead_lettered")
        assert terms["read"] == sum(terms[end] for end in ends), (name, terms)
        aside += terms["dead_lettered"] + terms["set_aside"]
        if name in EFFECTS:
            outcomes = ("attributed", "unattributed", "orphan", "waiting")
            assert terms["applied"] == sum(terms[outcome] for outcome in outcomes), (name, terms)
    assert aside == len(found.letters)
    places = [(letter["source"], letter["row"]) for letter in found.letters]
    assert len(places) == len(set(places))
    assert all(weight > 0 for weight in found.edges.values())
    assert all(0 <= found.left[item] <= units for item, units in found.bought.items())
    assert all(0 <= positives <= trials for _, _, trials, positives in found.cells)
    assert found.trials == found.labels["impressions"]
    assert found.positives == found.labels["conversions"] - found.labels["reversals"]


@dataclass
class Case:
    """A folder of log files and a state; `configuration` is the one of every replay."""

    folder: Path
    configuration: Configuration = field(default_factory=small)
    rows: int = 0

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self, **rows: Iterable[Row | str | bytes]) -> Case:
        """Write `NAME.jsonl` for each keyword: NAME says the type of its rows, or the rows say it themselves."""
        for name, lines in rows.items():
            written = [line_of(line) for line in lines]
            self.put(f"{name}.jsonl", b"\n".join([*written, b""]), len(written))
        return self

    def put(self, name: str, data: bytes, rows: int) -> Path:
        """Write a file as it is, with so many rows."""
        self.log.mkdir(parents=True, exist_ok=True)
        (self.log / name).write_bytes(data)
        self.rows += rows
        return self.log / name

    def replay(self, *names: str, close: bool = True, **options: Any) -> Summary:
        """Replay the files `names`, or all of the folder."""
        logs: Sequence[Path] = [self.log / name for name in names] or [self.log]
        return replay(logs, self.state, self.configuration, close=close, **options)

    def run(self, **options: Any) -> Found:
        """Replay the whole folder; every row that was written is in the books."""
        self.replay(**options)
        found = look(self.state)
        assert sum(terms["read"] for terms in found.books.values()) == self.rows
        return found


def tick(ts: int, name: str = "tick") -> dict[str, Any]:
    """An impression of somebody else, which moves event time on to `ts`."""
    return {
        "type": "impression", "event_id": f"{name}-{ts}", "ts": ts, "user_id": "somebody-else",
        "request_id": f"{name}-{ts}", "item_id": "elsewhere",
    }  # fmt: skip


def days(count: float) -> int:
    """So many days, in ms."""
    return int(count * DAY)


def user_hash(user: str) -> int:
    """How a user stands in the tables."""
    return int(hash_text(user))
