"""Are the forms of a plan possible? Nodes and constants that it names are there, and each has one form."""

from __future__ import annotations

from collections import Counter

from edgepress.errors import PlanError
from edgepress.model import Model
from edgepress.plan import Quantization

OPERATORS = {"dynamic": ("MatMul", "Gemm"), "blocked": ("MatMul", "Gemm"), "recurrent": ("LSTM",)}
"""By field the nodes it may name."""


def check_forms(model: Model, quantization: Quantization) -> None:
    """Return if every node and constant that has a form of its own may have it.

    Raises:
        PlanError: a name that the model does not have, of another kind of node, or with two forms.
    """
    operators = {node.name: node.op for node in model.nodes}
    for field, kinds in OPERATORS.items():
        for name in getattr(quantization, field):
            if operators.get(name) not in kinds:
                raise PlanError(
                    f"The plan's {field} name node {name!r}, but the model has no {' or '.join(kinds)} of that name: "
                    f"mend {field} in the plan."
                )
    for field in ("stored", "tables"):
        for name in getattr(quantization, field):
            if name not in model.constants:
                raise PlanError(
                    f"The plan's {field} name constant {name!r}, which the model does not have: mend {field} in the "
                    "plan."
                )
    forms = (quantization.float_nodes, quantization.dynamic, quantization.blocked, quantization.recurrent)
    for groups in (forms, (quantization.stored, quantization.tables)):
        twice = [name for name, count in Counter(name for group in groups for name in group).items() if count > 1]
        if twice:
            raise PlanError(f"The plan gives {twice[0]!r} two forms: mend its quantization.")
