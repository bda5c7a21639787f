"""What every width of every layer costs: predicted error of the answer (``pipeline.felt``) and bytes in the file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress.levels import INT8, LADDER, bounds, within
from edgepress.model import Model
from edgepress.pipeline.context import Context
from edgepress.pipeline.felt import Ways, felt, matched, trials
from edgepress.planner.levels import Width
from edgepress.quantize import has_float32_weight
from edgepress.quantize.storage.unpacking import stored_bytes
from edgepress.quantize.weights.obs import Factor, Grid, Inputs, obs
from edgepress.quantize.weights.scales import best_scales

TRIED = tuple(count for count in LADDER if count <= 16)
"""Levels that are tried; with more of them the error falls with the square of the step."""

Table = dict[str, dict[int, Width]]


def width_table(
    context: Context, model: Model, nodes: Sequence[str], *, classifies: bool, narrow: int, limit: int
) -> Table:
    """Widths of the layers that can be rounded to few levels; the others are left out.

    Args:
        context: the compression.
        model: the float model.
        nodes: names of nodes whose weights may become integers; others than weighted ones are passed over.
        classifies: the first output is that of a classifier.
        narrow: bits of the narrowest integer type that the file may hold.
        limit: largest ``|int8 weight|``.
    """
    names = [name for name in nodes if has_float32_weight(model, model.node(name))]
    tried = trials(context, model, names, _rounded, len(TRIED))
    table: Table = {}
    for trial, errors in zip(tried, felt(context, model, tried, classifies) if tried else [], strict=True):
        name = trial.fit.node.name
        count = model.constants[trial.fit.node.inputs[1]].size  # all groups of a convolution are stored as one
        found = {
            levels: Width(_error(errors, levels), stored_bytes(count, levels, narrow))
            for levels in LADDER
            if levels == INT8 or within(levels, limit) == within(levels, 127)
        }
        table[name] = _merged(table[name], found) if name in table else found
    return table


def _rounded(weight: np.ndarray, inputs: Inputs) -> Ways:
    """Rows at every width, one under the other: all widths of a layer are rounded in one go."""
    limits = np.array([bounds(count) for count in TRIED])
    low, high = (np.repeat(limits[:, side], len(weight)) for side in (0, 1))
    stacked = np.tile(weight, (len(TRIED), 1))
    scale = best_scales(stacked, np.maximum(np.diag(inputs.spread), 1e-12), low, high).astype(np.float64)
    whole = obs(stacked, Factor.of(inputs.spread, inputs.size, inputs.rows), Grid(scale, low, high), passes=1)
    return Ways(matched(stacked, whole * scale[:, None], inputs), np.empty(0))


def _error(errors: np.ndarray, levels: int) -> float:
    """Predicted error of a number of levels, tried or not."""
    if levels in TRIED:
        return float(errors[TRIED.index(levels)])
    return float(errors[-1]) * ((TRIED[-1] - 1) / (levels - 1)) ** 2


def _merged(before: dict[int, Width], found: dict[int, Width]) -> dict[int, Width]:
    """Groups of one convolution share their width: errors add up, and the bytes are those of all."""
    return {count: Width(width.error + found[count].error, width.size) for count, width in before.items()}
