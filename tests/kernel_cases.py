"""One-node models for the kernel tests: the matrix of operators and attribute variants onnxruntime can run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepress.model import Model

Array = np.ndarray
F32, I64 = np.float32, np.int64


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(F32)


def positive(*shape: int) -> Array:
    return np.asarray(np.abs(data(*shape)) + F32(0.1))


def ints(*values: int) -> Array:
    return np.array(values, I64)


def whole(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).integers(-9, 10, shape)


@dataclass(frozen=True)
class Case:
    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: int = 1
    domain: str = ""

    def __str__(self) -> str:
        shapes = "-".join(
            "x".join(map(str, i.shape)) + i.dtype.str[1:] if i is not None else "none" for i in self.inputs
        )
        said = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.op}-{self.opset}-{shapes}-{said}".replace(" ", "")

    def model(self) -> Model:
        """The first input is fed, the others are initializers."""
        names = ["" if value is None else f"i{k}" for k, value in enumerate(self.inputs)]
        made = [f"y{k}" for k in range(self.outputs)]
        node = helper.make_node(self.op, names, made, "n", domain=self.domain, **self.attributes)
        fed = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
            for name, value in self.feed().items()
        ]
        weights = [
            numpy_helper.from_array(value, name)
            for name, value in zip(names[1:], self.inputs[1:], strict=True)
            if value is not None
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in made]
        graph = helper.make_graph([node], "g", fed, outputs, weights)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(self.domain, 1)] if self.domain else []
        return Model.of(helper.make_model(graph, opset_imports=imports, ir_version=10))

    def feed(self) -> dict[str, Array]:
        return {f"i{k}": value for k, value in enumerate(self.inputs[:1]) if value is not None}


def conv(spatial: tuple[int, ...], weight: tuple[int, ...], *, bias: bool = True, opset: int = 21, **at: Any) -> Case:
    channels = weight[1] * at.get("group", 1)
    extra: tuple[Array, ...] = (data(weight[0]),) if bias else ()
    return Case("Conv", (data(2, channels, *spatial), data(*weight, seed=1), *extra), at, opset)


def weighted() -> Iterator[Case]:
    yield conv((9,), (4, 3, 3), pads=[1, 2], strides=[2], dilations=[2])
    yield conv((9,), (4, 3, 4), auto_pad="SAME_LOWER")
    yield conv((5, 6, 7), (4, 2, 2, 3, 2), pads=[1, 0, 1, 1, 2, 0], strides=[1, 2, 1])
    yield conv((5, 6, 7), (4, 2, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2, 2], opset=11)
    yield conv((8, 9), (4, 3, 3, 3), bias=False, opset=13)
    yield conv((8, 9), (4, 3, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1], opset=26)
    yield conv((8, 9), (4, 3, 3, 2), pads=[0, 1, 2, 1], dilations=[2, 1])
    yield conv((8, 9), (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1], strides=[2, 2], opset=17)
    yield conv((8, 9), (6, 1, 3, 3), group=3, pads=[1, 0, 1, 1])
    yield conv((8, 9), (4, 3, 3, 2), auto_pad="VALID", strides=[2, 1])
    for mode, stride, kernel in itertools.product(("SAME_UPPER", "SAME_LOWER"), (1, 2, 3), (1, 2, 5)):
        yield conv((8, 9), (4, 3, kernel, kernel), auto_pad=mode, strides=[stride, stride])
    a, b, c = data(3, 4), data(4, 5), data(5)
    yield Case("Gemm", (a, b, c))
    yield Case("Gemm", (a, b), {"alpha": 0.5}, 13)
    yield Case("Gemm", (a.T.copy(), b.T.copy(), c), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0})
    shapes: tuple[tuple[int, ...], ...] = ((), (1,), (3, 1), (1, 5), (3, 5))
    for shape in shapes:
        yield Case("Gemm", (a, b, data(*shape)), {"beta": 0.25}, 9)
    for left, right in (
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
    ):
        yield Case("MatMul", (data(*left), data(*right)))
    yield Case("MatMul", (whole(3, 4), whole(4, 5)), opset=13)
    for shape, opset in itertools.product(((2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4)), (9, 14, 21)):
        statistics = (data(3), data(3, seed=1), data(3, seed=2), positive(3))
        yield Case("BatchNormalization", (data(*shape), *statistics), {"epsilon": 1e-3}, opset)


def elementwise() -> Iterator[Case]:
    x, p = data(2, 3, 4), positive(2, 3, 4)
    for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Erf", "Exp", "Abs", "Neg", "HardSwish", "Identity"):
        yield Case(op, (x,))
        yield Case(op, (F32(20) * x,), opset=17)
    yield from (Case(op, (p,)) for op in ("Log", "Sqrt"))
    yield from (Case(op, (whole(3, 4).astype(np.int32),), opset=14) for op in ("Relu", "Abs", "Neg"))
    low, high = np.array(-0.5, F32), np.array(0.25, F32)
    for bounds in ((), (low,), (low, high), (None, high), (high, low)):
        yield Case("Clip", (x, *bounds))
    yield Case("Clip", (x, low, high), opset=11)
    yield Case("Clip", (whole(3, 4), np.array(-2, I64), np.array(3, I64)), opset=12)
    yield from (Case(op, (x,), {"alpha": 0.3}) for op in ("LeakyRelu", "Elu", "HardSigmoid"))
    yield from (Case(op, (x,)) for op in ("LeakyRelu", "Elu", "HardSigmoid"))
    yield Case("HardSigmoid", (x,), {"alpha": 0.3, "beta": 0.1}, 6)
    for slope in ((1,), (3, 1), (4,), (1, 3, 1), (2, 3, 4), (1, 1, 1), ()):
        yield Case("PRelu", (x, data(*slope)))
    yield Case("PRelu", (data(5, 4), data(4)), opset=7)
    yield from (Case("Gelu", (F32(3) * x,), {"approximate": how}) for how in ("none", "tanh"))
    kinds = (np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8, np.bool_, np.float16)
    for source, target in itertools.product((np.float32, np.float64, np.int32, np.int64, np.bool_), kinds):
        value: Array = np.array([0.0, 0.4, 1.0, 1.7, 60.9]).astype(source)
        yield Case("Cast", (value,), {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))})
    yield Case("Cast", (np.array([-1.7, -0.2, 2.5], F32),), {"to": TensorProto.INT32}, 9)
    yield Case("Dropout", (x,), {"ratio": 0.5}, 7)
    yield Case("Dropout", (x, np.array(0.5, F32), np.array(False)), opset=13, outputs=2)


def joins() -> Iterator[Case]:
    x, rows, one = data(2, 3, 4), positive(3, 1), np.array(2.0, F32)
    for op in ("Add", "Sub", "Mul", "Div"):
        yield from (Case(op, (x, other)) for other in (rows, one, positive(5, 1, 3, 1)))
        yield Case(op, (whole(3, 4), np.abs(whole(4)) + 1), opset=13)
    for exponent in (one, positive(3, 1), np.array([3.0], F32), np.array(2, I64), np.array([[0.5]], F32)):
        yield Case("Pow", (positive(2, 3, 4), exponent), opset=15)
    yield Case("Pow", (positive(4), np.array([[[2.0]]], F32)), opset=7)
    yield Case("Pow", (np.arange(5), np.array([3], I64)), opset=13)
    yield Case("Pow", (np.arange(5), np.array([2.5], F32)), opset=13)
    for op, count in itertools.product(("Sum", "Min", "Max"), (1, 2, 3)):
        yield Case(op, (x, rows, one)[:count])
    yield Case("Max", (whole(3, 4), whole(4)), opset=13)
    for axis in (0, 1, -1):
        yield Case("Concat", (x, x + F32(1), x), {"axis": axis}, 13)
    yield Case("Concat", (whole(3), whole(2)), {"axis": 0})


def pooling() -> Iterator[Case]:
    grid = itertools.product(("MaxPool", "AveragePool"), (4, 7), (2, 3), (1, 2, 3), (0, 1), (0, 1), (0, 1), (0, 1))
    for op, size, kernel, stride, before, after, ceil, include in grid:
        at: dict[str, Any] = {"kernel_shape": [kernel, 2], "strides": [stride, 1], "ceil_mode": ceil}
        at["pads"] = [before, 0, after, 1]
        if op == "AveragePool":
            yield Case(op, (data(1, 2, size, 5),), {**at, "count_include_pad": include}, 17 + 4 * ceil)
        elif include:
            yield Case(op, (data(1, 2, size, 5),), at)
    for op, mode, stride in itertools.product(
        ("MaxPool", "AveragePool"), ("SAME_UPPER", "SAME_LOWER", "VALID"), (1, 2)
    ):
        at = {"kernel_shape": [3, 2], "strides": [stride, stride], "auto_pad": mode}
        yield Case(op, (data(1, 2, 7, 6),), at, 12)
        if op == "AveragePool":
            yield Case(op, (data(1, 2, 7, 6),), {**at, "count_include_pad": 1})
    windows: tuple[tuple[tuple[int, ...], list[int]], ...] = (((9,), [3]), ((5, 6, 7), [2, 3, 2]), ((6, 6), [4, 4]))
    for op, (spatial, taps) in itertools.product(("MaxPool", "AveragePool"), windows):
        rank = len(taps)
        yield Case(op, (data(2, 3, *spatial),), {"kernel_shape": taps})
        yield Case(op, (data(2, 3, *spatial),), {"kernel_shape": taps, "pads": [1] * 2 * rank, "strides": [2] * rank})
        yield Case(op, (data(2, 3, *spatial),), {"kernel_shape": taps, "pads": [0] * rank + [1] * rank})
    for op, ceil in itertools.product(("MaxPool", "AveragePool"), (0, 1)):
        wide = {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2], "strides": [2, 3], "ceil_mode": ceil}
        yield Case(op, (data(1, 2, 6, 6),), wide)
    yield Case("MaxPool", (data(1, 2, 6, 6),), {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]})
    for include, pads in itertools.product((0, 1), ([0, 0, 0, 0], [1, 0, 1, 1])):
        at = {"kernel_shape": [2, 2], "dilations": [2, 2], "count_include_pad": include, "pads": pads}
        yield Case("AveragePool", (data(2, 3, 6, 6),), at)
    for op, shape in itertools.product(
        ("GlobalAveragePool", "GlobalMaxPool"), ((2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 2, 2))
    ):
        yield Case(op, (data(*shape),))


def reductions() -> Iterator[Case]:
    x = data(2, 3, 4)
    for op, keep in itertools.product(("ReduceMean", "ReduceSum", "ReduceMax"), (0, 1)):
        old = 11 if op == "ReduceSum" else 13
        yield from (Case(op, (x,), {"axes": axes, "keepdims": keep}, old) for axes in ([1], [0, -1]))
        yield Case(op, (x,), {"keepdims": keep}, old)
        yield from (Case(op, (x, ints(*axes)), {"keepdims": keep}) for axes in ((1,), (0, -1), (2, 1, 0)))
        yield Case(op, (x,), {"keepdims": keep})
        yield Case(op, (x, ints()), {"noop_with_empty_axes": 1})
        yield Case(op, (whole(3, 4), ints(1)), {"keepdims": keep}, 18)
    yield Case("ReduceSum", (data(2, 0, 4), ints(1)))
    yield Case("ReduceMean", (np.array([[-5, -2, 0], [5, 2, 1]], np.int32), ints(1)))
    for op, axis in itertools.product(("Softmax", "LogSoftmax"), (0, 1, -1, None)):
        yield Case(op, (F32(30) * x,), {} if axis is None else {"axis": axis}, 13)


def layout() -> Iterator[Case]:
    x, m = data(2, 3, 4), data(2, 3, 4, 6)
    yield from (Case("Reshape", (x, ints(*shape))) for shape in ((6, 4), (-1,), (0, -1), (2, 0, 2, 2), (0, 0, 4)))
    yield Case("Reshape", (data(2, 0, 3), ints(0, 5)), {"allowzero": 1})
    yield Case("Reshape", (x, ints(4, -1)), opset=5)
    yield from (Case("Flatten", (x,), {"axis": axis}) for axis in (0, 1, 2, 3, -1))
    yield Case("Flatten", (x,), opset=9)
    yield from (Case("Transpose", (x,), at) for at in ({}, {"perm": [1, 2, 0]}))
    yield Case("Squeeze", (data(1, 3, 1), ints(0, -1)), opset=13)
    yield Case("Squeeze", (data(1, 3, 1),))
    yield Case("Squeeze", (data(1, 3, 1),), {"axes": [-1]}, 11)
    yield from (Case("Unsqueeze", (x, ints(*axes))) for axes in ((0,), (-1, 1), (3, 0, 2)))
    yield Case("Unsqueeze", (x,), {"axes": [0, 4]}, 11)
    big = np.iinfo(I64).max
    for start, end, step in (
        (1, 5, 1),
        (-3, -1, 1),
        (5, 1, -2),
        (-1, -big, -1),
        (0, big, 3),
        (4, 2, 1),
        (-100, 100, 2),
        (2, 5, -1),
    ):
        yield Case("Slice", (m, ints(start), ints(end), ints(3), ints(step)))
    yield Case("Slice", (m, ints(1, 0), ints(2, -1)), opset=10)
    yield Case("Slice", (m, ints(0, 1), ints(-1, 3), ints(-1, 1)), opset=13)
    yield Case("Slice", (whole(6), ints(4), ints(0), ints(0), ints(-1)))
    yield Case("Split", (m, ints(1, 3)), {"axis": 2}, outputs=2)
    yield Case("Split", (m, ints(2, 4)), {"axis": -1}, 13, outputs=2)
    yield Case("Split", (m,), {"axis": 3}, 13, outputs=3)
    yield Case("Split", (m,), {"axis": 3, "split": [1, 5]}, 11, outputs=2)
    yield Case("Split", (m,), {"axis": 3}, 11, outputs=2)
    yield Case("Split", (m,), {"axis": 3, "num_outputs": 3}, 18, outputs=3)
    yield Case("Split", (data(7, 2),), {"num_outputs": 4}, 18, outputs=4)
    places: tuple[np.ndarray, ...] = (ints(1, -1, 0), np.array(-2, I64), np.array([[0], [1]], np.int32))
    for axis, indices in itertools.product((0, 2, -1), places):
        yield Case("Gather", (m, indices), {"axis": axis})
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", (m, ints(0, 0, 1, 2, 0, 0, 3, 1)), {"mode": mode})
        yield Case("Pad", (m, ints(1, 2, 0, 1), None, ints(2, -1)), {"mode": mode})
    yield Case("Pad", (m, ints(0, 1, -1, 2, 0, 0, -2, 1), np.array(1.5, F32)), opset=11)
    yield Case("Pad", (whole(3, 4), ints(1, 0, 0, 2), np.array(-7, I64)), opset=13)
    yield Case("Pad", (data(2, 3) > 0, ints(1, 0, 0, 2), np.array(True)), opset=13)
    yield from (Case("Expand", (data(3, 1), ints(*shape))) for shape in ((3, 4), (2, 1, 5), (1,), (2, 3, 1)))
    yield Case("Tile", (x, ints(2, 1, 3)))
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", (data(2, 12, 2, 3),), {"blocksize": 2, "mode": mode})
    yield Case("DepthToSpace", (data(2, 12, 2, 3),), {"blocksize": 2}, 10)
    yield Case("SpaceToDepth", (data(2, 3, 4, 6),), {"blocksize": 2})


CASES = [*weighted(), *elementwise(), *joins(), *pooling(), *reductions(), *layout()]
