"""What every width of every layer costs: predicted error of the answer and bytes in the file.

    error[l, L] = 1/2 sum_o E (sum over positions of g_o d_o x)^2        d: what rounding layer l to L levels does

``g`` are score gradients of the layer's outputs (``executor.fisher``), ``x`` its input rows: the Fisher information
of the weights along the rounding error (Tu 2016, section 3: bits by Fisher information), whole sums over the
positions of a sample, since an error that is alike at all positions adds up. ``d`` comes from the same second-order
rounding that is carried out later, on some rows of a layer, all where that is cheap; where a bias takes up the mean,
``x`` is about its mean and the deviation of the outputs is matched, as it is then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.fits import LARGEST_GRAM, Fit, fits_of
from edgepress.calibrate.run import collect
from edgepress.calibrate.statistics import Gram, gram_probe
from edgepress.calibrate.views import Part
from edgepress.executor import Executor, single_threaded
from edgepress.executor.fisher import score_gradients
from edgepress.levels import INT8, LADDER, bounds, within
from edgepress.model import Model
from edgepress.pipeline.context import Context, first, inputs_of
from edgepress.pipeline.passes import passes
from edgepress.planner.levels import Width
from edgepress.quantize import has_float32_weight
from edgepress.quantize.graph.regions import elements
from edgepress.quantize.storage.unpacking import stored_bytes
from edgepress.quantize.weights.obs import Factor, Grid, Inputs, obs
from edgepress.quantize.weights.repair import LIMITS
from edgepress.quantize.weights.scales import best_scales

ROWS = 16
"""Rows of a layer that its rounding error is measured on at the least."""

ROWS_WORK = 2e9
"""Multiply-adds of a layer that more rows may take. Few rows of many tell little of a classifier: its slopes are those
of the class that was drawn."""

TRIED = tuple(count for count in LADDER if count <= 16)
"""Levels that are tried; with more of them the error falls with the square of the step."""

SAMPLES = 512
FISHER_SAMPLES = 96
CHUNK = 8

DRAWS = (1, 4)
WORK = 2**16
"""Labels drawn for every sample: more of them where layers have few outputs, which tell little and cost little."""


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
    fits = [fit for fit in fits_of(model, names)[0] if _plain(fit, names) and fit.columns <= LARGEST_GRAM]
    if not fits or not context.sweep_samples:
        return {}
    trials = [trial for batch in passes(fits, _need) for trial in _trials(context, model, batch)]
    felt = _felt(context, model, trials, classifies)
    table: Table = {}
    for trial, errors in zip(trials, felt, strict=True):
        name = trial.fit.node.name
        count = model.constants[trial.fit.node.inputs[1]].size  # all groups of a convolution are stored as one
        found = {
            levels: Width(_error(errors, levels), stored_bytes(count, levels, narrow))
            for levels in LADDER
            if levels == INT8 or within(levels, limit) == within(levels, 127)
        }
        table[name] = _merged(table[name], found) if name in table else found
    return table


@dataclass(frozen=True)
class _Trial:
    """What rounding does to some rows of a layer (private).

    Attributes:
        fit: the layer.
        rows: outputs that were tried, ``[rows]``.
        lost: weight errors, float64 ``[levels * rows, columns]``.
        shift: what each bias adds to make up for the mean, ``[levels * rows, biases]``.
    """

    fit: Fit
    rows: np.ndarray
    lost: np.ndarray
    shift: np.ndarray

    @cached_property
    def matrix(self) -> np.ndarray:
        """Errors with the shifts as their last columns, and one of zeros: ``[columns + biases + 1, levels * rows]``."""
        return np.column_stack([self.lost, self.shift, np.zeros(len(self.lost))]).T

    def own(self, part: Part) -> np.ndarray:
        """What is added to the outputs of one part for its columns and its bias ``[columns + 1, levels * rows]``."""
        place = self.fit.place(part)
        return np.asarray(self.matrix[place if part.bias else np.append(place, -1)])

    def felt(self, part: Part, values: Mapping[str, np.ndarray], slopes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Squared change of each sample's score, summed over samples and scaled to all rows: ``[levels]``."""
        samples = len(values[part.node.output])
        made = part.rows(values, None) @ self.own(part)
        felt = part.geometry.outputs(slopes[part.node.output], None)[:, self.rows]
        scores = made * np.tile(felt, len(TRIED))
        by_sample = scores.reshape(samples, -1, scores.shape[1]).sum(1)
        by_level = np.square(by_sample).sum(0).reshape(len(TRIED), len(self.rows)).sum(1)
        return np.asarray(by_level * (0.5 * self.fit.outputs / len(self.rows)))


