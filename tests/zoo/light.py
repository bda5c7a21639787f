"""The well-known classifiers inside the onnx package, with random weights instead of placeholders.

``onnx/backend/test/data/light`` holds the graphs of nine networks whose weights are all 0.02 (ConstantOfShape). Here
each gets seeded values that suit its place: He-scaled weights, normalization that matters. A Softmax at the end is
taken off, as it would squash differences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepress.model import Model
from zoo.parts import Input

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT = tuple(sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx")))
"""Names of the networks."""

SMALL = ("inception_v1", "shufflenet", "squeezenet")
"""Those that a quick test can afford."""

BATCH_NORMALIZATION = ("scale", "shift", "shift", "scale")  # inputs 1 to 4: scale, bias, mean, variance


def light(name: str) -> Model:
    """A network of the onnx package with seeded random weights."""
    proto = onnx.load(FOLDER / f"light_{name}.onnx")
    shapes = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    sizes = {
        item.name: tuple(item.dims) for item in proto.graph.initializer if item.data_type == onnx.TensorProto.FLOAT
    }
    filled = [node for node in proto.graph.node if node.op_type == "ConstantOfShape"]
    sizes |= {node.output[0]: tuple(shapes[node.input[0]].tolist()) for node in filled}
    random = np.random.default_rng(len(name))
    roles = _roles(proto)
    for node in filled:
        proto.graph.node.remove(node)
    for item in [item for item in proto.graph.initializer if item.name in sizes]:
        proto.graph.initializer.remove(item)
    gone = {node.input[0] for node in filled}
    for kept in (proto.graph.initializer, proto.graph.input):  # without the sizes that nobody reads any more
        for unread in [item for item in kept if item.name in gone]:
            kept.remove(unread)
    for tensor, size in sizes.items():
        values = _values(roles.get(tensor, "shift"), size, random)
        proto.graph.initializer.append(numpy_helper.from_array(values, tensor))
    return Model.of(_without_softmax(proto))


def pictures(model: Model, count: int, seed: int) -> dict[str, np.ndarray]:
    """Structured inputs of a model with one input and a fixed or free batch: shape [count, ...]."""
    (name, given), *_ = model.inputs.items()
    shape = tuple(size for size in (given.shape or ())[1:] if isinstance(size, int))
    return {name: Input(shape).samples(count, seed)}


def runs(model: Model, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """The same as what the model takes at once: all of them, or one after the other if its batch is fixed."""
    samples = pictures(model, count, seed)
    ((name, array),) = samples.items()
    fixed = isinstance((model.inputs[name].shape or (None,))[0], int)
    return [{name: array[i : i + 1]} for i in range(count)] if fixed else [samples]


def _roles(proto: onnx.ModelProto) -> dict[str, str]:
    """What every weight is for; weights that reach their operator through an Unsqueeze included."""
    found: dict[str, str] = {}
    for node in reversed(proto.graph.node):
        if node.op_type in ("Conv", "Gemm"):
            found |= dict(zip(node.input[1:], ("weight", "shift"), strict=False))
        elif node.op_type == "BatchNormalization":
            found |= dict(zip(node.input[1:], BATCH_NORMALIZATION, strict=True))
        elif node.op_type == "Mul":
            found[node.input[1]] = "scale"
        elif node.op_type == "Unsqueeze":
            found[node.input[0]] = found.get(node.output[0], "shift")
    return found


def _values(role: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if role == "weight":
        values = random.standard_normal(shape) * (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
    elif role == "scale":
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def _without_softmax(proto: onnx.ModelProto) -> onnx.ModelProto:
    last = proto.graph.node[-1]
    if last.op_type == "Softmax":
        stated = proto.graph.output[0].type.tensor_type
        shape = [item.dim_value for item in stated.shape.dim]
        proto.graph.node.remove(last)
        del proto.graph.output[:]
        proto.graph.output.append(helper.make_tensor_value_info(last.input[0], stated.elem_type, shape))
    return proto
