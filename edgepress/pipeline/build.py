"""Carry decisions out: cuts to a smaller float model, quantization settings to an int8 model.

``compress`` tries decisions with these two functions and ``apply`` replays them: one code path, so a plan gives the
same bytes again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx

from edgepress import __version__
from edgepress.model import Model
from edgepress.ops.weighted import output_axis
from edgepress.pipeline.context import QUANTIZE_SAMPLES, Context, first, inputs_of
from edgepress.plan import Cut, Plan, Quantization
from edgepress.quantize import (
    Observations,
    Rounded,
    activations_to_observe,
    bias_correction,
    has_float32_weight,
    observe,
    quantize,
    ranges,
    round_weights,
)
from edgepress.quantize.repair import repair
from edgepress.surgery.cut import cut
from edgepress.surgery.fold import fold
from edgepress.surgery.oracle import check_cut

ORACLE_SAMPLES = 8


def marked(model: Model, plan: Plan) -> Model:
    """The model with what edgepress says about it in its metadata."""
    return model.with_metadata(
        {
            "edgepress.version": str(plan.provenance.get("version", "")),
            "edgepress.source_sha256": plan.model_sha256,
            "edgepress.channels_removed": str(sum(len(entry.removed) for entry in plan.cuts)),
            "edgepress.weights": "float32" if plan.quantization is None else "int8",
        }
    )


def mark_bytes(cuts: Sequence[Cut], quantization: Quantization | None) -> int:
    """What :func:`marked` adds to the size of a model, in bytes."""
    plan = Plan("0" * 64, cuts=tuple(cuts), quantization=quantization, provenance={"version": __version__})
    return marked(Model.of(onnx.ModelProto()), plan).size


def pruned(context: Context, cuts: Sequence[Cut]) -> Model:
    """Remove channels, prove the removal exact in onnxruntime, and redistribute."""
    if not cuts:
        return context.model
    removed = {entry.group: entry.removed for entry in cuts}
    cutting = cut(context.model, context.grouping, removed)
    check_cut(context.model, context.grouping, removed, cutting, inputs_of(context.fit, ORACLE_SAMPLES))
    return fold(
        context.model,
        cutting,
        context.sweep_chunks,
        positions=context.sweep_positions,
        seed=context.seed,
        workers=context.workers,
    )


def observed(context: Context, model: Model) -> Observations:
    """Ranges and histograms of every activation that may carry a Q."""
    return observe(model, first(context.fit, QUANTIZE_SAMPLES), activations_to_observe(model, ()))


def integer(
    context: Context,
    model: Model,
    settings: Quantization,
    seen: Observations | None = None,
    weights: Mapping[str, Rounded] | None = None,
) -> Model:
    """The int8 form of a float model; ``seen`` and ``weights`` save observing and rounding it again."""
    seen = observed(context, model) if seen is None else seen
    weights = rounded(context, model, settings, seen) if weights is None else weights
    return quantize(model, ranges(seen, settings), weights, settings, context.target)


def rounded(context: Context, model: Model, settings: Quantization, seen: Observations) -> dict[str, Rounded]:
    """Rounded weights, repaired by sweep where the executor runs the model, else by analytic bias correction.

    Depends on the float nodes and the weight limit of the settings only. Nodes that the target's rules keep float are
    rounded too: their weights are stored as int8. Weights of other types than float32 stay as they are.
    """
    kept = set(settings.float_nodes)
    found = {}
    for node in model.nodes:
        if node.name not in kept and has_float32_weight(model, node):
            axis = output_axis(node.op, node.attributes)
            found[node.name] = round_weights(model.constants[node.inputs[1]], axis, settings.weight_limit)
    if settings.repair and context.sweep_samples:
        return repair(model, found, context.repair_chunks, workers=context.workers)
    return {name: _bias_corrected(model, name, item, seen) for name, item in found.items()}


def _bias_corrected(model: Model, name: str, item: Rounded, seen: Observations) -> Rounded:
    node = model.node(name)
    if name not in seen.means or len(node.inputs) < 3 or node.inputs[2] not in model.constants:
        return item
    shift = bias_correction(model.constants[node.inputs[1]], item, seen.means[name])
    return dataclasses.replace(item, bias=model.constants[node.inputs[2]].ravel() + shift)
