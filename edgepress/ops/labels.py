"""Labels: integers that say which channel every position of a tensor belongs to.

A label array has the shape of its tensor (batch bound to 1). A label above zero is an *atom*: positions
with the same atom live and die together. A label of zero or below is *fixed*: no channel, never removed;
``-i`` points to the i-th :class:`Source`, which says why. Nothing varies over most axes (all pixels of a
feature map share their channel's label), so arrays are kept as broadcast views with stride 0 there:
65 times faster and 3000 times smaller than dense arrays on a 68-node net of 256 channels at 56 x 56.

:class:`Atoms` is a union-find by min-label propagation: ties are collected as edges and solved together,
each round hooking roots under the smallest neighbouring root and halving all paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Source:
    """Why positions are fixed: ``what`` (a node or tensor) and the reason; ``wall`` if an operator stopped them."""

    what: str
    reason: str
    wall: bool


def core(labels: np.ndarray) -> np.ndarray:
    """The labels without repetition: every stride-0 axis cut to length 1."""
    return np.asarray(labels[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in labels.strides)])


def thin(labels: np.ndarray) -> np.ndarray:
    """The same labels as a broadcast view: an axis along which nothing varies costs no memory."""
    kept = core(labels)
    for axis in reversed(range(kept.ndim)):
        if kept.shape[axis] > 1 and (kept == kept.take([0], axis)).all():
            kept = kept.take([0], axis)
    return np.broadcast_to(np.array(kept), labels.shape)


def spread(vector: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """A tensor of labels that vary along one axis only, as a broadcast view."""
    inner = [1] * len(shape)
    inner[axis] = -1
    return np.broadcast_to(np.ascontiguousarray(vector).reshape(inner), shape)


def fill(label: int, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor with the same label everywhere."""
    return np.broadcast_to(np.full([1] * len(shape), label, np.int64), shape)


def varying(labels: np.ndarray) -> list[int]:
    """The axes along which the labels vary."""
    return [axis for axis, length in enumerate(core(labels).shape) if length > 1]


class Atoms:
    """Union-find over atoms, with the reasons why some are fixed."""

    def __init__(self) -> None:
        """No atoms yet; source 0 is "no reason known" and never reported."""
        self.sources: list[Source] = [Source("", "fixed", False)]
        self._parent = np.zeros(1, np.int64)
        self._edges: list[np.ndarray] = []
        self._pins: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> np.ndarray:
        """``count`` new atoms."""
        new = np.arange(len(self._parent), len(self._parent) + count, dtype=np.int64)
        self._parent = np.concatenate([self._parent, new])
        return new

    def source(self, what: str, reason: str, *, wall: bool) -> int:
        """A new fixed label (below zero)."""
        self.sources.append(Source(what, reason, wall))
        return 1 - len(self.sources)

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Positions of ``left`` and ``right`` (broadcast against each other) live and die together.

        An atom that meets a fixed label is pinned, for the reason of that label.
        """
        left, right = np.broadcast_arrays(core(left), core(right))
        pairs = np.stack([np.minimum(left, right).ravel(), np.maximum(left, right).ravel()])
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs[1] > 0)]
        if pairs.size:
            pairs = np.unique(pairs, axis=1)
            both = pairs[0] > 0
            self._edges.append(pairs[:, both])
            self._pins.append(pairs[:, ~both])

    def pin(self, labels: np.ndarray, source: int) -> None:
        """These atoms must stay, for the reason of ``source``."""
        self.tie(labels, np.full([1] * labels.ndim, source, np.int64))

    def find(self, labels: np.ndarray) -> np.ndarray:
        """The same labels with every atom replaced by the smallest atom it is tied to."""
        self._solve()
        inner = core(labels)
        return np.broadcast_to(np.where(inner > 0, self._parent[np.maximum(inner, 0)], inner), labels.shape)

    def live(self, labels: np.ndarray) -> np.ndarray:
        """Like :meth:`find`, with every atom that is pinned (itself or by a tie) replaced by 0."""
        inner = core(self.find(labels))
        pinned = self.pinned() >= 0
        return np.broadcast_to(np.where((inner > 0) & ~pinned[np.maximum(inner, 0)], inner, 0), labels.shape)

    def pinned(self) -> np.ndarray:
        """Per root atom the number of the source that pinned it first; -1 where none did."""
        self._solve()
        first = np.full(len(self._parent), -1, np.int64)
        if self._pins:
            sources, atoms = np.concatenate(self._pins, axis=1)
            first[self._parent[atoms[::-1]]] = -sources[::-1]  # written backwards, so the first one stands
        return first

    def _solve(self) -> None:
        if not self._edges:
            return
        left, right = np.concatenate(self._edges, axis=1)
        self._edges.clear()
        parent = self._parent
        while True:
            low, high = parent[left], parent[right]
            open_ = low != high
            if not open_.any():
                break
            left, right, low, high = left[open_], right[open_], low[open_], high[open_]
            np.minimum.at(parent, np.maximum(low, high), np.minimum(low, high))
            while (parent[parent] != parent).any():
                parent = parent[parent]
        self._parent = parent
