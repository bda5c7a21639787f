"""What every step of every layer costs in a coded file: predicted error of the answer (``pipeline.felt``) and bytes.

Steps lie on a ladder, in units of the root mean square of a layer's weights; bytes follow from the entropy of the whole
numbers that some rows of the layer become. Both fall short of what a whole layer costs in the end (the coder knows more
than one table, a file has biases and gains), alike for all layers: they say how layers compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgepress.codec.lengths import coded_bits
from edgepress.model import Model
from edgepress.pipeline.context import Context
from edgepress.pipeline.felt import Ways, felt, matched, trials
from edgepress.planner.levels import Width
from edgepress.quantize import has_float32_weight
from edgepress.quantize.weights.lattice import on_grid
from edgepress.quantize.weights.obs import Factor, Grid, Inputs, obs
from edgepress.quantize.weights.rated import REACH

LADDER = tuple(2.0 ** (place / 4) for place in range(-16, 13))
"""Steps that are tried, in root mean squares of the weights."""

Table = dict[str, dict[int, Width]]
"""Error and bytes by node and place on the ladder."""


def step_table(context: Context, model: Model, nodes: Sequence[str], *, classifies: bool) -> Table:
    """Steps of the layers that can be rounded under their inputs; the others are left out.

    Args:
        context: the compression.
        model: the float model.
        nodes: names of nodes whose weights may be rounded; others than weighted ones are passed over.
        classifies: the first output is that of a classifier.
    """
    names = [name for name in nodes if has_float32_weight(model, model.node(name))]
    sizes = {name: root_mean_square(model, name) for name in names}
    tried = trials(context, model, names, _rounded, len(LADDER))
    table: Table = {}
    for trial, errors in zip(tried, felt(context, model, tried, classifies) if tried else [], strict=True):
        name, count = trial.fit.node.name, trial.fit.outputs * trial.fit.columns
        found = {
            place: Width(float(error), int(np.ceil(bits * count / 8)))
            for place, (error, bits) in enumerate(zip(errors, trial.bits, strict=True))
        }
        table[name] = _merged(table[name], found) if name in table else found
    return {name: table[name] for name in sizes if name in table}


def steps_of(model: Model, places: Mapping[str, int]) -> dict[str, float]:
    """The steps that stand at places of the ladder, by node."""
    return {name: step_at(model, name, LADDER[place]) for name, place in places.items()}


def step_at(model: Model, name: str, share: float) -> float:
    """The step of a node that is a share of its root mean square, on the grid of the coder."""
    return float(on_grid(np.array(share * root_mean_square(model, name))))


def root_mean_square(model: Model, name: str) -> float:
    """Of the weights of a node; 1 where all of them are zero."""
    weight = model.constants[model.node(name).inputs[1]].astype(np.float64)
    return float(np.sqrt(np.square(weight).mean())) or 1.0


def _rounded(weight: np.ndarray, inputs: Inputs) -> Ways:
    """Rows at every step, one under the other."""
    size = float(np.sqrt(np.square(weight).mean())) or 1.0
    stacked = np.tile(weight, (len(LADDER), 1))
    scale = np.repeat(np.array(LADDER) * size, len(weight))
    factor = Factor.of(inputs.spread, inputs.size, inputs.rows)
    whole = obs(stacked, factor, Grid.uniform(scale, -REACH, REACH), passes=1)
    bits = [coded_bits(each) / each.size for each in np.split(whole, len(LADDER))]
    return Ways(matched(stacked, whole * scale[:, None], inputs), np.array(bits))


def _merged(before: dict[int, Width], found: dict[int, Width]) -> dict[int, Width]:
    """Groups of one convolution share their step: errors and bytes add up."""
    return {
        place: Width(width.error + found[place].error, width.size + found[place].size)
        for place, width in before.items()
    }