def _plain(fit: Fit, names: Sequence[str]) -> bool:
    """The layer's weight is one matrix, or one for each group of a convolution, and nothing scales it."""
    return all(
        part.node.name in names
        and part.geometry.answer == part.node.output
        and part.weights[0].scale == 1
        and part.weights[0].tensor == part.node.inputs[1]
        for part in fit.parts
    )


def _apart(context: Context) -> tuple[Feed, Feed]:
    """Samples to round on and samples to score on: those rounded on flatter layers that have few rows."""
    feed = context.fit
    scored = min(FISHER_SAMPLES, len(feed) // 3)
    if scored < max(1, feed.step or 1):
        return feed, feed
    order = np.arange(len(feed))
    return feed.subset(order[: len(feed) - scored]), feed.subset(order[len(feed) - scored :])


def _need(fit: Fit) -> int:
    """Bytes of the Grams of a layer, the part that is held out as well."""
    return 16 * (fit.columns + 1) ** 2


def _trials(context: Context, model: Model, batch: Sequence[Fit]) -> Iterator[_Trial]:
    """Round some rows of every layer to every number of levels."""
    probes = [gram_probe(part, positions=context.positions, seed=context.seed) for fit in batch for part in fit.parts]
    statistics = collect(model, first(_apart(context)[0], SAMPLES), probes, workers=context.workers)
    for fit in batch:
        gram = fit.joined([statistics[part.name] for part in fit.parts]).whole
        yield _trial(model, fit, gram)


def _trial(model: Model, fit: Fit, gram: Gram) -> _Trial:
    columns = fit.columns
    weight = fit.matrix(model.constants)[:, :columns]
    rows = np.linspace(0, len(weight) - 1, _affordable(model, fit)).round().astype(int)
    inputs = Inputs.of(gram, fit.biases)
    lost = _lost(weight[rows], inputs)
    return _Trial(fit, rows, lost, -lost @ inputs.means.T)


def _affordable(model: Model, fit: Fit) -> int:
    """How many rows of a layer are tried: rounding one goes with columns squared, feeling it with positions."""
    positions = max(1, elements(model, fit.node.output) // max(1, fit.outputs))
    work = len(TRIED) * fit.columns * (fit.columns + FISHER_SAMPLES * positions)
    return int(np.clip(ROWS_WORK // work, min(ROWS, fit.outputs), fit.outputs))


def _lost(weight: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Weight errors of every width, one under the other: all widths of a layer are rounded in one go."""
    limits = np.array([bounds(count) for count in TRIED])
    low, high = (np.repeat(limits[:, side], len(weight)) for side in (0, 1))
    stacked = np.tile(weight, (len(TRIED), 1))
    scale = best_scales(stacked, np.maximum(np.diag(inputs.spread), 1e-12), low, high).astype(np.float64)
    whole = obs(stacked, Factor.of(inputs.spread, inputs.size, inputs.rows), Grid(scale, low, high), passes=1)
    made = whole * scale[:, None]
    if len(inputs.means):
        goal, now = (
            np.sqrt(np.maximum(np.einsum("ij,ij->i", rows @ inputs.spread, rows), 0.0)) for rows in (stacked, made)
        )
        made *= np.clip(goal / np.maximum(now, 1e-30), *LIMITS)[:, None]
    return np.asarray(stacked - made)


def _felt(context: Context, model: Model, trials: Sequence[_Trial], classifies: bool) -> list[np.ndarray]:
    """Predicted error of every trial's widths."""
    parts = [(place, part) for place, trial in enumerate(trials) for part in trial.fit.parts]
    tensors = list(dict.fromkeys(name for _, part in parts for name in (*part.geometry.tensors, part.node.output)))
    totals = [np.zeros(len(TRIED)) for _ in trials]
    feed = _apart(context)[1]
    chunks = inputs_of(feed, min(len(feed), context.sweep_samples), chunk=CHUNK)
    samples = sum(len(next(iter(chunk.values()))) for chunk in chunks)
    work = sum(elements(model, name) for name in {part.node.output for _, part in parts})
    draws = int(np.clip(WORK // max(1, work), *DRAWS))
    executor = Executor(model)
    with single_threaded():
        for values, slopes in score_gradients(
            executor, chunks, tensors, classifies=classifies, draws=draws, seed=context.seed
        ):
            for place, part in parts:
                totals[place] += trials[place].felt(part, values, slopes)
    return [total / max(1, samples * draws) for total in totals]


def _error(errors: np.ndarray, levels: int) -> float:
    """Predicted error of a number of levels, tried or not."""
    if levels in TRIED:
        return float(errors[TRIED.index(levels)])
    return float(errors[-1]) * ((TRIED[-1] - 1) / (levels - 1)) ** 2


def _merged(before: dict[int, Width], found: dict[int, Width]) -> dict[int, Width]:
    """Groups of one convolution share their width: errors add up, and the bytes are those of all."""
    return {count: Width(width.error + found[count].error, width.size) for count, width in before.items()}
