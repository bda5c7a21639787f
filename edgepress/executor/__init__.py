"""Run a float model in torch, node by node, with its initializers as named, trainable parameters."""

from __future__ import annotations

from edgepress.executor.gradients import Gradients, differentiable, gradients, per_sample_gradients, require_parity
from edgepress.executor.run import Executor, single_threaded, write_back
from edgepress.executor.trainable import trainable

__all__ = [
    "Executor",
    "Gradients",
    "differentiable",
    "gradients",
    "per_sample_gradients",
    "require_parity",
    "single_threaded",
    "trainable",
    "write_back",
]
