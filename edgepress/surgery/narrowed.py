"""What a visitor of a sweep sees of the original network beside a cut one: activations without what was cut.

Guarantee: every axis whose channels are told apart is as long as in the cut network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgepress.executor.sweep import Scene, Visit
from edgepress.surgery.mend import Survivors


def beside_what_is_left(seen: Visit, left: Survivors | None) -> Visit:
    """The visit with activations of the original as narrow as those of the cut network."""
    if left is None:
        return seen

    def narrowed(function: Callable[[Scene], Any]) -> Iterator[Any]:
        return seen.stream(lambda scene: function(replace(scene, original=_Left(scene.original, left))))

    return replace(seen, stream=narrowed)


class _Left(Mapping[str, np.ndarray]):
    """What is left of activations (private); axes that hold channels of every sample stay whole."""

    def __init__(self, values: Mapping[str, np.ndarray], left: Survivors) -> None:
        self.values_of, self.left = values, left

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.values_of[name]
        for axis in range(array.ndim) if self.left.changed(name) else ():
            mask = self.left.mask(name, axis)
            array = array.compress(mask, axis) if not mask.all() and len(mask) == array.shape[axis] else array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)
