"""Nodes that turn stored weights, scales and biases into what the int8 graph reads.

onnxruntime folds all of them when it loads the file (basic level: constants in, constants out), so weights of few
levels run at the speed of int8, which is what they are by then::

    int8 initializer                                                                            8 bits
    int4 or int2 initializer -> Cast(INT8)       16 or 4 levels, onnxruntime 1.23 or 1.24 and later
    words -> Div(powers) -> Mod(L) -> Gather(codebook) -> Reshape [-> Slice -> Reshape]    L levels, any onnxruntime
    float16 scale or bias -> Cast(FLOAT)                                         where float16 is exact (``scales``)

The smallest form of the onnxruntime that is asked for is taken.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx

from edgepress.levels import INT8, bounds
from edgepress.quantize.storage.packing import bits_stored, is_smaller, pack
from edgepress.quantize.storage.writer import Writer
from edgepress.quantize.weights.nearest import Rounded
from edgepress.quantize.weights.scales import is_half
from edgepress.targets.releases import Release

OPSET4, OPSET2 = 21, 25
"""Operator sets whose Cast takes 4-bit and 2-bit integers."""

NODE = 30
"""Bytes that a node takes, about; for comparing forms."""

FEWEST_HALVES = 24
"""Fewer numbers are not worth a Cast."""


def narrowest(opset: int, runtime: Release) -> int:
    """Bits of the narrowest integer type that a file of some operator set may hold."""
    if runtime.casts2 and opset >= OPSET2:
        return 2
    return 4 if runtime.casts4 and opset >= OPSET4 else 8


def stored_bytes(count: int, levels: int, narrow: int) -> int:
    """Bytes that ``count`` weights of some levels take in a file, about.

    Args:
        count: number of weights.
        levels: values that each may take.
        narrow: bits of the narrowest integer type that the file may hold.
    """
    if levels >= INT8 or not is_smaller(levels):
        return count
    return min(count, _packed_bytes(count, levels), _cast_bytes(count, levels, narrow))


def int8_weight(writer: Writer, name: str, item: Rounded, narrow: int) -> str:
    """Store a weight in its smallest form; returns the int8 tensor."""
    count, book = item.values.size, _codebook(item)
    if book is None:
        return writer.constant(f"{name}/w", item.values)
    packed = _packed_bytes(count, len(book))
    cast = count if item.codebook is not None else _cast_bytes(count, item.levels, narrow)
    if min(packed, cast) >= count:
        return writer.constant(f"{name}/w", item.values)
    return _cast(writer, name, item, narrow) if cast <= packed else _unpacked(writer, name, item.values, book)


def float_vector(writer: Writer, name: str, values: np.ndarray) -> str:
    """Store float32 numbers, as float16 where that is exact and smaller."""
    if values.size < FEWEST_HALVES or not is_half(values):
        return writer.constant(name, values.astype(np.float32))
    stored = writer.constant(f"{name}/half", values.astype(np.float16))
    return writer.node("Cast", [stored], name, to=onnx.TensorProto.FLOAT)


def _codebook(item: Rounded) -> np.ndarray | None:
    """The values that digits stand for; None where weights have all of int8."""
    if item.codebook is not None:
        return item.codebook
    if item.levels >= INT8:
        return None
    low, high = bounds(item.levels)
    return np.arange(low, high + 1, dtype=np.int8)


def _packed_bytes(count: int, levels: int) -> int:
    return math.ceil(count * bits_stored(levels) / 8) + 7 * NODE


def _cast_bytes(count: int, levels: int, narrow: int) -> int:
    bits = max(_cast_bits(levels), narrow)
    return math.ceil(count * bits / 8) + NODE


def _cast_bits(levels: int) -> int:
    """Bits of the smallest integer type that holds some levels at equal distances."""
    return 2 if levels <= 4 else 4 if levels <= 16 else 8


def _cast(writer: Writer, name: str, item: Rounded, narrow: int) -> str:
    kind = ml_dtypes.int2 if max(_cast_bits(item.levels), narrow) == 2 else ml_dtypes.int4
    # raw bytes: the typed fields of ONNX would take twice as many
    stored = writer.constant(f"{name}/few", item.values.astype(kind))
    return writer.node("Cast", [stored], f"{name}/w", to=onnx.TensorProto.INT8)


def _unpacked(writer: Writer, name: str, values: np.ndarray, book: np.ndarray) -> str:
    packed = pack(values, book)
    words = writer.constant(f"{name}/words", packed.words.reshape(-1, 1))
    if packed.words.dtype != np.int64:
        words = writer.node("Cast", [words], f"{name}/wide", to=onnx.TensorProto.INT64)
    shifted = writer.node("Div", [words, writer.constant(f"{name}/powers", packed.powers)], f"{name}/shifted")
    base = writer.constant(f"{name}/base", np.array(len(book), np.int64))
    digits = writer.node("Mod", [shifted, base], f"{name}/digits")
    found = writer.node("Gather", [writer.constant(f"{name}/book", packed.codebook), digits], f"{name}/found")
    if packed.words.size * packed.digits != packed.count:
        flat = writer.node("Reshape", [found, writer.constant(f"{name}/flat", np.array([-1], np.int64))], f"{name}/all")
        start = writer.constant(f"{name}/from", np.array([0], np.int64))
        stop = writer.constant(f"{name}/to", np.array([packed.count], np.int64))
        found = writer.node("Slice", [flat, start, stop], f"{name}/cut")
    shape = writer.constant(f"{name}/shape", np.array(packed.shape, np.int64))
    return writer.node("Reshape", [found, shape], f"{name}/w")
