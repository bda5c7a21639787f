"""A model of fixed batch as one that takes any number of samples, for training in batches, and back.

Exporters write a fixed batch into the inputs, the outputs and the targets of Reshape. All of these are opened. Whether
samples then count one by one, as they must, onnxruntime says: two runs stacked have to give the answers of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from edgepress.errors import ModelError, Refusal
from edgepress.model import Model
from edgepress.normalize import parity
from edgepress.normalize.graph import set_constant

SYMBOL = "batch"
"""Name of the free axis."""

COPIED = 0
"""What makes Reshape take a dimension over from its input."""


def fixed_batch(model: Model) -> int | None:
    """The first dimension that all inputs state alike; None where there is no such number."""
    firsts = {(kind.shape or (None,))[0] for kind in model.inputs.values()}
    first = firsts.pop() if len(firsts) == 1 else None
    return first if isinstance(first, int) else None


def freed(model: Model, runs: Sequence[Mapping[str, np.ndarray]]) -> Model | Refusal:
    """The model with a free batch axis, proved on samples.

    Args:
        model: a normalized model.
        runs: two inputs of its own batch, of different samples.

    Returns:
        The model, or why there is none.
    """
    batch = fixed_batch(model)
    if batch is None:
        return Refusal("the batch", "the inputs have no batch in common")
    proto = model.edit()
    del proto.graph.value_info[:]
    for dimension in _firsts(proto):
        if dimension.dim_value == batch:
            dimension.dim_param = SYMBOL  # one of two fields: the number goes
    _open_reshapes(model, proto, batch)
    found = Model.of(proto)
    try:
        against = _stacked(model, runs)
        alike = parity.difference(found, against) <= against.limit
    except ModelError:
        return Refusal("the batch", "a node inside counts on it")
    return found if alike else Refusal("the batch", "what a sample is answered depends on the others of its run")


def fixed(model: Model, batch: int) -> Model:
    """A model that :func:`freed` made (and others may have changed since) with its old batch."""
    proto = model.edit()
    del proto.graph.value_info[:]
    for dimension in _firsts(proto):
        if dimension.dim_param == SYMBOL:
            dimension.dim_value = batch
    return Model.of(proto)


def _firsts(proto: onnx.ModelProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """The first dimensions of inputs and outputs."""
    for value in (*proto.graph.input, *proto.graph.output):
        yield from value.type.tensor_type.shape.dim[:1]


def _open_reshapes(model: Model, proto: onnx.ModelProto, batch: int) -> None:
    """Let Reshape take the batch over where it keeps it in the first place."""
    for node in proto.graph.node:
        if node.op_type != "Reshape" or any(item.name == "allowzero" and item.i for item in node.attribute):
            continue
        data, target = model.types.get(node.input[0]), model.constants.get(node.input[1])
        if data is None or not data.shape or target is None or not target.size:
            continue
        if data.shape[0] == target[0] == batch and node.input[0] not in model.constants:
            name = f"{node.output[0]}_any_batch"
            set_constant(proto.graph, name, np.array([COPIED, *target[1:]], np.int64))
            node.input[1] = name


def _stacked(model: Model, runs: Sequence[Mapping[str, np.ndarray]]) -> parity.Reference:
    """What the model answers to single runs, as answers to all of them at once, and to the first alone."""
    single = parity.reference(model, runs)
    joined = {name: np.concatenate([run[name] for run in runs]) for name in model.inputs}
    answers: dict[str, np.ndarray] = {}
    for name in model.outputs:
        parts = [part for found in single.outputs if isinstance(part := found[name], np.ndarray) and part.ndim]
        if len(parts) < len(runs):
            raise ModelError(f"Output {name!r} has no axis of samples.")
        answers[name] = np.concatenate(parts)
    return parity.Reference((joined, runs[0]), (answers, single.outputs[0]), single.limit)
