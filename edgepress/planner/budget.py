"""What the user asks of a compressed model, as a cost and a goal.

Several budgets are one cost: of each the share of its goal, and of these the largest, which is at most 1 where all are
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgepress.model import Model
from edgepress.planner.cost import Cost

SLACK = 0.01
"""Where a goal was missed, the next state aims this much below it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget.

    Attributes:
        option: how the user asks for it.
        cost: what a state is predicted to cost.
        goal: the most it may cost.
        measured: what a finished model costs, in the unit of ``cost``; None where the prediction is exact, or nothing
            is finished yet that it could be measured on.
        aim: what a state may be predicted to cost; None: the goal.
    """

    option: str
    cost: Cost
    goal: float
    measured: Callable[[Model], float] | None = None
    aim: float | None = None

    def corrected(self, removed: Mapping[str, int], model: Model) -> Budget | None:
        """The budget that makes up for what was predicted wrong of a model; None where the model keeps it."""
        found = None if self.measured is None else self.measured(model)
        if found is None or found <= self.goal:
            return None
        return replace(self, aim=self.cost(removed) * (self.goal / found) * (1 - SLACK))

    def share(self, removed: Mapping[str, int]) -> float:
        """The share of what may be predicted that a state is predicted to use."""
        return self.cost(removed) / (self.goal if self.aim is None else self.aim)


def joint(budgets: Sequence[Budget]) -> Cost:
    """The largest share of what may be predicted; at most 1 where all budgets are kept."""

    def cost(removed: Mapping[str, int]) -> float:
        return max(budget.share(removed) for budget in budgets)

    return cost
