"""Weights that go with the channels of a group, each position once, and sums over them."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from edgepress.groups import Group
from edgepress.model import Model


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
