"""Large arrays whose memory goes back to the system as soon as they do.

What ``malloc`` gives for arrays of some megabytes is often kept when they are freed, in gaps between others: a process
then holds several times what it uses. Pages that are mapped for an array alone are not.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

LARGE = 1 << 18
"""Bytes from which an array has pages of its own."""


def room(count: int, kind: Any) -> np.ndarray:
    """An array ``[count]`` of some type, to be written; pages that never are take no memory."""
    size = count * np.dtype(kind).itemsize
    if size < LARGE:
        return np.empty(count, kind)
    return np.frombuffer(mmap.mmap(-1, size), kind, count)
