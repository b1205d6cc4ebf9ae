"""The embedding pipeline, slow and obvious: dense matrices and loops."""

from __future__ import annotations

import numpy as np


def dense(source: np.ndarray, target: np.ndarray, value: np.ndarray, nodes: int) -> np.ndarray:
    """The matrix of some pairs."""
    out = np.zeros((nodes, nodes))
    for u, v, w in zip(source, target, value):
        out[u, v] += w
    return out


def slow_propagation(
    matrix: np.ndarray, source: np.ndarray, target: np.ndarray, a: list[float], b: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Dual propagation step by step, as the formula says."""
    out, into = matrix.sum(axis=1), matrix.sum(axis=0)
    scale = np.sqrt(np.outer(np.where(out > 0, out, 1.0), np.where(into > 0, into, 1.0)))
    normal = matrix / scale
    s, t = source.astype(np.float64), target.astype(np.float64)
    for a_k, b_k in zip(a, b):
        s, t = s + a_k * normal @ t, t + b_k * normal.T @ s
    return s, t


def slow_rank(scores: np.ndarray, popularity: np.ndarray, source: int, target: int, others: set[int]) -> int:
    """Rank of a true target among all items but the source and the other true targets."""
    rivals = [v for v in range(len(scores)) if v != source and v not in others - {target}]
    ordered = sorted(rivals, key=lambda v: (-scores[v], -popularity[v], v))
    return ordered.index(target) + 1


def slow_latest(source: np.ndarray, target: np.ndarray, last: np.ndarray, node: int, most: int) -> list[int]:
    """Targets of a node by the time of the latest pair, newest first."""
    mine = [(-int(ts), int(v)) for u, v, ts in zip(source, target, last) if u == node]
    return [v for _, v in sorted(mine)[:most]]
