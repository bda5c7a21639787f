"""Timing models in onnxruntime: fair rounds, paired ratios, and the machine they hold for."""

from __future__ import annotations

from edgepress.bench.machine import Machine, describe
from edgepress.bench.statistics import Latency, Ratio
from edgepress.bench.timing import Timing, compare

__all__ = ["Latency", "Machine", "Ratio", "Timing", "compare", "describe"]
