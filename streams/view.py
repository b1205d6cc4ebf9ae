"""An opened state: everything that a query asks, read-only, as of the last commits. `thalweg.open` gives one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..graph_store.hash import hash_text, pair64
from .attribution.emit import pair_many
from .block import Codes
from .configuration import ConfigurationError
from .event import is_guest
from .item_names import ItemNames
from .recommendation import Answer, Recommender
from .related import Neighbours
from .state_directory import StateDirectory


class View:
    """The state in a directory, for questions. A live writer goes on untouched; open again to see later commits.

    Example
    -------
    >>> import thalweg
    >>> with thalweg.open("no such folder") as view:
    ...     view.related("phone")
    Traceback (most recent call last):
    thalweg.graph_store.state_store.StateError: no such folder: no state here; run `thalweg replay LOG --state no such \
folder` first
    """

    def __init__(self, state: str | Path) -> None:
        self.state = StateDirectory(state, read_only=True)
        self.names = ItemNames.of_state(state)
        self.neighbours = Neighbours(self.state.copurchase)
        self._recommender = Recommender(self.state, self.neighbours)

    def find(self, item: str) -> str:
        """The item id that an id or a name means; of several names the most popular item."""
        popularity = self.state.copurchase.graph.popularity()

        def weight(candidate: str) -> float:
            node = self.state.copurchase.graph.node(hash_text(candidate))
            return float(popularity[node]) if node >= 0 else -1.0

        if self.state.copurchase.graph.node(hash_text(item)) >= 0:
            return item
        return self.names.find(item, weight)

    def related(self, item: str, k: int = 10) -> list[dict[str, Any]]:
        """What is bought after `item` (an id or a name), best first: fields of `Neighbour`, with item ids and names.

        ConfigurationError where the state does not know the item.
        """
        found = self.find(item)
        if self.state.copurchase.graph.node(hash_text(found)) < 0:
            raise ConfigurationError(f"item {item!r} is not in the state: no purchase or catalogue row names it")
        out = []
        for neighbour in self.neighbours.of(hash_text(found), k):
            name = self.neighbours.name(neighbour.item)
            out.append({**asdict(neighbour), "item": name, "name": self.names.name(name)})
        return out

    def recommend(
        self,
        user: str | None = None,
        items: Sequence[str] = (),
        context: Mapping[str, str] | None = None,
        k: int = 10,
    ) -> Answer:
        """Up to `k` items with their reasons for a user, or for somebody who just bought `items`; see `Answer`."""
        return self._recommender.recommend(user, [self.find(item) for item in items], context, k)

    def explain(self, user: str | None, item: str, context: Mapping[str, str] | None = None) -> dict[str, Any]:
        """How an item scores for a user: probability, each feature's part of the logit, calibration, and purchases that
        lead to it."""
        found = self.find(item)
        known = 0 if is_guest(user, self.state.configuration) else hash_text(user or "")
        hashed = hash_text(found)
        codes = self._recommender.context_codes(context or {})
        feedback = self.state.feedback
        scores = feedback.score(np.array([known], np.uint64), np.array([hashed], np.uint64), codes[None, :])
        said = self.state.calibration.calibrate(float(scores.logit[0]), float(scores.uncertainty[0]))
        parts = self._parts(known, hashed, codes)
        leads = []
        for seed, bought in self._recommender.recent(known or None):
            for neighbour in self.neighbours.of(seed, 200):
                if neighbour.item == hashed:
                    name = self.neighbours.name(seed)
                    lead = {"because": name, "name": self.names.name(name), "bought": bought}
                    leads.append({**asdict(neighbour), **lead})
        return {
            "user": user, "item": found, "name": self.names.name(found), "score": float(scores.probability[0]),
            "logit": float(scores.logit[0]), "uncertainty": float(scores.uncertainty[0]), "parts": parts,
            "calibrated": said._asdict(), "because": leads,
        }  # fmt: skip

    def _parts(self, user: int, item: int, codes: Codes) -> list[dict[str, Any]]:
        """Each feature's part of the logit, largest first."""
        feedback = self.state.feedback
        known = feedback.item_codes(item)
        catalogue = np.zeros((1, max(1, len(codes))), np.uint32)
        if known is not None:
            catalogue[0, : len(known)] = known
        users, items = np.array([user], np.uint64), np.array([item], np.uint64)
        indices = feedback.space.indices(users, items, codes[None, :], catalogue)[0]
        weights = feedback.store.tables["weights"].data["weight"][indices]
        parts = [{"feature": label, "logit": float(w)} for label, w in zip(feedback.space.labels, weights, strict=True)]
        return sorted(parts, key=lambda part: -abs(part["logit"]))

    def explain_label(self, impression: str, user: str | None = None) -> dict[str, Any]:
        """The life of a label, by the impression's id: what attribution and feedback keep of it.

        One that attribution has let go, but that converted, is found with its user.

        ConfigurationError where no such impression is kept.
        """
        name = hash_text(impression)
        for stage in self.state.attribution:
            rows = stage.impressions()
            labels = pair_many(np.ascontiguousarray(rows["key"]), np.full(len(rows), name, np.uint64))
            for at in np.flatnonzero(labels == rows["label"]).tolist():
                row = rows[at]
                seen = {field: int(row[field]) for field in ("ts", "clicked", "carted", "expired")}
                key = int(row["label"])
                item = self.neighbours.name(int(row["item"]))
                return {
                    "impression": impression, "item": item, "name": self.names.name(item), **seen,
                    "converted": stage.converted(int(row["credit"])), "label": self.state.feedback.label(key),
                }  # fmt: skip
        if user is not None:
            kept = self.state.feedback.label(int(pair64(np.uint64(hash_text(user)), np.uint64(name))))
            if kept is not None:
                return {"impression": impression, "label": kept}
        raise ConfigurationError(
            f"impression {impression!r} is not kept: it was never read, or its window and late span are over"
            + ("" if user else "; a converted one is found with --user")
        )

    def clocks(self) -> dict[str, int]:
        """Each stage's clock, ms."""
        return {stage.name: stage.clock for stage in self.state.stages()}

    def close(self) -> None:
        """Give the folders back."""
        self.state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
