"""Ideal code lengths of whole numbers, and rounding that knows what a number costs.

With the empirical probabilities of an array of ``n`` whole numbers, a coder that nothing beats without context needs::

    bits(q_i) = -log2 (count of q_i / n)              summed: n H
    description = n H + histogram + step              the decoder must know the counts and the step

The histogram is written in Elias gamma codes (2 floor(log2 m) + 1 bits for m >= 1): the number of levels, the first
level, the gaps between levels, the count of each; the step as one float32. Rounding weighs error against length::

    q = argmin  sum_i (w_i / step - q_i)^2 + rate * bits(q_i)

For given lengths the best level of a weight is where the line ``level^2 + rate * bits - 2 level w / step`` is lowest:
a lower envelope of lines over the sorted weights, so every level gets one run of them and a round costs no pass over
the weights. Rounds alternate with counting anew. Where that ends depends on where it starts, so the rounds are walked
for a fixed ladder of rates, from nearest rounding and from the end of the rate before; of all roundings met the one
with the least objective is taken.

Source: Wiedemann, Marban, Mueller & Samek 2018, "Entropy-Constrained Training of Deep Neural Networks" (arXiv
1812.07520): description length and hard assignment; Chou, Lookabaugh & Gray 1989, "Entropy-constrained vector
quantization": the alternation; Gish & Pierce 1968, "Asymptotically efficient quantizing": ``SLOPE``.
Guarantees: rate 0 is nearest rounding; the objective never rises from round to round; a greater rate never takes more
bits; deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

SLOPE: Final = math.log(2) / 6
"""Rate that fits the step: error ``step^2 / 12`` quarters with every bit, so a bit is worth ``2 ln 2 / 12``."""

STEP_BITS: Final = 32
"""A step is stored as float32."""

ROUNDS: Final = 20
"""Rounds at one rate, at the most."""

LADDER: Final = tuple(2.0 ** (half / 2) for half in range(-10, 11))
"""Rates that roundings are looked for at."""


def empirical_bits(values: np.ndarray) -> np.ndarray:
    """The code length of every number under the array's own probabilities: float64, same shape."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(np.log2(values.size / counts)[inverse].reshape(values.shape))


def coded_bits(values: np.ndarray) -> float:
    """``n H``: the sum of :func:`empirical_bits`."""
    _, counts = np.unique(values, return_counts=True)
    return _coded(counts)


def histogram_bits(values: np.ndarray) -> int:
    """What the decoder must be told about the probabilities of an array of whole numbers."""
    levels, counts = np.unique(values.astype(np.int64), return_counts=True)
    first = [1 + (2 * level if level >= 0 else -2 * level - 1) for level in levels[:1].tolist()]
    written = np.concatenate([[len(levels) + 1], first, np.diff(levels), counts])
    return int((2 * np.frexp(written)[1] - 1).sum())  # frexp: floor(log2 m) + 1, exactly


def description_bits(values: np.ndarray) -> float:
    """The whole description of a layer of rounded weights: codes, histogram, step."""
    return coded_bits(values) + histogram_bits(values) + STEP_BITS


def uniform_step(weights: np.ndarray) -> float:
    """Half the root mean square of a layer's weights; 1 for a layer of zeros.

    Relative to the root mean square, layers lose about as much each, whatever the shape of their distribution: one
    outlier makes a step that is a share of the largest weight too coarse for all others.
    """
    square = float(np.mean(np.square(weights, dtype=np.float64))) if weights.size else 0.0
    return math.sqrt(square) / 2 or 1.0


