"""From rankings and a budget to widths: costs, sensitivities and the greedy allocation."""

from __future__ import annotations

from edgepress.planner.cost import Costs
from edgepress.planner.macs import count_macs
from edgepress.planner.sensitivity import Sensitivity, measure
from edgepress.planner.widths import Ladder, Widths, removed_channels

__all__ = ["Costs", "Ladder", "Sensitivity", "Widths", "count_macs", "measure", "removed_channels"]
