"""How far back the definition of an operator goes that gives a node the same meaning.

Every version of an operator is a step; a node passes it downwards if all this holds for the definition before:

* it has the inputs, outputs and attributes that the node uses (an attribute that says what the newer default is anyway
  does not count: it can go),
* it takes the types of the node's tensors,
* the step changed nothing else that the node shows: ``CHANGED`` lists the steps that changed more than names, types and
  wording, from the changelog of the operators (onnx/docs/Changelog.md), each with the condition it is passed under.

``tests/test_quantize_lowered.py`` compares the table with all definitions of the installed onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import defs

from edgepress.normalize.graph import attributes, drop_attribute, set_attribute
from edgepress.ops.table import NEWEST_OPSET

OLDEST = 13
"""No node is followed further back: every release that may be named loads operator set 13, and int8 per channel needs
it."""

Types = Mapping[str, str]
"""By tensor the type as definitions write it, such as ``tensor(float)``; tensors of unknown type are missing."""


@dataclass(frozen=True)
class Site:
    """A node of the default domain and what it reads and makes.

    Attributes:
        node: the node.
        types: of the tensors around it.
        ranks: their number of axes, where it is known.
    """

    node: onnx.NodeProto
    types: Types
    ranks: Mapping[str, int]

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes by name, texts as ``str``."""
        found = attributes(self.node)
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def oldest(site: Site, version: int) -> int:
    """The oldest operator set in which the node means what it means in ``version``.

    Args:
        site: the node.
        version: operator set of the model.
    """
    op = site.node.op_type
    schema = defs.get_schema(op, version, "")
    while schema.since_version > OLDEST:
        since = schema.since_version
        if since > NEWEST_OPSET or not defs.has(op, since - 1, ""):
            return since
        before = defs.get_schema(op, since - 1, "")
        same = CHANGED.get((op, since), _always)
        if not (_has_its_parts(site, before, schema) and _takes_its_types(site, before) and same(site)):
            return since
        schema = before
    return OLDEST


def _has_its_parts(site: Site, before: defs.OpSchema, after: defs.OpSchema) -> bool:
    """Inputs, outputs and attributes in use."""
    known = set(after.attributes) - set(before.attributes)  # what later versions added went at their steps
    new = [item for item in site.node.attribute if item.name in known]
    fits = _used(site.node.input) <= before.max_input and _used(site.node.output) <= before.max_output
    return fits and all(_is_default(item, after) for item in new)


def _used(names: Sequence[str]) -> int:
    """Places in use, up to the last one that is."""
    return max((place for place, name in enumerate(names, 1) if name), default=0)


def _is_default(item: onnx.AttributeProto, schema: defs.OpSchema) -> bool:
    if item.name == "dilations":  # of pools; the default has the length of the kernel, so that no schema states it
        return set(item.ints) <= {1}
    known = schema.attributes.get(item.name)
    return known is not None and known.default_value.type != 0 and _bare(known.default_value) == _bare(item)


def _bare(item: onnx.AttributeProto) -> onnx.AttributeProto:
    """The attribute without its documentation."""
    made = onnx.AttributeProto()
    made.CopyFrom(item)
    made.ClearField("doc_string")
    return made


def _takes_its_types(site: Site, schema: defs.OpSchema) -> bool:
    ends = ((site.node.input, schema.inputs), (site.node.output, schema.outputs))
    return all(_allowed(site, names, parameters) for names, parameters in ends)


def _allowed(site: Site, names: Sequence[str], parameters: Sequence[defs.OpSchema.FormalParameter]) -> bool:
    """Whether every tensor has a type of its place; the last place takes all that follow (variable number)."""
    last = len(parameters) - 1
    return all(
        site.types[name] in parameters[min(place, last)].types for place, name in enumerate(names) if name in site.types
    )


def _always(_: Site) -> bool:
    return True


def _never(_: Site) -> bool:
    return False


def _unless(name: str, *values: object) -> Callable[[Site], bool]:
    """The attribute has none of these values."""
    return lambda site: site.attributes.get(name) not in values


def _one_output(site: Site) -> bool:
    return sum(map(bool, site.node.output)) == 1


def _planar(site: Site) -> bool:
    return site.ranks.get(site.node.input[0]) == 4


def _scale_of_its_type(site: Site) -> bool:
    x, scale = site.node.input[:2]
    return x in site.types and site.types[x] == site.types.get(scale)


CHANGED: Mapping[tuple[str, int], Callable[[Site], bool]] = {
    # with training_mode 0 one output is the rule, before it the sign of inference
    ("BatchNormalization", 14): _one_output,
    # coordinate_transformation_mode is new, and its default half_pixel is not what 10 does
    ("RoiAlign", 16): _never,
    ("ScatterElements", 18): _unless("reduction", "max", "min"),
    ("ScatterND", 18): _unless("reduction", "max", "min"),
    # 19 says the output size of ceil_mode anew, 22 leaves out windows that start in the padding on the right
    ("AveragePool", 19): _unless("ceil_mode", 1),
    ("AveragePool", 22): _unless("ceil_mode", 1),
    ("MaxPool", 22): _unless("ceil_mode", 1),
    ("Pad", 19): _unless("mode", "wrap"),
    ("Resize", 19): _unless("coordinate_transformation_mode", "half_pixel_symmetric"),
    # axis became an input, and its default went from 1 to -2
    ("DFT", 20): _never,
    # bilinear and bicubic became linear and cubic (``RENAMED``), for any number of spatial axes
    ("GridSample", 20): _planar,
    # scale and bias of every group became those of every channel
    ("GroupNormalization", 21): _never,
    # the type of x may differ from that of the scale
    ("QuantizeLinear", 23): _scale_of_its_type,
    # the order of mask and soft cap, cached keys
    ("Attention", 24): _never,
    ("Attention", 25): _never,
}
"""By operator and version that changed it: the condition under which a node means the same in the version before."""

RENAMED: Mapping[tuple[str, int], tuple[str, Mapping[str, str]]] = {
    ("GridSample", 20): ("mode", {"linear": "bilinear", "cubic": "bicubic"}),
}
"""By operator and version: an attribute whose values had other names before."""


def older(node: onnx.NodeProto, version: int) -> onnx.NodeProto:
    """The node as an operator set writes it that :func:`oldest` allows: without new defaults, with the older names."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    known = defs.get_schema(node.op_type, version, "").attributes
    for item in node.attribute:
        if item.name not in known:
            drop_attribute(made, item.name)
    for (op, since), (name, names) in RENAMED.items():
        value = attributes(node).get(name, b"").decode() if op == node.op_type and version < since else ""
        if value in names:
            set_attribute(made, name, names[value])
    return made
