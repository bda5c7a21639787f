"""What rounding costs the answer, foreseen: layers are rounded in several ways on trial, some rows of each.

    error[way] = 1/2 sum_o E (sum over positions of g_o d_o x)^2        d: what rounding a layer in this way does

``g`` are score gradients of the layer's outputs (``executor.fisher``), ``x`` its input rows: the Fisher information
of the weights along the rounding error (Tu 2016, section 3: bits by Fisher information), whole sums over the
positions of a sample, since an error that is alike at all positions adds up. ``d`` comes from the same second-order
rounding that is carried out later, on some rows of a layer, all where that is cheap; where a bias takes up the mean,
``x`` is about its mean and the deviation of the outputs is matched, as it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.fits import LARGEST_GRAM, Fit, fits_of
from edgepress.calibrate.run import collect
from edgepress.calibrate.statistics import gram_probe
from edgepress.calibrate.views import Part
from edgepress.executor import Executor, single_threaded
from edgepress.executor.fisher import score_gradients
from edgepress.model import Model
from edgepress.pipeline.context import Context, first, inputs_of
from edgepress.pipeline.passes import passes
from edgepress.quantize.graph.regions import elements
from edgepress.quantize.weights.obs import Inputs
from edgepress.quantize.weights.repair import LIMITS

ROWS = 16
"""Rows of a layer that its rounding error is measured on at the least."""

ROWS_WORK = 2e9
"""Multiply-adds of a layer that more rows may take. Few rows of many tell little of a classifier: its slopes are those
of the class that was drawn."""

SAMPLES = 512
FISHER_SAMPLES = 96
CHUNK = 8

DRAWS = (1, 4)
WORK = 2**16
"""Labels drawn for every sample: more of them where layers have few outputs, which tell little and cost little."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Rows of a layer, rounded in several ways.

    Attributes:
        made: what the rows have become, one way under the other: float64 ``[ways * rows, columns]``.
        bits: of a weight, by way ``[ways]``; empty where nobody asks.
    """

    made: np.ndarray
    bits: np.ndarray


Rounding = Callable[[np.ndarray, Inputs], Ways]
"""Rounds some rows of a layer, float64 ``[rows, columns]``, in every way there is."""


@dataclass(frozen=True)
class Trial:
    """What rounding does to some rows of a layer.

    Attributes:
        fit: the layer.
        rows: outputs that were tried, ``[rows]``.
        lost: weight errors, float64 ``[ways * rows, columns]``.
        shift: what each bias adds to make up for the mean, ``[ways * rows, biases]``.
        bits: of a weight, by way; empty where nobody asked.
    """

    fit: Fit
    rows: np.ndarray
    lost: np.ndarray
    shift: np.ndarray
    bits: np.ndarray

    @property
    def ways(self) -> int:
        """Ways that were tried."""
        return len(self.lost) // len(self.rows)

    @cached_property
    def matrix(self) -> np.ndarray:
        """Errors with the shifts as their last columns, and one of zeros: ``[columns + biases + 1, ways * rows]``."""
        return np.column_stack([self.lost, self.shift, np.zeros(len(self.lost))]).T

    def own(self, part: Part) -> np.ndarray:
        """What is added to the outputs of one part for its columns and its bias ``[columns + 1, ways * rows]``."""
        place = self.fit.place(part)
        return np.asarray(self.matrix[place if part.bias else np.append(place, -1)])

    def felt(self, part: Part, values: Mapping[str, np.ndarray], slopes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Squared change of each sample's score, summed over samples and scaled to all rows: ``[ways]``."""
        samples = len(values[part.node.output])
        made = part.rows(values, None) @ self.own(part)
        felt = part.geometry.outputs(slopes[part.node.output], None)[:, self.rows]
        scores = made * np.tile(felt, self.ways)
        by_sample = scores.reshape(samples, -1, scores.shape[1]).sum(1)
        by_way = np.square(by_sample).sum(0).reshape(self.ways, len(self.rows)).sum(1)
        return np.asarray(by_way * (0.5 * self.fit.outputs / len(self.rows)))


def trials(context: Context, model: Model, names: Sequence[str], rounding: Rounding, ways: int) -> list[Trial]:
    """Round some rows of every layer that can be; the others are left out.

    Args:
        context: the compression.
        model: the float model.
        names: nodes that may be rounded.
        rounding: rounds rows.
        ways: how many ways it has.
    """
    fits = [fit for fit in fits_of(model, names)[0] if _plain(fit, names) and fit.columns <= LARGEST_GRAM]
    if not fits or not context.sweep_samples:
        return []
    return [trial for batch in passes(fits, _need) for trial in _trials(context, model, batch, rounding, ways)]


def felt(context: Context, model: Model, tried: Sequence[Trial], classifies: bool) -> list[np.ndarray]:
    """Predicted error of every trial's ways: nats where the first output classifies, else noise over signal."""
    parts = [(place, part) for place, trial in enumerate(tried) for part in trial.fit.parts]
    tensors = list(dict.fromkeys(name for _, part in parts for name in (*part.geometry.tensors, part.node.output)))
    totals = [np.zeros(trial.ways) for trial in tried]
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
                totals[place] += tried[place].felt(part, values, slopes)
    return [total / max(1, samples * draws) for total in totals]


def matched(rows: np.ndarray, made: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Rounded rows whose outputs deviate as those of the rows do, where a bias takes up the mean."""
    if not len(inputs.means):
        return made
    goal, now = (np.sqrt(np.maximum(np.einsum("ij,ij->i", each @ inputs.spread, each), 0.0)) for each in (rows, made))
    return np.asarray(made * np.clip(goal / np.maximum(now, 1e-30), *LIMITS)[:, None])


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


def _trials(context: Context, model: Model, batch: Sequence[Fit], rounding: Rounding, ways: int) -> Iterator[Trial]:
    """Round some rows of every layer in every way."""
    probes = [gram_probe(part, positions=context.positions, seed=context.seed) for fit in batch for part in fit.parts]
    statistics = collect(model, first(_apart(context)[0], SAMPLES), probes, workers=context.workers)
    for fit in batch:
        gram = fit.joined([statistics[part.name] for part in fit.parts]).whole
        weight = fit.matrix(model.constants)[:, : fit.columns]
        rows = np.linspace(0, len(weight) - 1, _affordable(model, fit, ways)).round().astype(int)
        inputs = Inputs.of(gram, fit.biases)
        found = rounding(weight[rows], inputs)
        lost = np.tile(weight[rows], (ways, 1)) - found.made
        yield Trial(fit, rows, lost, -lost @ inputs.means.T, found.bits)


def _affordable(model: Model, fit: Fit, ways: int) -> int:
    """How many rows of a layer are tried: rounding one goes with columns squared, feeling it with positions."""
    positions = max(1, elements(model, fit.node.output) // max(1, fit.outputs))
    work = ways * fit.columns * (fit.columns + FISHER_SAMPLES * positions)
    return int(np.clip(ROWS_WORK // work, min(ROWS, fit.outputs), fit.outputs))
