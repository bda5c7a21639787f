"""Clipping ranges of the least expected squared error, read off a histogram.

A range ``[low, high]`` stands for the uint8 grid of step ``s = (high - low) / 255`` that has zero on it and reaches
from ``bottom`` to ``top``. With ``n`` the counts, spread evenly inside a bin, and ``f`` the function that reads the
tensor (``curves``; the value itself if there is none, the sum over several)::

    error =   sum over bottom < x < top  n f'(x)^2 s^2 / 12        (rounding; near zero, |x| < s / 2:  n f'(x)^2 x^2)
            + sum over x > top           n (f(x) - f(top))^2       (clipping; the same below bottom)

This is the criterion of the optimal clipping value (Sung et al. 2015, Resiliency of Deep Neural Networks under
Quantization; Banner et al. 2019, Post-training 4-bit quantization, section 3), for both ends at once and measured
behind the activation function: what a LeakyRelu of slope 0.1 shrinks counts a hundredth. Every sum is a difference of
cumulative ones, so a candidate costs the same for any number of bins: 34 x 34 of them, then finer around the best.
Guarantees: the whole range is a candidate, so nothing worse by this measure is returned; an end at zero stays there.
The measure takes clipping errors for independent. They need not be (they are coherent along a feature that leaves the
range), which is why the method is chosen per model by the error of its outputs on held-out samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.quantize.activations.curves import Curve

LEVELS = 255
PARTS = 4
"""Points in each bin at which a function is evaluated."""
SMALLEST_RATIO = 1 / 512
"""Shares of the observed range that are tried: down to four bins of 2048."""
COARSE, FINE = 32, 4
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Sums:
    """Cumulative sums of a histogram over its bins, each ``[functions, bins + 1]`` and zero at the lower end.

    Attributes:
        low: where the histogram starts.
        width: width of a bin.
        functions: what reads the tensor; empty for itself.
        first: f n.
        second: f^2 n.
        count: n, the same for all functions.
        slope: f'^2 n.
        zero: f'^2 x^2 n.
    """

    low: float
    width: float
    functions: tuple[Curve, ...]
    first: np.ndarray
    second: np.ndarray
    count: np.ndarray
    slope: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(cls, low: float, high: float, counts: np.ndarray, functions: Sequence[Curve]) -> Sums:
        """The sums of a histogram with equal bins between ``low`` and ``high``."""
        width = (high - low) / counts.size
        edges = low + np.arange(counts.size * PARTS + 1) * (width / PARTS)
        inner = (edges[1:] + edges[:-1]) / 2
        at = np.stack([_apply(f, inner) for f in functions or (None,)])
        rise = np.stack([np.diff(_apply(f, edges)) for f in functions or (None,)]) / (width / PARTS)
        bins = [at, at**2, np.ones_like(at), rise**2, rise**2 * inner**2]
        means = [values.reshape(len(at), -1, PARTS).mean(axis=2) * counts for values in bins]
        padded = [np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0))) for values in means]
        return cls(low, width, tuple(functions), *padded)

    def value(self, places: np.ndarray) -> np.ndarray:
        """The functions at some places, ``[functions, ...]``."""
        return np.stack([_apply(f, places) for f in self.functions or (None,)])

    def upto(self, sums: np.ndarray, places: np.ndarray) -> np.ndarray:
        """A cumulative sum up to some places, linear inside a bin, ``[functions, ...]``."""
        position = np.clip((places - self.low) / self.width, 0, sums.shape[1] - 1)
        left = np.minimum(position.astype(np.int64), sums.shape[1] - 2)
        before = sums[:, left]
        return np.asarray(before + (sums[:, left + 1] - before) * (position - left))


def _apply(function: Curve | None, values: np.ndarray) -> np.ndarray:
    return values if function is None else function(values)


def errors(sums: Sums, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Sum of squared errors behind the uint8 grid of every range ``low <= 0 <= high``; infinite for an empty range."""
    step = (high - low) / LEVELS
    usable = step > 0
    step = np.where(usable, step, 1.0)
    zero = np.rint(-low / step)
    bottom, top = -zero * step, (LEVELS - zero) * step
    near = np.maximum(bottom, -step / 2), np.minimum(top, step / 2)
    rough = [sums.upto(sums.slope, place) for place in (bottom, *near, top)]
    rounding = (rough[3] - rough[2] + rough[1] - rough[0]) * step**2 / 12
    rounding += sums.upto(sums.zero, near[1]) - sums.upto(sums.zero, near[0])
    total = (rounding + _outside(sums, bottom, below=True) + _outside(sums, top, below=False)).sum(axis=0)
    return np.where(usable, total, np.inf)


def _outside(sums: Sums, end: np.ndarray, *, below: bool) -> np.ndarray:
    """Squared distance, behind the functions, of all that lies beyond an end of the grid to that end."""
    tables = (sums.second, sums.first, sums.count)
    second, first, count = (
        sums.upto(table, end) if below else table[:, -1:].reshape(-1, *[1] * end.ndim) - sums.upto(table, end)
        for table in tables
    )
    value = sums.value(end)
    return np.asarray(np.maximum(second - 2 * value * first + value**2 * count, 0))


def least_error(low: float, high: float, counts: np.ndarray, functions: Sequence[Curve] = ()) -> tuple[float, float]:
    """The range whose grid has the least expected squared error.

    Args:
        low: least value of the histogram.
        high: greatest value, greater than ``low``.
        counts: counts of equal bins between them.
        functions: what reads the tensor.
    """
    sums, ends = Sums.of(low, high, counts, functions), (min(low, 0.0), max(high, 0.0))
    ratios = np.append(np.geomspace(1, SMALLEST_RATIO, COARSE + 1), 0.0)
    best = _best(sums, *(end * (ratios if end else np.ones(1)) for end in ends))
    factor = SMALLEST_RATIO ** (1 / COARSE)
    for _ in range(ROUNDS):
        around = factor ** (np.arange(-FINE, FINE + 1) / FINE)
        lows, highs = (np.append(end, end * around) for end in best)  # the best so far comes first
        best = _best(sums, np.maximum(lows, ends[0]), np.minimum(highs, ends[1]))
        factor **= 1 / FINE
    return kept(low, high, *best)


def kept(low: float, high: float, first: float, last: float) -> tuple[float, float]:
    """The clipped range ``[first, last]`` of values in ``[low, high]``: an end that is not beyond zero stays."""
    return min(low, last) if low >= 0 else first, max(high, first) if high <= 0 else last


def _best(sums: Sums, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """The best pair of ends, the first among equals."""
    found = errors(sums, lows[:, None], highs[None, :])
    place = np.unravel_index(np.argmin(found), found.shape)
    return float(lows[place[0]]) + 0.0, float(highs[place[1]])
