"""The graph apart from its weights: an ONNX file as tokens with holes, and the values that the holes stand for.

The tokens are the file's own protocol buffers with two changes: a message has an end mark instead of a length, since
lengths of messages with holes are known only when the holes are filled, and cost bytes; values of tensors are a mark,
since type and dimensions say how many bytes there are. What no tool writes (fields out of their order, numbers longer
than they need be) does not come back the same: ``encoder`` checks, and then keeps such a file as plain bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgepress.codec import decoder
from edgepress.codec.decoder import HOLE, MESSAGES, TENSOR, Bytes, Hole, number

LEAST_BYTES = 16
LEAST_INT64 = 48
"""Fewer bytes of values stay among the tokens: a recipe would not be shorter (int64: shapes, mostly zeros)."""

DOUBLE_DATA, INT64 = 10, 7
PACKED = {decoder.FLOAT_DATA: decoder.FLOAT, DOUBLE_DATA: decoder.DOUBLE}
"""Lists that are stored like raw bytes, and the type whose values they hold."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """An ONNX file taken apart.

    Attributes:
        graph: the tokens.
        holes: type and dimensions of every hole, and its bytes, in order.
        shapes: what the constants of the graph say that may be shapes.
    """

    graph: bytes
    holes: tuple[tuple[Hole, memoryview], ...]
    shapes: frozenset[tuple[int, ...]] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """What is met on the way."""

    holes: list[tuple[Hole, memoryview]]
    shapes: set[tuple[int, ...]]


def taken_apart(model: bytes) -> Tokens:
    """Tokens and holes of a serialized model.

    Raises:
        CodedFileError: no protocol buffers.
    """
    made = bytearray()
    holes: list[tuple[Hole, memoryview]] = []
    shapes: set[tuple[int, ...]] = set()
    _message(memoryview(model), decoder.MODEL, made, Found(holes, shapes), 0)
    return Tokens(bytes(made), tuple(holes), frozenset(shapes))


def kept_whole(model: bytes) -> Tokens:
    """A file as one hole of plain bytes."""
    hole = Hole(decoder.BYTE, [len(model)])
    return Tokens(number(HOLE) + number(len(model)) + b"\0", ((hole, memoryview(model)),))


def _message(data: memoryview, kind: int, made: bytearray, found: Found, depth: int) -> None:
    """Append the tokens of one message; a piece of ``data`` is read without a copy."""
    if depth > 4 * decoder.DEEPEST:
        raise decoder.CodedFileError("The graphs of the model are nested too deeply to be encoded.")
    source = Bytes(data)  # type: ignore[arg-type]
    dims: list[int] = []
    element = 0
    while source.at < len(data):
        tag = source.number()
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise decoder.CodedFileError("The model is no sequence of protocol buffers.")
        if wire == 0:
            value = source.number()
            made += number(tag) + number(value)
            if kind == TENSOR and field == decoder.DIMS:
                dims.append(value)
            if kind == TENSOR and field == decoder.DATA_TYPE:
                element = value
            continue
        length = source.number() if wire == 2 else {1: 8, 5: 4}.get(wire, -1)
        if length < 0:
            raise decoder.CodedFileError("The model is no sequence of protocol buffers.")
        piece: memoryview = source.take(length)  # type: ignore[assignment]
        hole = _hole(kind, field, element, dims, length) if wire == 2 else None
        if hole is not None:
            made += number(tag + 1)
            found.holes.append((hole, piece))
        elif wire == 2 and field in MESSAGES[kind]:
            made += number(tag)
            _message(piece, MESSAGES[kind][field], made, found, depth + 1)
        else:
            if kind == TENSOR and field == decoder.RAW_DATA and element == INT64 and length % 8 == 0:
                found.shapes.add(struct.unpack(f"<{length // 8}q", piece))
            made += number(tag) + (number(length) if wire == 2 else b"") + piece
    made.append(0)


def _hole(kind: int, field: int, element: int, dims: list[int], length: int) -> Hole | None:
    """The hole that a field is, if its size is what type and dimensions say."""
    if kind != TENSOR or element not in decoder.BITS or length < (LEAST_INT64 if element == INT64 else LEAST_BYTES):
        return None
    if field != decoder.RAW_DATA and PACKED.get(field) != element:
        return None
    try:
        hole = Hole(element, dims)
    except decoder.CodedFileError:
        return None
    return hole if hole.size == length else None
