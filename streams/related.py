"""What is bought after an item, by name: `graph_store.relatedness` asked for one opened state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph_store.relatedness import Relatedness
from .copurchase import CopurchaseStage


@dataclass(frozen=True)
class Neighbour:
    """One item bought after another.

    Attributes
    ----------
    item : hash
    relatedness : what it is ranked by
    similarity : inner product of the source and the target embedding of the version in service
    evidence : shrunk z of the pair; customers : decayed customers; reverse : customers the other way round
    """

    item: int
    relatedness: float
    similarity: float
    evidence: float
    customers: float
    reverse: float


class Neighbours:
    """The graph of one opened state, laid out for questions.

    Parameters
    ----------
    stage : the co-purchase stage of the state
    """

    def __init__(self, stage: CopurchaseStage) -> None:
        self.stage = stage
        self.embedding = stage.embedding()
        self._relatedness = Relatedness(stage.graph, self.embedding, stage.configuration.graph.evidence)

    def name(self, item: int) -> str:
        """The item's id as it stands in the log; its hash where it was never mentioned."""
        return self.stage.names.get(item) or f"#{item:016x}"

    def of(self, item: int, k: int) -> list[Neighbour]:
        """The `k` items most related to `item` (a hash), best first; ties by item hash.

        Empty where the item is unknown, or too little was bought after it to say anything.
        """
        node = self.stage.graph.node(item)
        found = self._relatedness.related([(item, 1.0)], k) if node >= 0 else []
        return [
            Neighbour(one.item, one.score, one.similarity, one.z, one.customers, self._customers(one.item, node))
            for one in found
            if one.kind == "related"
        ]

    def popular(self, k: int, like: int | None = None) -> list[int]:
        """Hashes of the `k` items of highest decayed popularity; of the category of the item `like`, if given.

        Empty where `like` has no category.
        """
        category = None
        if like is not None:
            category = self.stage.category_of(like)
            if category == 0:
                return []
        return [item for item, _ in self.stage.popular(k, category)]

    def _customers(self, source: int, target: int) -> float:
        others, customers, _ = self._relatedness.row(self.stage.graph.node(source))
        at = np.flatnonzero(others == target)
        return float(customers[at[0]]) if len(at) else 0.0
