"""Normalize: any ONNX file becomes a flat, typed model of one operator set, static enough to analyze.

A list of small rewrites (:data:`edgepress.normalize.steps.STEPS`), each checked against the original: sort
nodes, inline functions, densify sparse weights, hoist constants, name nodes, remove identities, fold constants and
shape chains, convert to operator set 21, write padding out, fold biases and BatchNormalization into the linear
operators, infer all types.

Guarantees: the result loads in onnxruntime and answers as the original does on the samples
(:mod:`edgepress.normalize.parity` says how closely); graph inputs and outputs keep names and types, free axes stay
free, surviving nodes and weights keep their names, metadata survives. A step that cannot be done is skipped and says
why; nothing falls back silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.model import Model
from edgepress.normalize import parity
from edgepress.normalize.admission import admit
from edgepress.normalize.steps import STEPS, Step, StepRecord, take

__all__ = ["STEPS", "Normalized", "Step", "StepRecord", "admit", "normalize"]


@dataclass(frozen=True)
class Normalized:
    """The normalized model, and what became of every step, in order."""

    model: Model
    steps: tuple[StepRecord, ...]


def normalize(
    model: Model, samples: Sequence[Mapping[str, np.ndarray]], *, steps: Sequence[Step] = STEPS
) -> Normalized:
    """Normalize a model, checking every step.

    Args:
        model: the model as loaded.
        samples: one or a few feeds, ready to run; for a model with a free batch axis best of different batch sizes.
            May be empty: then seeded random inputs are made from the input types. They serve the comparison of two
            graphs only, for which any input will do; no statistics are taken from them.
        steps: the rewrites, in order.

    Raises:
        ModelError: onnxruntime cannot load the original, or cannot run it on the samples (or on made-up inputs).
    """
    against = parity.reference(model, samples)
    records: list[StepRecord] = []
    for step in steps:
        model, record = take(model, step, against)
        records.append(record)
    return Normalized(model, tuple(records))
