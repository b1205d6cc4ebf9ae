"""The co-purchase stage: thalweg.copurchases in, the directed graph and its embedding versions kept.

Rows add up in `thalweg.graph_store.adjacency`. Three opening timers: a generation of the decay begins; refresh k at
k * refresh freezes a snapshot and starts the build of a version; at k * refresh + refresh_delay that version goes into
service, and where it is not ready the stage waits. So which version answers is a function of the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from thalweg.graph_store import fault
from thalweg.graph_store.adjacency import Adjacency, Limits
from thalweg.graph_store.decay import Decay
from thalweg.graph_store.embedding import Embedding, Manifest, load_manifest
from thalweg.graph_store.name_table import NameTable
from thalweg.graph_store.refresh import take_snapshot
from thalweg.graph_store.snapshot import BuildSettings
from thalweg.graph_store.state_store import StateStore, digest_value

from .block import Codes, Rows
from .build import Builds
from .configuration import Configuration, ConfigurationError
from .row import COPURCHASE_ROW
from .stage import Opening, Order, Outputs, Stage

KEPT_VERSIONS = 3
"""Versions behind the one in service whose vectors stay: what a recovery from the checkpoint before can ask for."""


def graph_decay(configuration: Configuration) -> Decay:
    """Generations and half-life: a generation is `customer_period` long, and at least as a purchase can be withdrawn.

    ConfigurationError where the half-life is too short for it.

    >>> graph_decay(Configuration()).period == 31 * 86_400_000
    True
    """
    withdrawn = int(configuration.attribution.return_window) + int(configuration.attribution.orphan_wait)
    try:
        return Decay(max(withdrawn, int(configuration.graph.customer_period)), int(configuration.graph.half_life))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def build_settings(configuration: Configuration) -> BuildSettings:
    """What a build takes from the configuration."""
    g = configuration.graph
    return BuildSettings(g.dimensions, g.max_edges, g.min_weight, g.epochs, g.propagation, g.evidence, g.seed)


def builds_folder(store: StateStore) -> Path | None:
    """STATE/builds for a store in STATE/copurchase/0; None for a store in memory."""
    return None if store.path is None else store.path.parent.parent / "builds"


class CopurchaseStage(Stage):
    """Co-purchases in, a graph and embedding versions kept; see the module.

    `builds` makes the versions; by default in processes of their own, in STATE/builds, and in this process for a store
    in memory.

    >>> stage = CopurchaseStage(Configuration(), StateStore.memory())
    >>> stage.version, len(stage.graph.pairs)
    (None, 0)
    """

    name: ClassVar[str] = "copurchase"
    row_type: ClassVar[np.dtype[Any]] = COPURCHASE_ROW

    def __init__(
        self, configuration: Configuration, store: StateStore, sources: int = 1, builds: Builds | None = None
    ) -> None:
        if configuration.graph.refresh_delay >= configuration.graph.refresh:
            raise ConfigurationError(
                f"graph.refresh_delay = {configuration.graph.refresh_delay} must be below graph.refresh = "
                f"{configuration.graph.refresh}: a version serves before the next is begun"
            )
        super().__init__(configuration, store, sources)
        self.graph = Adjacency(
            store, graph_decay(configuration), len(configuration.features), Limits(pairs=configuration.graph.max_pairs)
        )
        self.names = NameTable(store)
        self.builds = builds if builds is not None else Builds(builds_folder(store), inline=store.path is None)
        self.waited = 0.0
        """Seconds of wall time spent waiting for builds: a metric, in no state."""
        self._versions = store.value("versions", {"pending": [], "serving": [], "made": 0})
        self._rows = store.value("applied", {"rows": 0, "at_refresh": 0})
        self._dropped = store.value("dropped", {"below": 0, "committed": 0})
        self._embedding: Embedding | None = None

    # ---- the frame

    def apply(self, rows: Rows, features: Codes, order: Order, before: int) -> None:
        """Apply the rows to the graph; it has no closing timers."""
        self.graph.apply(rows, features, order)
        self._rows.value["rows"] += len(order)

    def openings(self) -> list[Opening]:
        """A generation begins; a refresh; a version goes into service."""
        graph = self.configuration.graph
        refresh = int(graph.refresh)
        return [
            Opening("generation", graph_decay(self.configuration).period, 2, lambda t: self.graph.rotate(t)),
            Opening("refresh", refresh, 2, self._refresh),
            Opening("serve", refresh, 2, self._serve, offset=int(graph.refresh_delay)),
        ]

    def entries(self) -> Iterator[tuple[str, Rows]]:
        """Pairs, popularity, recents and codes, and for each version the digest of its build's inputs; no vectors."""
        yield from self.graph.entries()
        versions = self._versions.value
        words = [digest_value(kind, versions[kind]) for kind in ("pending", "serving")]
        yield "versions", np.array([[w & (2**64 - 1), w >> 64] for w in words], np.uint64)

    def take(self) -> Outputs:
        """Nothing: this is the end of the chain."""
        return {}

    def mention(self, hashes: npt.NDArray[np.uint64], names: list[str]) -> None:
        """Keep the text of item ids, for answers."""
        self.names.put(hashes, names)

    def save(self) -> None:
        """Let go of vectors that no recovery can ask for: those behind what the commit before had in service."""
        serving = self._versions.value["serving"]
        dropped = self._dropped.value
        for digest in serving[dropped["below"] : max(0, dropped["committed"] - KEPT_VERSIONS)]:
            self.builds.drop_vectors(digest)
        dropped["below"] = max(dropped["below"], dropped["committed"] - KEPT_VERSIONS)
        dropped["committed"] = len(serving)

    # ---- refreshing

    def _refresh(self, boundary: int) -> None:
        """Freeze the graph at `boundary` and start a build, where there is something new."""
        rows, versions = self._rows.value, self._versions.value
        if rows["rows"] == rows["at_refresh"]:
            return
        rows["at_refresh"] = rows["rows"]
        limit = self.configuration.graph.max_pairs
        if len(self.graph.pairs) > limit * 3 // 4:
            self.graph.prune(limit // 2, boundary)
        versions["made"] += 1
        prior = versions["serving"][-1] if versions["serving"] else None
        snapshot = take_snapshot(self.graph, versions["made"], boundary, build_settings(self.configuration), prior)
        versions["pending"].append(self.builds.start(snapshot))
        fault.reach("refresh snapshot")
        self.graph.begin_period(boundary)
        self.store.count("refreshes")

    def _serve(self, boundary: int) -> None:
        """Put the pending version into service at `boundary`; wait for it where it is not ready."""
        versions = self._versions.value
        while versions["pending"]:
            fault.reach("refresh wait")
            digest = versions["pending"].pop(0)
            began = time.monotonic()
            self.builds.wait(digest)
            self.waited += time.monotonic() - began
            versions["serving"].append(digest)
            self._embedding = None

    # ---- for queries and the report

    @property
    def version(self) -> str | None:
        """Digest of the inputs of the version in service; None before the first."""
        serving = self._versions.value["serving"]
        return serving[-1] if serving else None

    def embedding(self) -> Embedding | None:
        """The version in service; None before the first."""
        if self._embedding is None and self.version is not None:
            self._embedding = self.builds.load(self.version)
        return self._embedding

    def manifests(self) -> list[Manifest]:
        """Manifests of all versions that were in service, oldest first."""
        return [load_manifest(self.builds.folder / digest) for digest in self._versions.value["serving"]]

    def category_column(self) -> int | None:
        """Column of the feature that `graph.category` names; None where it names none."""
        names = [feature.name for feature in self.configuration.features]
        category = self.configuration.graph.category
        return None if category is None else names.index(category)

    def recent(self, user: int) -> list[tuple[int, int]]:
        """A user's latest unreturned purchases, newest first: (item hash, time in ms), at most `graph.recents`."""
        return self.graph.recent_purchases(user, self.configuration.graph.recents)

    def popular(self, most: int, category: int | None = None) -> list[tuple[int, float]]:
        """Items by decayed popularity, highest first: (item hash, decayed purchases); of one category code if given."""
        value = self.graph.popularity()
        column = self.category_column()
        if category is not None and column is not None:
            value = np.where(self.graph.item_codes()[:, column] == category, value, -1.0)
        hashes = self.graph.hashes()
        best = np.lexsort((hashes, -value))[:most]
        return [(int(hashes[i]), float(value[i])) for i in best if value[i] > 0]

    def category_of(self, item: int) -> int:
        """Category code of an item's hash; 0 where it has none."""
        node, column = self.graph.node(item), self.category_column()
        return 0 if node < 0 or column is None else int(self.graph.item_codes()[node, column])