def rate_rounded(weights: np.ndarray, step: float, rate: float) -> np.ndarray:
    """Whole numbers for weights: the least error, in squared steps, plus ``rate`` per bit.

    Args:
        weights: of one layer, finite.
        step: distance of two levels, over 0.
        rate: what a bit is worth in squared steps, from 0; :data:`SLOPE` fits the step.

    Returns:
        int64, same shape; only levels that nearest rounding uses, or one level for all.
    """
    steps = np.asarray(weights, np.float64) / step
    if not rate or not steps.size:
        return np.asarray(np.rint(steps), np.int64)
    order = np.argsort(steps, axis=None, kind="stable")
    chosen = _best(_Line.of(steps.ravel()[order]), rate)
    values = np.empty(steps.size, np.int64)
    values[order] = np.repeat(chosen.levels.astype(np.int64), np.diff(chosen.ends))
    return values.reshape(steps.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """A rounding of sorted weights: ``levels[k]`` for the weights ``ends[k]`` to ``ends[k + 1]``, none empty."""

    levels: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Sorted weights in steps, with the sums of all weights, and of their squares, before each."""

    steps: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, steps: np.ndarray) -> _Line:
        return cls(steps, np.append(0.0, np.cumsum(steps)), np.append(0.0, np.cumsum(steps * steps)))

    def nearest(self) -> _Runs:
        """Nearest rounding."""
        levels, counts = np.unique(np.rint(self.steps), return_counts=True)
        return _Runs(levels, np.append(0, np.cumsum(counts)))

    def constant(self) -> _Runs:
        """The one level that serves all."""
        return _Runs(np.rint(self.steps.mean(keepdims=True)), np.array([0, self.steps.size]))

    def improved(self, runs: _Runs, rate: float) -> _Runs:
        """The best rounding under the code lengths of the given one."""
        cost = runs.levels**2 + rate * np.log2(self.steps.size / np.diff(runs.ends))
        lowest = _lower_hull(runs.levels, cost)
        levels, cost = runs.levels[lowest], cost[lowest]
        borders = np.diff(cost) / (2 * np.diff(levels))
        ends = np.concatenate([[0], np.searchsorted(self.steps, borders), [self.steps.size]])
        used = np.diff(ends) > 0
        return _Runs(levels[used], np.append(0, ends[1:][used]))

    def measured(self, runs: _Runs) -> tuple[float, float]:
        """Bits and squared error."""
        counts = np.diff(runs.ends)
        sums, squares = np.diff(self.sums[runs.ends]), np.diff(self.squares[runs.ends])
        return _coded(counts), float((squares - 2 * runs.levels * sums + runs.levels**2 * counts).sum())


def _best(line: _Line, rate: float) -> _Runs:
    """Of all roundings met, the one for this rate: the longer one lies on the lower hull of error over bits."""
    met = list(_met(line))
    bits, errors = np.array([line.measured(runs) for runs in met]).T
    order = np.lexsort((errors, bits))
    order = order[np.append(True, np.diff(bits[order]) > 0)]  # of equal length the least error
    hull = order[_lower_hull(bits[order], errors[order])][::-1]
    switches = np.diff(errors[hull]) / -np.diff(bits[hull])  # rising: the hull is convex
    place = int(np.searchsorted(switches, rate))
    return met[int(hull[place])]


def _met(line: _Line) -> Iterator[_Runs]:
    """Roundings worth a look, the same ones whatever the rate: so their choice can follow the rate."""
    nearest = reached = line.nearest()
    yield nearest
    yield line.constant()
    for rate in LADDER:
        yield from _rounds(line, nearest, rate)
        onward = [reached, *_rounds(line, reached, rate)]
        reached = onward[-1]
        yield from onward[1:]


def _rounds(line: _Line, start: _Runs, rate: float) -> Iterator[_Runs]:
    """Improve and count anew until nothing moves."""
    for _ in range(ROUNDS):
        runs = line.improved(start, rate)
        if np.array_equal(runs.ends, start.ends):
            return
        yield runs
        start = runs


def _coded(counts: np.ndarray) -> float:
    return float((counts * np.log2(counts.sum() / counts)).sum())


def _lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the lower convex hull of points with rising x."""
    kept: list[int] = []
    for index in range(len(x)):
        while len(kept) > 1 and _above(x, y, kept[-2], kept[-1], index):
            kept.pop()
        kept.append(index)
    return np.array(kept)


def _above(x: np.ndarray, y: np.ndarray, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or above the line through the other two."""
    return bool((y[middle] - y[first]) * (x[last] - x[first]) >= (y[last] - y[first]) * (x[middle] - x[first]))
