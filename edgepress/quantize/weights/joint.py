"""The joint pass: every layer is refitted, rounded and matched before the layers behind it are looked at.

One sweep over both networks (``surgery.fold``). Inputs come from the network that is already compressed, targets from
the original, so a layer makes up for pruning and rounding before it. For each layer::

    W*   ridge least squares toward the original outputs                       (fold)
    q    second-order rounding of W* under the Gram of these same inputs       (rounding)
    s    times clip(s_target / s_rounded, 1/2, 2): the deviation of the outputs
    b    so that the mean of every output is exactly that of the original

All from one set of moments. Where a bias can take up the mean, the Gram is that of centred inputs. Layers without a
least-squares form (depthwise convolutions) are rounded to the nearest and matched in mean and deviation. Nodes that
share a weight share how it is rounded: as the first of them asks. For a coded file a layer has one step, rounding knows
what numbers cost there (``rated``), and gains and biases lie where the coder recognizes them (``lattice``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgepress.calibrate.fits import Fit
from edgepress.calibrate.statistics import Gram
from edgepress.calibrate.views import Source
from edgepress.levels import INT8, within
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.quantize.weights.codebooks import codebook, on_codebook
from edgepress.quantize.weights.lattice import on_grid, settled_vector
from edgepress.quantize.weights.nearest import Rounded, round_weights
from edgepress.quantize.weights.obs import Factor, Grid, Inputs, obs
from edgepress.quantize.weights.rated import REACH, rated
from edgepress.quantize.weights.repair import LIMITS, STILL, Matcher
from edgepress.quantize.weights.scales import best_scales, settled


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the weights of one layer are rounded.

    Attributes:
        levels: how many values a weight may take.
        limit: largest ``|int8 weight|``.
        power_of_two: scales are 2^n.
        uneven: levels lie where the weights are (k-means).
        repair: match the deviation of the outputs.
        shared: all output channels have one scale.
        scale: float32 ``[channels]``, the scale of every output channel where it is given; it stays as it is.
        step: the one step of a layer that is rounded for a coded file, before outputs are matched; None for others.
        lattice: scales lie on the grid of the coder where outputs are matched; those of a step always do.
        rate: what a bit is worth there (``rated``).
    """

    levels: int = INT8
    limit: int = 127
    power_of_two: bool = False
    uneven: bool = False
    repair: bool = True
    shared: bool = False
    scale: np.ndarray | None = None
    step: float | None = None
    lattice: bool = False
    rate: float = 0.0

    def settled(self, wished: np.ndarray) -> np.ndarray:
        """Scales of the kind that the layer may have, near given ones."""
        if self.step is not None or self.lattice:
            return on_grid(wished)
        if self.shared:  # the one that keeps the energy of all channels together
            wished = np.full_like(wished, np.sqrt(np.square(wished).mean()))
        return settled(wished, in_powers=self.power_of_two)


