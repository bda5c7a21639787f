"""The board of one analysis: labels of every tensor so far, and what the label rules note on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from edgepress.ops.labels import Atoms, core

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


@dataclass
class Board:
    """The state of one analysis: what is known about every tensor so far."""

    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    opset: int
    atoms: Atoms = field(default_factory=Atoms)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    joins: list[np.ndarray] = field(default_factory=list)

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

    def constant(self, node: NodeLike, slot: int) -> np.ndarray | None:
        """The constant read as input ``slot``; None if there is none or it is computed."""
        return self.constants.get(node.inputs[slot]) if slot < len(node.inputs) else None

    def given(self, node: NodeLike, slot: int) -> bool:
        """Whether the optional input ``slot`` is there."""
        return slot < len(node.inputs) and node.inputs[slot] != ""

    def write(self, tensor: str, labels: np.ndarray) -> None:
        """Set the labels of an output."""
        self.labels[tensor] = labels
