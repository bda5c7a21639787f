"""Scales of weights: the step of every output channel's grid.

    s[o] = argmin over candidates of  sum_k h_k (w[o,k] - s clip(round(w[o,k] / s), low, high))^2

``h`` is the mean square of every input (the diagonal of the layer's Gram): what an error of that weight costs. With few
levels it pays to clip the largest weights, so candidates reach from a fifth of the largest weight upward. Power-of-two
scales (fixed point, Qm.n) come from the same search over exponents. Scales are kept at float16 precision, so that a
file can store them in two bytes without a loss (:func:`half`).

Guarantees: scales are positive and finite, and never worse than those that clip nothing (in float16, or the power of
two above); a channel of zeros gets ``SMALLEST_SCALE`` (or the power of two above).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgepress.quantize.weights.nearest import SMALLEST_SCALE

SHARES = (1.0, *(float(share) for share in np.geomspace(0.2, 1.25, 26)))
"""Candidate scales as shares of (largest weight / largest level); of equally good ones the first is taken."""

_NORMAL = (float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max))


def best_scales(
    weight: np.ndarray, importance: np.ndarray, low: np.ndarray, high: np.ndarray, *, power_of_two: bool = False
) -> np.ndarray:
    """The scale of every row with the least weighted rounding error.

    Args:
        weight: float ``[rows, columns]``.
        importance: what an error in each column costs, ``[columns]``.
        low: least whole number of each row ``[rows]``.
        high: greatest whole number of each row ``[rows]``.
        power_of_two: only 2^n.

    Returns:
        float32 ``[rows]``.
    """
    reach = np.maximum(np.abs(low), high).astype(np.float64)
    largest = np.abs(weight).max(axis=1)
    given = np.maximum(largest / reach, SMALLEST_SCALE)
    unclipped = np.maximum(largest / np.maximum(high, 1), SMALLEST_SCALE)  # an even count has one level less above zero
    tried = [*candidates(given, power_of_two), *([] if power_of_two else [half(unclipped).astype(np.float64)])]
    return best_of(weight, importance, tried, lambda steps: np.clip(np.rint(steps), low[:, None], high[:, None]))


def best_of(
    weight: np.ndarray, importance: np.ndarray, tried: Sequence[np.ndarray], nearest: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The scale of every row, float32, of those tried, with the least weighted error of the nearest numbers."""
    best, scales = np.full(len(weight), np.inf), tried[0]
    for scale in tried:
        error = np.square(weight - nearest(weight / scale[:, None]) * scale[:, None]) @ importance
        better = error < best
        best, scales = np.where(better, error, best), np.where(better, scale, scales)
    return np.asarray(scales, np.float32)


def candidates(base: np.ndarray, power_of_two: bool) -> list[np.ndarray]:
    """Scales around those that bring the largest weight to the largest number ``[rows]``, these first."""
    if power_of_two:
        top = np.ceil(np.log2(base))
        return [np.exp2(top + more) for more in (0, 1, -1, -2, -3)]
    return [half(base * share).astype(np.float64) for share in SHARES]


def half(scales: np.ndarray) -> np.ndarray:
    """Scales rounded to what float16 holds, as float32; those outside its normal range stay as they are."""
    exact = np.asarray(scales, np.float32)
    inside = (np.abs(exact) >= _NORMAL[0]) & (np.abs(exact) <= _NORMAL[1])
    with np.errstate(over="ignore"):
        return np.asarray(np.where(inside, exact.astype(np.float16).astype(np.float32), exact))


def is_half(values: np.ndarray) -> bool:
    """Whether float16 holds every value exactly."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(np.asarray(values, np.float32), values.astype(np.float16).astype(np.float32)))


def settled(scales: np.ndarray, *, in_powers: bool) -> np.ndarray:
    """Scales as a file holds them: the nearest powers of two, or rounded to float16."""
    return power_of_two(scales) if in_powers else half(scales)


def power_of_two(scales: np.ndarray) -> np.ndarray:
    """The nearest powers of two (in the logarithm), float32."""
    return np.asarray(np.exp2(np.rint(np.log2(scales))), np.float32)
