"""Plain bytes in as few bytes as the decoder can expand again: the head of a file, and what no table describes."""

from __future__ import annotations

import lzma
from collections.abc import Sequence

from edgepress.codec import decoder
from edgepress.codec.decoder import GUESSED, PLAIN, XZ, Known, number

LONG = 1 << 18
"""Bytes from which a sample decides whether compressing is worth its time."""

WORTH = 0.98
"""Compressing that saves less is not worth anybody's time."""

FEW_GUESSED = 3 << 12
"""Bytes of a head up to which guessing, which takes a while to decode, is worth what it saves."""

FAR_MORE = 50
"""So many times the bytes of the head elsewhere in the file: guessing would save less than half a percent of it."""


def squeezed(data: bytes | memoryview) -> bytes:
    """Bytes for ``decoder.expanded``: the method, the size, the data."""
    data = bytes(data)
    if len(data) > LONG and len(_xz(data[: LONG // 2])) > WORTH * (LONG // 2):
        return _labelled(PLAIN, data, data)
    return min(_labelled(PLAIN, data, data), _labelled(XZ, data, _xz(data)), key=len)


def squeezed_head(graph: bytes, recipes: Sequence[bytes], others: int = 0) -> bytes:
    """The section of the head, for ``decoder.opened``; ``others``: bytes of the other sections."""
    whole = graph + b"".join(recipes)
    if len(whole) > FEW_GUESSED or others > FAR_MORE * len(whole):
        return squeezed(whole)
    source = _Taught(whole, decoder.primed())
    decoder.read_head(source, recipes)
    return min(squeezed(whole), _labelled(GUESSED, whole, source.coded()), key=len)


def _labelled(method: int, data: bytes, packed: bytes) -> bytes:
    return bytes([method]) + number(len(data)) + packed


def _xz(data: bytes) -> bytes:
    filters = [{"preset": 9 | lzma.PRESET_EXTREME, **decoder.lzma_filters(len(data))[0]}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


class _Taught(Known):
    """Codes the bits it reads: the other end of ``decoder.Guessed``."""

    def __init__(self, data: bytes, guess: decoder.Guess) -> None:
        super().__init__(data, guess)
        self.low, self.high = 0, 0xFFFFFFFF
        self.made = bytearray()

    def tell(self, chance: int, bit: int) -> None:
        middle = self.low + (self.high - self.low >> 12) * chance
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        while not (self.low ^ self.high) >> 24:
            self.made.append(self.high >> 24)
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 255

    def coded(self) -> bytes:
        """All bytes; the decoder reads zeros after them."""
        for kept in range(5):
            unit = 1 << (32 - 8 * kept)
            value = self.high // unit * unit
            if value >= self.low:
                break
        return (bytes(self.made) + value.to_bytes(4, "big")).rstrip(b"\0")
