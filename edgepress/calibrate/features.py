"""One number per unit and sample: what a layer's channels and its outputs say on average over a sample.

For a linear operator with rows ``x`` and outputs ``y`` (:mod:`edgepress.calibrate.views`) the features of a sample are

    parent p    the mean of x over the sample's positions and over the columns that belong to p (taps of a kernel,
                pixels behind a Flatten)
    child o     the mean of y[o] over the sample's positions, behind the activation that directly follows, if one does

Positions are drawn as for a Gram, the same ones for parents and children. In a matrix every row counts as a sample;
where steps come first (recurrent operators) the mean is over steps. Two statistics keep features: :class:`Features` the
first samples as they are, for estimators that need points, a ``Gram`` of ``[parents, children, 1]`` the second moments
of all samples.

Source: Ganesh, Corso & Sekeh 2020, "MINT: Deep Network Compression via Mutual Information-based Neuron Trimming" (arXiv
2003.08472): one scalar per filter and sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.statistics import Gram, Probe, draw, once
from edgepress.calibrate.views import Part
from edgepress.model import Model, Node
from edgepress.ops.row import Input
from edgepress.ops.table import lookup

MOST = 750
"""Samples that are kept as they are: thirds of 250."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Features:
    """Features of the first samples of a feed.

    Attributes:
        rows: float64 [samples, columns], at most ``most`` samples.
        most: how many samples are kept.
    """

    rows: np.ndarray
    most: int = MOST

    @classmethod
    def of(cls, rows: np.ndarray, most: int = MOST) -> Features:
        """The features of one chunk."""
        return cls(rows[:most], most)

    def merge(self, other: Features) -> Features:
        """The first samples of both, those of ``other`` behind."""
        return Features(np.concatenate([self.rows, other.rows[: self.most - len(self.rows)]]), self.most)


@dataclass(frozen=True, slots=True)
class Means:
    """How the features of one operator are made.

    Attributes:
        part: the operator.
        owners: which parent each of its columns belongs to, int64 [columns].
        parents: how many there are; one without columns is 0.
        activation: what the children are measured behind; None: they are the operator's own outputs.
        positions: positions observed in each sample.
        seed: seed of the choice of positions.
    """

    part: Part
    owners: np.ndarray
    parents: int
    activation: str | None
    positions: int
    seed: int = 0

    @property
    def tensors(self) -> tuple[str, ...]:
        """Activations that are looked at."""
        own = self.part.geometry.tensors
        return own if self.activation is None else (*own, self.activation)

    def of(self, values: Arrays, chunk: int) -> np.ndarray:
        """Features of a chunk: float64 [samples, parents + outputs]."""
        key = ("means", self.part.name, self.owners.tobytes(), self.activation, self.positions, self.seed)
        return once(values, key, lambda: self._made(values, chunk))

    def _made(self, values: Arrays, chunk: int) -> np.ndarray:
        drawn = draw(self.part, values, self.positions, self.seed, chunk)
        numbers = _samples(self.part, values, drawn.chosen)
        count = len(np.unique(numbers))
        rows = _averaged(drawn.rows[:, :-1], numbers, count)
        parents = _averaged(rows.T, self.owners, self.parents).T
        if self.activation is None:
            children = drawn.targets
        else:
            children = self.part.geometry.outputs(values[self.activation], drawn.chosen).astype(np.float64)
        return np.concatenate([parents, _averaged(children, numbers, count)], axis=1)


def feature_probe(name: str, tensors: tuple[str, ...], of: Callable[[Arrays, int], np.ndarray], most: int) -> Probe:
    """Keep the features of the first samples.

    Args:
        name: key of the statistic.
        tensors: activations that are looked at.
        of: makes the features of a chunk, [samples, columns], from these activations and the chunk's number.
        most: samples to keep.
    """
    return Probe(name, tensors, lambda values, chunk: Features.of(of(values, chunk), most))


def moment_probe(name: str, tensors: tuple[str, ...], of: Callable[[Arrays, int], np.ndarray]) -> Probe:
    """Second moments of features (a ``Gram`` without targets), of all samples."""

    def observe(values: Arrays, chunk: int) -> Gram:
        rows = of(values, chunk)
        ones = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        return Gram.of(ones, ones[:, :0])

    return Probe(name, tensors, observe)


def activation_behind(model: Model, part: Part) -> str | None:
    """The output of the activation function that directly follows an operator (behind its bias); None without one.

    It follows directly when nobody else reads what comes before it. Functions of one activation count, with constants
    or without (Relu, Clip, PRelu); arithmetic with constants does not.
    """
    tensor = part.geometry.answer
    if tensor is None:
        return None
    follower = _only_reader(model, tensor)
    if follower is not None and part.outside and follower.name in part.readers:
        tensor, follower = follower.output, _only_reader(model, follower.output)
    return follower.output if follower is not None and _is_activation(model, follower, tensor) else None


def _only_reader(model: Model, tensor: str) -> Node | None:
    readers = model.consumers(tensor)
    return readers[0] if len(readers) == 1 and tensor not in model.outputs else None


def _is_activation(model: Model, node: Node, tensor: str) -> bool:
    row = lookup(node.op, node.domain, model.opsets.get(node.domain, 1))
    if row is None or row.couple != "elementwise" or node.inputs[0] != tensor:
        return False
    others = [(slot, name) for slot, name in enumerate(node.inputs) if slot and name]
    return all(name in model.constants and row.kind(slot) is not Input.DATA for slot, name in others)


def _samples(part: Part, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
    """The number of the sample that each row belongs to, from 0 on."""
    geometry = part.geometry
    if geometry.answer is None:  # a recurrent operator: [steps * samples]
        steps, samples = values[geometry.tensors[0]].shape[:2]
        return np.tile(np.arange(samples), steps if chosen is None else len(chosen))
    answer = values[geometry.answer]
    axis = (*geometry.crosswise(geometry.answer, answer.ndim), 0)[0]
    numbers = np.arange(answer.shape[axis], dtype=np.int32)
    spread = np.broadcast_to(numbers.reshape([-1 if a == axis else 1 for a in range(answer.ndim)]), answer.shape)
    found = np.unique(geometry.outputs(spread, chosen)[:, 0], return_inverse=True)  # not all rows of a matrix are drawn
    return np.asarray(found[1])


def _averaged(rows: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Means of the rows of every owner, 0 of one without rows: [count, columns]."""
    order = np.argsort(owners, kind="stable")
    held, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    found = np.zeros((count, rows.shape[1]))
    if len(held):
        found[held] = np.add.reduceat(rows[order], starts, axis=0) / counts[:, None]
    return found
