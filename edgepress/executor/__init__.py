"""Run a float model in torch, node by node, with its initializers as named, trainable parameters."""

from __future__ import annotations

from edgepress.executor.run import Executor, single_threaded, write_back

__all__ = ["Executor", "single_threaded", "write_back"]
