"""Operators without a kernel whose meaning the ONNX specification gives as a graph of other operators.

The body is taken from ``onnx.defs`` in the newest edition that is not newer than the model's operator set, its
attributes are filled in from the node, and it is compiled like a graph of its own, with its own names and the operator
set it was written for. Bodies that depend on the inputs' types (CenterCropPad, CastLike, Attention) are made for the
types the model states.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, shape_inference

from edgepress.errors import UnsupportedError
from edgepress.executor.program import Program, Scope, label
from edgepress.executor.values import Value
from edgepress.model import Model, Node, TensorType


@dataclass(frozen=True, slots=True)
class Body:
    """What a node stands for.

    Attributes:
        model: the graph; its inputs are those formal inputs the node gives, its outputs those it lists.
        inputs: the node's names for the inputs of the graph, in order.
    """

    model: Model
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FunctionStep:
    """A node run by its function body."""

    node: Node
    body: Program
    inputs: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs."""
        return self.node.inputs

    @property
    def hosts(self) -> tuple[bool, ...]:
        """As in the body; unnamed outputs are not made."""
        made = iter(self.body.hosts)
        return tuple(next(made) if name else False for name in self.node.outputs)

    @property
    def bodies(self) -> tuple[Program, ...]:
        """The body."""
        return (self.body,)

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """Run the body in a scope of its own."""
        made = iter(self.body.call(scope, [scope.find(name) for name in self.inputs]))
        nothing = np.zeros(0)
        return tuple(next(made) if name else nothing for name in self.node.outputs)


def body_of(node: Node, opset: int, types: Mapping[str, TensorType]) -> Body | None:
    """The function body of an operator as a graph; None when the specification gives none.

    Args:
        node: a node of the default domain.
        opset: version of the default operator set of the model.
        types: stated types of the tensors of the model.

    Raises:
        UnsupportedError: the body depends on the type of an input that the model does not state.
    """
    schema = _schema(node, opset)
    if schema is None or not (schema.has_function or schema.has_context_dependent_function):
        return None
    function = onnx.FunctionProto.FromString(_serialized(schema, node, opset, types))
    return _graph(function, node, _given(schema, function, node), types)


def _schema(node: Node, opset: int) -> Any:
    """The definition in force, or None; what onnx tells about function bodies is not in its type stubs."""
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        return defs.get_schema(node.op, opset, "")
    except defs.SchemaError:
        return None


def _serialized(schema: Any, node: Node, opset: int, types: Mapping[str, TensorType]) -> bytes:
    if schema.has_function:
        edition = _edition(schema.function_opset_versions, opset)
        return bytes(schema.get_function_with_opset_version(edition))
    edition = _edition(schema.context_dependent_function_opset_versions, opset)
    stated = [_type(node, name, types) for name in node.inputs]
    bound = helper.make_node(node.op, list(node.inputs), list(node.outputs))
    bound.attribute.extend(_attributes(schema, node).values())
    made = schema.get_context_dependent_function_with_opset_version(edition, bound.SerializeToString(), stated)
    if not made:
        raise UnsupportedError(f"{label(node)} has no function body for these types and attributes.")
    return bytes(made)


def _edition(versions: Iterable[int], opset: int) -> int:
    """The newest edition a model of that operator set may use; the oldest there is for older models."""
    known = sorted(versions)
    return max([version for version in known if version <= opset], default=known[0])


def _type(node: Node, name: str, types: Mapping[str, TensorType]) -> bytes:
    if not name:
        return bytes(onnx.TypeProto().SerializeToString())
    known, code = types.get(name), _code(types.get(name))
    if known is None or code is None:
        raise UnsupportedError(
            f"{label(node)} is run by a function body that depends on the type of {name!r}, which the model does not "
            "state: infer the shapes of the model first."
        )
    return bytes(helper.make_tensor_type_proto(code, known.shape).SerializeToString())


def _code(known: TensorType | None) -> int | None:
    """Element type in ONNX; None for what is no tensor or of no stated type."""
    try:
        return None if known is None else helper.np_dtype_to_tensor_dtype(np.dtype(known.dtype))
    except TypeError:
        return None


def _attributes(schema: Any, node: Node) -> dict[str, onnx.AttributeProto]:
    """The node's attributes as protos."""
    return {
        name: helper.make_attribute(name, value, attr_type=int(schema.attributes[name].type.value))
        for name, value in node.attributes.items()
        if name in schema.attributes
    }


def _given(schema: Any, function: onnx.FunctionProto, node: Node) -> dict[str, onnx.AttributeProto]:
    """Attributes a body may refer to: the node's, else the defaults of the specification."""
    defaults = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != onnx.AttributeProto.UNDEFINED
    }
    return {**defaults, **{item.name: item for item in function.attribute_proto}, **_attributes(schema, node)}


def _graph(
    function: onnx.FunctionProto,
    node: Node,
    given: Mapping[str, onnx.AttributeProto],
    types: Mapping[str, TensorType],
) -> Body:
    named = dict(zip(function.input, node.inputs, strict=False))
    present = {formal: actual for formal, actual in named.items() if actual}
    absent = set(function.input) - present.keys()
    nodes = [_filled(item, given, absent) for item in function.node]
    inputs = [_formal(formal, types.get(actual)) for formal, actual in present.items()]
    outputs = [
        onnx.ValueInfoProto(name=formal)
        for formal, actual in zip(function.output, node.outputs, strict=False)
        if actual
    ]
    graph = helper.make_graph(nodes, function.name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=list(function.opset_import))
    # bodies within the body may depend on types in turn
    return Body(Model.of(shape_inference.infer_shapes(model)), tuple(present.values()))


def _formal(name: str, known: TensorType | None) -> onnx.ValueInfoProto:
    code = _code(known)
    if known is None or code is None:
        return onnx.ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, code, known.shape)


def _filled(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], absent: set[str]) -> onnx.NodeProto:
    """The node with the attributes it refers to, and without inputs that are not given."""
    made = copy.deepcopy(node)
    made.input[:] = ["" if name in absent else name for name in node.input]
    del made.attribute[:]
    for item in node.attribute:
        if not item.ref_attr_name:
            made.attribute.append(_filled_bodies(item, given, absent))
        elif item.ref_attr_name in given:
            filled = made.attribute.add()
            filled.CopyFrom(given[item.ref_attr_name])
            filled.name = item.name
    return made


def _filled_bodies(
    item: onnx.AttributeProto, given: Mapping[str, onnx.AttributeProto], absent: set[str]
) -> onnx.AttributeProto:
    made = copy.deepcopy(item)
    if item.HasField("g"):
        del made.g.node[:]
        made.g.node.extend(_filled(node, given, absent) for node in item.g.node)
    return made
