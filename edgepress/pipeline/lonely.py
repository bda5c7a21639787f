"""Which layers suffer most from int8, each measured alone: only it computes in int8, all others in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgepress import runtime
from edgepress.model import Model
from edgepress.pipeline.build import Material, integer
from edgepress.pipeline.context import Context, inputs_of
from edgepress.plan import Quantization

SAMPLES = 64
"""Fit samples that each layer is run on."""

MOST = 60
"""Layers in a model that are tried one by one; in larger ones every other, every third, ..."""


def worst_alone(
    context: Context, model: Model, made: Material, settings: Quantization, names: Sequence[str]
) -> tuple[str, ...]:
    """The given layers by falling error of the answer when each alone is int8."""
    if not names:
        return ()
    chunks = inputs_of(context.fit, SAMPLES, chunk=SAMPLES)
    outputs = list(model.outputs)
    reference = [runtime.run(opened, part, outputs) for opened in [model.session()] for part in chunks]
    tried = names[:: -(-len(names) // MOST)]

    def error(name: str) -> float:
        others = {other: item for other, item in made.weights.items() if other == name}
        alone = dataclasses.replace(made, weights=others)
        kept = (*settings.float_nodes, *(other for other in made.weights if other != name))
        opened = integer(context, alone, dataclasses.replace(settings, float_nodes=kept)).session()
        found = [runtime.run(opened, part, outputs) for part in chunks]
        return float(
            sum(
                np.square(a[key].astype(np.float64) - b[key]).mean() / max(float(np.square(a[key]).mean()), 1e-30)
                for a, b in zip(reference, found, strict=True)
                for key in outputs
            )
        )

    return tuple(sorted(tried, key=error, reverse=True))
