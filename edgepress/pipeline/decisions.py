"""Is a plan possible on this model? Plans are JSON that people edit, so every decision is checked before replay."""

from __future__ import annotations

from edgepress.errors import PlanError
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.analysis import refusal_of
from edgepress.pipeline.context import Context
from edgepress.plan import Cut, Plan


def check_decisions(context: Context, plan: Plan) -> None:
    """Return if every cut and every node of the plan is possible.

    Channels are within the size that the plan states, which is checked when it is read.

    Raises:
        PlanError: a group or node that the model does not have, a group of another size or one that must stay whole.
    """
    for entry in plan.cuts:
        _check_cut(context, entry)
    if plan.quantization is not None:
        weighted = {node.name for node in context.model.nodes if node.op in WEIGHTED}
        for name in plan.quantization.float_nodes:
            if name not in weighted:
                raise PlanError(
                    f"The plan keeps node {name!r} float, but the model has no weighted node of that name: mend "
                    "float_nodes in the plan."
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
