"""Is a plan possible on this model? Plans are JSON that people edit, so every decision is checked before replay."""

from __future__ import annotations

from edgepress.errors import PlanError
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.analysis import refusal_of
from edgepress.pipeline.context import Context
from edgepress.pipeline.form_checks import check_forms
from edgepress.plan import Cut, Plan, Quantization


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
