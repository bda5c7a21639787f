"""Families: root atoms that occur in the same tensors and weight axes, equally often, for the same reasons.

Partition refinement (Paige & Tarjan 1987, SIAM J. Comput. 16(6)): every weight axis (by counts) and every tensor (by
presence) splits the classes of the atoms it holds, and touches no others. So the time is that of reading all labels
once: linear in nodes x channels.

Guarantees: members of a family occur in the same tensors, so a family that keeps one channel leaves no tensor empty;
families and their members are in order of first production.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgepress.ops.board import Board, Use
from edgepress.ops.labels import core


def families(board: Board, uses: Sequence[Use], pinned: np.ndarray) -> list[np.ndarray]:
    """Atoms of every family (int64 [size] each).

    Args:
        board: the finished board.
        uses: its uses in graph order.
        pinned: per root atom the source that pins it.
    """
    _, classes = np.unique(pinned, return_inverse=True)
    following = int(classes.max(initial=0)) + 1
    for atoms, counts in _occurrences(board, uses):
        keys = classes[atoms] * (int(counts.max(initial=0)) + 1) + counts
        found, place = np.unique(keys, return_inverse=True)
        classes[atoms] = following + place
        following += len(found)
    produced = [board.atoms.find(use.labels) for use in uses if use.role == "out"]
    order = np.concatenate(produced) if produced else np.zeros(0, np.int64)
    members: dict[int, dict[int, None]] = {}
    for atom in order[order > 0].tolist():
        members.setdefault(int(classes[atom]), {})[atom] = None
    return [np.array(list(held), np.int64) for held in members.values()]


def _occurrences(board: Board, uses: Sequence[Use]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The atoms of every weight axis with their numbers, and those of every tensor with ones."""
    for use in uses:
        yield _counted(board.atoms.find(use.labels))
    inner = {held.tobytes(): held for labels in board.labels.values() for held in (core(labels),)}
    for held in inner.values():
        atoms, counts = _counted(board.atoms.find(held))
        yield atoms, np.ones_like(counts)


def _counted(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = labels.ravel()
    atoms, counts = np.unique(held[held > 0], return_counts=True)
    return atoms, counts


Place = tuple[Use, np.ndarray]
"""A use, and int64 [size, k]: the positions of every member of a family."""


def places(board: Board, uses: Sequence[Use], held: Sequence[np.ndarray]) -> list[list[Place]]:
    """Where the members of every family are, in the order of the uses."""
    family = np.full(len(board.atoms), -1, np.int64)
    rank = np.zeros(len(board.atoms), np.int64)
    for number, atoms in enumerate(held):
        family[atoms] = number
        rank[atoms] = np.arange(len(atoms))
    found: list[list[Place]] = [[] for _ in held]
    for use in uses:
        atoms = np.maximum(board.atoms.find(use.labels), 0)
        owner = np.where(atoms > 0, family[atoms], -1)
        order = np.lexsort((np.arange(len(atoms)), rank[atoms], owner))
        order = order[owner[order] >= 0]
        numbers, starts = np.unique(owner[order], return_index=True)
        stops = np.append(starts, len(order))[1:]
        for number, start, stop in zip(numbers.tolist(), starts, stops, strict=True):
            found[number].append((use, order[start:stop].reshape(len(held[number]), -1)))
    return found
