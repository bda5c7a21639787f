"""Is a plan possible on this model? Plans are JSON that people edit, so every decision is checked before replay."""

from __future__ import annotations

import numpy as np

from edgepress.errors import PlanError
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.analysis import refusal_of
from edgepress.pipeline.context import Context
from edgepress.pipeline.form_checks import check_forms
from edgepress.plan import Coding, Cut, Plan, Quantization
from edgepress.quantize import has_float32_weight


def check_decisions(context: Context, plan: Plan) -> None:
    """Return if every cut and every node of the plan is possible.

    Channels are within the size that the plan states, which is checked when it is read.

    Raises:
        PlanError: a group or node that the model does not have, a group of another size or one that must stay whole.
    """
    for entry in plan.cuts:
        _check_cut(context, entry)
    if plan.quantization is not None:
        _check_names(context.model, plan.quantization)
        check_forms(context.model, plan.quantization)
    if plan.coding is not None:
        _check_coding(context.model, plan.coding)


def _check_coding(model: Model, coding: Coding) -> None:
    """Nodes and tensors that the coding speaks of are there, and can be rounded."""
    weighted = {node.name: node.inputs[1] for node in model.nodes if has_float32_weight(model, node)}
    for field in ("steps", "channels"):
        for name in getattr(coding, field):
            if name not in weighted:
                raise PlanError(
                    f"The plan's {field} name node {name!r}, but the model has no node of that name with float32 "
                    f"weights: mend {field} in the plan's coding."
                )
    tables = {name for name, array in model.constants.items() if array.dtype == np.float32 and array.ndim > 1}
    for name in coding.tables:
        if name not in tables - set(weighted.values()):
            raise PlanError(
                f"The plan's tables name tensor {name!r}, but the model has no table of that name: mend tables in the "
                "plan's coding."
            )


def _check_names(model: Model, quantization: Quantization) -> None:
    """Nodes and tensors that the quantization speaks of are there."""
    weighted = {node.name for node in model.nodes if node.op in WEIGHTED}
    for name in quantization.float_nodes:
        if name not in weighted:
            raise PlanError(
                f"The plan keeps node {name!r} float, but the model has no weighted node of that name: mend "
                "float_nodes in the plan."
            )
    for field in ("levels", "codebooks", "given_scales"):
        for name in getattr(quantization, field):
            if name not in weighted:
                raise PlanError(
                    f"The plan's {field} name node {name!r}, but the model has no weighted node of that name: mend "
                    f"{field} in the plan."
                )
    activations = {*model.inputs, *(name for node in model.nodes for name in node.outputs)}
    for name in quantization.given_ranges:
        if name not in activations:
            raise PlanError(
                f"The plan gives tensor {name!r} a range, but the model has no such activation: mend given_ranges in "
                "the plan."
            )


def _check_cut(context: Context, entry: Cut) -> None:
    group = next((group for group in context.grouping.groups if group.name == entry.group), None)
    if group is None:
        raise PlanError(
            f"The plan cuts group {entry.group!r}, which the model does not have: `edgepress explain` lists its groups."
        )
    if group.size != entry.size:
        raise PlanError(
            f"The plan says that group {entry.group!r} has {entry.size} channels, but it has {group.size}: mend the "
            "plan."
        )
    refusal = refusal_of(context, group)
    if refusal is not None and entry.removed:
        raise PlanError(
            f"The plan cuts group {entry.group!r}, which must stay whole ({refusal.reason}): mend the plan."
        )
