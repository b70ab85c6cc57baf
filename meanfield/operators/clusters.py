"""Cluster trees: labels sorted so that near ones stand together, in halves of halves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClusterTree:
    """Balanced binary tree of points; the clusters of a level differ in size by at most one.

    Parameters
    ----------
    order
        Permutation (N,): cluster c of level l holds the points order[edges[l][c] : edges[l][c + 1]].
    edges
        For each level, (2^l + 1,).
    low, high
        For each level the corners of the clusters' bounding boxes, (2^l, d).
    """

    order: Index
    edges: tuple[Index, ...]
    low: tuple[Array, ...]
    high: tuple[Array, ...]

    @classmethod
    def build(cls, points: Array, leaf: int) -> ClusterTree:
        """Halve points (N, d) along the longest side of their boxes until at most `leaf` are left."""
        n = len(points)
        order = np.arange(n)
        edges, low, high = [np.array([0, n])], [], []
        while True:
            ends = edges[-1]
            boxes = [points[order[a:b]] for a, b in itertools.pairwise(ends)]
            low.append(np.array([box.min(axis=0) for box in boxes]))
            high.append(np.array([box.max(axis=0) for box in boxes]))
            if np.diff(ends).max() <= leaf:
                # The first and the last of a leaf are its ends.
                for a, b, side in zip(ends[:-1], ends[1:], np.argmax(high[-1] - low[-1], axis=1), strict=True):
                    order[a:b] = order[a:b][np.argsort(points[order[a:b], side], kind="stable")]
                return cls(order, tuple(edges), tuple(low), tuple(high))
            middles = (ends[:-1] + ends[1:]) // 2
            for a, m, b, box, side in zip(
                ends[:-1], middles, ends[1:], boxes, np.argmax(high[-1] - low[-1], axis=1), strict=True
            ):
                order[a:b] = order[a:b][np.argpartition(box[:, side], m - a)]
            edges.append(np.sort(np.concatenate([ends, middles])))

    @property
    def depth(self) -> int:
        """Number of the last level."""
        return len(self.edges) - 1

    def span(self, level: int, cluster: int) -> tuple[int, int]:
        """First and one past the last place of a cluster in `order`."""
        return int(self.edges[level][cluster]), int(self.edges[level][cluster + 1])

    def separated(self, level: int, pairs: Index, eta: float) -> NDArray[np.bool_]:
        """Whether the smaller diameter of two boxes is at most eta times their distance, for pairs (B, 2)."""
        low, high = self.low[level], self.high[level]
        i, j = pairs[:, 0], pairs[:, 1]
        gap = np.maximum(np.maximum(low[i] - high[j], low[j] - high[i]), 0.0)
        diameter = np.linalg.norm(high - low, axis=1)
        distance = np.linalg.norm(gap, axis=1)
        return np.asarray((distance > 0.0) & (np.minimum(diameter[i], diameter[j]) <= eta * distance))

    def members(self, level: int, clusters: Index) -> tuple[Index, Index]:
        """Points of clusters, (B, m), the last one repeated where a cluster is smaller, and the sizes (B,)."""
        ends = self.edges[level]
        size = np.diff(ends)[clusters]
        steps = np.minimum(np.arange(int(size.max())), size[:, None] - 1)
        return self.order[ends[clusters][:, None] + steps], size


def children(pairs: Index) -> Index:
    """Pairs of clusters one level down, (4 B, 2)."""
    parts: Any = [2 * pairs + np.array([a, b]) for a in (0, 1) for b in (0, 1)]
    return np.concatenate(parts) if len(pairs) else pairs
