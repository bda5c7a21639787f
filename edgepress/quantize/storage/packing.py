"""Few levels in few bytes: weights as the digits of whole numbers.

    word = sum_k digit_k L^k        digit = index of the weight's value in the codebook, L = len(codebook)

A uint8 word holds floor(8 / log2 L) digits, an int64 word floor(63 / log2 L): 1.6 bits for 3 levels, 2.37 for 5, 2.91
for 7, 4.0 for 16, 4.92 for 28. The smaller of the two is taken; from 7 digits of 8 bits on, plain int8 is smaller
still. The graph turns the words back with four operators that every onnxruntime folds into an int8 initializer at load
(``unpacking``).
Guarantee: ``pack(values, codebook).values`` equals ``values``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgepress.errors import InvariantError

WORDS = ((8, np.uint8), (63, np.int64))
"""Bits of a word that digits may use, and its type."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Packed weights.

    Attributes:
        words: uint8 or int64 ``[words]``.
        digits: digits in one word.
        codebook: int8 ``[levels]``, the value of each digit.
        shape: shape of the weight.
    """

    words: np.ndarray
    digits: int
    codebook: np.ndarray
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def powers(self) -> np.ndarray:
        """What a word is divided by to bring each digit to the front: int64 ``[digits]``."""
        return np.array([len(self.codebook) ** place for place in range(self.digits)], np.int64)

    @property
    def values(self) -> np.ndarray:
        """The weights, int8, as the graph unpacks them."""
        digits = self.words.astype(np.int64)[:, None] // self.powers % len(self.codebook)
        return np.asarray(self.codebook[digits].reshape(-1)[: self.count].reshape(self.shape))


def pack(values: np.ndarray, codebook: np.ndarray) -> Packed:
    """Pack int8 weights whose values are all in a codebook.

    Args:
        values: int8, any shape.
        codebook: int8 ``[levels]``, rising.
    """
    places = np.searchsorted(codebook, values.ravel())
    if not np.array_equal(codebook[np.minimum(places, len(codebook) - 1)], values.ravel()):
        raise InvariantError("A weight is not in its codebook: this is a bug, please report it.")
    digits, kind = _word(len(codebook))
    padded = np.zeros(-(-places.size // digits) * digits, np.int64)
    padded[: places.size] = places
    packed = Packed(np.zeros(0, kind), digits, codebook, values.shape)
    words = (padded.reshape(-1, digits) * packed.powers).sum(1)
    return Packed(words.astype(kind), digits, codebook, values.shape)


def bits_stored(levels: int) -> float:
    """Bits that one weight takes when packed."""
    return min(_bits(levels, room, kind) for room, kind in WORDS)


def is_smaller(levels: int) -> bool:
    """Whether packing beats plain int8."""
    return bits_stored(levels) < 8


def _word(levels: int) -> tuple[int, type]:
    room, kind = min(WORDS, key=lambda word: _bits(levels, *word))
    return _digits(levels, room), kind


def _bits(levels: int, room: int, kind: type) -> float:
    digits = _digits(levels, room)
    return math.inf if digits == 0 else 8 * np.dtype(kind).itemsize / digits


def _digits(levels: int, room: int) -> int:
    """Digits of base ``levels`` (a single level counts as two) that fit into ``room`` bits."""
    count = 0
    while max(levels, 2) ** (count + 1) <= 2**room:
        count += 1
    return count
