"""Non-uniform levels: a codebook for each layer, its values where the weights are.

Weighted k-means (Lloyd 1982; Han 2016, Deep Compression; the weights of Tu 2016 are Fisher information) on the weights
of all rows, each row in units of its own scale::

    centre_c = sum over weights in c of h_k (w / s) / sum of h_k          rounded to int8

``h_k`` is the mean square of a weight's input: what an error of it costs. Centres start at equal shares of the
cumulated cost^(1/3) of the weights (the density that minimizes the error for many levels, Bennett 1948) and move for
``ROUNDS``. Rows start with the scales that suit as many even levels best, then take those that suit the centres, which
move once more, ``TURNS`` times: rows are heavy-tailed each in its own way.
Guarantees: at most ``levels`` different whole numbers within the limit, zero among them; no worse than even levels, by
the columns that are looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgepress.levels import bounds
from edgepress.quantize.weights.nearest import SMALLEST_SCALE
from edgepress.quantize.weights.obs import Grid
from edgepress.quantize.weights.scales import best_of, best_scales, candidates

COLUMNS = 256
"""Columns that are looked at in a wider matrix, evenly spread."""

TURNS = 3
ROUNDS = 20
BINS = 4096


def codebook(weight: np.ndarray, importance: np.ndarray, levels: int, limit: int) -> np.ndarray:
    """The levels of a layer, the same for all rows: whole numbers, rising.

    Args:
        weight: float ``[rows, columns]``.
        importance: what an error in each column costs, ``[columns]``.
        levels: how many values at the most.
        limit: largest ``|value|``.
    """
    some = slice(None, None, -(-weight.shape[1] // COLUMNS))
    weight, importance = weight[:, some], importance[some]
    low, high = bounds(levels)
    scale = best_scales(weight, importance, np.full(len(weight), low), np.full(len(weight), high)) * (-low / limit)
    books = [np.unique(np.clip(np.arange(low, high + 1) * max(limit // -low, 1), -limit, limit))]
    for _ in range(TURNS):
        books.append(np.unique(_kmeans(weight / scale[:, None], np.outer(scale**2, importance), levels, limit)))
        scale = on_codebook(weight, importance, books[-1]).scale
    return min(
        (books[-1], books[0]), key=lambda book: _error(weight, importance, on_codebook(weight, importance, book))
    )


def on_codebook(weight: np.ndarray, importance: np.ndarray, levels: np.ndarray, *, power_of_two: bool = False) -> Grid:
    """The grid of a matrix on given levels: the best scale for each row."""
    reach = max(-int(levels[0]), int(levels[-1]), 1)
    base = np.maximum(np.abs(weight).max(axis=1) / reach, SMALLEST_SCALE)
    grid = Grid(base, np.full(len(weight), levels[0]), np.full(len(weight), levels[-1]), levels)
    scale = best_of(weight, importance, candidates(base, power_of_two), grid.nearest)
    return replace(grid, scale=scale.astype(np.float64))


def _error(weight: np.ndarray, importance: np.ndarray, grid: Grid) -> float:
    whole = grid.nearest(weight / grid.scale[:, None])
    return float((np.square(weight - whole * grid.scale[:, None]) @ importance).sum())


def _kmeans(steps: np.ndarray, cost: np.ndarray, levels: int, limit: int) -> np.ndarray:
    """Centres as whole numbers within ``-limit..limit``, zero among them, found on a fine histogram."""
    edges = np.linspace(-limit - 1, limit + 1, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    mass, _ = np.histogram(np.clip(steps, -limit, limit), edges, weights=cost)
    mass = mass + 1e-12 * max(mass.max(), 1e-30)
    spread = np.cumsum(np.cbrt(mass))
    centres = np.interp((np.arange(levels) + 0.5) / levels * spread[-1], spread, middles)
    for _ in range(ROUNDS):
        owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, middles)
        weight = np.bincount(owner, mass, levels)
        moved = np.bincount(owner, mass * middles, levels) / np.maximum(weight, 1e-30)
        centres = np.sort(np.where(weight > 0, moved, centres))
        centres[np.abs(centres).argmin()] = 0.0  # the others make room for it in the next round
    return np.asarray(np.clip(np.rint(centres), -limit, limit), np.int64)
