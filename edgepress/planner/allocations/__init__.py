"""How removals are spread over groups, by name; one method per file (:mod:`edgepress.planner.allocations.base`)."""

from __future__ import annotations

from collections.abc import Mapping

from edgepress.planner.allocations.base import Allocation, Walk
from edgepress.planner.allocations.curve import CURVE
from edgepress.planner.allocations.dynamic import DYNAMIC
from edgepress.planner.allocations.hybrid import HYBRID
from edgepress.planner.allocations.uniform import UNIFORM

ALLOCATIONS: Mapping[str, Allocation] = {item.name: item for item in (UNIFORM, CURVE, HYBRID, DYNAMIC)}
"""Every allocation that follows the predictions; ``anneal`` (:mod:`edgepress.planner.anneal`) asks the samples."""

__all__ = ["ALLOCATIONS", "Allocation", "Walk"]
