"""Cuts channels out of a model: slices every weight axis of a group and mends the shapes.

    cut(model, grouping, removed)      the smaller model
    silence(model, grouping, removed)  the same size, with the weights that consume these channels zeroed

Guarantee: both compute the same function up to float rounding (:mod:`edgepress.surgery.oracle` checks it);
the interface (inputs, outputs, symbolic batch), opset, IR version and metadata stay. A cut model has passed
onnx's full checker and has been loaded by onnxruntime, or it is not returned.

onnx-graphsurgeon edits an outline of the graph, without its weights (:mod:`edgepress.surgery.frame`); shapes are
inferred anew. Bodies of If, Loop and Scan are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import shape_inference

from edgepress.errors import InvariantError, ModelError, Refusal
from edgepress.groups import Grouping
from edgepress.model import Model
from edgepress.surgery.frame import closed, opened
from edgepress.surgery.mend import Survivors, mend

Removed = Mapping[str, Sequence[int]]

_SUB_BYTE = frozenset({"int4", "uint4", "int2", "uint2", "float4_e2m1fn"})


@dataclass(frozen=True, slots=True, eq=False)
class Cutting:
    """A cut model.

    Attributes:
        model: the smaller model.
        kept: per changed initializer and axis the kept positions (int64, rising); None where the axis is whole.
        left: the same for every tensor; None when nothing was cut.
    """

    model: Model
    kept: Mapping[str, tuple[np.ndarray | None, ...]]
    left: Survivors | None = None


def cut(model: Model, grouping: Grouping, removed: Removed) -> Cutting:
    """Remove channels.

    Args:
        model: the model ``grouping`` was found on.
        grouping: its groups.
        removed: per group name the channels to remove (indices into the group).

    Raises:
        ValueError: no such group or channel, a group that is pinned, or one that would lose all its channels.
        ModelError: :func:`surgery_refusal` says why this graph cannot be edited.
        InvariantError: the result is not a legal model (a bug).
    """
    chosen = _chosen(grouping, removed)
    refusal = surgery_refusal(model)
    if refusal is not None:
        raise ModelError(f"{refusal}.")
    if not any(len(channels) for channels in chosen.values()):
        return Cutting(model, {})
    kept = _kept(model, grouping, chosen)
    weights = {name: _compress(model.constants[name], axes) for name, axes in kept.items()}
    graph = opened(model)
    left = Survivors(grouping.channels, _gone(grouping, chosen), model.constants, kept, grouping.values)
    mend(graph, model, left)
    return Cutting(_checked(graph, model, weights), kept, left)


def silence(model: Model, grouping: Grouping, removed: Removed) -> Model:
    """The same model with every weight that consumes the removed channels set to zero (raises as :func:`cut`)."""
    zeroed: dict[str, np.ndarray] = {}
    for name, channels in _chosen(grouping, removed).items():
        for site in grouping.group(name).sites:
            if site.role == "in":
                values = zeroed.setdefault(site.tensor, model.constants[site.tensor].copy())
                np.moveaxis(values, site.axis, 0)[site.index[channels].ravel()] = 0
    proto = model.frame()
    model.fill(proto, model.constants.keys(), zeroed)
    return Model.of(proto)


def surgery_refusal(model: Model) -> Refusal | None:
    """Why this graph cannot be edited; None if it can."""
    proto = model.frame()
    if proto.functions or proto.graph.sparse_initializer:
        return Refusal("model", "it holds functions or sparse weights", "normalize it first")
    for name, type_ in model.types.items():
        if type_.dtype in _SUB_BYTE:
            return Refusal(name, f"{type_.dtype} weights cannot be cut", "start from the float model")
    for value in (*proto.graph.input, *proto.graph.output):
        if not value.type.HasField("tensor_type"):
            return Refusal(value.name, "only tensors can go in and out, not sequences, maps or optionals")
    return None


def _chosen(grouping: Grouping, removed: Removed) -> dict[str, np.ndarray]:
    """The channels to remove, checked, as index arrays."""
    chosen = {}
    for name, channels in removed.items():
        try:
            group = grouping.group(name)
        except KeyError:
            raise ValueError(f"There is no channel group {name!r}.") from None
        index = np.unique(np.asarray(channels, np.int64))
        if index.size and (index[0] < 0 or index[-1] >= group.size):
            raise ValueError(f"Group {name!r} has channels 0 to {group.size - 1}: {index.tolist()} are not all there.")
        if index.size and group.pinned:
            raise ValueError(f"Group {name!r} cannot lose channels: {group.refusal}.")
        if index.size == group.size:
            raise ValueError(f"Group {name!r} would lose all its {group.size} channels: leave at least one.")
        chosen[name] = index
    return chosen


def _gone(grouping: Grouping, chosen: Mapping[str, np.ndarray]) -> np.ndarray:
    gone = np.zeros(1 + sum(group.size for group in grouping.groups), bool)
    for name, channels in chosen.items():
        gone[grouping.first[name] + channels] = True
    return gone


def _kept(
    model: Model, grouping: Grouping, chosen: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray | None, ...]]:
    masks: dict[str, dict[int, np.ndarray]] = {}
    for name, channels in chosen.items():
        for site in grouping.group(name).sites if channels.size else ():
            axes = masks.setdefault(site.tensor, {})
            mask = axes.setdefault(site.axis, np.ones(model.constants[site.tensor].shape[site.axis], bool))
            mask[site.index[channels].ravel()] = False
    return {
        tensor: tuple(
            np.flatnonzero(axes[axis]) if axis in axes else None for axis in range(model.constants[tensor].ndim)
        )
        for tensor, axes in masks.items()
    }


def _compress(values: np.ndarray, axes: tuple[np.ndarray | None, ...]) -> np.ndarray:
    for axis, positions in enumerate(axes):
        if positions is not None:
            values = values.take(positions, axis)
    return np.ascontiguousarray(values)


def _checked(graph: gs.Graph, model: Model, weights: Mapping[str, np.ndarray]) -> Model:
    """The edited model with shapes inferred anew, after onnx's full check and a load by onnxruntime."""
    try:
        made = Model.of(closed(graph, model, weights))
        made.session()
    except (shape_inference.InferenceError, onnx.checker.ValidationError, ModelError) as error:
        first = str(error).strip().splitlines()[0]
        raise InvariantError(f"A cut made an illegal model ({first}): please report it with the model.") from error
    return made
