"""Carry decisions out: cuts to a smaller float model, quantization settings to a model of integers.

``compress`` tries decisions with these two functions and ``apply`` replays them: one code path, so a plan gives the
same bytes again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgepress import __version__
from edgepress.errors import InputError, PlanError, Refusal
from edgepress.levels import INT8
from edgepress.model import Model, Node
from edgepress.ops.weighted import output_axis
from edgepress.pipeline.context import QUANTIZE_SAMPLES, Context, first, inputs_of
from edgepress.pipeline.forms import written
from edgepress.plan import Cut, Plan, Quantization
from edgepress.quantize import (
    MATRICES,
    Observations,
    Range,
    Rounded,
    activations_to_observe,
    bias_correction,
    has_float32_weight,
    observe,
    ranges,
    to_json,
)
from edgepress.quantize.graph.lowered import lowered
from edgepress.quantize.graph.qdq import written_grids
from edgepress.quantize.weights.equalize import equalize
from edgepress.quantize.weights.joint import Joint, Wanted, round_nearest
from edgepress.quantize.weights.repair import as_float32, repair
from edgepress.quantize.weights.scales import power_of_two
from edgepress.surgery.cut import Cutting, cut
from edgepress.surgery.fold import fold
from edgepress.surgery.oracle import check_cut
from edgepress.targets.releases import release

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


def kept(model: Model, min_ort: str) -> Model:
    """The model in a form that an onnxruntime as old as the one named loads; as it is, when none is named.

    Raises:
        InputError: there is no such form, or the name is no version.
    """
    if not min_ort:
        return model
    found = lowered(model, release(min_ort))
    if isinstance(found, Refusal):
        raise InputError(f"--min-ort {min_ort} cannot be kept at {found}: name a newer version, or leave it out.")
    return found


def mark_bytes(cuts: Sequence[Cut], quantization: Quantization | None) -> int:
    """What :func:`marked` adds to the size of a model, in bytes."""
    plan = Plan("0" * 64, cuts=tuple(cuts), quantization=quantization, provenance={"version": __version__})
    return marked(Model.of(onnx.ModelProto()), plan).size


def pruned(context: Context, cuts: Sequence[Cut]) -> Model:
    """Remove channels, prove the removal exact in onnxruntime, and redistribute."""
    return folded(context, cutting_of(context, cuts)) if cuts else context.model


def cutting_of(context: Context, cuts: Sequence[Cut]) -> Cutting:
    """The model without the channels of some cuts, proved to be exact."""
    removed = {entry.group: entry.removed for entry in cuts}
    cutting = cut(context.model, context.grouping, removed)
    if cuts:
        check_cut(context.model, context.grouping, removed, cutting, inputs_of(context.fit, ORACLE_SAMPLES))
    return cutting


def folded(context: Context, cutting: Cutting, finish: Joint | None = None) -> Model:
    """The cut model, refitted toward the original; ``finish`` rounds it on the way."""
    return fold(
        context.model,
        cutting,
        context.sweep_chunks,
        positions=context.sweep_positions,
        seed=context.seed,
        workers=context.workers,
        finish=finish,
    )


@dataclass(frozen=True)
class Material:
    """What an integer model is made of.

    Attributes:
        model: the float model, with the weights and biases that rounding left where it changed them.
        weights: integer weights by node.
        seen: what its activations do.
    """

    model: Model
    weights: Mapping[str, Rounded]
    seen: Observations


def material(context: Context, cuts: Sequence[Cut], model: Model, settings: Quantization) -> Material:
    """Round the weights of a float model, which the cuts have made of the context's, and observe it.

    Depends on the rounding, scales, levels, codebooks and weight limit of the settings, not on the ranges; on the
    float nodes in a joint pass only: else all weights are rounded, and the biases fit that.
    """
    if settings.rounding == "joint" and context.sweep_samples:
        joint = Joint((cutting := cutting_of(context, cuts)).model, _wanted(cutting.model, settings))
        made = folded(context, cutting, joint)
        left = _nearest(made, settings, except_for=joint.rounded)
        return Material(made, {**left, **joint.rounded}, observed(context, made))
    source = equalize(model) if settings.equalize else model
    seen = observed(context, source)
    return Material(source, rounded(context, source, settings, seen), seen)


def _wanted(model: Model, settings: Quantization) -> dict[str, Wanted]:
    """How the nodes with float32 weights are rounded."""
    return {
        node.name: Wanted(
            levels=settings.levels.get(node.name, INT8),
            limit=settings.weight_limit,
            power_of_two=settings.scales == "power-of-two",
            uneven=node.name in settings.codebooks,
            repair=settings.repair,
            shared=settings.matrix_scales == "tensor" and node.op in MATRICES,
            scale=_given_scale(model, node, settings),
        )
        for node in model.nodes
        if node.name not in settings.float_nodes and has_float32_weight(model, node)
    }


def _given_scale(model: Model, node: Node, settings: Quantization) -> np.ndarray | None:
    """The weight scales that the settings give a node, float32; None without."""
    if node.name not in settings.given_scales:
        return None
    given = np.array(settings.given_scales[node.name], np.float32)
    channels = model.constants[node.inputs[1]].shape[output_axis(node.op, node.attributes)]
    if given.size != channels:
        raise PlanError(
            f"The plan gives node {node.name!r} {given.size} weight scales, but it has {channels} output channels: "
            "mend given_scales in the plan."
        )
    return given


def integer(context: Context, made: Material, settings: Quantization) -> Model:
    """The model of integers."""
    found = written(made.model, used_ranges(made, settings), made.weights, settings, context.target)
    return kept(found, settings.min_ort)


def used_ranges(made: Material, settings: Quantization) -> dict[str, Range]:
    """The observed range of every activation, as the settings want it; those that the settings give go before."""
    given = {name: Range(*bounds) for name, bounds in settings.given_ranges.items()}
    return {**ranges(made.seen, settings), **given}


def as_overrides(context: Context, model: Model, settings: Quantization) -> str:
    """The ranges and scales of the integer model of an uncut float one, as TensorQuantOverrides."""
    made = material(context, (), model, settings)
    found, weights = written_grids(made.model, used_ranges(made, settings), made.weights, settings, context.target)
    return to_json(made.model, found, weights)


def observed(context: Context, model: Model) -> Observations:
    """Ranges and histograms of every activation that may carry a Q."""
    return observe(model, first(context.fit, QUANTIZE_SAMPLES), activations_to_observe(model, (), context.target))


def rounded(context: Context, model: Model, settings: Quantization, seen: Observations) -> dict[str, Rounded]:
    """Weights rounded to the nearest, repaired by sweep where the executor runs the model, else by bias correction.

    Nodes that the target's rules keep float are rounded too: their weights are stored as integers. Weights of other
    types than float32 stay as they are.
    """
    found = _nearest(model, dataclasses.replace(settings, float_nodes=()))
    if settings.repair and context.sweep_samples:
        scaled = settings.given_scales.keys()
        settle = power_of_two if settings.scales == "power-of-two" else as_float32
        return repair(model, found, context.repair_chunks, workers=context.workers, scaled=scaled, settle=settle)
    return {name: _bias_corrected(model, name, item, seen) for name, item in found.items()}


def _nearest(
    model: Model, settings: Quantization, except_for: Mapping[str, Rounded] | None = None
) -> dict[str, Rounded]:
    """Every weight that is to be rounded, to the nearest."""
    found = {}
    for name, wanted in _wanted(model, settings).items():
        if name not in (except_for or {}):
            node = model.node(name)
            axis = output_axis(node.op, node.attributes)
            found[name] = round_nearest(model.constants[node.inputs[1]], axis, wanted)
    return found


def _bias_corrected(model: Model, name: str, item: Rounded, seen: Observations) -> Rounded:
    node = model.node(name)
    if name not in seen.means or len(node.inputs) < 3 or node.inputs[2] not in model.constants:
        return item
    factors = [node.attributes.get(factor, 1.0) for factor in ("alpha", "beta")]
    if factors != [1.0, 1.0] or model.constants[node.inputs[2]].size not in (1, item.scale.size):
        return item
    shift = bias_correction(model.constants[node.inputs[1]], item, seen.means[name])
    return dataclasses.replace(item, bias=model.constants[node.inputs[2]].ravel() + shift)
