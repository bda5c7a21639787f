"""Whole numbers as the symbols that are coded: what is added to all, low bits and escapes go their own ways.

    q = offset + symbol 2^shift + low bits       symbol in -limit .. limit, and an escape where that is not enough

Low bits of numbers that spread wide are as good as random, and go to the side section as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.codec import decoder
from edgepress.codec.decoder import MOST, number, shape_of
from edgepress.codec.room import room

WIDE = 6.0
"""Mean magnitude from which numbers are shifted."""

ESCAPE_BITS = 12
"""What an escape costs, about."""

GLANCE = 1 << 17
"""Numbers that tell where symbols lie, of a large matrix."""

LARGEST = 1 << 40
"""Greater numbers are not coded as numbers."""

Shape = tuple[int, int, int]
"""Columns, places of a kernel, width of the kernel (``decoder.shape_of``)."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Whole numbers, ready to be coded.

    Attributes:
        symbols: int8 ``[numbers]``, -limit .. limit, in the order of the tensor.
        limit: the largest of them, or the escape.
        offset: what is added to all.
        shift: low bits that are kept apart.
        low: the low bits of all numbers as the side section has them (``_low_bits``).
        excess: by how much escaped numbers are beyond the limit, in order; None where nothing escapes.
        implied: the shape that the decoder assumes.
        shape: the shape that they are thought to have.
    """

    symbols: np.ndarray
    limit: int
    offset: int
    shift: int
    low: bytes
    excess: np.ndarray | None
    implied: Shape
    shape: Shape

    @classmethod
    def of(
        cls, values: np.ndarray, dims: Sequence[int], precision: int, *, thought: Sequence[int] | None = None
    ) -> Matrix:
        """Symbols of whole numbers under 2^40.

        Args:
            values: whole numbers, any integer type, in the order of the tensor.
            dims: dimensions that the decoder assumes.
            precision: bits of a frequency; a wide alphabet costs more where they are few.
            thought: dimensions that the numbers have, if they are not those.
        """
        flat = values.ravel()
        offset, shift = _placed(flat)
        limit, escapes = _limit(flat, offset, shift, precision)
        clipped = room(flat.size, np.int8)
        low = bytearray()
        beyond: list[np.ndarray] = [np.zeros(0, np.int64)]
        for start in range(0, flat.size, decoder.BLOCK):  # so that wider integers than those of the tensor take no room
            wide, part = _wide(flat[start : start + decoder.BLOCK], offset), clipped[start : start + decoder.BLOCK]
            high = wide >> wide.dtype.type(shift)
            part[:] = high.clip(-limit, limit)
            if shift:
                low += _low_bits(wide, shift)
            if escapes:
                beyond.append(np.abs(high[np.abs(part) == limit].astype(np.int64)) - limit)
        excess = np.concatenate(beyond) if escapes else None
        implied = shape_of(dims, flat.size)
        shape = implied if thought is None else shape_of(thought, flat.size)
        return cls(clipped, limit, offset, shift, bytes(low), excess, implied, shape)

    @property
    def fixed_bits(self) -> float:
        """Bits of the side section."""
        escapes = 0 if self.excess is None else sum(8 * len(number(each)) for each in self.excess.tolist())
        return self.symbols.size * self.shift + escapes


def _placed(values: np.ndarray) -> tuple[int, int]:
    """Offset and shift that bring the numbers near zero."""
    if not values.size:
        return 0, 0
    few = values[:: max(1, values.size // GLANCE)].astype(np.int64)
    middle, magnitude = int(np.median(few)), float(np.abs(few).mean())
    offset = middle if abs(middle) > magnitude / 2 else 0
    spread = float(np.abs(few - offset).mean())
    shift = 0
    while spread > WIDE * 2**shift:
        shift += 1
    return offset, shift


def _wide(values: np.ndarray, offset: int) -> np.ndarray:
    """Numbers less the offset, in integers that hold the difference."""
    if not offset and values.dtype.kind == "i":
        return values
    kind = {1: np.int16, 2: np.int32}.get(values.dtype.itemsize, np.int64)
    return np.asarray(values.astype(kind) - kind(offset))


def _limit(values: np.ndarray, offset: int, shift: int, precision: int) -> tuple[int, bool]:
    """The largest symbol, and whether it is an escape: a wide alphabet takes probability from all its symbols."""
    if not values.size:
        return 0, False
    largest = max(int(values.max()) - offset >> shift, -(int(values.min()) - offset >> shift))
    few = np.abs((_wide(values[:: max(1, values.size // GLANCE)], offset) >> shift).astype(np.int64))
    counts = np.bincount(np.minimum(few, MOST + 1), minlength=MOST + 2)
    beyond = counts[::-1].cumsum()[::-1] * (values.size // len(few))  # numbers of at least this magnitude, about
    wide = values.size * 2 / 2.0**precision * 1.44
    costs = {limit: wide * limit + ESCAPE_BITS * int(beyond[limit]) for limit in range(1, MOST + 1)}
    best = min(costs, key=lambda limit: (costs[limit], limit))
    if largest <= MOST and wide * largest <= costs[best]:
        return largest, False
    return best, True


def _low_bits(block: np.ndarray, shift: int) -> bytes:
    """The low bits of the numbers of a block, the highest first; the block ends with a whole byte."""
    bits = np.empty((len(block), shift), np.uint8)
    for place in range(shift):
        bits[:, place] = block >> block.dtype.type(shift - 1 - place) & block.dtype.type(1)
    return np.packbits(bits).tobytes()
