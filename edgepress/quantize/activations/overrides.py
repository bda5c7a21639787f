"""TensorQuantOverrides: ranges, scales and widths of single tensors, in the JSON form of onnxruntime's quantizer.

A JSON object of lists of objects, one list per tensor of the float model; an activation or a weight with one scale has
one object, a weight with one scale per channel has one for each, the first with its ``axis``::

    {"conv1.out": [{"rmin": -1.5, "rmax": 6.0}],   "conv1.weight": [{"axis": 0, "scale": 0.01, "zero_point": 0}, ...]}

``override_entries`` has the formulas, and what is refused. Guarantees: exact scales and zero points of activations come
through bit for bit (``grids.grid_of`` gives them again, but for a Clip, whose bounds a grid must not reach over), and
what ``to_json`` writes is taken by onnxruntime's own ``static_quantize_runner``: it states no types of 8 bits, as that
one reads none and takes these for granted.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.errors import InputError
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.quantize.activations.grids import Grid
from edgepress.quantize.activations.override_entries import (
    ALL_LEVELS,
    Place,
    WeightOverride,
    activation,
    weight,
    weight_scale,
)
from edgepress.quantize.activations.ranges import Range
from edgepress.quantize.weights.nearest import Rounded

NEAR = 3
"""Names to suggest, at most."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is wanted of single tensors of a model.

    Attributes:
        activations: range by tensor.
        weights: by initializer.
    """

    activations: Mapping[str, Range]
    weights: Mapping[str, WeightOverride]


def read_overrides(path: Path, model: Model) -> Overrides:
    """Read a file of overrides for a float model.

    Raises:
        InputError: the file cannot be read, names a tensor that the model has not, or asks for what int8 here has not.
    """
    weights = {node.inputs[1] for node in _weighted(model)}
    activations = {*model.inputs, *(name for node in model.nodes for name in node.outputs if name)}
    read: dict[str, Range] = {}
    wanted: dict[str, WeightOverride] = {}
    for name, given in _parsed(path).items():
        place = Place(path, name)
        if name not in weights | activations:
            raise _unknown(model, place, weights | activations)
        entries = place.entries(given)
        if not any(entries):
            continue
        if name in weights:
            wanted[name] = weight(place, entries, model.constants[name].shape)
        elif (found := activation(place, entries)) is not None:
            read[name] = found
    return Overrides(read, wanted)


def activation_ranges(overrides: Overrides) -> dict[str, Range]:
    """Range by activation tensor, to lay over the observed ones."""
    return dict(overrides.activations)


def weight_levels(model: Model, overrides: Overrides) -> dict[str, int]:
    """Levels by node, for the nodes whose weight is to have fewer than all of int8 (``Quantization.levels``)."""
    found = {node.name: overrides.weights.get(node.inputs[1]) for node in _weighted(model)}
    return {name: item.levels for name, item in found.items() if item is not None and item.levels < ALL_LEVELS}


def weight_scales(model: Model, overrides: Overrides) -> dict[str, np.ndarray]:
    """Scale of every output channel, float32, by node, where the overrides decide it.

    Raises:
        InputError: scales along another axis than that of the output channels.
    """
    made: dict[str, np.ndarray] = {}
    for node in _weighted(model):
        name = node.inputs[1]
        item, values = overrides.weights.get(name), model.constants[name]
        if item is None or (item.scale is None and item.axis is not None):
            continue
        axis = output_axis(node.op, node.attributes) % values.ndim
        if item.axis not in (None, axis):
            raise InputError(
                f"The overrides scale {name!r} along axis {item.axis}, but its output channels are axis {axis}: "
                "give scales for that axis."
            )
        own = weight_scale(float(np.abs(values).max()), item.levels)
        given = np.array([own], np.float32) if item.scale is None else item.scale
        made[node.name] = np.array(np.broadcast_to(given, values.shape[axis]))
    return made


def to_json(model: Model, grids: Mapping[str, Grid], rounded: Mapping[str, Rounded]) -> str:
    """Overrides with which onnxruntime's quantizer gives a float model the same scales and zero points.

    Args:
        model: the float model.
        grids: grid by activation tensor.
        rounded: rounded weights by node.
    """
    made: dict[str, list[dict[str, object]]] = {}
    for tensor, grid in grids.items():
        kind: dict[str, object] = {} if grid.bits == 8 else {"quant_type": f"QUInt{grid.bits}"}
        made[tensor] = [{**kind, "scale": float(grid.scale), "zero_point": int(grid.zero)}]
    for name, item in rounded.items():
        channels: list[dict[str, object]] = [{"scale": float(scale), "zero_point": 0} for scale in item.scale]
        made[model.node(name).inputs[1]] = [{"axis": item.axis, **channels[0]}, *channels[1:]]
    return json.dumps(made, indent=1) + "\n"


def _weighted(model: Model) -> list[Node]:
    return [node for node in model.nodes if node.op in WEIGHTED and node.inputs[1] in model.constants]


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: give the path of a TensorQuantOverrides JSON file.") from error
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path} is not JSON{where}: mend it.") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no object: write one of tensor names, each with a list of overrides.")
    return raw


def _unknown(model: Model, place: Place, known: Collection[str]) -> InputError:
    if place.tensor in model.constants:
        return place.wrong("are of a constant that no Conv, Gemm or MatMul has for its weight: take them out")
    near = difflib.get_close_matches(place.tensor, sorted(known), n=NEAR, cutoff=0.5)
    hint = f"name {' or '.join(map(repr, near))}" if near else "take them out"
    return place.wrong(f"are of a tensor that the model has not: {hint}")
