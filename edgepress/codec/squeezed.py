"""Plain bytes in as few bytes as the decoder can expand again: the graph, and what no table describes."""

from __future__ import annotations

import lzma
import zlib

from edgepress.codec import decoder
from edgepress.codec.decoder import PLAIN, WORDS, XZ, number

LONG = 1 << 18
"""Bytes from which a sample decides whether compressing is worth its time."""

WORTH = 0.98
"""Compressing that saves less is not worth anybody's time."""


def squeezed(data: bytes | memoryview) -> bytes:
    """Bytes for ``decoder.expanded``: the method, the size, the data."""
    data = bytes(data)
    if len(data) > LONG and len(_packed(XZ, data[: LONG // 2])) > WORTH * (LONG // 2):
        return bytes([PLAIN]) + number(len(data)) + data
    methods = (PLAIN, XZ) if len(data) > LONG else (PLAIN, XZ, WORDS)
    return min((bytes([method]) + number(len(data)) + _packed(method, data) for method in methods), key=len)


def _packed(method: int, data: bytes) -> bytes:
    if method == PLAIN:
        return data
    if method == WORDS:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=decoder.DICTIONARY)
        return packer.compress(data) + packer.flush()
    filters = [{"preset": 9 | lzma.PRESET_EXTREME, **decoder.lzma_filters(len(data))[0]}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
