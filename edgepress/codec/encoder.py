"""Encoding: an ONNX file as a coded file, from which ``decoder`` makes the same bytes again.

The graph and the values of its tensors are taken apart (``wire``), each tensor is coded in the way that is cheapest
(``tensors``), and the result is decoded and compared before anybody gets to see it. A file that does not come back the
same that way is kept as plain bytes, compressed.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgepress.codec import decoder, tensors, wire
from edgepress.codec.coder import Coder, lanes_for
from edgepress.codec.decoder import Hole, number
from edgepress.codec.room import Pages
from edgepress.codec.squeezed import squeezed_head
from edgepress.errors import InvariantError


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded file, and what is where.

    Attributes:
        data: the file.
        tensors: how every tensor was coded.
        graph: bytes of the graph, container and all.
        original: bytes of the ONNX file.
    """

    data: bytes
    tensors: tuple[CodedTensor, ...]
    graph: int
    original: int


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """One tensor: the method, how many values, their bytes in the ONNX file, and bits in the coded one."""

    method: str
    count: int
    original: int
    bits: float


def encode(model: bytes) -> bytes:
    """A coded file of a serialized ONNX model, from which the same bytes are decoded.

    Raises:
        CodedFileError: no protocol buffers.
    """
    return encoded(model).data


def coded_size(model: bytes) -> int:
    """Bytes of the coded file of a serialized ONNX model, which is not decoded for proof: for searches.

    Raises:
        CodedFileError: no protocol buffers.
    """
    return len(_coded(wire.taken_apart(model), model).data)


def encoded(model: bytes) -> Coded:
    """As :func:`encode`, with an account of what was coded how."""
    made = _coded(wire.taken_apart(model), model)
    if _comes_back(made.data, model):
        return made
    made = _coded(wire.kept_whole(model), model)
    if not _comes_back(made.data, model):
        raise InvariantError("The coded file does not give back the model: this is a bug, please report it.")
    return made


def _comes_back(data: bytes, model: bytes) -> bool:
    """Whether decoding gives the model, without a second copy of it."""
    view, at = memoryview(model), 0

    def compare(piece: bytes) -> None:
        nonlocal at
        if view[at : at + len(piece)] != memoryview(piece):
            raise decoder.CodedFileError("It differs.")
        at += len(piece)

    try:
        return decoder.decode_to(data, compare) == len(model)
    except decoder.CodedFileError:
        return False


def _coded(tokens: wire.Tokens, model: bytes) -> Coded:
    symbols = sum(hole.count for hole, _ in tokens.holes)
    widest = max((_widest(hole) for hole, _ in tokens.holes), default=1)
    coder = Coder(lanes_for(symbols, widest))
    recipes: list[bytes] = []
    side = Pages()
    account = [_one(hole, data, coder, tokens.shapes, recipes, side) for hole, data in tokens.holes]
    codes = coder.finish()
    head = squeezed_head(tokens.graph, recipes, len(codes) + len(side))
    start = decoder.MAGIC + bytes([decoder.VERSION]) + number(len(model)) + zlib.crc32(model).to_bytes(4, "little")
    file = _joined(start, head, codes, side)
    share = len(head) / max(1, len(tokens.graph) + sum(map(len, recipes)))
    told = tuple(
        replace(each, bits=each.bits + 8 * share * len(recipe)) for each, recipe in zip(account, recipes, strict=True)
    )
    return Coded(file, told, len(file) - round(sum(each.bits for each in told) / 8), len(model))


def _widest(hole: Hole) -> int:
    columns = decoder.shape_of(hole.dims, hole.count)[0]
    return max(columns, hole.count // max(1, columns))


def _one(
    hole: Hole, data: memoryview, coder: Coder, shapes: tensors.Shapes, recipes: list[bytes], side: Pages
) -> CodedTensor:
    candidate, ways = tensors.cheapest(hole, data, coder, shapes)
    before, ideal = len(side), coder.ideal
    recipes.append(candidate.write(ways, coder, side))
    bits = coder.ideal - ideal + 8 * (len(side) - before)
    count = len(candidate.parts[-1].symbols) if candidate.parts else hole.count  # digits of words, not words
    return CodedTensor(candidate.name, count, len(data), bits)


def _joined(start: bytes, head: bytes, *sections: Pages) -> bytes:
    """A file of its sections (length, bytes, checksum; an empty one is its length), which are let go of on the way.

    They may be most of the memory, so file and sections are never held whole: a page of the file takes no memory
    until it is written, and a section gives back what was copied.
    """
    lengths = [len(head), *map(len, sections)]
    size = len(start) + sum(len(number(each)) + each + 4 * (each > 0) for each in lengths)
    whole = io.BytesIO(bytes(size))
    whole.write(start)
    every: list[Iterable[bytes | memoryview]] = [[head], *(each.drained() for each in sections)]
    for length, pieces in zip(lengths, every, strict=True):
        whole.write(number(length))
        checksum = 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
            whole.write(piece)
        if length:
            whole.write(checksum.to_bytes(4, "little"))
    return whole.getvalue()
