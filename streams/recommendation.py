"""The query path: what to recommend to whom, from a read-only state, each answer with its reason.

Candidates come from what the user just bought (rows that the merge still holds included): the nearest target
embeddings of each purchase's source embedding, with the raw co-purchase evidence beside them. The conversion model
scores them with the one feature function; the calibration reading turns the score into a rate with an interval; one
cut on that rate, which is one threshold per uncertainty level, says which are kept. Whoever the state knows little
about is served by a declared ladder: personal -> category -> popularity; every row says on which rung it stands.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph_store.hash import hash_text
from .configuration import ConfigurationError
from .event import is_guest
from .intake import category_code, numeric_code
from .related import Neighbour, Neighbours
from .state_directory import StateDirectory

SEEDS = 8
"""Latest purchases that candidates are drawn from."""
NEIGHBOURS = 30
"""Candidates a purchase."""

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Reason:
    """Why an item is a candidate.

    Attributes
    ----------
    rung : "personal", "category" or "popularity"
    because : the purchase that led here (item id), None below the personal rung
    bought : time of that purchase, ms; None where the query named the item itself
    relatedness : inner product of the embeddings plus the weighted evidence
    evidence : shrunk z of the pair; customers : decayed customers who bought the one after the other
    """

    rung: str
    because: str | None = None
    bought: int | None = None
    relatedness: float = 0.0
    evidence: float = 0.0
    customers: float = 0.0


@dataclass(frozen=True)
class Recommended:
    """One recommended item.

    Attributes
    ----------
    score : the model's probability; uncertainty : -log(1 + evidence)
    rate, low, high : calibrated rate and its 90 % interval
    level : uncertainty level, 0 the surest; threshold : calibrated cut of that level, as a probability of the score
    kept : the score stands at or above its level's threshold
    """

    item: str
    score: float
    uncertainty: float
    rate: float
    low: float
    high: float
    level: int
    threshold: float | None
    kept: bool
    reason: Reason


@dataclass(frozen=True)
class Answer:
    """What `recommend` says.

    Attributes
    ----------
    request_id : drawn anew for each answer; to be echoed in the impressions that are shown, so that the loop closes
    rung : the best rung that the answer stands on
    clocks : each stage's clock, ms
    version : embedding version in service, None before the first; version_ts : event time of its snapshot
    reading : epoch of the calibration reading used; None before the first
    items : those that pass their level's threshold first, best first; the list is filled up with the best others,
        each with `kept` false
    note : what the reader should know, such as how many stand below their threshold
    seeds : the purchases that candidates were drawn from (item ids), newest first
    context_missing : declared context features that the query did not give; the score is the model's without them
    """

    request_id: str
    user: str | None
    rung: str
    items: list[Recommended]
    clocks: dict[str, int]
    version: int | None
    version_ts: int | None
    reading: int | None
    note: str = ""
    seeds: list[str] = field(default_factory=list)
    context_missing: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Recommender:
    """Answers from one opened state; cheap to ask many times."""

    def __init__(self, state: StateDirectory, neighbours: Neighbours) -> None:
        self._state = state
        self._neighbours = neighbours
        self._configuration = state.configuration

    def recommend(
        self,
        user: str | None = None,
        items: Sequence[str] = (),
        context: Mapping[str, str] | None = None,
        k: int = 10,
    ) -> Answer:
        """Up to `k` items for a user, or for somebody who just bought `items` (newest first).

        Raises ConfigurationError where `context` names a feature that is not declared.
        """
        codes = self.context_codes(context or {})
        known = None if user is None or is_guest(user, self._configuration) else hash_text(user)
        seeds = [(hash_text(item), None) for item in items] or self.recent(known)
        own = {hashed for hashed, _ in seeds}
        candidates = {item: reason for item, reason in self._personal(seeds[:SEEDS]).items() if item not in own}
        for more in (self._of_category, self._popular):
            if len(candidates) >= k:
                break
            for hashed, reason in more(seeds, k + len(seeds)):
                if hashed not in own:
                    candidates.setdefault(hashed, reason)
        ranked = self._score(known or 0, candidates, codes)
        chosen = sorted(ranked, key=lambda one: not one.kept)[:k]
        kept = sum(one.kept for one in chosen)
        note = (
            "" if kept == len(chosen) else f"{len(chosen) - kept} of {len(chosen)} stand below their level's threshold"
        )
        rungs = [one.reason.rung for one in chosen]
        embedding, reading = self._neighbours.embedding, self._state.calibration.newest()
        names = self._neighbours.name
        return Answer(
            request_id=secrets.token_hex(8),
            user=user,
            rung=min(rungs, key=("personal", "category", "popularity").index, default="popularity"),
            items=chosen,
            clocks=self._clocks(),
            version=None if embedding is None else embedding.manifest.version,
            version_ts=None if embedding is None else embedding.manifest.ts,
            reading=None if reading is None else reading.epoch,
            note=note,
            seeds=[names(hashed) for hashed, _ in seeds[:SEEDS]],
            context_missing=[
                f.name for f in self._configuration.features if f.source == "context" and f.name not in (context or {})
            ],
        )

    def context_codes(self, context: Mapping[str, str]) -> npt.NDArray[np.uint32]:
        """Feature codes uint32[F] of a request's context; ConfigurationError where a name is not declared."""
        declared = {f.name: (i, f) for i, f in enumerate(self._configuration.features) if f.source == "context"}
        codes = np.zeros(len(self._configuration.features), np.uint32)
        for name, text in context.items():
            if name not in declared:
                raise ConfigurationError(
                    f"context {name!r} is no declared context feature; declared: {', '.join(declared) or 'none'}"
                )
            column, feature = declared[name]
            try:
                code = category_code(name, text) if feature.kind == "categorical" else numeric_code(name, float(text))
            except ValueError:
                raise ConfigurationError(f"context {name}={text}: the feature is numeric; give a number") from None
            codes[column] = code
        return codes

    def recent(self, user: int | None) -> list[tuple[int, int | None]]:
        """A user's latest distinct purchases, newest first: (item hash, time); rows still held are included."""
        if user is None:
            return []
        found: list[tuple[int, int]] = list(self._state.copurchase.recent(user))
        for stage in self._state.attribution:
            found += held_purchases(stage.held_rows()[0], user)
        latest: dict[int, int] = {}
        for item, ts in found:
            latest[item] = max(ts, latest.get(item, ts))
        newest = sorted(latest.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(item, ts) for item, ts in newest]

    def _personal(self, seeds: Sequence[tuple[int, int | None]]) -> dict[int, Reason]:
        """The best neighbours of each seed; an item that several lead to keeps the strongest."""
        best: dict[int, Reason] = {}
        for item, bought in seeds:
            for found in self._neighbours.of(item, NEIGHBOURS):
                before = best.get(found.item)
                if before is None or found.relatedness > before.relatedness:
                    best[found.item] = self._reason(found, item, bought)
        return best

    def _reason(self, found: Neighbour, seed: int, bought: int | None) -> Reason:
        name = self._neighbours.name(seed)
        return Reason("personal", name, bought, found.relatedness, found.evidence, found.customers)

    def _of_category(self, seeds: Sequence[tuple[int, int | None]], k: int) -> list[tuple[int, Reason]]:
        out = []
        for item, bought in seeds[:SEEDS]:
            for hashed in self._neighbours.popular(k, like=item):
                out.append((hashed, Reason("category", self._neighbours.name(item), bought)))
        return out

    def _popular(self, seeds: Sequence[tuple[int, int | None]], k: int) -> list[tuple[int, Reason]]:
        return [(hashed, Reason("popularity")) for hashed in self._neighbours.popular(k)]

    def _score(self, user: int, candidates: dict[int, Reason], codes: npt.NDArray[np.uint32]) -> list[Recommended]:
        """Candidates with score, rate and threshold, best first: calibrated rate, then relatedness, then score."""
        if not candidates:
            return []
        items = np.array(list(candidates), np.uint64)
        users = np.full(len(items), user, np.uint64)
        scores = self._state.feedback.score(users, items, np.tile(codes, (len(items), 1)))
        out = []
        for i, (hashed, reason) in enumerate(candidates.items()):
            said = self._state.calibration.calibrate(float(scores.logit[i]), float(scores.uncertainty[i]))
            out.append(
                Recommended(
                    item=self._neighbours.name(hashed), score=float(scores.probability[i]),
                    uncertainty=float(scores.uncertainty[i]), rate=said.rate, low=said.low, high=said.high,
                    level=said.level, threshold=as_probability(said.threshold), kept=said.kept, reason=reason,
                )
            )  # fmt: skip
        order = {"personal": 0, "category": 1, "popularity": 2}
        return sorted(out, key=lambda r: (order[r.reason.rung], -r.rate, -r.reason.relatedness, -r.score, r.item))

    def _clocks(self) -> dict[str, int]:
        return {stage.name: stage.clock for stage in self._state.stages()}


def as_probability(logit: float) -> float | None:
    """Probability of a logit; None where it is not finite (all or none are kept).

    >>> as_probability(0.0), as_probability(float("inf"))
    (0.5, None)
    """
    return float(1.0 / (1.0 + np.exp(-logit))) if np.isfinite(logit) else None


def held_purchases(rows: np.ndarray[Any, np.dtype[Any]], user: int) -> list[tuple[int, int]]:
    """(item hash, time) of a user's purchases among event rows that the merge still holds."""
    from .row import Type

    mine = rows[(rows["rank"] == Type.PURCHASE) & (rows["user"] == user)]
    return [(int(row["item"]), int(row["ts"])) for row in mine]
