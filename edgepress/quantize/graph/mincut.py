"""Minimum cut of a small directed graph (Edmonds & Karp, 1972): shortest augmenting paths by breadth-first search.

Guarantees: integer capacities give an exact minimum; among all minimum cuts the one with the smallest source
side is returned, so the answer does not depend on the order in which edges were added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise

Edge = tuple[Hashable, Hashable, int]

INFINITE = 1 << 60


def source_side(edges: Iterable[Edge], source: Hashable, sink: Hashable) -> set[Hashable]:
    """Nodes on the source side of a minimum cut.

    Args:
        edges: ``(from, to, capacity)``; parallel edges add up; ``INFINITE`` is never cut.
        source: the node every flow leaves from.
        sink: the node every flow ends in; must not hang on ``source`` by infinite edges alone.
    """
    room = _residual(edges)
    while path := _path(room, source, sink):
        steps = list(pairwise(path))
        flow = min(room[a][b] for a, b in steps)
        for a, b in steps:
            room[a][b] -= flow
            room[b][a] += flow
    return set(_tree(room, source))


def _residual(edges: Iterable[Edge]) -> dict[Hashable, dict[Hashable, int]]:
    room: dict[Hashable, dict[Hashable, int]] = {}
    for a, b, capacity in edges:
        room.setdefault(a, {})[b] = room.get(a, {}).get(b, 0) + capacity
        room.setdefault(b, {}).setdefault(a, 0)
    return room


def _tree(room: Mapping[Hashable, Mapping[Hashable, int]], source: Hashable) -> dict[Hashable, Hashable]:
    """Breadth-first tree of the nodes that still have room from ``source``: node -> its parent."""
    parents: dict[Hashable, Hashable] = {source: source}
    queue = deque([source])
    while queue:
        a = queue.popleft()
        for b, capacity in room.get(a, {}).items():
            if capacity > 0 and b not in parents:
                parents[b] = a
                queue.append(b)
    return parents


def _path(room: Mapping[Hashable, Mapping[Hashable, int]], source: Hashable, sink: Hashable) -> list[Hashable]:
    parents = _tree(room, source)
    if sink not in parents:
        return []
    path = [sink]
    while path[-1] != source:
        path.append(parents[path[-1]])
    return path[::-1]
