"""Training the K pairs of the propagation: from the graph as it was a period ago to the pairs seen since.

The hops stand on the graph of the version *before*, as it was kept with it; the positives are the true edges of the
period since. So the task is the one that serving has, and no positive is its own evidence. Half of the sources train,
the other half are the validation slice, by the hash of the item. The loss is a softmax of each positive against
negatives drawn anew each epoch, half of them uniform, half by popularity; Adam on 2 K + 1 numbers (the last is a
temperature). The epoch with the best MRR@10 on the validation slice is kept. Coefficients carry over to the hops of the
new graph, for they do not depend on the basis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.hash import mix64

from .evaluation import Edges, Quality, by_vectors, evaluate
from .propagation import Hops, coefficients, combine

NEGATIVES = 1024
LEARNING_RATE = 0.03
VALIDATE_EVERY = 5
LEAST_EDGES = 50
"""Fewer true edges than this on either side choose nothing: the SVD serves."""


class Trained(NamedTuple):
    """The learned pairs, and both arms on the validation slice."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    epoch: int
    svd: Quality
    propagation: Quality

    @property
    def better(self) -> bool:
        """Whether training beats its own warm start on the validation slice, on both figures or on one at no loss."""
        s, p = self.svd, self.propagation
        return p.hit_rate >= s.hit_rate and p.mrr >= s.mrr and (p.hit_rate, p.mrr) != (s.hit_rate, s.mrr)


def split_sources(edges: Edges, hashes: npt.NDArray[np.uint64]) -> tuple[Edges, Edges]:
    """(training, validation): half of the sources each, by the hash of the item."""
    second = np.zeros(len(hashes), np.bool_)
    for q in edges.queries.tolist():
        second[q] = int(mix64(hashes[q])) >> 17 & 1
    return edges.of_sources(~second), edges.of_sources(second)


def train(
    hops: Hops, training: Edges, validation: Edges, popularity: npt.NDArray[np.float64], epochs: int, seed: int
) -> Trained:
    """Learn the K pairs, K = len(hops.source) - 1; sets torch to one thread.

    Returns the warm start's own figures too; where there is nothing to learn from, all pairs are 0.
    """
    steps = len(hops.source) - 1
    warm = evaluate(validation, by_vectors(hops.source[0], hops.target[0]), popularity)
    best = Trained((0.0,) * steps, (0.0,) * steps, 0, warm, warm)
    if steps == 0 or epochs == 0 or min(len(training.source), len(validation.source)) < LEAST_EDGES:
        return best
    import torch

    torch.set_num_threads(1)
    draw = np.random.default_rng(seed)
    a, b = (torch.zeros(steps, requires_grad=True) for _ in range(2))
    sharpness = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([a, b, sharpness], lr=LEARNING_RATE)
    u = torch.from_numpy(hops.source[:, training.source])
    positive = torch.from_numpy(hops.target[:, training.target])
    cumulative = np.cumsum(popularity + 1e-9)
    for epoch in range(1, epochs + 1):
        drawn = _negatives(draw, cumulative)
        negative = torch.from_numpy(np.ascontiguousarray(hops.target[:, drawn]))
        p, q = coefficients(a.unbind(), b.unbind())
        s = sum(w * block for w, block in zip(p, u))
        t, z = (sum(w * block for w, block in zip(q, blocks)) for blocks in (positive, negative))
        true = (s * t).sum(1, keepdim=True)
        others = (s @ z.T).masked_fill(torch.from_numpy(drawn[None] == training.target[:, None]), -1e9)
        logits = torch.cat([true, others], 1) * torch.exp(sharpness)
        loss = -torch.log_softmax(logits, 1)[:, 0].mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if epoch % VALIDATE_EVERY == 0 or epoch == epochs:
            best = _better(best, hops, a.tolist(), b.tolist(), epoch, validation, popularity)
    return best


def _negatives(draw: np.random.Generator, cumulative: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    n = len(cumulative)
    uniform = draw.integers(0, n, NEGATIVES // 2)
    popular = np.searchsorted(cumulative, draw.random(NEGATIVES // 2) * cumulative[-1])
    return np.concatenate([uniform, np.minimum(popular, n - 1)])


def _better(
    best: Trained, hops: Hops, a: list[float], b: list[float], epoch: int, validation: Edges,
    popularity: npt.NDArray[np.float64],
) -> Trained:  # fmt: skip
    figures = evaluate(validation, by_vectors(*combine(hops, a, b)), popularity)
    if epoch > VALIDATE_EVERY and (figures.mrr, figures.hit_rate) <= (best.propagation.mrr, best.propagation.hit_rate):
        return best
    return Trained(tuple(a), tuple(b), epoch, best.svd, figures)
