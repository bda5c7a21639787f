"""Bytes of the file that a model is in after groups have lost channels.

    bytes = rest + sum over constants of bytes * share of the axes that is left

Every constant that shrinks with a group counts, biases as well as weights. Those that will be stored in another form
count with the bytes of that, and 4 more for the scale of each channel they make. The rest, with the graph, is what a
whole file of that form has besides. Guarantee: exact for the float form but for some bytes of shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgepress.groups import Group
from edgepress.model import Model
from edgepress.planner.cost import Axis, axes_of, axis_of, share_left

SCALE = 4
"""Bytes of the scale of an output channel."""


@dataclass(frozen=True, slots=True)
class FileSize:
    """A cost: bytes of the file (:meth:`__call__`)."""

    rest: float
    parts: tuple[tuple[float, tuple[Axis, ...]], ...]

    @classmethod
    def of(
        cls, model: Model, groups: Sequence[Group], whole: int, stored: Mapping[str, float] | None = None
    ) -> FileSize:
        """Tabulate a model.

        Args:
            model: the model.
            groups: the groups that may shrink.
            whole: bytes of its file in the form that is meant.
            stored: bytes per number of the constants that this form stores otherwise than the model does.
        """
        stored = stored or {}
        sites = [site for group in groups for site in group.sites]
        shapes = {name: model.constants[name].shape for name in dict.fromkeys(site.tensor for site in sites)}
        parts = [
            (stored.get(name, np.dtype(model.types[name].dtype).itemsize) * prod(shape), axes_of(name, model, groups))
            for name, shape in shapes.items()
        ]
        made = {(site.tensor, site.axis % len(shapes[site.tensor])) for site in sites if site.role != "in"}
        scaled = (axis_of(name, axis, shapes[name], groups) for name, axis in sorted(made) if name in stored)
        parts += [(float(SCALE * axis.length), (axis,)) for axis in scaled]
        return cls(whole - sum(size for size, _ in parts), tuple(parts))

    def __call__(self, removed: Mapping[str, int]) -> float:
        """Bytes."""
        return self.rest + sum(size * share_left(axes, removed) for size, axes in self.parts)
