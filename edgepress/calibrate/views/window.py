"""Rows of a Conv: one for every output position, the patch of the input under the kernel (im2col).

Zero padding is part of the patch, so borders are exact. A group sees its own input channels only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgepress.calibrate.views.part import Arrays, draw


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of one group of a Conv.

    Attributes:
        source: the activation that goes in.
        answer: the activation that comes out.
        kernel: size of the kernel.
        strides: steps of the kernel.
        dilations: distances of its taps.
        pads: zeros before every spatial axis, then after; a name (``SAME_UPPER``) where they follow from the size.
        inputs: the group's input channels.
        made: its output channels.
    """

    source: str
    answer: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str
    inputs: range
    made: range

    @property
    def tensors(self) -> tuple[str, ...]:
        """What goes in and what comes out."""
        return self.source, self.answer

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """None: windows do not slide over channels."""
        return ()

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Output positions."""
        return draw(int(np.prod(values[self.answer].shape[2:])), count, generator)

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Patches: [samples * positions, channels * taps]."""
        inputs = values[self.source][:, self.inputs.start : self.inputs.stop]
        rank = len(self.kernel)
        extents = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        padded = np.pad(inputs, [(0, 0), (0, 0), *self._padding(inputs.shape[2:], extents)])
        windows = sliding_window_view(padded, extents, axis=tuple(range(2, 2 + rank)))
        every = slice(None)
        windows = windows[(every, every, *(slice(None, None, s) for s in self.strides))]
        windows = windows[(every,) * (2 + rank) + tuple(slice(None, None, d) for d in self.dilations)]
        patches = np.moveaxis(
            windows, 1, 1 + rank
        )  # [samples, *positions, channels, *taps]: one copy, whichever follows
        columns = inputs.shape[1] * int(np.prod(self.kernel))
        if chosen is None:
            return np.asarray(patches.reshape(-1, columns))
        picked = patches[(every, *np.unravel_index(chosen, windows.shape[2 : 2 + rank]))]  # type: ignore[arg-type]
        return np.asarray(picked.reshape(-1, columns))

    def states(self, values: Arrays, chosen: np.ndarray | None) -> None:
        """None: nothing is remembered."""

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """The group's channels: [samples * positions, outputs]."""
        flat = array[:, self.made.start : self.made.stop].reshape(len(array), len(self.made), -1)
        picked = flat if chosen is None else flat[:, :, chosen]
        return picked.transpose(0, 2, 1).reshape(-1, len(self.made))

    def _padding(self, spatial: tuple[int, ...], extents: tuple[int, ...]) -> list[tuple[int, int]]:
        if not isinstance(self.pads, str):
            return list(zip(self.pads[: len(spatial)], self.pads[len(spatial) :], strict=True))
        found = []
        for size, step, extent in zip(spatial, self.strides, extents, strict=True):
            total = max((-(-size // step) - 1) * step + extent - size, 0) if self.pads != "VALID" else 0
            small, large = total // 2, total - total // 2
            found.append((small, large) if self.pads == "SAME_UPPER" else (large, small))
        return found
