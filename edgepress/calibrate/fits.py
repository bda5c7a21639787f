"""What is fitted together: parts that share weights or a bias make one least-squares problem.

Most fits are one part. The phases of a ConvTranspose share their bias, and two nodes may read the same weights: then
the columns of the fit are all distinct sources side by side and, last, one column for every distinct bias. The Gram of
every part has its place in it, and the places are added: the exact joint problem, solved like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from edgepress.calibrate.statistics import Gram, SplitGram
from edgepress.calibrate.views import Arrays, Part, Source, parts
from edgepress.errors import Refusal
from edgepress.model import Model, Node

LARGEST_GRAM = 6000
"""Columns of the widest fit: its Gram takes 300 MB. A wider layer stays as sliced, and what it reads stays whole."""


@dataclass(frozen=True)
class Fit:
    """Parts that are fitted together, in graph order.

    The matrix of a fit is [outputs, columns + biases]: the columns of every source, then one for every bias.
    """

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The name of its first part."""
        return self.parts[0].name

    @property
    def node(self) -> Node:
        """The first node it belongs to."""
        return self.parts[0].node

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.parts[0].outputs

    @cached_property
    def columns(self) -> int:
        """Number of columns, without biases."""
        return sum(source.columns for source in self._starts)

    @property
    def width(self) -> int:
        """Number of columns with biases."""
        return self.columns + self.biases

    @property
    def biases(self) -> int:
        """Number of bias columns."""
        return len(self._biases)

    @cached_property
    def _starts(self) -> Mapping[Source, int]:
        """First column of every distinct source."""
        found: dict[Source, int] = {}
        width = 0
        for source in (source for part in self.parts for source in part.weights):
            if source not in found:
                found[source] = width
                width += source.columns
        return found

    @cached_property
    def _biases(self) -> tuple[tuple[Source, ...], ...]:
        return tuple(dict.fromkeys(part.bias for part in self.parts if part.bias))

    def matrix(self, constants: Arrays) -> np.ndarray:
        """Weights and biases as one float64 matrix [outputs, columns + biases]."""
        weights = [source.read(constants[source.tensor]) for source in self._starts]
        biases = [sum(one.read(constants[one.tensor]) for one in bias) for bias in self._biases]
        return np.column_stack([*weights, *biases])

    def written(self, matrix: np.ndarray, constants: Arrays) -> dict[str, np.ndarray]:
        """Inverse of :meth:`matrix`: the changed initializers by name, in the shapes and types of the given ones."""
        found: dict[str, np.ndarray] = {}

        def write(source: Source, values: np.ndarray) -> None:
            found[source.tensor] = source.written(found.get(source.tensor, constants[source.tensor]), values)

        for source, start in self._starts.items():
            write(source, matrix[:, start : start + source.columns])
        for number, (first, *others) in enumerate(self._biases):
            rest = sum(source.read(constants[source.tensor]) for source in others)
            write(first, matrix[:, [self.columns + number]] - rest)
        return found

    def place(self, part: Part) -> np.ndarray:
        """The columns of a part's rows among those of the fit; the bias last, if the part has one."""
        ranges = [np.arange(self._starts[source], self._starts[source] + source.columns) for source in part.weights]
        last = [self.columns + self._biases.index(part.bias)] if part.bias else []
        return np.concatenate([*ranges, np.array(last, np.int64)])

    def joined(self, splits: Sequence[SplitGram]) -> SplitGram:
        """The moments of all parts (in their order) as those of the fit."""

        def placed(part: Part, gram: Gram | None) -> Gram | None:
            place = self.place(part)
            return None if gram is None else gram.select(np.arange(len(place))).placed(place, self.width)

        pairs = zip(self.parts, splits, strict=True)
        moved = [SplitGram(placed(part, split.fit), placed(part, split.held)) for part, split in pairs]
        return reduce(SplitGram.merge, moved)

    def kept(self, axes: Mapping[str, tuple[np.ndarray | None, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and columns (biases among them) that are left when initializers keep these positions: two masks."""
        sides = [source.kept(axes.get(source.tensor, ())) for source in self._starts]
        columns = np.concatenate([*(side[1] for side in sides), np.ones(self.biases, bool)])
        return np.logical_and.reduce([side[0] for side in sides]), columns

    def owners(self, sites: Iterable[tuple[str, int, np.ndarray]]) -> np.ndarray:
        """Which channel each column belongs to, -1 for none: int64 [columns].

        Args:
            sites: initializer, axis and the positions of every channel on it, int64 [channels, positions].
        """
        found = np.full(self.columns, -1, np.int64)
        for tensor, axis, index in sites:
            for source, start in self._starts.items():
                along = source.columns_along(axis) if source.tensor == tensor else None
                if along is not None:
                    owner = np.full(source.shape[axis], -1, np.int64)
                    owner[index.ravel()] = np.repeat(np.arange(len(index)), index.shape[1])
                    own = owner[along]
                    found[start : start + source.columns] = np.where(own >= 0, own, found[start : start + len(own)])
        return found


def fits_of(model: Model, nodes: Iterable[str]) -> tuple[tuple[Fit, ...], tuple[Refusal, ...]]:
    """What is fitted when the inputs of some nodes change, and why some of these nodes cannot be fitted.

    Args:
        model: the model.
        nodes: names of nodes; those that share constants with them come along.
    """
    named = set(nodes)
    seen: list[Part] = []
    refusals = []
    for node in _with_sharers(model, named):
        found = parts(model, node)
        if not isinstance(found, Refusal):
            seen += found
        elif node.name in named:
            refusals.append(found)
    fits = []
    for fit in map(Fit, _connected(seen)):
        reason = _obstacle(model, fit)
        if reason is not None:
            refusals.append(Refusal(fit.node.name, reason))
        elif fit.columns:
            fits.append(fit)
    return tuple(fits), tuple(refusals)


def _with_sharers(model: Model, nodes: set[str]) -> list[Node]:
    """The nodes and all that read constants they read, in graph order."""
    found, front = set(nodes), list(nodes)
    while front:
        node = model.node(front.pop())
        constants = [name for name in node.inputs if name in model.constants]
        new = {reader.name for name in constants for reader in model.consumers(name)} - found
        found |= new
        front += new
    return [node for node in model.nodes if node.name in found]


def _connected(seen: Sequence[Part]) -> list[tuple[Part, ...]]:
    """Parts in groups that share sources, by first appearance."""
    groups: list[tuple[list[Part], set[Source]]] = []
    for part in seen:
        own = {*part.weights, *part.bias}
        met = [group for group in groups if group[1] & own]
        rest = [group for group in groups if not group[1] & own]
        members = [other for group in met for other in group[0]]
        groups = [*rest, ([*members, part], own.union(*(group[1] for group in met)))]
    place = {id(part): number for number, part in enumerate(seen)}
    ordered = [sorted(members, key=lambda part: place[id(part)]) for members, _ in groups]
    return [tuple(members) for members in sorted(ordered, key=lambda members: place[id(members[0])])]


def _obstacle(model: Model, fit: Fit) -> str | None:
    """Who else needs the weights of a fit as they are."""
    readers = {name for part in fit.parts for name in part.readers}
    sources = list(dict.fromkeys(source for part in fit.parts for source in (*part.weights, *part.bias)))
    for number, source in enumerate(sources):
        others = [node.name for node in model.consumers(source.tensor) if node.name not in readers]
        if others or source.tensor in model.outputs:
            return f"{others[0] if others else 'a graph output'} reads its weights {source.tensor!r} as well"
        if any(_overlap(source, other) for other in sources[:number]):
            return f"its weights {source.tensor!r} are read in two ways"
    return None


def _overlap(first: Source, second: Source) -> bool:
    """Whether two different sources have numbers in common."""
    if first.tensor != second.tensor:
        return False
    return not any(set(a).isdisjoint(b) for a, b in zip(first.region, second.region, strict=True))
