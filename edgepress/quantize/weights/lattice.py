"""Steps and biases that the coder recognizes, so that no bit of a rounded model is lost on the way to its file.

w = float32(step of its row * q)       steps on the grid 2^(k / 64), q whole numbers
b = float32(step * q)                  biases and other vectors: one step, |q| up to 127 or 31
"""

from __future__ import annotations

import numpy as np

from edgepress.codec.decoder import OCTAVE, grid_steps

LARGEST = 127
"""Largest number of a vector where there are few."""

MANY, LARGEST_OF_MANY = 32, 31
"""The same where a vector has so many; its errors are many small ones, and its bytes count."""


def on_grid(steps: np.ndarray) -> np.ndarray:
    """The nearest steps 2^(k / 64), float32.

    (A grid four times as coarse takes 1 % off the file of a LeNet and triples the divergence of a MobileNet.)
    """
    codes = np.rint(OCTAVE * np.log2(np.maximum(steps.astype(np.float64), 1e-30))).astype(np.int64)
    return np.asarray(grid_steps(1.0, codes))


def settled_vector(values: np.ndarray, *, many: bool = True) -> np.ndarray:
    """A bias as whole numbers times one step.

    Args:
        values: the bias, or another vector.
        many: errors of many add up to little, so that numbers may be smaller; not those of what is multiplied by.

    Returns:
        of the same type; zeros where nothing is as large as a step can be, or something is not finite.
    """
    largest = float(np.abs(values).max()) if values.size else 0.0
    if not largest > 0 or not np.isfinite(largest):
        return np.zeros_like(values)
    step = np.float32(largest / (LARGEST_OF_MANY if many and values.size >= MANY else LARGEST))
    if not step > 0:
        return np.zeros_like(values)
    return np.asarray(np.rint(values / step).astype(np.float32) * step + np.float32(0), values.dtype)  # no -0.0
