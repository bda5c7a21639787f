"""Small ONNX files with weights of every kind that the coder knows, made of nothing but seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepress.codec import Coded, encoded, grid_steps
from edgepress.quantize.storage.packing import pack

Arrays = dict[str, np.ndarray]


def whole(seed: int, shape: tuple[int, ...], spread: float = 0.8) -> np.ndarray:
    """Whole numbers as rounding leaves them: many zeros, few large ones, rows of different sizes; int64."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.normal(size=(shape[0], *[1] * (len(shape) - 1))) / 2)
    return np.rint(random.laplace(size=shape) * spread * sizes).astype(np.int64)


def holding(tensors: list[onnx.TensorProto]) -> bytes:
    """A model that holds tensors and hands its input on."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="made")
    return bytes(model.SerializeToString(deterministic=True))


def of(**arrays: np.ndarray) -> bytes:
    """A model that holds arrays."""
    return holding([numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in arrays.items()])


def steps() -> bytes:
    """Floats as ``compress`` leaves them: steps on a grid for each row, one step for biases."""
    tensors: Arrays = {}
    for number, shape in enumerate([(16, 3, 3, 3), (24, 16, 3, 3), (24, 1, 3, 3), (10, 384)]):
        codes = np.random.default_rng(number).integers(-20, 20, shape[0])
        rows = grid_steps(0.037 / (number + 1), codes).reshape(-1, *[1] * (len(shape) - 1))
        tensors[f"w{number}"] = (whole(number, shape).astype(np.float32) * rows).astype(np.float32)
        biases = whole(number + 50, (shape[0],), 30.0).astype(np.float32)
        tensors[f"b{number}"] = (biases * np.float32(0.0031)).astype(np.float32)
    tensors["each"] = (whole(9, (12, 40)) * np.random.default_rng(9).random((12, 1), np.float32)).astype(np.float32)
    tensors["last"] = (whole(8, (40, 12)) * np.random.default_rng(8).random(12, np.float32)).astype(np.float32)
    tensors["signed"] = (whole(7, (20, 20)).astype(np.float32) * np.float32(-0.5)).astype(np.float32)
    return of(**tensors)


def integers() -> bytes:
    """Whole numbers of every type, packed ones included."""
    tensors = [
        numpy_helper.from_array(whole(1, (32, 16, 3, 3), 20.0).clip(-127, 127).astype(np.int8), "int8"),
        numpy_helper.from_array((whole(2, (40, 60), 9.0) + 128).clip(0, 255).astype(np.uint8), "uint8"),
        numpy_helper.from_array(whole(3, (300,), 9000.0).astype(np.int32), "int32"),
        numpy_helper.from_array(np.arange(90, dtype=np.int64) * 10**9, "int64"),
        numpy_helper.from_array((whole(4, (50,), 800.0) % 2**16).astype(np.uint16), "uint16"),
        numpy_helper.from_array(whole(5, (30, 30)) > 0, "bool"),
        numpy_helper.from_array(whole(6, (21, 11), 2.0).clip(-8, 7).astype(ml_dtypes.int4), "int4"),
        numpy_helper.from_array(whole(7, (21, 11), 2.0).clip(0, 3).astype(ml_dtypes.uint2), "uint2"),
    ]
    book = np.array([-9, -4, -1, 0, 2, 5], np.int8)
    item = pack(book[whole(8, (20, 31)).clip(-3, 2) + 3], book)
    tensors += [
        numpy_helper.from_array(item.words.reshape(-1, 1), "words"),
        numpy_helper.from_array(np.array([20, 31], np.int64), "shape"),
    ]
    return holding(tensors)


def floats() -> bytes:
    """Floats as training leaves them, of every type, and such as few values repeat."""
    random = np.random.default_rng(0)
    single = random.normal(size=(40, 50)).astype(np.float32)
    odd = single.copy()
    odd[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    return of(
        single=single,
        odd=odd,
        half=single.astype(np.float16),
        brain=single.astype(ml_dtypes.bfloat16),
        double=random.normal(size=60),
        eighth=single.astype(ml_dtypes.float8_e4m3fn),
        few=np.array([0.1, 0.25, 0.7, 1e30], np.float32)[random.integers(0, 4, (30, 30))],
        halves=single.astype(np.float16).astype(np.float32),
        same=np.full((50, 50), 3.25, np.float32),
        text=np.array([b"a", b"bc"], object),
    )


def lanes() -> bytes:
    """More numbers than a single lane is given; most of them zeros, so that the file is small."""
    random = np.random.default_rng(3)
    rows = np.zeros((1100, 1000), np.int8)
    rows[:100] = (random.random((100, 1000)) < 0.02) * random.integers(-3, 4, (100, 1000))
    return of(rows=rows, other=whole(1, (30, 16, 3, 3)).astype(np.int8))


def wild() -> bytes:
    """What no tool writes, and still is to be kept: unknown fields, numbers longer than they need be."""
    return steps() + bytes([0xA2, 0x9F, 0x01, 0x81, 0x00]) + b"x" + bytes([0x08, 0x8A, 0x80, 0x00])


MODELS: dict[str, Callable[[], bytes]] = {
    "steps": steps,
    "integers": integers,
    "floats": floats,
    "lanes": lanes,
    "wild": wild,
}


@functools.cache
def coded(name: str) -> Coded:
    """A model, encoded: once for all tests of a process."""
    return encoded(MODELS[name]())
