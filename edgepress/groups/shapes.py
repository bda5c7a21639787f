"""Static shapes of every tensor, and values of those that depend on shapes alone.

Strict shape inference on the bound outline; values that follow from the shapes are written into it as constants, and it
is inferred again until nothing new is known. What is left (operators of other domains, outputs of control flow) is
learned by running the bound model once in onnxruntime on made-up inputs, with the shapes of these tensors as outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from edgepress import runtime
from edgepress.errors import ModelError, Refusal
from edgepress.groups.binding import Sizes, bindings, symbol_of, unstated
from edgepress.groups.values import LIMIT, Shape, shape_values
from edgepress.model import Model
from edgepress.ops.inference import infer_shapes

ROUNDS = 8
"""Times that inference is repeated with what it found; each round reaches the next computed target."""

OPAQUE = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"}
)
"""Operators that make no tensors."""


@dataclass(frozen=True)
class Bound:
    """What is known at one choice of sizes.

    Attributes:
        shapes: of every tensor whose shape is known.
        values: tensors that depend on shapes alone.
        sizes: what symbolic dimensions were bound to.
        assumed: the part of ``sizes`` that nobody stated.
    """

    shapes: Mapping[str, Shape]
    values: Mapping[str, np.ndarray]
    sizes: Sizes = field(default_factory=dict)
    assumed: Sizes = field(default_factory=dict)


def bind(model: Model, known: Sizes) -> Bound | Refusal:
    """Bind symbolic dimensions so that the shapes can be inferred.

    Args:
        model: flat, no initializer listed as input.
        known: sizes of symbolic dimensions (by symbol, or ``<input>:<axis>``); others are assumed.
    """
    problem = unstated(model)
    if problem is not None:
        return problem
    problem_found = ""
    probe = Probe(model)
    for sizes, assumed in bindings(model, known):
        found = _inferred(model, sizes, probe)
        if isinstance(found, str):
            problem_found = problem_found or found
            continue
        shapes, values = found
        if all(min(shape, default=1) > 0 for name, shape in shapes.items() if name not in model.constants):
            return Bound(shapes, values, sizes, assumed)
        problem_found = problem_found or "a tensor without elements"
    return Refusal("model", f"its shapes cannot be inferred with a batch of 1 ({problem_found})")


def _inferred(model: Model, sizes: Sizes, probe: Probe) -> tuple[dict[str, Shape], dict[str, np.ndarray]] | str:
    """Shapes and values at these sizes, or the first line of what is wrong with them."""
    proto = _bound(model, sizes)
    shapes = {name: _stated(model, name) for name in model.constants}
    values: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        try:
            found = _shapes(infer_shapes(proto, check_type=True))
        except shape_inference.InferenceError as error:
            found = probe.shapes(sizes, _unknown(model, shapes))
            if not found:
                return str(error).strip().splitlines()[0]
        before = len(shapes), len(values)
        shapes = {**shapes, **found}
        values = shape_values(model.nodes, model.constants, shapes, model.opset)
        shapes |= {name: array.shape for name, array in values.items()}
        unknown = _unknown(model, shapes)
        if not unknown:
            break
        if (len(shapes), len(values)) == before:
            learned = probe.shapes(sizes, unknown)
            if not learned:
                break
            shapes |= learned
        _fold(proto, values)
    return shapes, values


def _stated(model: Model, name: str) -> Shape:
    """Shape of an initializer, without decoding it."""
    return tuple(int(n or 0) for n in model.types[name].shape or () if not isinstance(n, str))


def _bound(model: Model, sizes: Sizes) -> onnx.ModelProto:
    """The outline with every dimension of every input bound, and nothing stated about other tensors."""
    proto = model.outline()
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_value = sizes[symbol_of(value.name, axis, dimension.dim_param or None)]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto


def _shapes(inferred: onnx.ModelProto) -> dict[str, Shape]:
    found = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return found


def _unknown(model: Model, shapes: Mapping[str, Shape]) -> list[str]:
    return [name for node in model.nodes for name in node.outputs if name and name not in shapes]


def _fold(proto: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> None:
    """Write values into the outline as constants, instead of the nodes that compute them."""
    kept = {value.name for value in proto.graph.output} | {item.name for item in proto.graph.initializer}
    folded = {name for name, array in values.items() if name not in kept and array.size <= LIMIT}
    stay = [node for node in proto.graph.node if not folded.issuperset(name for name in node.output if name)]
    read = {name for node in stay for name in node.input}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in stay]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in sorted(folded & read))


class Probe:
    """The model with the shapes of its tensors as outputs, in onnxruntime: opened when it is asked first."""

    def __init__(self, model: Model) -> None:
        """Nothing is opened yet."""
        self._model = model
        self._names = {
            f"edgepress/shape/{name}": name
            for node in model.nodes
            if node.op not in OPAQUE
            for name in node.outputs
            if name
        }

    @cached_property
    def _run(self) -> Callable[..., dict[str, np.ndarray]] | None:
        if self._model.large:
            return None
        proto = self._model.edit()
        proto.graph.node.extend(helper.make_node("Shape", [tensor], [name]) for name, tensor in self._names.items())
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._names)
        try:
            return partial(runtime.run, runtime.session(proto.SerializeToString(), optimize=False))
        except ModelError:
            return None

    def shapes(self, sizes: Sizes, tensors: Iterable[str]) -> dict[str, Shape]:
        """Shapes of tensors in a run on made-up inputs, but of those without elements (nothing can be followed there).

        Nothing is learned when onnxruntime does not run the model on what can be made up, or it is large.
        """
        wanted = set(tensors)
        asked = [name for name, tensor in self._names.items() if tensor in wanted]
        run = self._run if asked else None
        if run is None:
            return {}
        for high in (2, 1):
            try:
                seen = run(_made_up(self._model, sizes, high), asked)
            except ModelError:
                continue
            found = {self._names[name]: tuple(int(n) for n in seen[name]) for name in asked}
            return {tensor: shape for tensor, shape in found.items() if min(shape, default=1) > 0}
        return {}


def _made_up(model: Model, sizes: Sizes, high: int) -> dict[str, np.ndarray]:
    """Seeded normal numbers, or whole numbers below ``high``."""
    source = np.random.default_rng(0)
    feed = {}
    for name, type_ in model.inputs.items():
        shape = [
            size if isinstance(size, int) else sizes[symbol_of(name, axis, size)]
            for axis, size in enumerate(type_.shape or ())
        ]
        drawn = source.standard_normal(shape) if "float" in type_.dtype else source.integers(0, high, shape)
        feed[name] = drawn.astype(type_.dtype)
    return feed
