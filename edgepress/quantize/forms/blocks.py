"""Weights of 4 bits in blocks: what MatMulNBits of onnxruntime reads, rounded and packed with numpy alone.

    w[k, n] = scale[n, b] (q[n, k] - zero[n, b])          b = k // block, q and zero within 0..15

A block is ``block`` input channels of one output channel. Its zero point is 8 in every block (``even``: nothing is
stored for it), or its own (``uneven``: the grid reaches from min(w, 0) to max(w, 0)). Its scale is the one of
``SHRINKS`` times the one that reaches the largest weight which makes the least ``sum v[k] (w - w')^2``; v is the mean
square of the input channel where it is known, else 1. ``round_blocks`` takes the kind with the lower sum.

Layout (contrib_ops/cpu/quantization/matmul_nbits_helper.h): q as uint8 ``[N, blocks, block / 2]``, the even k in the
low half of a byte; scales float32 ``[N, blocks]``; zero points uint8 ``[N, ceil(blocks / 2)]``, packed alike. K is
filled up to whole blocks with q = zero, which stands for 0. Guarantees: the padding is 0; the error is never larger
than with the plain scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = 15
MIDDLE = 8
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of the scale that reaches the largest weight: cutting it off often serves the others more."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight ``[K, N]`` in blocks.

    Attributes:
        values: uint8 ``[N, blocks, block]``, each within 0..15.
        scale: float32 ``[N, blocks]``.
        zero: uint8 ``[N, blocks]``; None where it is 8 everywhere.
        depth: K.
        error: the weighted squared error.
    """

    values: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    depth: int
    error: float

    @property
    def weight(self) -> np.ndarray:
        """The float32 weight ``[K, N]`` that the integers stand for."""
        zero = np.float32(MIDDLE) if self.zero is None else self.zero[..., None].astype(np.float32)
        wide = (self.values.astype(np.float32) - zero) * self.scale[..., None]
        return np.ascontiguousarray(wide.reshape(len(wide), -1)[:, : self.depth].T)

    @property
    def packed(self) -> np.ndarray:
        """The values as MatMulNBits reads them, uint8 ``[N, blocks, block / 2]``."""
        return _pairs(self.values)

    @property
    def packed_zero(self) -> np.ndarray | None:
        """The zero points as MatMulNBits reads them, uint8 ``[N, ceil(blocks / 2)]``."""
        return None if self.zero is None else _pairs(np.pad(self.zero, ((0, 0), (0, self.zero.shape[1] % 2))))


def round_blocks(weight: np.ndarray, block: int, importance: np.ndarray | None = None) -> Blocks:
    """Round a weight to 4 bits.

    Args:
        weight: float32 ``[K, N]``.
        block: input channels of a block: a power of two, 16 or more.
        importance: mean square of every input channel, ``[K]``.
    """
    depth = len(weight)
    short = -depth % block
    apart = np.pad(weight.T, ((0, 0), (0, short))).reshape(weight.shape[1], -1, block)
    given = np.ones(depth) if importance is None else importance
    shares = np.pad(given, (0, short)).reshape(-1, block).astype(np.float32)  # what is filled up counts nothing
    even, uneven = _best(apart, shares, _even(apart)), _best(apart, shares, _uneven(apart))
    values, scale, zero, error = min((even, uneven), key=lambda found: found[3])
    same = zero is None or bool((zero == MIDDLE).all())
    return Blocks(values, scale, None if same else zero, depth, error)


_Grid = tuple[np.ndarray, np.ndarray | None]
_Found = tuple[np.ndarray, np.ndarray, np.ndarray | None, float]


def _even(apart: np.ndarray) -> _Grid:
    """Scale per block (of either sign): the weight of largest size becomes q = 0, eight steps from the middle."""
    place = np.abs(apart).argmax(axis=2, keepdims=True)
    return np.take_along_axis(apart, place, 2)[..., 0] / -MIDDLE, None


def _uneven(apart: np.ndarray) -> _Grid:
    low, high = np.minimum(apart.min(axis=2), 0), np.maximum(apart.max(axis=2), 0)
    return (high - low) / LEVELS, low


def _best(apart: np.ndarray, shares: np.ndarray, grid: _Grid) -> _Found:
    """The best share of the scale for every block: values, scale, zero point and the sum of errors."""
    full, low = grid
    found: tuple[np.ndarray, ...] | None = None
    for share in SHRINKS:
        scale = np.where(full == 0, 1, full * share).astype(np.float32)
        zero = np.full(full.shape, MIDDLE) if low is None else np.clip(np.rint(-low * share / scale), 0, LEVELS)
        values = np.clip(np.rint(apart / scale[..., None]) + zero[..., None], 0, LEVELS).astype(np.uint8)
        lost = (values - zero[..., None].astype(np.float32)) * scale[..., None] - apart
        error = np.einsum("nbk,nbk,bk->nb", lost, lost, shares, dtype=np.float64)
        if found is None:
            found = values, scale, zero, error
            continue
        better = error < found[3]
        found = tuple(
            np.where(better[..., None] if new.ndim == 3 else better, new, old)
            for new, old in zip((values, scale, zero, error), found, strict=True)
        )
    assert found is not None  # SHRINKS is not empty
    return found[0], found[1], None if low is None else found[2].astype(np.uint8), float(found[3].sum())


def _pairs(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[..., ::2] | values[..., 1::2] << 4, np.uint8)
