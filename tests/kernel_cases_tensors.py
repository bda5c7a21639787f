"""More one-node models: pointwise functions, logic, resampling, reductions, lookups, shapes, and old definitions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from kernel_cases import F32, I64, Array, Case, data, ints, positive, whole
from onnx import TensorProto, helper, numpy_helper

I32 = np.int32


def pointwise() -> Iterator[Case]:
    x, share = F32(3) * data(2, 3, 4), np.tanh(data(2, 3, 4))
    for op in ("Celu", "Selu", "Softsign", "Mish", "ThresholdedRelu", "Shrink", "Reciprocal", "Sign"):
        yield Case(op, (x,))
    yield from (Case(op, (x,)) for op in ("Ceil", "Floor", "Round", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh"))
    yield from (Case(op, (share,)) for op in ("Asin", "Acos", "Atanh"))
    yield from (Case(op, (x,)) for op in ("Asinh", "IsNaN"))
    yield Case("Acosh", (positive(3, 4) + F32(1),))
    yield Case("Round", (np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], F32),), opset=11)
    yield Case("Sign", (whole(3, 4),), opset=9)
    yield from (Case("Swish", (x,), {"alpha": a}, 24) for a in (1.0, 0.5))
    yield from (Case("Celu", (x,), {"alpha": a}, 12) for a in (0.5, 2.0))
    yield Case("Selu", (x,), {"alpha": 1.2, "gamma": 0.7}, 6)
    yield Case("ThresholdedRelu", (x,), {"alpha": 0.3}, 10)
    yield Case("Shrink", (x,), {"lambd": 1.0, "bias": 0.4}, 9)
    odd = np.array([np.inf, -np.inf, np.nan, 1], F32)
    yield Case("IsNaN", (odd,), opset=13)
    for signs in ({}, {"detect_negative": 0}, {"detect_positive": 0}, {"detect_negative": 0, "detect_positive": 0}):
        yield Case("IsInf", (odd,), signs, 10)
    yield Case("Not", (data(3, 4) > 0,))
    yield from (Case("CastLike", (F32(5) * x, np.zeros(1, kind)), {}, 15) for kind in (I64, np.float64, np.bool_))


def logic() -> Iterator[Case]:
    x, y, rows = whole(3, 4).astype(F32), np.array([1, -2, 3, 0], F32), whole(3, 1).astype(F32)
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        yield from (Case(op, (x, other), {}, 17) for other in (y, rows, x))
        yield Case(op, (whole(3, 4), ints(1, 2, -3, 0)), {}, 17)
    yield Case("Equal", (x > 0, y > 0), {}, 13)
    yield from (Case(op, (x > 0, y > 0), {}, 7) for op in ("And", "Or", "Xor"))
    for a, b in ((x, y), (rows, np.array(2, F32))):
        yield Case("Where", (x > 0, a, b), {}, 9)
    yield Case("Where", (x[:, :1] > 0, whole(4), whole(2, 1, 4)), {}, 16)
    yield from (Case("Mean", (x, y, rows)[:count]) for count in (1, 2, 3))
    for kind, fmod in itertools.product((I64, I32, F32), (0, 1)):
        if kind is not F32 or fmod:
            divisor = np.array([3, -2, 5, -7]).astype(kind)
            yield Case("Mod", (whole(3, 4).astype(kind), divisor), {"fmod": fmod}, 13)
    for equation, shapes in (
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bhid, bhjd -> bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("...ij->...ji", ((2, 3, 4),)),
        ("ii->i", ((3, 3),)),
        ("ij,jk", ((2, 3), (3, 4))),
        ("i,j,k->kji", ((2,), (3,), (4,))),
    ):
        yield Case(
            "Einsum", tuple(data(*shape, seed=at) for at, shape in enumerate(shapes)), {"equation": equation}, 12
        )


def sampling() -> Iterator[Case]:
    x = data(1, 2, 4, 6)
    modes = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for mode, transform in itertools.product(("nearest", "linear", "cubic"), modes):
        at: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
        for size in ((8, 12), (7, 5), (3, 13)):
            if mode != "nearest" or size == (8, 12):
                yield Case("Resize", (x, None, None, ints(1, 2, *size)), at, 13)
        yield Case("Resize", (x, data(0), np.array([1, 1, 2, 0.5], F32)), at, 11)
    for rounding, transform in itertools.product(
        ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"), modes[::3]
    ):
        at = {"nearest_mode": rounding, "coordinate_transformation_mode": transform}
        yield Case("Resize", (x, None, np.array([1, 1, 2, 4], F32)), at, 19)
    yield Case("Resize", (x, None, np.array([1, 1, 2, 2], F32)), {"mode": "cubic", "cubic_coeff_a": -0.5}, 13)
    outside = {"mode": "cubic", "exclude_outside": 1}
    yield Case("Resize", (x, None, np.array([1, 1, 2, 0.5], F32)), outside, 13)
    yield Case("Resize", (x, None, np.array([2, 0.5], F32)), {"mode": "linear", "axes": [2, 3]}, 18)
    for policy in ("not_larger", "not_smaller"):
        at = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": policy}
        yield Case("Resize", (x, None, None, ints(8, 9)), at, 18)
    region = np.array([0, 0, 0.21, 0.13, 1, 1, 0.83, 1.21], F32)
    for mode in ("linear", "nearest"):
        crop: dict[str, Any] = {
            "mode": mode,
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 7.0,
        }
        yield Case("Resize", (x, region, None, ints(1, 2, 5, 7)), crop, 13)
    yield Case("Resize", (whole(1, 2, 3, 3).astype(I32), None, np.array([1, 1, 2, 2], F32)), {}, 13)
    factors: tuple[list[float], ...] = ([1, 1, 2, 3], [1, 1, 0.5, 2], [1, 1, 1, 0.5])
    for mode, scales in itertools.product(("nearest", "linear"), factors):
        yield Case("Resize", (x, np.array(scales, F32)), {"mode": mode}, 10)
        if min(scales) >= 1:
            yield Case("Upsample", (x, np.array(scales, F32)), {"mode": mode}, 9)
            yield Case("Upsample", (x,), {"mode": mode, "scales": [float(scale) for scale in scales]}, 7)
    grid = (F32(0.8) * data(1, 3, 5, 2)).astype(F32)
    for padding, corners in itertools.product(("zeros", "border", "reflection"), (0, 1)):
        at = {"padding_mode": padding, "align_corners": corners}
        yield from (
            Case("GridSample", (x, grid), {**at, "mode": mode}, 16) for mode in ("bilinear", "nearest", "bicubic")
        )
        yield Case("GridSample", (data(1, 2, 3, 4, 3), data(1, 2, 3, 2, 3)), {**at, "mode": "linear"}, 20)
    for p, ceil in itertools.product((1, 2, 3), (0, 1)):
        window: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 2], "p": p, "pads": [1, 0, 1, 0]}
        yield Case("LpPool", (data(1, 2, 7, 6),), {**window, "ceil_mode": ceil} if ceil else window, 18)
    yield Case("LpPool", (data(1, 2, 7, 6),), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, 11)
    for order in (0, 1):
        pool: dict[str, Any] = {"kernel_shape": [2, 3], "strides": [1, 2], "storage_order": order}
        yield Case("MaxPool", (data(2, 3, 5, 7),), pool, 12, 2)
        yield Case("MaxPool", (data(2, 3, 5, 7),), {**pool, "pads": [1, 1, 1, 1]}, 12, 2)
    yield Case("MaxPool", (whole(1, 2, 5, 5).astype(np.int8),), {"kernel_shape": [2, 2]}, 12)
    yield Case("MaxPool", (np.abs(whole(1, 2, 5, 5)).astype(np.uint8),), {"kernel_shape": [2, 2]}, 12)


def reductions() -> Iterator[Case]:
    x, p = data(2, 3, 4), positive(2, 3, 4)
    old = {"ReduceLogSum": 11, "ReduceMin": 13}
    for op in ("ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"):
        given = p if op == "ReduceLogSum" else x
        for keep in (0, 1):
            yield from (Case(op, (given, ints(*axes)), {"keepdims": keep}, 18) for axes in ((1,), (0, -1)))
            yield Case(op, (given,), {"keepdims": keep}, 18)
            yield Case(op, (given,), {"axes": [1, 2], "keepdims": keep}, old.get(op, 13))
        if op not in ("ReduceLogSum", "ReduceLogSumExp"):
            yield Case(op, (whole(3, 4).astype(I32), ints(1)), {}, 18)
    for op, last, keep in itertools.product(("ArgMax", "ArgMin"), (0, 1), (0, 1)):
        values = np.array([[2, 5, 5], [1, 1, 7]], F32)
        yield from (
            Case(op, (values,), {"axis": axis, "keepdims": keep, "select_last_index": last}, 13) for axis in (0, 1, -1)
        )
    yield from (Case(op, (x,), {}, 11) for op in ("ArgMax", "ArgMin"))
    for op, axis, opset in itertools.product(("Softmax", "LogSoftmax", "Hardmax"), (0, 1, 2, None), (7, 11, 13)):
        yield Case(op, (F32(3) * x,), {} if axis is None else {"axis": axis}, opset)
    for exclusive, reverse, axis in itertools.product((0, 1), (0, 1), (0, -1)):
        yield Case("CumSum", (x, np.array(axis, I32)), {"exclusive": exclusive, "reverse": reverse}, 14)
        yield Case("CumProd", (x, np.array(axis, I32)), {"exclusive": exclusive, "reverse": reverse}, 26)
    yield Case("CumSum", (whole(3, 4), np.array([1], I64)), {}, 11)
    ties = np.array([[3, 1, 3, 2], [2, 2, 2, 5]], F32)
    for largest, axis in itertools.product((0, 1), (0, 1, -1)):
        yield Case("TopK", (ties, ints(2)), {"largest": largest, "axis": axis}, 11, 2)
    yield Case("TopK", (whole(3, 6), ints(3)), {}, 11, 2)
    yield Case("TopK", (ties, ints(2)), {"axis": 1}, 10, 2)
    yield Case("TopK", (ties,), {"k": 3}, 9, 2)


def lookups() -> Iterator[Case]:
    x = data(3, 4, 5)
    for axis in (0, 1, -1):
        yield Case("GatherElements", (x, np.array([[[0, -1, 2]], [[1, 1, -2]]], I64)), {"axis": axis}, 13)
    for batch, indices in (
        (0, [[0, 1], [-1, 2]]),
        (0, [[1]]),
        (1, [[0], [-1], [2]]),
        (1, [[[0, 1]], [[1, -1]], [[2, 3]]]),
    ):
        yield Case("GatherND", (x, np.array(indices, I64)), {"batch_dims": batch}, 13)
    rows, updates = np.array([[0, -1, 2, 1], [1, 0, 0, 2]], I64), data(2, 4)
    for how in ("none", "add", "mul", "max", "min"):
        yield Case("ScatterElements", (data(3, 4), rows, updates), {"axis": 0, "reduction": how}, 18)
        yield Case("ScatterND", (x, np.array([[0, 1], [-1, 2]], I64), data(2, 5)), {"reduction": how}, 18)
        yield Case("ScatterND", (x, np.array([[1]], I64), data(1, 4, 5)), {"reduction": how}, 18)
    yield Case("ScatterElements", (data(3, 4), np.array([[1, -1]], I64), data(1, 2)), {"axis": 1}, 11)
    yield Case("ScatterND", (x, np.array([[0, 1], [-1, 2]], I64), data(2, 5)), {}, 13)
    yield Case("Scatter", (data(3, 4), np.array([[1, 2]], I64), data(1, 2)), {"axis": 1}, 9)
    for axis, opset in itertools.product((-1, 0, 1), (9, 11)):
        yield Case("OneHot", (np.array([[0, 2], [5, 1]], I64), np.array(3, I64), data(2)), {"axis": axis}, opset)
    yield Case("OneHot", (np.array([0, -1, -3, 7], I64), ints(3), ints(5, 9)), {}, 11)
    yield from (Case("NonZero", (value,)) for value in (whole(3, 4), data(2, 3, 2) > 0, np.array([0, 1.5, 0], F32)))


def shapes() -> Iterator[Case]:
    x = data(2, 3, 4)
    stated = {"value_float": 1.5, "value_floats": [1.0, 2.0], "value_int": 3, "value_ints": [1, 2, 3]}
    yield from (Case("Constant", (), {name: value}, 13) for name, value in stated.items())
    kinds: tuple[Array, ...] = (data(2, 3), whole(3), np.array(True), data(2).astype(np.float16))
    yield from (Case("Constant", (), {"value": numpy_helper.from_array(value)}, 13) for value in kinds)
    yield from (Case("ConstantOfShape", (ints(*sizes),)) for sizes in ((2, 3), (), (0, 2)))
    filler = helper.make_tensor("v", TensorProto.INT64, [1], [7])
    yield Case("ConstantOfShape", (ints(2),), {"value": filler}, 9)
    for shape, k in itertools.product(((3, 4), (4, 2)), (0, 1, -1)):
        yield Case("EyeLike", (data(*shape),), {"k": k})
    yield Case("EyeLike", (data(2, 2),), {"dtype": TensorProto.INT64})
    for start, limit, delta in ((0, 5, 1), (5, 0, -2), (2, 2, 1), (3, 1, 1), (1, 8, 3)):
        yield from (Case("Range", tuple(np.array(v, kind) for v in (start, limit, delta))) for kind in (I64, I32, F32))
    yield Case("Range", tuple(np.array(v, F32) for v in (0.1, 1.05, 0.25)))
    spans: tuple[dict[str, int], ...] = ({}, {"start": 1}, {"end": -1}, {"start": -2, "end": 9}, {"start": 2, "end": 1})
    yield from (Case("Shape", (x,), span, 15) for span in spans)
    yield from (Case("Size", (value,)) for value in (x, data(), data(0, 3)))
    for upper in (0, 1):
        yield Case("Trilu", (x,), {"upper": upper}, 14)
        yield from (Case("Trilu", (x, np.array(diagonal, I64)), {"upper": upper}, 14) for diagonal in (0, 1, -1, 9))


def old_definitions() -> Iterator[Case]:
    x, m = data(2, 3, 4), data(2, 3, 4, 6)
    for bounds in ({}, {"min": -0.5}, {"max": 0.25}, {"min": -0.5, "max": 0.25}):
        yield Case("Clip", (np.array([-np.inf, -2, 0.1, 3, np.inf], F32),), bounds, 6)
    vectors = (data(3), data(3, seed=1), data(3, seed=2), positive(3))
    yield Case("BatchNormalization", (x, *vectors), {"spatial": 1}, 7)
    yield Case("Dropout", (x,), {}, 10)
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", (x,), {"mode": mode, "pads": [0, 1, 2, 0, 1, 0]}, 10)
    yield Case("Pad", (x,), {"pads": [0, 1, -1, 0, 0, 1], "value": 1.5}, 2)
    for size in (1, 2, 5):
        yield Case("Pad", (x, ints(0, 0, size, 0, 0, 1)), {"mode": "wrap"}, 19)
    yield Case("Slice", (m,), {"starts": [1, -3], "ends": [9, -1], "axes": [1, 3]}, 9)
    yield Case("Slice", (m,), {"starts": [0, 1], "ends": [1, 3]}, 1)
    yield Case("Split", (m,), {"axis": 3, "split": [2, 4]}, 2, 2)
    yield Case("Squeeze", (data(1, 3, 1),), {"axes": [0]}, 9)
    yield Case("Unsqueeze", (x,), {"axes": [1]}, 9)
    yield Case("ReduceSum", (x,), {"axes": [0]}, 9)
    yield Case("Relu", (x,), {}, 6)


CASES = [
    *pointwise(),
    *logic(),
    *sampling(),
    *reductions(),
    *lookups(),
    *shapes(),
    *old_definitions(),
]
