"""Int8 weights: symmetric rounding with one scale per output channel, and what rounding does to the mean.

    scale[o] = max |w[o]| / limit          q = clip(round(w / scale[o]), -limit, limit)
    bias[o] += sum (w[o] - scale[o] q[o]) E[x]     (Nagel et al. 2019, Data-Free Quantization, section 4.2)

``limit`` is 127, or 64 where the CPU adds pairs of products in 16 bits (2 * 255 * 64 <= 32767).
Guarantees ``|q| <= limit`` and ``|w - scale q| <= scale / 2``; a channel of zeros stays exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgepress.levels import INT8, bounds

SMALLEST_SCALE = 1e-8
"""Scale of a channel without weights; ``qdq`` raises it where the bias of that channel needs it."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Int8 weights of one node.

    Attributes:
        values: int8, shape of the weight.
        scale: float32 ``[channels]``, one for each index of ``axis``.
        axis: the output-channel axis of the weight.
        bias: float32 ``[channels]`` to use in place of the node's own; None keeps that one.
        levels: how many values a weight may take (``levels.bounds``).
        codebook: int8, rising: the values in use where they are not at equal distances.
    """

    values: np.ndarray
    scale: np.ndarray
    axis: int
    bias: np.ndarray | None = None
    levels: int = INT8
    codebook: np.ndarray | None = None

    @property
    def weight(self) -> np.ndarray:
        """The float32 weight that the integers stand for."""
        return np.asarray(self.values * _along(self.scale, self.axis, self.values.ndim), np.float32)


def round_weights(weight: np.ndarray, axis: int, limit: int) -> Rounded:
    """Round a float weight to ``-limit..limit`` with one scale per index of ``axis``."""
    others = tuple(a for a in range(weight.ndim) if a != axis % weight.ndim)
    scale = np.maximum(np.abs(weight).max(axis=others) / limit, SMALLEST_SCALE).astype(np.float32)
    return Rounded(to_grid(weight, scale, axis, limit), scale, axis % weight.ndim)


def to_grid(weight: np.ndarray, scale: np.ndarray, axis: int, limit: int) -> np.ndarray:
    """The nearest integers of ``weight / scale``, int8, within ``-limit..limit``."""
    steps = np.rint(weight / _along(scale.astype(np.float64), axis, weight.ndim))
    return np.asarray(np.clip(steps, -limit, limit), np.int8)


def on_levels(item: Rounded, scale: np.ndarray) -> Rounded:
    """The same weights with other scales, none smaller: on the levels that they had, as near as may be."""
    if item.codebook is None:
        whole = to_grid(item.weight, scale, item.axis, 127)
        return replace(item, scale=scale, values=np.clip(whole, *bounds(item.levels)))
    steps = item.weight / _along(scale.astype(np.float64), item.axis, item.values.ndim)
    book = item.codebook.astype(np.float64)
    return replace(item, scale=scale, values=item.codebook[np.searchsorted((book[1:] + book[:-1]) / 2, steps)])


def bias_correction(weight: np.ndarray, rounded: Rounded, mean_input: np.ndarray) -> np.ndarray:
    """What to add to the bias so that rounding does not move the mean of any output channel.

    Padding is left out of account: the mean input is taken to hold at every position of the kernel.

    Args:
        weight: the float weight: Conv ``[O, I / groups, ...]``, Gemm and MatMul ``[O, I]`` or ``[I, O]``.
        rounded: its rounding.
        mean_input: mean of every input channel over samples and positions, ``[I]``.

    Returns:
        float32 ``[O]``.
    """
    lost = np.moveaxis(weight.astype(np.float64) - rounded.weight, rounded.axis, 0)
    lost = lost.reshape(*lost.shape[:2], -1).sum(axis=2)
    outputs, inputs = lost.shape
    groups = mean_input.size // inputs
    means = np.repeat(mean_input.astype(np.float64).reshape(groups, inputs), outputs // groups, axis=0)
    return np.asarray((lost * means).sum(axis=1), dtype=np.float32)


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if a == axis % ndim else 1 for a in range(ndim)])
