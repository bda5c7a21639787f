"""Channel groups: which channels of which weights live and die together.

Abstract interpretation: the graph is run once on integer labels instead of numbers
(:mod:`edgepress.ops.labels`, :mod:`edgepress.ops.couple`, :mod:`edgepress.groups.trace`). What remains
connected is a channel; channels that occur in the same tensors and weight axes, equally often, are
interchangeable and form one :class:`Group`. Channels on which two tensors of one shape are added (a residual
Add; not a gate, which multiplies) are a stream shared by layers: found, but left whole.

Guarantees: every position of a weight axis belongs to at most one channel; removing channels of a group
everywhere gives a legal model that equals the original with the group's consumers zeroed, as long as each
group keeps one channel; the result depends on the graph alone, in graph order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import numpy as np

from edgepress.errors import Refusal
from edgepress.groups.families import families, places
from edgepress.groups.trace import trace_labels
from edgepress.model import Model
from edgepress.ops.board import Board, Use
from edgepress.ops.labels import Source, core, thin

__all__ = ["Group", "Grouping", "Role", "Site", "find_groups"]

Role = Literal["out", "in", "along"]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One axis of one initializer that shrinks with a group.

    Attributes:
        tensor: the initializer.
        axis: its axis.
        index: int64 [size, k]; channel c owns positions ``index[c]`` of the axis.
        role: ``out`` produced by this axis, ``in`` contracted over it, ``along`` carried along it
            (bias, BatchNormalization, depthwise weights, broadcast constants).
        node: the node that uses the initializer.
    """

    tensor: str
    axis: int
    index: np.ndarray
    role: Role
    node: str


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Interchangeable channels that one decision is about.

    Attributes:
        name: the first node that produces them (``#2``, ``#3`` added when it starts several groups).
        size: number of channels.
        sites: every weight axis they occupy.
        producers: nodes whose output channels they are (Conv, Gemm, MatMul), in graph order.
        consumers: nodes that contract over them.
        refusal: why they are left whole; None when channels may go.
        pinned: True when removing them is impossible, not only unwise: ``cut`` will not do it.
        stopper: the node, graph input or graph output that makes it impossible; "" where nothing does.
    """

    name: str
    size: int
    sites: tuple[Site, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    refusal: Refusal | None
    pinned: bool = False
    stopper: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """All groups of a model, and what stopped channels.

    Attributes:
        groups: in graph order of their first producers.
        refusals: walls met, once each, with what they stop; or the one reason why nothing was analysed.
        channels: per tensor an int64 array of its shape (batch 1, a broadcast view): the number of the channel
            each position belongs to, 0 for positions that always stay. Group g owns the numbers
            ``first[g.name]`` to ``first[g.name] + g.size - 1``. Surgery mends shapes with it.
        first: the first channel number of every group.
        values: tensors that depend on shapes alone, at the sizes of the analysis. Surgery mends targets with them.
        sizes: what symbolic dimensions were bound to for the analysis.
        assumed: the part of ``sizes`` that nobody stated.
    """

    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]
    channels: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    first: Mapping[str, int] = field(default_factory=dict, repr=False)
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    sizes: Mapping[str, int] = field(default_factory=dict)
    assumed: Mapping[str, int] = field(default_factory=dict)

    def group(self, name: str) -> Group:
        """The group of that name (KeyError if there is none)."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that may lose channels."""
        return tuple(group for group in self.groups if group.refusal is None)


def find_groups(model: Model, dimensions: Mapping[str, int] | None = None) -> Grouping:
    """Find the channel groups of a normalized model.

    Args:
        model: flat, with constant weights; dimensions may be symbolic.
        dimensions: sizes of symbolic dimensions (by symbol, one without a name by ``<input>:<axis>``) where the
            caller knows them, as from samples. The batch is bound to 1, others are assumed.

    Returns:
        The grouping; without groups and with one refusal when the shapes cannot be known.
    """
    traced = trace_labels(model, dimensions or {})
    if isinstance(traced, Refusal):
        return Grouping((), (traced,))
    board, bound = traced
    uses = _in_graph_order(board, model)
    pinned = board.atoms.pinned()
    held = families(board, uses, pinned)
    residual = np.isin(np.arange(len(board.atoms)), _residual(board))
    groups: list[Group] = []
    taken: set[str] = set()
    for atoms, found in zip(held, places(board, uses, held), strict=True):
        sites = tuple(Site(use.tensor, use.axis, index, use.role, use.node) for use, index in found)
        name = _name(next(site.node for site in sites if site.role == "out"), taken)
        taken.add(name)
        groups.append(_group(name, len(atoms), sites, _pin(board, pinned, atoms), bool(residual[atoms].any())))
    first, channels = _numbering(board, groups, held)
    walls = _walls(board, groups, held, pinned)
    return Grouping(tuple(groups), walls, channels, first, bound.values, bound.sizes, bound.assumed)


def _in_graph_order(board: Board, model: Model) -> list[Use]:
    """Uses by node position, producing axes first: families and names follow this order."""
    position = {node.name: place for place, node in enumerate(model.nodes)}
    return sorted(board.uses, key=lambda use: (position[use.node], use.role != "out", use.slot, use.axis))


def _name(producer: str, taken: set[str]) -> str:
    """The producer's name, numbered if other groups have it already."""
    return next(name for n in count(1) if (name := producer if n == 1 else f"{producer}#{n}") not in taken)


def _group(name: str, size: int, sites: tuple[Site, ...], pin: Source | None, shared: bool) -> Group:
    producers = tuple(dict.fromkeys(site.node for site in sites if site.role == "out"))
    consumers = tuple(dict.fromkeys(site.node for site in sites if site.role == "in"))
    refusal = None
    if pin is not None:
        refusal = Refusal(name, f"stopped by {pin.what!r}: {pin.reason}" if pin.wall else pin.reason)
    elif not consumers:
        refusal = Refusal(name, "no layer consumes its channels")
    elif size == 1:
        refusal = Refusal(name, "a single channel, and one must stay")
    elif shared and len(producers) > 1:
        refusal = Refusal(
            name,
            f"residual stream shared by {len(producers)} layers, left whole",
            "removing its channels costs far more accuracy than removing inner channels",
        )
    return Group(name, size, sites, producers, consumers, refusal, pin is not None, "" if pin is None else pin.what)


def _pin(board: Board, pinned: np.ndarray, atoms: np.ndarray) -> Source | None:
    """The reason why these atoms must stay (a family shares it)."""
    number = int(pinned[atoms[0]])
    return board.atoms.sources[number] if number >= 0 else None


def _residual(board: Board) -> np.ndarray:
    """Root atoms that two tensors of one shape were added on.

    Attention heads (of scores and a bias) are none, and neither are two outputs of one layer that is used twice.
    """
    origin = _origins(board)
    apart = [pairs for pairs in board.joins if bool((origin[pairs[0]] != origin[pairs[1]]).any())]
    joined, heads = (
        np.concatenate([np.zeros(0, np.int64), *(core(board.atoms.find(labels)).ravel() for labels in found)])
        for found in ([pairs[0] for pairs in apart], board.heads)
    )
    return np.setdiff1d(joined, heads)


def _origins(board: Board) -> np.ndarray:
    """Per atom a number for the place in a weight that makes it; the atom's own, negative, where none does."""
    origin = -np.arange(len(board.atoms), dtype=np.int64)
    first: dict[tuple[str, int], int] = {}
    following = 1
    for use in board.uses:
        if use.role == "out":
            start = first.setdefault((use.tensor, use.axis), following)
            following = max(following, start + len(use.labels))
            made = use.labels > 0
            origin[use.labels[made]] = start + np.flatnonzero(made)
    return origin


def _numbering(
    board: Board, groups: list[Group], held: list[np.ndarray]
) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Number the channels group by group and write every tensor's labels in these numbers."""
    number = np.zeros(len(board.atoms), np.int64)
    first: dict[str, int] = {}
    following = 1
    for group, atoms in zip(groups, held, strict=True):
        first[group.name] = following
        number[atoms] = np.arange(following, following + group.size)
        following += group.size
    channels = {}
    for name, labels in board.labels.items():
        inner = core(board.atoms.find(labels))
        channels[name] = thin(np.broadcast_to(np.where(inner > 0, number[np.maximum(inner, 0)], 0), labels.shape))
    return first, channels


def _walls(board: Board, groups: list[Group], held: list[np.ndarray], pinned: np.ndarray) -> tuple[Refusal, ...]:
    """Every wall once, with the number of groups and channels it stops."""
    stopped: dict[int, list[int]] = {}
    for group, atoms in zip(groups, held, strict=True):
        stopped.setdefault(int(pinned[atoms[0]]), []).append(group.size)
    return tuple(
        Refusal(source.what, f"{source.reason}; stops {_count(len(sizes), 'group')} ({_count(sum(sizes), 'channel')})")
        for number, source in enumerate(board.atoms.sources)
        if source.wall and (sizes := stopped.get(number, []))
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
