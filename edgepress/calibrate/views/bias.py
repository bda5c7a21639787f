"""The bias of a linear operator: its own input, or the constant of the Add right behind it.

Exporters write ``MatMul`` and ``Add``: the constant is the bias when it holds one value per output and nobody else
reads it or what it is added to. Then the column of ones of a fit writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from edgepress.calibrate.views.part import Geometry, Part
from edgepress.calibrate.views.source import Source, vector
from edgepress.model import Model, Node

BIASED = "its bias is not one constant number for every output"


@dataclass(frozen=True, slots=True)
class Bias:
    """Where a node's bias is.

    Attributes:
        model: the model.
        node: the node.
        found: the bias; None where there is none.
        reader: name of the node that adds it.
    """

    model: Model
    node: Node
    found: Source | None = None
    reader: str = ""

    @classmethod
    def of(
        cls, model: Model, node: Node, *, slot: int, sizes: tuple[int, ...], axes: tuple[int, ...], scale: float = 1.0
    ) -> Bias | str:
        """The bias of one value per output; or why it is no column.

        Args:
            model: the model.
            node: the node.
            slot: the input that may hold it.
            sizes: lengths of the axes that make outputs.
            axes: where they are in what comes out, counted from the end.
            scale: what the node multiplies the bias by.
        """
        name = node.inputs[slot] if len(node.inputs) > slot else ""
        if not name or scale == 0:
            return _behind(model, node, sizes, axes)
        own = model.constants.get(name)
        if own is None or own.size != sizes[0] or own.shape[-1:] != sizes:
            return BIASED
        return cls(model, node, vector(name, own.shape, (-1,), scale), node.name)

    def part(self, geometry: Geometry, source: Source, made: range | None = None, number: object = None) -> Part:
        """The part that makes the outputs, or some of them."""
        node, constants = self.node, self.model.constants
        name = node.name if number is None else f"{node.name} {number}"
        if self.found is None:
            return Part(name, node, geometry, (source,), (), (node.name,), constants)
        bias = self.found if made is None else self.found.some(made)
        readers = tuple(dict.fromkeys((node.name, self.reader)))
        return Part(name, node, geometry, (source,), (bias,), readers, constants, self.reader != node.name)


def _behind(model: Model, node: Node, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Bias:
    """The constant of an Add right behind a node, when it is one value per output and read by nobody else."""
    none, readers = Bias(model, node), model.consumers(node.output)
    if not axes or len(readers) != 1 or readers[0].op != "Add" or readers[0].domain or node.output in model.outputs:
        return none
    other = next((name for name in readers[0].inputs if name != node.output), node.output)
    values = model.constants.get(other)
    if values is None or other in model.outputs or len(model.consumers(other)) != 1 or values.ndim < -min(axes):
        return none
    if values.size != prod(sizes) or tuple(values.shape[axis] for axis in axes) != sizes:
        return none
    return Bias(model, node, vector(other, values.shape, axes), readers[0].name)
