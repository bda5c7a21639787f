"""What edgepress found out, and how it is said: plain data, JSON, terminal, pipe, progress."""

from __future__ import annotations

from edgepress.report.found import Benchmark, BenchModel, Explanation, GroupRow
from edgepress.report.progress import Lines, Live, Progress, Recorder, Silent, Stage
from edgepress.report.result import (
    CLEANED,
    ORIGINAL,
    PLAIN_INT8,
    Applied,
    LayerRow,
    Pruning,
    Quality,
    Report,
    StageRow,
    Variant,
)
from edgepress.report.verdict import sentence

__all__ = [
    "CLEANED",
    "ORIGINAL",
    "PLAIN_INT8",
    "Applied",
    "BenchModel",
    "Benchmark",
    "Explanation",
    "GroupRow",
    "LayerRow",
    "Lines",
    "Live",
    "Progress",
    "Pruning",
    "Quality",
    "Recorder",
    "Report",
    "Silent",
    "Stage",
    "StageRow",
    "Variant",
    "sentence",
]
