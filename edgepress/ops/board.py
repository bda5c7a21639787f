"""The board of one analysis: labels of every tensor so far, and what the label rules note on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from edgepress.ops.labels import Atoms, core, thin, varying

UseRole = Literal["out", "in", "along"]
Shape = tuple[int, ...]


class NodeLike(Protocol):
    """What a rule needs to know of a node (``edgepress.model.Node`` has it)."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def op(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Use:
    """Node ``node`` reads constant ``tensor`` as input ``slot``; positions of ``axis`` belong to ``labels``."""

    tensor: str
    axis: int
    labels: np.ndarray
    role: UseRole
    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Lay:
    """``labels`` laid over constant ``tensor``, aligned to the right; which axis shrinks is known at the end."""

    tensor: str
    labels: np.ndarray
    role: UseRole
    node: str
    slot: int


@dataclass
class Board:
    """The state of one analysis: what is known about every tensor so far.

    Attributes:
        constants: the initializers.
        shapes: static shapes of the tensors, with every symbolic dimension bound to a size.
        opset: version of the default operator set.
        values: computed tensors that depend on shapes alone, at these sizes (Shape -> Gather -> Concat chains).
        free: (tensor, axis) of every length that the model leaves open.
        atoms: the labels' union-find.
        labels: labels of every tensor so far.
        uses: axes of constants that shrink with labels.
        laid: labels of constants of which it is only known at the end which axis shrinks.
        joins: pairs of atoms, int64 [2, n], on which two streams of one shape were added.
        copies: atoms of constants and of copies of one position: channels only if something joins them with channels.
        heads: labels that products of two computed tensors tied: attention heads, never a shared stream.
    """

    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    opset: int
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    free: frozenset[tuple[str, int]] = frozenset()
    atoms: Atoms = field(default_factory=Atoms)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    laid: list[Lay] = field(default_factory=list)
    joins: list[np.ndarray] = field(default_factory=list)
    heads: list[np.ndarray] = field(default_factory=list)
    copies: list[np.ndarray] = field(default_factory=list)

    def channels(self, tensor: str, axis: int) -> np.ndarray:
        """One label per index of ``axis`` (int64 [n]); positions that share the index are tied."""
        labels = self.labels[tensor]
        inner = core(labels)
        rows = np.moveaxis(inner, axis, 0).reshape(inner.shape[axis], -1)
        self.atoms.tie(rows[:, :1], rows)
        return np.broadcast_to(rows[:, 0], labels.shape[axis])

    def use(self, node: NodeLike, slot: int, axis: int, labels: np.ndarray, role: UseRole) -> None:
        """Note that an axis of the constant read as input ``slot`` shrinks with ``labels``."""
        self.uses.append(Use(node.inputs[slot], axis, np.asarray(labels), role, node.name, slot))

    def lay(self, node: NodeLike, slot: int, labels: np.ndarray, role: UseRole) -> None:
        """Note that the constant read as input ``slot`` shrinks with ``labels``, along the axis they vary along.

        Labels may vary along several axes now (the heads and the channels of a head) and along one at the end, when
        everything is tied. They are aligned to the right with the constant, as in broadcasting: where they vary along
        an axis that the constant lacks, it does not shrink.
        """
        self.laid.append(Lay(node.inputs[slot], labels, role, node.name, slot))

    def settle(self) -> None:
        """Turn what was laid over constants into uses; call it when what can be cut of every tensor is a box."""
        for lay in self.laid:
            shape = self.constants[lay.tensor].shape
            axis = self._shrinking(lay.labels, shape)
            if axis is not None:
                found = core(thin(self.atoms.find(lay.labels)))
                rows = np.moveaxis(found, axis + lay.labels.ndim - len(shape), 0).reshape(shape[axis], -1)
                self.uses.append(Use(lay.tensor, axis, self._alive(rows), lay.role, lay.node, lay.slot))
        self.laid.clear()

    def _shrinking(self, labels: np.ndarray, shape: Shape) -> int | None:
        """The axis of a constant of this shape along which it shrinks; None if along none."""
        first = labels.ndim - len(shape)
        for state in (self.atoms.live(labels), self.atoms.find(labels)):
            axes = varying(thin(state))
            if len(axes) == 1:
                axis = axes[0] - first
                return axis if axis >= 0 and shape[axis] > 1 else None
        return None

    def _alive(self, rows: np.ndarray) -> np.ndarray:
        """One label per row: a live one if there is one."""
        return np.asarray(rows[np.arange(len(rows)), np.argmax(self.atoms.live(rows) > 0, axis=1)])

    def meet(self, left: np.ndarray, right: np.ndarray) -> None:
        """Two streams of one shape are added (see ``joins``); the rule ties them."""
        pairs = np.stack([x.ravel() for x in np.broadcast_arrays(core(left), core(right))])
        pairs = pairs[:, (pairs > 0).all(axis=0)]
        if bool((pairs[0] != pairs[1]).any()):
            self.joins.append(pairs)

    def constant(self, node: NodeLike, slot: int) -> np.ndarray | None:
        """The constant read as input ``slot``; None if there is none or it is computed."""
        return self.constants.get(node.inputs[slot]) if slot < len(node.inputs) else None

    def known(self, node: NodeLike, slot: int) -> np.ndarray | None:
        """The value of input ``slot`` where it is constant or depends on shapes alone (``values``); else None."""
        constant = self.constant(node, slot)
        return self.values.get(node.inputs[slot]) if constant is None and slot < len(node.inputs) else constant

    def given(self, node: NodeLike, slot: int) -> bool:
        """Whether the optional input ``slot`` is there."""
        return slot < len(node.inputs) and node.inputs[slot] != ""

    def write(self, tensor: str, labels: np.ndarray) -> None:
        """Set the labels of an output."""
        self.labels[tensor] = labels
