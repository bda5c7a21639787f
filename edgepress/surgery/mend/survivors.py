"""Which positions of every tensor stay after a cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Kept = Mapping[str, tuple["np.ndarray | None", ...]]


class Survivors:
    """Which positions of every tensor stay.

    Args:
        channels: channel numbers per tensor (``Grouping.channels``).
        gone: bool [largest number + 1]; ``gone[0]`` is False.
        constants: the initializers before the cut.
        kept: per changed initializer and axis the kept positions; None where the axis is whole.
        values: tensors that depend on shapes alone, before the cut (``Grouping.values``).
    """

    def __init__(
        self,
        channels: Mapping[str, np.ndarray],
        gone: np.ndarray,
        constants: Mapping[str, np.ndarray] | None = None,
        kept: Kept | None = None,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """See the class."""
        self._channels = channels
        self._gone = gone
        self._constants = constants or {}
        self._kept = kept or {}
        self.values: Mapping[str, np.ndarray] = values or {}
        self._shapes: dict[str, list[int]] = {}

    def known(self, tensor: str) -> bool:
        """Whether the tensor was analysed and its shape is known."""
        return tensor in self._channels

    def mask(self, tensor: str, axis: int) -> np.ndarray:
        """Bool [n]: the indices of ``axis`` that stay."""
        if tensor not in self._channels:
            return self._constant_mask(tensor, axis)
        numbers = self._channels[tensor]
        axis %= numbers.ndim
        line = numbers[tuple(slice(None) if i == axis or stride else slice(0, 1) for i, stride in _strides(numbers))]
        stay = ~self._gone[line]
        return np.asarray(stay.any(axis=tuple(i for i in range(stay.ndim) if i != axis)))

    def shape(self, tensor: str, *, before: bool = False) -> list[int]:
        """The tensor's shape after (or before) the cut, batch 1."""
        if before:
            return list((self._channels if tensor in self._channels else self._constants)[tensor].shape)
        if tensor not in self._shapes:
            rank = (self._channels if tensor in self._channels else self._constants)[tensor].ndim
            self._shapes[tensor] = [int(self.mask(tensor, axis).sum()) for axis in range(rank)]
        return list(self._shapes[tensor])

    def changed(self, tensor: str) -> bool:
        """Whether the tensor loses positions."""
        return self.known(tensor) and self.shape(tensor) != self.shape(tensor, before=True)

    def _constant_mask(self, tensor: str, axis: int) -> np.ndarray:
        stay = np.ones(self._constants[tensor].shape[axis], bool)
        positions = self._kept[tensor][axis] if tensor in self._kept else None
        if positions is not None:
            stay[:] = False
            stay[positions] = True
        return stay


def _strides(array: np.ndarray) -> list[tuple[int, int]]:
    return list(enumerate(array.strides))
