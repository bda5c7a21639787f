"""Large arrays whose memory goes back to the system as soon as they do.

What ``malloc`` gives for arrays of some megabytes is often kept when they are freed, in gaps between others: a process
then holds several times what it uses. Pages that are mapped for an array alone are not.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

LARGE = 1 << 18
"""Bytes from which an array has pages of its own."""

PAGE = 1 << 20
"""Bytes of a piece of ``Pages``."""


def room(count: int, kind: Any) -> np.ndarray:
    """An array ``[count]`` of some type, to be written; pages that never are take no memory."""
    size = count * np.dtype(kind).itemsize
    if size < LARGE:
        return np.empty(count, kind)
    return np.frombuffer(mmap.mmap(-1, size), kind, count)


class Pages:
    """Bytes that grow at their end, where they are never copied, and are let go of from their start."""

    def __init__(self) -> None:
        """No bytes."""
        self._pieces: list[np.ndarray] = []
        self._size = 0

    def __len__(self) -> int:
        """How many bytes there are."""
        return self._size

    def __iadd__(self, data: bytes | bytearray | memoryview) -> Pages:
        """Append bytes."""
        left = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
        while len(left):
            at = self._size % PAGE
            if at == 0:
                self._pieces.append(room(PAGE, np.uint8))
            part, left = left[: PAGE - at], left[PAGE - at :]
            self._pieces[-1][at : at + len(part)] = part
            self._size += len(part)
        return self

    def __bytes__(self) -> bytes:
        """A copy in one piece."""
        return b"".join(piece.data for piece in self._pieces)[: self._size]

    def drained(self) -> Iterator[memoryview]:
        """All bytes, piece by piece; each is gone when the next one is asked for, and in the end nothing is left."""
        while self._pieces:
            piece = self._pieces.pop(0)[: self._size]
            self._size -= len(piece)
            yield piece.data
