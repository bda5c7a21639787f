"""Targets, sizes and bounds that are computed at run time, and constants made to measure.

Many of them follow a cut by themselves (Shape of the narrowed tensor). So the shape program is evaluated again, at the
sizes of the analysis and with the new shapes. Where a number differs from what its mender asks for, it is scaled:

    new[i] = old[i] * wanted[i] // found[i]

which is exact for an entry that names a width, and for one that is a multiple of it (batch x heads); an entry that
came out as 0 names nothing but a width, and the difference is added. Everything else about the program stays, so
symbolic dimensions stay symbolic.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.groups.follow import MENDED
from edgepress.groups.values import Joined, evaluated
from edgepress.model import Model, Node
from edgepress.surgery.mend.mender import Mender, set_constant
from edgepress.surgery.mend.survivors import Survivors


class Valued(Model):
    """The model as menders see it: what is computed from shapes alone counts as constant."""

    def __init__(self, model: Model, values: Mapping[str, np.ndarray]) -> None:
        """Take the structure of ``model`` and add the values."""
        super().__init__(model.frame())
        self._known = Joined(values, model.constants)

    @cached_property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Initializers and computed values."""
        return self._known


class Program:
    """The shape program after a cut.

    Attributes:
        before: its values before the cut.
        now: its values after it, as far as they are evaluated.
        added: per node (its outputs) the nodes to put before it.
    """

    def __init__(self, model: Valued, before: Mapping[str, np.ndarray], left: Survivors) -> None:
        """Nothing is evaluated yet."""
        self.before = before
        self.now: dict[str, np.ndarray] = {}
        self.added: dict[tuple[str, ...], list[gs.Node]] = {}
        self._model = model
        self._left = left
        self._scaled: dict[tuple[str, bytes], gs.Variable] = {}

    def targets(self, node: Node) -> list[int]:
        """Inputs of a node that are computed and can be mended."""
        return [
            slot for slot in MENDED.get(node.op, ()) if slot < len(node.inputs) and node.inputs[slot] in self.before
        ]

    def step(self, node: Node, wanted: Mapping[str, np.ndarray]) -> None:
        """Evaluate a node of the program; ``wanted`` are the values its mended inputs have now."""
        names = [name for name in node.outputs if name]
        if not all(name in self.before for name in names):
            return
        values = {**self.now, **wanted}
        stale = any(name in values and values[name] is not self.before[name] for name in node.inputs)
        if not stale and not self._changed(node.inputs[:1]):
            self.now.update({name: self.before[name] for name in names})
            return
        shapes = {name: tuple(self._left.shape(name)) for name in node.inputs if self._left.known(name)}
        made = evaluated(node, values, self._model.constants, shapes, self._model.opset) or {}
        self.now.update({name: made.get(name, self.before[name]) for name in names})

    def _changed(self, names: tuple[str, ...]) -> bool:
        return any(self._left.changed(name) for name in names)

    def scale(self, node: Node, target: gs.Node, slot: int, wanted: np.ndarray) -> None:
        """Let input ``slot`` of ``target`` be ``wanted`` (at the sizes of the analysis), if it is not so by itself."""
        name = node.inputs[slot]
        found = self.now[name]
        if np.array_equal(found, wanted):
            return
        key = name, wanted.tobytes()
        if key not in self._scaled:
            self._scaled[key] = self._insert(node, target.inputs[slot], f"{node.output}/{slot}", found, wanted)
        target.inputs[slot] = self._scaled[key]

    def _insert(self, node: Node, source: gs.Tensor, name: str, found: np.ndarray, wanted: np.ndarray) -> gs.Variable:
        same = np.logical_or(found == wanted, found == 0)
        common = np.gcd(found, wanted)
        common[common == 0] = 1
        factors = {
            "Mul": np.where(same, 1, wanted // common).astype(found.dtype),
            "Div": np.where(same, 1, found // common).astype(found.dtype),
            "Add": np.where(found == 0, wanted, 0).astype(found.dtype),
        }
        for op, factor in factors.items():
            if (factor != (op != "Add")).any():
                made = gs.Variable(self._fresh(f"{name}/{op}"), dtype=found.dtype.type)
                constant = gs.Constant(f"{made.name}/by", factor)
                self.added.setdefault(node.outputs, []).append(gs.Node(op, made.name, {}, [source, constant], [made]))
                source = made
        return source

    def _fresh(self, name: str) -> str:
        """The name, or one like it that no earlier cut has left in the graph."""
        while name in self._taken:
            name += "/again"
        return name

    @cached_property
    def _taken(self) -> frozenset[str]:
        return frozenset(name for node in self._model.nodes for name in node.outputs)


def asked(mender: Mender | None, model: Valued, node: Node, target: gs.Node, left: Survivors) -> dict[int, np.ndarray]:
    """What a mender wants the computed inputs of a node to be; ``target`` keeps them as they are."""
    slots = [slot for slot in MENDED[node.op] if slot < len(node.inputs) and node.inputs[slot]]
    before = {slot: target.inputs[slot] for slot in slots}
    if mender is not None:
        mender(model, node, target, left)
    found = {}
    for slot, tensor in before.items():
        new = target.inputs[slot]
        old = model.constants[node.inputs[slot]]
        found[slot] = old if new is tensor else np.asarray(new.values, old.dtype).reshape(old.shape)
        if not isinstance(tensor, gs.Constant):
            target.inputs[slot] = tensor
    return found


def _constant_of_shape(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    wanted = left.shape(node.output)
    if wanted != model.constants[node.inputs[0]].ravel().tolist():
        set_constant(target, 0, f"{node.output}/shape", wanted)


MENDERS: Mapping[str, Mender] = {"ConstantOfShape": _constant_of_shape}
