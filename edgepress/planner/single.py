"""One node of a model as a model of its own, at the widths that are left.

Its activations become inputs with free sizes, its constants stay; :func:`edgepress.surgery.cut.cut` takes the channels
out as it does in the whole model, so that attributes follow (groups of a convolution, hidden units).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper

from edgepress.groups import Grouping
from edgepress.model import Model, Node
from edgepress.surgery.cut import cut

FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """A node that can be run alone."""

    node: Node
    model: Model
    grouping: Grouping

    @classmethod
    def of(cls, model: Model, grouping: Grouping, node: Node) -> Single | None:
        """Take a node out of its model; None where it reads other activations than floats of known shape."""
        constants = [name for name in node.inputs if name in model.constants]
        read = [name for name in dict.fromkeys(node.inputs) if name and name not in model.constants]
        made = [name for name in node.outputs if name]
        labels, floats = grouping.channels, (name for name, known in model.types.items() if known.dtype in FLOATS)
        if not {*read, *made} <= labels.keys() & set(floats):
            return None
        kept = {*read, *made, *constants}
        groups = tuple(
            dataclasses.replace(group, sites=tuple(site for site in group.sites if site.tensor in constants))
            for group in grouping.groups
        )
        channels = {name: numbers for name, numbers in labels.items() if name in kept}
        return cls(node, _alone(model, grouping, node, read, made), Grouping(groups, (), channels, grouping.first))

    def at(self, removed: Mapping[str, Sequence[int]], seed: int = 0) -> tuple[Model, dict[str, np.ndarray]]:
        """The node without some channels, and random inputs for it."""
        cutting = cut(self.model, self.grouping, removed)
        random = np.random.default_rng(seed)
        feed = {}
        for name, known in self.model.inputs.items():
            shape = self.grouping.channels[name].shape if cutting.left is None else cutting.left.shape(name)
            feed[name] = random.standard_normal(tuple(shape)).astype(known.dtype)
        return cutting.model, feed


def _alone(model: Model, grouping: Grouping, node: Node, read: Sequence[str], made: Sequence[str]) -> Model:
    proto = model.frame()
    kept = [item for item in proto.graph.node if tuple(item.output) == node.outputs]
    for field in ("node", "input", "output", "value_info"):
        proto.graph.ClearField(field)
    proto.graph.node.extend(kept)
    for names, values in ((read, proto.graph.input), (made, proto.graph.output)):
        for name in names:
            code = helper.np_dtype_to_tensor_dtype(np.dtype(model.types[name].dtype))
            values.append(helper.make_tensor_value_info(name, code, [None] * grouping.channels[name].ndim))
    model.fill(proto, set(node.inputs), {})
    return Model.of(proto)
