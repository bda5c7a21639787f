"""Another form of storage for the same weights: int8, int4, packed or float, whatever the file had.

    int8     an int8 initializer
    int4     an int4 initializer and a Cast, where all values are within -8..7 (operator set 21); int8 elsewhere
    packed   the digits of whole numbers (``packing``), where that is smaller; int8 elsewhere
    float    a float32 initializer: the DequantizeLinear, or Cast and Mul, of a weight multiplied out

Whole numbers of a weight are found wherever they stand: in what onnxruntime folds to the int8 input of a
DequantizeLinear when it loads the file, or as float32 values that are multiples of one step, or of a step for each row
or column (``codec.grids``). The latter get a Cast and a Mul behind them, which give the very floats. Guarantees: int8,
int4 and packed compute the same values as the model did, bit by bit; float differs by the rounding of float sums, since
layers that onnxruntime computed in int8 are computed in float32, between the same QuantizeLinear nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepress import storage
from edgepress.codec import grids
from edgepress.errors import InputError, ModelError
from edgepress.model import Model, Node
from edgepress.quantize.storage.stored import LEAST_ELEMENTS
from edgepress.quantize.storage.unpacking import OPSET4, int8_weight
from edgepress.quantize.storage.writer import Writer
from edgepress.quantize.weights.nearest import Rounded

FORMS = ("int8", "int4", "packed", "float")
INT8_RANGE = 127
NIBBLE = (-8, 7)
FLOAT = int(onnx.TensorProto.FLOAT)


def reformed(model: Model, form: str) -> Model:
    """The model with its weights of whole numbers stored in another form.

    Raises:
        InputError: no such form.
        ModelError: no weight is made of whole numbers, or int4 and an older operator set.
    """
    if form not in FORMS:
        raise InputError(f"Weights have no form {form!r}: choose one of {', '.join(FORMS)}.")
    if form == "int4" and model.opset < OPSET4:
        raise ModelError(f"int4 needs operator set {OPSET4}, and the model has {model.opset}: choose packed.")
    folded, multiples = dict(_folded(model)), dict(_multiples(model))
    if not folded and not multiples:
        raise ModelError(
            f"No weight of the model is made of whole numbers, {LEAST_ELEMENTS} at the least: quantize or compress it "
            "first, or decode it without --form."
        )
    proto = model.edit()
    if form == "float":
        _multiply_out(proto.graph, model, folded)
    else:
        writer = Writer(onnx.ModelProto())
        names = {tensor: _stored(writer, f"{tensor}/{form}", values, form) for tensor, values in folded.items()}
        _rename(proto.graph, names)
        for name, found in multiples.items():
            _scaled(writer, name, found, form)
        _put(proto.graph, writer, set(multiples))
        if form == "int4":
            proto.ir_version = max(proto.ir_version, 10)
    _drop_dead(proto.graph)
    return Model.of(proto)


# --- whole numbers that are there ------------------------------------------------------------------------------------


def _folded(model: Model) -> Iterator[tuple[str, np.ndarray]]:
    """int8 tensors that are made of constants, and that a DequantizeLinear or a Cast to float reads."""
    inner = _inner(model)
    for node in model.nodes:
        wanted = node.op == "DequantizeLinear" or (node.op == "Cast" and node.attributes.get("to") == FLOAT)
        if not wanted or node.inputs[0] in inner:
            continue
        values = _constant(model, node.inputs[0])
        if values is not None and values.dtype == np.int8 and values.size >= LEAST_ELEMENTS:
            yield node.inputs[0], values


def _constant(model: Model, tensor: str) -> np.ndarray | None:
    """The value of a tensor that only constants and unpacking nodes make."""
    if tensor in model.constants:
        return model.constants[tensor]
    maker = model.producer(tensor)
    if maker is None or maker.op not in _UNPACKING:
        return None
    inputs = [_constant(model, name) for name in maker.inputs]
    known = [each for each in inputs if each is not None]
    return _UNPACKING[maker.op](maker, *known) if len(known) == len(inputs) else None


def _cast(node: Node, values: np.ndarray) -> np.ndarray:
    return np.asarray(values.astype(helper.tensor_dtype_to_np_dtype(node.attributes["to"])))


def _slice(node: Node, values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    return values[int(start[0]) : int(stop[0])]


_UNPACKING: dict[str, Callable[..., np.ndarray]] = {
    "Cast": _cast,
    "Div": lambda node, a, b: a // b,
    "Mod": lambda node, a, b: a % b,
    "Gather": lambda node, book, places: book[places],
    "Reshape": lambda node, values, shape: values.reshape(shape),
    "Slice": _slice,
}
"""What packed weights are unpacked with (``unpacking``), on whole numbers from 0."""


def _multiples(model: Model) -> Iterator[tuple[str, grids.Multiples]]:
    """float32 constants that are int8 numbers times steps; steps have the rank of the constant."""
    inner = _inner(model)
    for name, values in model.constants.items():
        if values.dtype != np.float32 or values.size < LEAST_ELEMENTS or values.ndim < 2 or name in inner:
            continue
        found = _steps_of(values)
        if found is not None and np.abs(found.whole).max() <= INT8_RANGE:
            yield name, found


def _steps_of(values: np.ndarray) -> grids.Multiples | None:
    rows = values.reshape(len(values), -1)
    found = grids.one_step(values)
    if found is not None:
        return grids.Multiples(found.whole.reshape(values.shape), found.steps)
    found = grids.step_each(rows)
    if found is not None:
        steps = found.steps.reshape(-1, *[1] * (values.ndim - 1))
        return grids.Multiples(found.whole.reshape(values.shape), steps)
    found = grids.step_each(np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T))
    if found is None:
        return None
    return grids.Multiples(np.ascontiguousarray(found.whole.T).reshape(values.shape), found.steps)


def _inner(model: Model) -> set[str]:
    """Tensors that bodies of control flow read, and outputs: they keep what makes them."""
    bodies = (body for node in model.frame().graph.node for item in node.attribute for body in (item.g, *item.graphs))
    return {name for body in bodies for name in storage.read_names(body)} | set(model.outputs)


# --- the other form --------------------------------------------------------------------------------------------------


def _stored(writer: Writer, name: str, values: np.ndarray, form: str) -> str:
    """Store int8 values; returns the int8 tensor."""
    if form == "int4" and NIBBLE[0] <= values.min() and values.max() <= NIBBLE[1]:
        kept = writer.constant(f"{name}/few", values.astype(ml_dtypes.int4))
        return writer.node("Cast", [kept], f"{name}/w", to=onnx.TensorProto.INT8)
    if form == "packed":
        book = np.unique(values)
        item = Rounded(values, np.ones(1, np.float32), 0, levels=len(book), codebook=book)
        return int8_weight(writer, name, item, 8)
    return writer.constant(f"{name}/w", values)


def _scaled(writer: Writer, name: str, found: grids.Multiples, form: str) -> None:
    """Make a float constant of its whole numbers and its steps."""
    whole = _stored(writer, f"{name}/{form}", found.whole.astype(np.int8), form)
    cast = writer.node("Cast", [whole], f"{name}/f", to=FLOAT)
    writer.node("Mul", [cast, writer.constant(f"{name}/s", found.steps)], name)


def _put(graph: onnx.GraphProto, writer: Writer, vacated: set[str]) -> None:
    """Put what was written in front of the graph, in place of constants of the same name."""
    nodes = [*writer.proto.graph.node, *graph.node]
    kept = [item for item in graph.initializer if item.name not in vacated]
    listed = [value for value in graph.input if value.name not in vacated]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *writer.proto.graph.initializer])
    graph.input.extend(listed)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _multiply_out(graph: onnx.GraphProto, model: Model, folded: Mapping[str, np.ndarray]) -> None:
    """Float constants in place of the nodes that made floats of whole numbers."""
    gone: dict[str, np.ndarray] = {}
    for node in model.nodes:
        if node.inputs and node.inputs[0] in folded:
            made = _product(model, node, folded[node.inputs[0]])
            if made is not None:
                gone[made[0]] = made[1]
    kept = [node for node in graph.node if not set(node.output) & gone.keys()]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in gone.items())


def _product(model: Model, node: Node, values: np.ndarray) -> tuple[str, np.ndarray] | None:
    """The tensor that a DequantizeLinear, or a Mul behind a Cast, makes of whole numbers, and its values."""
    if node.op == "DequantizeLinear":
        scale = _constant(model, node.inputs[1])
        zero = _constant(model, node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.int8(0)
        if scale is None or zero is None or node.attributes.get("block_size"):
            return None
        if scale.ndim:
            shape = [1] * values.ndim
            shape[node.attributes.get("axis", 1)] = -1
            scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
        return node.output, ((values.astype(np.int32) - np.asarray(zero, np.int32)).astype(np.float32) * scale)
    (reader, *others) = model.consumers(node.output)
    other = next((_constant(model, name) for name in reader.inputs if name != node.output), None)
    if others or reader.op != "Mul" or other is None:
        return None
    return reader.output, values.astype(np.float32) * other


def _drop_dead(graph: onnx.GraphProto) -> None:
    """Without nodes and constants that nobody reads any more."""
    while True:
        read = storage.read_names(graph)
        kept = [node for node in graph.node if set(node.output) & read]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    constants = [item for item in graph.initializer if item.name in read]
    listed = {item.name for item in graph.initializer} - read
    inputs = [value for value in graph.input if value.name not in listed]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(constants)
    graph.input.extend(inputs)
