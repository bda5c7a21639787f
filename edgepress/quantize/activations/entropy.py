"""Clipping ranges of the least divergence (Migacz 2017, 8-bit Inference with TensorRT), for asymmetric uint8 grids.

    P = the histogram inside [low, high], what lies outside added to the first and last bin
    Q = the same without what lies outside; the mass of each of the 256 levels spread evenly over its bins that hold any
    KL(P || Q) = sum P log P / Q        least over low and high

Level sums are differences of cumulative ones. With M_l the mass of a level, k_l its bins that hold any, n' and M'_l
the counts with what lies outside added, N all counts and M those inside, the divergence is

    KL = (sum n' log n' - sum_levels M'_l log (M_l / k_l)) / N - log N + log M

Four things differ from the source. Low and high are searched separately, in even ratios, then finer. Values at zero
are on every grid and cost nothing, so the bin of zero counts no more than its neighbours (TensorRT does the same). The
divergence is taken behind the functions that read the tensor (``curves``): values that they send to the same of as
many bins are one bin, the one nearest to zero, so what saturates may be clipped. And a range may be narrow, but not
leave out more than a tenth of the values (the source keeps to 128 bins and more). Guarantee: the whole range is a
candidate, so nothing that diverges more is returned; among equals it is the narrowest; an end at zero stays there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress.quantize.activations.clipping import LEVELS, kept
from edgepress.quantize.activations.curves import Curve

SMALLEST_RATIO = 1 / 256
COARSE, FINE = 12, 2
ROUNDS = 2
EQUAL = 1e-9
"""Divergences this close are the same."""
MOST_CLIPPED = 0.1
"""Share of the values that may lie outside: with nearly all of them in one bin, P and Q are the same again."""


def least_divergence(
    low: float, high: float, counts: np.ndarray, functions: Sequence[Curve] = ()
) -> tuple[float, float]:
    """The range whose grid diverges least from a histogram; arguments as of ``clipping.least_error``."""
    bins = counts.size
    edges = low + np.arange(bins + 1) * ((high - low) / bins)
    edges[-1] = high
    zero = int(np.clip(np.searchsorted(edges, 0, side="right") - 1, 0, bins - 1))
    merged = _without_spike(_merged(edges, counts, functions, zero), zero) if low <= 0 <= high else counts
    ratios = np.geomspace(1, SMALLEST_RATIO, COARSE + 1)
    first, last = _starts(merged, zero, ratios), _stops(merged, zero, ratios)
    best, factor = _best(edges, merged, first, last), SMALLEST_RATIO ** (1 / COARSE)
    for _ in range(ROUNDS):
        around = factor ** (np.arange(-FINE, FINE + 1) / FINE)
        first = _starts(merged, zero, (zero - best[0]) / max(zero, 1) * around)
        last = _stops(merged, zero, (best[1] - zero) / (bins - zero) * around)
        first, last = np.append(best[0], first), np.append(best[1], last)
        best, factor = _best(edges, merged, first, last), factor ** (1 / FINE)
    return kept(low, high, min(float(edges[best[0]]), 0.0), max(float(edges[best[1]]), 0.0))


def _merged(edges: np.ndarray, counts: np.ndarray, functions: Sequence[Curve], zero: int) -> np.ndarray:
    """Counts of neighbouring bins that all functions send to the same bin, gathered in the one nearest to zero."""
    if not functions:
        return counts
    centers, starts = (edges[1:] + edges[:-1]) / 2, np.zeros(counts.size, bool)
    starts[0] = True
    for function in functions:
        values = function(centers)
        places = np.floor((values - values.min()) / max(float(np.ptp(values)), 1e-300) * counts.size)
        starts[1:] |= places[1:] != places[:-1]
    begin = np.flatnonzero(starts)
    made = np.zeros_like(counts)
    made[np.clip(zero, begin, np.append(begin[1:], counts.size) - 1)] = np.add.reduceat(counts, begin)
    return made


def _without_spike(counts: np.ndarray, zero: int) -> np.ndarray:
    around = counts[[place for place in (zero - 1, zero + 1) if 0 <= place < counts.size]]
    made = counts.copy()
    made[zero] = min(counts[zero], max(around, default=counts[zero]))
    return made


def _starts(counts: np.ndarray, zero: int, shares: np.ndarray) -> np.ndarray:
    """First bins, rising, that reach a share of the way below zero, moved inwards to one that holds something."""
    wanted = np.rint(zero * (1 - np.minimum(shares, 1))).astype(np.int64)
    held = np.append(np.flatnonzero(counts[:zero]), zero)
    return np.unique(np.where(shares >= 1, 0, held[np.searchsorted(held, wanted)]))


def _stops(counts: np.ndarray, zero: int, shares: np.ndarray) -> np.ndarray:
    """One past the last bins, falling, the same above zero."""
    wanted = zero + np.maximum(np.rint((counts.size - zero) * np.minimum(shares, 1)).astype(np.int64), 1)
    held = np.append(zero, zero + np.flatnonzero(counts[zero:])) + 1
    found = held[np.searchsorted(held, wanted, side="right") - 1]
    return np.unique(np.where(shares >= 1, counts.size, found))[::-1]


def _best(edges: np.ndarray, counts: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[int, int]:
    """The pair of least divergence, the narrowest among equals."""
    found = divergences(edges, counts, first[:, None], last[None, :])
    width = np.where(found <= found.min() + EQUAL, last[None, :] - first[:, None], counts.size + 1)
    place = np.unravel_index(np.argmin(width), width.shape)
    return int(first[place[0]]), int(last[place[1]])


def divergences(edges: np.ndarray, counts: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """KL(P || Q) of the grids over the bins ``first .. last - 1`` and zero; infinite where it is or too much is out."""
    first, last = np.broadcast_arrays(first, last)
    sums = [np.append(0.0, np.cumsum(values)) for values in (counts, counts > 0, _xlogx(counts))]
    borders = _borders(edges, first, last)
    mass, held = (np.diff(values[borders], axis=-1) for values in sums[:2])
    full = mass > 0
    ratio = np.log(np.where(full, mass, 1) / np.where(full, held, 1))
    below, above = sums[0][first], sums[0][-1] - sums[0][last]
    ends = [np.take_along_axis(ratio, place[..., None], -1)[..., 0] for place in _ends(full)]
    own = sums[2][last] - sums[2][first]
    for outside, place in ((below, first), (above, last - 1)):
        own = own + _xlogx(counts[place] + outside) - _xlogx(counts[place])
    crossed = (mass * ratio).sum(axis=-1) + below * ends[0] + above * ends[1]
    inside, total = sums[0][last] - sums[0][first], max(sums[0][-1], 1.0)
    found = (own - crossed) / total - np.log(total) + np.log(np.maximum(inside, 1))
    lost = ((below > 0) & (counts[first] == 0)) | ((above > 0) & (counts[last - 1] == 0))
    return np.where(lost | (below + above > MOST_CLIPPED * total), np.inf, found)


def _borders(edges: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Bins at which the levels of every grid begin, and where the last one ends: ``[..., 257]``."""
    low, high = np.minimum(edges[first], 0)[..., None], np.maximum(edges[last], 0)[..., None]
    step = (high - low) / LEVELS
    places = (np.arange(1, LEVELS + 1) - 0.5 - np.rint(-low / step)) * step
    width = (edges[-1] - edges[0]) / (edges.size - 1)
    inner = np.clip(np.ceil((places - edges[0]) / width - 0.5), first[..., None], last[..., None])
    return np.concatenate([first[..., None], inner.astype(np.int64), last[..., None]], axis=-1)


def _ends(full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last level that hold anything."""
    return full.argmax(axis=-1), full.shape[-1] - 1 - full[..., ::-1].argmax(axis=-1)


def _xlogx(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * np.log(np.maximum(values, 1)))
