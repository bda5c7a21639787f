"""Timing models in onnxruntime: fair rounds, paired ratios, and the machine they hold for."""

from __future__ import annotations

from edgepress.bench.machine import Conditions, Health, Machine, describe
from edgepress.bench.statistics import Latency, Ratio
from edgepress.bench.summary import Timing
from edgepress.bench.timing import compare

__all__ = ["Conditions", "Health", "Latency", "Machine", "Ratio", "Timing", "compare", "describe"]
