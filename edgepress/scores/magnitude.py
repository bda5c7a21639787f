"""Magnitude: filters with small weights do little.

    score_j = mean over the weights that make channels of   |w_j|_1 / (mean over the channels of the group)

The L1 norm of a filter, relative to the mean filter of its layer: 1 is an average channel. A group may be made in
several places (layers joined by an Add or a gate, queries and keys, the gates of a recurrent operator): each counts as
much as the others, whatever its scale. Weights that several nodes read count once.

Source: Li, Kadav, Durdanovic, Samet & Graf 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710), section
3.1.
Guarantees: no data needed; a channel whose weights are zeros scores 0; scaling a layer changes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The magnitude score."""

    name: str = "magnitude"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """Nothing: weights are enough."""
        return ()

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """L1 norm of each channel's filters relative to the mean one: float64 [size]."""
        norms = [
            summed(np.abs(model.constants[tensor].astype(np.float64)), {axis: index})
            for tensor, axes in owned(model, group, ("out",)).items()
            for axis, index in axes.items()
        ]
        return np.asarray(np.mean([norm / (norm.mean() or 1.0) for norm in norms], axis=0))


def owned(model: Model, group: Group, roles: Container[str]) -> dict[str, dict[int, np.ndarray]]:
    """Where the channels of a group lie in weights: by initializer and axis the positions, int64 [size, k].

    A place that several nodes read is named once.
    """
    found: dict[str, dict[int, np.ndarray]] = {}
    for site in group.sites:
        if site.role in roles:
            axes = found.setdefault(site.tensor, {})
            axis = site.axis % model.constants[site.tensor].ndim
            new = site.index[:, ~np.isin(site.index[0], axes[axis][0])] if axis in axes else site.index
            axes[axis] = np.concatenate([axes[axis], new], axis=1) if axis in axes else new
    return found


def summed(values: np.ndarray, axes: Mapping[int, np.ndarray]) -> np.ndarray:
    """Sum of an array over everything that goes with each channel: float64 [size].

    Where a channel lies on two axes, positions that both name count once.
    """
    size = len(next(iter(axes.values())))
    found = np.zeros(size)
    for channel in range(size):
        gone: list[tuple[int, np.ndarray]] = []
        for axis, index in axes.items():
            part = values.take(index[channel], axis)
            for earlier, positions in gone:
                part = np.delete(part, positions, earlier)
            found[channel] += part.sum()
            gone.append((axis, index[channel]))
    return found