@dataclass
class Joint:
    """Rounds every layer of a sweep; a ``Finish`` of ``surgery.fold``.

    Attributes:
        model: the float model whose weights are rounded (already cut).
        wanted: how, by node name; other nodes stay float.
        rounded: what was made of them.
    """

    model: Model
    wanted: Mapping[str, Wanted]
    rounded: dict[str, Rounded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._matcher: Matcher | None = None
        self._books: dict[str, np.ndarray] = {}

    def wants(self, fit: Fit) -> bool:
        """Whether a layer is rounded."""
        return all(self._one_weight(part.node, part.weights) for part in fit.parts)

    def fitted(self, fit: Fit, matrix: np.ndarray, moments: Gram) -> np.ndarray:
        """Round a refitted matrix and match its outputs."""
        if not self.wants(fit):
            return matrix
        wanted = _for_rows(self.wanted[fit.node.name], fit.node, fit.parts[0].weights[0])
        made = round_matrix(matrix, moments, wanted, biases=fit.biases, book=self._book(fit, wanted))
        for part in fit.parts:
            self._keep(part.node, part.weights[0], made, wanted)
        return made.matrix

    def unfitted(self, seen: Any) -> Mapping[str, np.ndarray]:
        """Round a layer without a least-squares form to the nearest and match it."""
        node: Node = seen.node
        if node.name not in self.wanted or node.name in self.rounded or node.op not in WEIGHTED:
            return {}
        wanted = self.wanted[node.name]
        # not the weight of the sweep: another node may read it too, and have rounded it there
        item = round_nearest(self.model.constants[node.inputs[1]], output_axis(node.op, node.attributes), wanted)
        if self._matcher is None:
            self._matcher = Matcher(self.model)
        rescale = wanted.repair and wanted.scale is None
        self.rounded[node.name], arrays = self._matcher.match(seen, item, rescale=rescale, settle=wanted.settled)
        return arrays

    def _one_weight(self, node: Node, weights: tuple[Source, ...]) -> bool:
        """The matrix of a node is its weight, times a power of two at the most, and all of it is rounded."""
        known = node.name in self.wanted and node.op in WEIGHTED and len(weights) == 1
        return known and weights[0].tensor == node.inputs[1] and math.frexp(weights[0].scale)[0] == 0.5

    def _book(self, fit: Fit, wanted: Wanted) -> np.ndarray | None:
        """The uneven levels that all groups of a convolution share; None where the fit is the whole layer."""
        source, node = fit.parts[0].weights[0], fit.node
        if not wanted.uneven or source.outputs * source.columns == math.prod(source.shape):
            return None
        if source.tensor not in self._books:
            rows = _rows(self.model.constants[source.tensor], output_axis(node.op, node.attributes))
            self._books[source.tensor] = codebook(rows, np.ones(rows.shape[1]), wanted.levels, wanted.limit)
        return self._books[source.tensor]

    def _keep(self, node: Node, source: Source, made: RoundedMatrix, wanted: Wanted) -> None:
        """Put the rows of one part in their place: a grouped convolution has several."""
        axis = output_axis(node.op, node.attributes) % len(source.shape)
        before = self.rounded.get(node.name)
        if before is None:
            empty = np.zeros(source.shape, np.int8)
            before = Rounded(empty, np.ones(source.shape[axis], np.float32), axis, levels=wanted.levels)
        scale = before.scale.copy()
        scale[source.outputs_along(axis)] = made.scale / source.scale
        values = source.written(before.values, made.whole * source.scale)
        self.rounded[node.name] = replace(before, values=values, scale=scale, codebook=made.codebook)


def _for_rows(wanted: Wanted, node: Node, source: Source) -> Wanted:
    """What is wanted of the rows of one part: its own of the given scales."""
    if wanted.scale is None:
        return wanted
    axis = output_axis(node.op, node.attributes) % len(source.shape)
    return replace(wanted, scale=wanted.scale[source.outputs_along(axis)] * source.scale)


@dataclass(frozen=True, slots=True)
class RoundedMatrix:
    """A rounded matrix.

    Attributes:
        matrix: float64 ``[outputs, columns + biases]``, what it stands for.
        whole: int8 ``[outputs, columns]``.
        scale: float32 ``[outputs]``.
        codebook: int8, the values in use; None for all of the levels.
    """

    matrix: np.ndarray
    whole: np.ndarray
    scale: np.ndarray
    codebook: np.ndarray | None


def round_matrix(
    matrix: np.ndarray, moments: Gram, wanted: Wanted, *, biases: int, book: np.ndarray | None = None
) -> RoundedMatrix:
    """Round a matrix ``[outputs, columns + biases]`` under the moments of its inputs and targets.

    Args:
        matrix: the matrix.
        moments: of its inputs and targets.
        wanted: how it is rounded.
        biases: number of its columns that are biases, the last ones.
        book: levels that it has in common with other matrices, where they are uneven.
    """
    columns = matrix.shape[1] - biases
    weight, inputs = matrix[:, :columns], Inputs.of(moments, biases)
    factor = Factor.of(inputs.spread, inputs.size, inputs.rows)
    grid = _grid(weight, np.maximum(np.diag(inputs.spread), 1e-12), wanted, book)
    whole = obs(weight, factor, grid) if wanted.step is None else rated(weight, factor, wanted.step, wanted.rate)
    scale = grid.scale.astype(np.float32)
    counts = np.diag(moments.inner)[columns:]  # rows that each bias is added to
    targets = moments.cross[:, columns:] / counts  # their mean targets
    if biases and wanted.repair and wanted.scale is None:
        variance = (moments.energy - np.square(targets) @ counts) / moments.rows
        scale = _matched(whole, scale, inputs.spread, variance, moments.energy / moments.rows, wanted)
    made = matrix.copy()
    made[:, :columns] = whole * scale.astype(np.float64)[:, None]
    made[:, columns:] = targets - made[:, :columns] @ inputs.means.T
    if wanted.step is not None and biases == 1:
        made[:, columns] = settled_vector(made[:, columns].astype(np.float32))
    return RoundedMatrix(made, whole, scale, None if grid.codebook is None else grid.codebook.astype(np.int8))


def round_nearest(weight: np.ndarray, axis: int, wanted: Wanted) -> Rounded:
    """Round a weight to the nearest, with one scale per index of ``axis``; no inputs are known."""
    plain = wanted.levels >= INT8 and not wanted.uneven and not wanted.power_of_two and not wanted.shared
    if plain and wanted.scale is None and wanted.step is None:
        return round_weights(weight, axis, wanted.limit)
    front, rows = np.moveaxis(weight, axis, 0), _rows(weight, axis)
    grid = _grid(rows, np.ones(rows.shape[1]), wanted)
    whole = grid.nearest(rows / grid.scale[:, None]).reshape(front.shape)
    book = None if grid.codebook is None else grid.codebook.astype(np.int8)
    values = np.ascontiguousarray(np.moveaxis(whole, 0, axis).astype(np.int8))
    return Rounded(values, grid.scale.astype(np.float32), axis % weight.ndim, levels=wanted.levels, codebook=book)


def _rows(weight: np.ndarray, axis: int) -> np.ndarray:
    """A weight as a matrix, float64, with a row for every index of an axis."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)


def _grid(weight: np.ndarray, importance: np.ndarray, wanted: Wanted, book: np.ndarray | None = None) -> Grid:
    """Scales and levels of a matrix ``[rows, columns]``; ``importance`` is what an error in each column costs."""
    low, high = within(wanted.levels, wanted.limit)
    bounds = np.full(len(weight), low), np.full(len(weight), high)
    if wanted.step is not None:
        return Grid.uniform(np.full(len(weight), wanted.step), -REACH, REACH)
    if wanted.scale is not None:
        return Grid(wanted.scale.astype(np.float64), *bounds)
    if wanted.uneven:
        levels = codebook(weight, importance, wanted.levels, wanted.limit) if book is None else book
        return on_codebook(weight, importance, levels, power_of_two=wanted.power_of_two)
    if wanted.shared:
        ends, costs = (np.array([low]), np.array([high])), np.tile(importance, len(weight))
        (one,) = best_scales(weight.reshape(1, -1), costs, *ends, power_of_two=wanted.power_of_two)
        return Grid(np.full(len(weight), one, np.float64), *bounds)
    scale = best_scales(weight, importance, *bounds, power_of_two=wanted.power_of_two)
    return Grid(scale.astype(np.float64), *bounds)


def _matched(
    whole: np.ndarray, scale: np.ndarray, spread: np.ndarray, variance: np.ndarray, square: np.ndarray, wanted: Wanted
) -> np.ndarray:
    """Scales that give every output the deviation of its target, given the targets' variances and mean squares."""
    now = scale * np.sqrt(np.maximum(np.einsum("ij,ij->i", whole @ spread, whole.astype(np.float64)), 0.0))
    goal = np.sqrt(np.maximum(variance, 0.0))
    gain = np.clip(goal / np.maximum(now, 1e-30), *LIMITS)
    gain = np.where((now < 1e-3 * goal) | (goal <= STILL * np.sqrt(square)), 1.0, gain)
    return wanted.settled(scale * gain)
