"""From journeys to files: the log in arrival order, with jitter, duplicates and late rows; the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .funnel import Progress, feature_names
from .funnel_journey import Effects, Impressions, Journeys
from .funnel_population import I32, I64, Population, stream
from .log_writer import ROW_GROUP, LogWriter, log_schema, numbered, words
from .row import Type

_PREFIX = np.array(["item-", "i", "c", "a", "p", "r"])  # of an event id, by Type


@dataclass(frozen=True)
class Log:
    """What went into the log. `order`: index of each row into impressions followed by effects, in arrival order."""

    order: I64
    written: np.ndarray  # bool, by the same index: the row is in the log
    counts: dict[str, int]
    duplicates: int
    late: int
    conversions: int


def arrivals(population: Population, ts: I64, rows: int) -> tuple[I64, int, int]:
    """Arrival order of the events at `ts`, cut at `rows` rows: (indices into `ts`, copies among them, late ones).

    A row arrives less than L after its time, so that a row before it in the file is never later by L or more.

    >>> from thalweg.streams.funnel import Dials
    >>> population = Population.draw(Dials(duplicates=1.0), 100, seed=1)
    >>> order, copies, late = arrivals(population, np.array([0, 60_000]), 10)
    >>> order.tolist(), copies, late
    ([0, 0, 1, 1], 2, 0)
    """
    d, n = population.dials, len(ts)
    rng = stream(population.seed, "arrivals")
    again = np.flatnonzero(rng.random(n) < d.duplicates)
    index = np.concatenate([np.arange(n), again])
    late = rng.random(len(index)) < d.late
    jitter = rng.random(len(index))
    delay = np.where(late, d.lateness + jitter * (d.late_by - d.lateness), jitter * d.lateness).astype(np.int64)
    order = np.argsort(ts[index] + delay, kind="stable")[:rows]
    return index[order], int((order >= n).sum()), int(late[order].sum())


def write_log(out: Path, population: Population, journeys: Journeys, rows: int, progress: Progress | None) -> Log:
    """Write the item rows and the first `rows` arrivals to `out`, a row group at a time."""
    imp, effects = journeys.impressions, journeys.effects
    order, copies, late = arrivals(population, np.concatenate([imp.ts, effects.ts]), rows)
    table = _Columns(population, imp, effects)
    with LogWriter(out, table.schema) as writer:
        for begin in range(0, len(population.items), ROW_GROUP):
            ranks = np.arange(begin, min(begin + ROW_GROUP, len(population.items)))
            writer.write(table.items(ranks), len(ranks))
        for begin in range(0, len(order), ROW_GROUP):
            if progress is not None:
                progress("writing", begin, len(order))
            index = order[begin : begin + ROW_GROUP]
            writer.write(table.events(index), len(index))
    n = len(imp.ts)
    written = np.zeros(n + len(effects.ts), bool)
    written[order] = True
    types = np.concatenate([np.full(n, Type.IMPRESSION, np.int8), effects.type])[order]
    counts = {kind.name.lower(): int((types == kind).sum()) for kind in Type if kind not in (Type.ITEM, Type.PROGRESS)}
    counts = {"item": len(population.items), **counts}
    earned = (effects.type == Type.PURCHASE) & (effects.impression >= 0) & written[n:]
    return Log(order, written, counts, copies, late, int(earned.sum()))


class _Columns:
    """The canonical columns of any rows of the journeys."""

    def __init__(self, population: Population, imp: Impressions, effects: Effects) -> None:
        self.population, self.imp, self.effects = population, imp, effects
        self.n = len(imp.ts)
        self.names = feature_names(population.dials)
        self.item_ids = numbered("item", population.item_numbers)
        self.user_ids = numbered("user", population.user_numbers)
        self.values = [pa.array([f"v{v}" for v in range(len(p))]) for p in population.values]
        self.schema = log_schema([*self.names, *(("category", "brand") if population.dials.catalogue else ())])

    def items(self, ranks: I64) -> dict[str, Any]:
        """The catalogue rows of `ranks`, a minute before the log starts."""
        population, n = self.population, len(ranks)
        columns = {
            "event_id": pc.binary_join_element_wise("catalogue-", self.item_ids.take(pa.array(ranks)), ""),
            "type": np.full(n, Type.ITEM, np.int8),
            "ts": np.full(n, population.start - 60_000),
            "item_id": words(ranks, self.item_ids),
            "price": population.price[ranks],
            "currency": words(np.zeros(n, np.int32), ["EUR"]),
        }
        if population.dials.catalogue:
            columns["category"] = words(population.category[ranks], population.categories)
            columns["brand"] = words(population.brand[ranks], population.brands)
        return columns

    def events(self, index: I64) -> dict[str, Any]:
        """The rows at `index` (impressions, then effects)."""
        imp, effects, n = self.imp, self.effects, len(index)
        shown = index < self.n
        i, e = index[shown], index[~shown] - self.n

        def joined(impressions: np.ndarray, others: np.ndarray) -> np.ndarray:
            out = np.empty(n, np.result_type(impressions, others))
            out[shown], out[~shown] = impressions, others
            return out

        kind = joined(np.full(len(i), Type.IMPRESSION, np.int8), effects.type[e])
        source = joined(i.astype(np.int32), effects.impression[e])
        naming = joined(np.full(len(i), 3, np.int8), effects.naming[e])
        user = joined(imp.user[i], effects.user[e])
        item = joined(imp.item[i], effects.item[e])
        order = joined(np.full(len(i), -1, np.int32), effects.order[e])
        line = joined(np.full(len(i), -1, np.int32), effects.line[e])
        bought = np.isin(kind, (Type.PURCHASE, Type.RETURN))
        asked = (
            (naming == 1) | (naming == 3) | (user < 0)
        )  # what a guest does meets the impression in the request alone
        request = np.where(asked, np.append(imp.request, np.int32(-1))[source], -1)
        columns = {
            "event_id": pc.binary_join_element_wise(
                pa.array(_PREFIX[kind]), pa.array(joined(i, e)).cast(pa.string()), ""
            ),
            "type": kind,
            "ts": joined(imp.ts[i], effects.ts[e]),
            "user_id": words(user, self.user_ids),
            "item_id": words(item, self.item_ids),
            "impression_id": numbered("i", np.where(naming >= 2, source, -1)),
            "request_id": numbered("q", request),
            "order_id": numbered("o", order),
            "line": numbered("", np.where(order >= 0, line, -1)),
            "position": pa.array(joined(imp.position[i], np.zeros(len(e), np.int32)), mask=~shown),
            "price": pa.array(self.population.price[item], mask=kind != Type.PURCHASE),
            "currency": words(np.where(kind == Type.PURCHASE, 0, -1), ["EUR"]),
            "quantity": pa.array(joined(np.ones(len(i), np.int64), effects.quantity[e]), mask=~bought),
        }
        for name, values, codes in zip(self.names, self.values, imp.codes, strict=True):
            columns[name] = words(joined(codes[i], np.full(len(e), -1, np.int32)), values)
        return columns


def attributed(imp: Impressions, effects: Effects, window: int, written: np.ndarray) -> I32:
    """Purchase lines of the log that belong to each impression by the rule of attribution; int32[impressions].

    A line belongs to the impression it names, else to the latest one of its user and item within the window. Slow and
    plain: it reads the truth, not the log.
    """
    n = len(imp.ts)
    bought = np.flatnonzero((effects.type == Type.PURCHASE) & written[n:])
    cause = effects.impression[bought].copy()
    free = np.flatnonzero(effects.naming[bought] == 0)
    latest: dict[tuple[int, int], list[tuple[int, int]]] = {}
    wanted = {(int(effects.user[k]), int(effects.item[k])) for k in bought[free] if effects.user[k] >= 0}
    shown = np.flatnonzero(written[:n] & np.isin(imp.user, np.array([user for user, _ in wanted], np.int32)))
    for k in shown.tolist():
        key = (int(imp.user[k]), int(imp.item[k]))
        if key in wanted:
            latest.setdefault(key, []).append((int(imp.ts[k]), k))
    for at in free.tolist():
        effect = int(bought[at])
        ts = int(effects.ts[effect])
        within = [
            pair for pair in latest.get((int(effects.user[effect]), int(effects.item[effect])), ())
            if ts - window < pair[0] <= ts
        ]  # fmt: skip
        cause[at] = max(within)[1] if within else -1
    return np.bincount(cause[cause >= 0], minlength=n).astype(np.int32)


def write_truth(truth: Path, population: Population, journeys: Journeys, log: Log) -> Path:
    """Write one row an impression of the log to `truth`, the planted pairs beside it; returns the latter's path."""
    imp, effects, d = journeys.impressions, journeys.effects, population.dials
    n = len(imp.ts)
    k = np.flatnonzero(log.written[:n])
    k = k[np.argsort(imp.ts[k], kind="stable")]
    earned = (effects.type == Type.PURCHASE) & (effects.impression >= 0) & log.written[n:]
    in_log = np.zeros(n, bool)
    in_log[effects.impression[earned]] = True
    kept = imp.p / (imp.p + (1 - imp.p) / d.thin)
    items, users = numbered("item", population.item_numbers), numbered("user", population.user_numbers)
    columns = {
        "impression_id": numbered("i", k.astype(np.int32)),
        "ts": imp.ts[k],
        "user_id": words(imp.user[k], users),
        "item_id": words(imp.item[k], items),
        "p": imp.p[k],
        "p_log": kept[k],
        "converts": imp.converts[k],
        "delay_scale": imp.delay_scale[k],
        "attributed": attributed(imp, effects, int(d.window), log.written)[k],
        "purchase_in_log": in_log[k],
    }
    for name, value in (("delay", imp.delay), ("click_delay", imp.click), ("cart_delay", imp.cart)):
        columns[name] = pa.array(value[k], mask=value[k] < 0)
    pq.write_table(pa.table(columns), truth, row_group_size=ROW_GROUP)
    source, target, one_way = population.pairs.T
    beside = truth.with_suffix(".pairs.parquet")
    sides = {"source": items.take(pa.array(source)), "target": items.take(pa.array(target))}
    pq.write_table(pa.table({**sides, "one_way": one_way.astype(bool)}), beside)
    return beside
