"""Instructions that multiply-adds take at the least: a cost at once, for targets that no device stands for.

    instructions = sum over layers of MACs * steps / lanes        lanes: of float32 or of int8, as the layer computes

``steps`` reads widths along the target's staircase, ``lanes`` are multiply-adds of one instruction (``Target.lanes``).
Loads, stores, activations and everything that starts a run are left out, and what a core does with an instruction as
well: a guide for comparing forms, no forecast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgepress.planner.cost import Costs

MILLION = 1e6


def instructions(costs: Costs, removed: Mapping[str, int], integer: Collection[str] = ()) -> float | None:
    """Millions of instructions; None where nothing is known of the target's.

    Args:
        costs: of the model.
        removed: channels that each group loses.
        integer: names of the nodes that compute in int8.
    """
    lanes = costs.target.lanes
    if lanes is None:
        return None
    work = ((layer.node, macs) for layer, macs in costs.steps(removed))
    return sum(macs / lanes[node in integer] for node, macs in work) / MILLION
