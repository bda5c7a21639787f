"""How much the network's answer feels each group: one measured number per group.

The curve of a ranking is the error of the next layer's output; it does not say what that error does to the answer.
So each group alone is pruned to half of what it needs, refitted (ridge, in parallel: inputs of the original network)
and run on held-out samples; the mean squared change of the outputs scales its curve (``hybMSE``: shape of the curve
times one measured number; the best of the allocations measured). The consumer's columns of removed channels are zeroed
instead of cut, which is the same function.

MSE of the logits, not KL: KL saturates. Held-out samples, not those of the fit: a Gemm behind a global pool would
interpolate its few rows and look free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress import runtime
from edgepress.calibrate.fits import Fit
from edgepress.calibrate.ridge import refit
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread, ordered_map
from edgepress.quality import are_probabilities
from edgepress.scores.base import Ranking, consumers


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Mean squared change of the outputs, relative to their variance, with ``half`` channels of the group gone.

    ``half`` counts what is free and half of the rest: with free channels alone gone there is nothing to measure.
    """

    group: str
    half: int
    error: float


def measure(
    model: Model,
    groups: Sequence[Group],
    rankings: Mapping[str, Ranking],
    statistics: Mapping[str, Any],
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    workers: int,
) -> dict[str, Sensitivity]:
    """Measure every group on some held-out feeds (ready to run)."""
    reference = _outputs(model, feeds)

    def one(group: Group) -> Sensitivity:
        ranking = rankings[group.name]
        half = ranking.free + (group.size - ranking.free) // 2
        halved = _refitted(model, group, ranking.order[:half], statistics)
        return Sensitivity(group.name, half, _relative(reference, _outputs(halved, feeds)))

    with one_blas_thread():
        return {result.group: result for result in ordered_map(one, groups, workers=workers)}


def output_error(model: Model, changed: Model, feeds: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Mean squared change of the outputs, relative to their variance: what sensitivities and their sums predict."""
    return _relative(_outputs(model, feeds), _outputs(changed, feeds))


def _relative(reference: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    spread = float(np.mean([np.var(array) for array in reference])) + 1e-30
    return float(np.mean([np.mean((a - b) ** 2) for a, b in zip(found, reference, strict=True)])) / spread


def _outputs(model: Model, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """Outputs as float64, per feed and output; probabilities are read as log-odds so that errors are not squashed."""
    names = list(model.outputs)
    opened = runtime.session(model.data)
    runs = [runtime.run(opened, feed, names) for feed in feeds]
    return [_unsquash(run[name].astype(np.float64)) for run in runs for name in names]


def _unsquash(array: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(array, 1e-7)) if array.ndim >= 2 and are_probabilities(array) else array


def _refitted(model: Model, group: Group, removed: np.ndarray, statistics: Mapping[str, Any]) -> Model:
    """The model with the removed channels' columns zeroed and the others refitted, in every consumer."""
    arrays = dict(model.constants)
    for fit, blocks in consumers(model, group):
        keep = np.setdiff1d(np.arange(fit.width), blocks[removed].ravel())
        arrays |= _consumer(fit, keep, arrays, statistics)
    return model.with_constants({name: array for name, array in arrays.items() if array is not model.constants[name]})


def _consumer(
    fit: Fit, keep: np.ndarray, constants: Mapping[str, np.ndarray], statistics: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    given = fit.matrix(constants)
    full = np.zeros_like(given)
    split = fit.joined([statistics[part.name] for part in fit.parts])
    full[:, keep] = refit(split, given, keep, biases=fit.biases).matrix
    return fit.written(full, constants)
