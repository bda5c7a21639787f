"""The ladder of weight widths: how many values a weight may take, and what that is called.

    levels L  ->  whole numbers  -floor(L / 2) .. L - 1 - floor(L / 2)

Every width computes in int8; fewer levels mean fewer bytes in the file (``packing``). Counts between the powers of two
are as good as those, since any count packs at nearly log2 L bits. ``INT8`` is the widest: -127 .. 127.
"""

from __future__ import annotations

import math
from typing import Final

INT8: Final = 255
"""Levels of a weight with all of int8."""

LADDER = (3, 4, 5, 6, 7, 9, 11, 13, 16, 18, 22, 28, 38, 52, 78, 128, INT8)
"""Counts of levels that the allocation of bits chooses from, rising."""


NAMED = {1.6: 3, 2.0: 4, 2.3: 5, 2.6: 6, 2.8: 7, 3.0: 8, 3.2: 9, 3.5: 11, 4.0: 16, 4.5: 22, 5.0: 32, 6.0: 64, 7.0: 128,
         8.0: INT8}  # fmt: skip
"""Levels by the bits that they are called."""


def bounds(levels: int) -> tuple[int, int]:
    """Least and greatest whole number of a count of levels."""
    low = -(levels // 2)
    return low, low + levels - 1


def within(levels: int, limit: int) -> tuple[int, int]:
    """:func:`bounds` inside ``-limit..limit``: the CPU's room for weights."""
    low, high = bounds(levels)
    return max(low, -limit), min(high, limit)


def bits(levels: int) -> float:
    """What a count of levels is called: log2, to one digit."""
    return round(math.log2(levels), 1)
