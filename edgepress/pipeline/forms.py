"""Write an integer model: forms of single nodes first, then fixed ranges for the rest, equal matrices once.

    recurrent, dynamic, blocked  >  stored, tables  >  quantize  >  share_transposed  >  slim

The forms replace nodes of the float model under their names, so that what is left can be quantized, or stored, as if
it were alone. What they make inside has no range and never carries a Q. A constant that is stored and that a product
reads as its weight as well is two: the product's own is rounded with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import onnx

from edgepress.model import Model
from edgepress.plan import Quantization
from edgepress.quantize import (
    Range,
    Rounded,
    blocked,
    dynamic,
    has_float32_weight,
    quantize,
    quantize_refusal,
    recurrent,
    share_transposed,
    slim,
    stored,
    tables,
)
from edgepress.quantize.graph.regions import typed
from edgepress.targets import Target

LEAST_SHARED = 256
"""Elements of a matrix from which a Transpose takes fewer bytes than a second copy."""

NO_RANGE = Range(-math.inf, math.inf)


def written(
    model: Model, ranges: Mapping[str, Range], weights: Mapping[str, Rounded], settings: Quantization, target: Target
) -> Model:
    """The model of integers.

    Args:
        model: the float model.
        ranges: of its activations.
        weights: integer weights by node.
        settings: the decisions.
        target: rules of the CPU.

    Raises:
        ModelError: a node or constant cannot have the form that the settings name.
    """
    if not any((settings.dynamic, settings.blocked, settings.recurrent, settings.stored, settings.tables)):
        return quantize(model, ranges, weights, settings, target)
    formed = _formed(typed(model), weights, settings)
    done = {*settings.dynamic, *settings.blocked}
    left = {name: item for name, item in weights.items() if name not in done}
    made = formed
    if quantize_refusal(formed) is None:
        bounds = {**ranges, **dict.fromkeys(_made(formed) - _made(model), NO_RANGE)}
        made = quantize(formed, bounds, left, settings, target)
    return slim(share_transposed(made, LEAST_SHARED))


def _made(model: Model) -> set[str]:
    return {name for node in model.nodes for name in node.outputs}


def _formed(model: Model, weights: Mapping[str, Rounded], settings: Quantization) -> Model:
    """The float model with the forms of single nodes and constants."""
    made = recurrent(model, settings.recurrent, settings.weight_limit)
    given = {name: weights[name] for name in settings.dynamic if name in weights}
    made = dynamic(made, settings.dynamic, settings.weight_limit, given)
    made = _apart(blocked(made, settings.blocked), {*settings.stored, *settings.tables})
    return tables(stored(made, settings.stored), settings.tables)


def _apart(model: Model, names: Collection[str]) -> Model:
    """Copies of these constants for products that read them as their weights."""
    both = [node.name for node in model.nodes if has_float32_weight(model, node) and node.inputs[1] in names]
    others = {name: [node.name for node in model.consumers(name)] for name in names}
    shared = [name for name in both if set(others[model.node(name).inputs[1]]) - set(both)]
    if not shared:
        return model
    proto = model.edit()
    for node in proto.graph.node:
        if node.name in shared:
            copy = onnx.numpy_helper.from_array(model.constants[node.input[1]], f"{node.name}/own")
            proto.graph.initializer.append(copy)
            node.input[1] = copy.name
    return Model.of(proto)
