"""From rankings and a budget to widths: costs, sensitivities, allocations and budgets."""

from __future__ import annotations

from edgepress.planner.allocations import ALLOCATIONS, Allocation
from edgepress.planner.analytic import instructions
from edgepress.planner.budget import Budget, joint
from edgepress.planner.cost import Cost, Costs
from edgepress.planner.latency import LatencyTable
from edgepress.planner.macs import count_macs
from edgepress.planner.sensitivity import Sensitivity, measure, output_error
from edgepress.planner.size import FileSize
from edgepress.planner.timing import Clock, measure_latency
from edgepress.planner.widths import Ladder, Widths, removed_channels

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "Budget",
    "Clock",
    "Cost",
    "Costs",
    "FileSize",
    "Ladder",
    "LatencyTable",
    "Sensitivity",
    "Widths",
    "count_macs",
    "instructions",
    "joint",
    "measure",
    "measure_latency",
    "output_error",
    "removed_channels",
]
