"""Linear views: rows times the matrix are what onnxruntime computes, for every form a dense operator may have."""

from __future__ import annotations

import numpy as np
import pytest
from numeric_tools import relative, run, view_of
from quantize_tools import kernel, parse

from edgepress.calibrate.views import Part
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.scores.base import consumers

BIAS = np.linspace(-1, 1, 6).astype(np.float32)

CONVOLUTIONS = [
    ("", (5, 5), "kernel_shape=[1,1]"),
    ("", (7, 5), "kernel_shape=[3,2]"),
    ("", (7, 6), "kernel_shape=[3,3], pads=[1,1,1,1]"),
    ("", (9, 8), "kernel_shape=[3,3], pads=[0,1,2,3]"),
    ("", (9, 8), "kernel_shape=[3,2], strides=[2,3], pads=[1,0,0,1]"),
    ("", (9, 9), "kernel_shape=[3,3], dilations=[2,1]"),
    ("", (11, 9), "kernel_shape=[3,3], dilations=[2,3], strides=[3,2], pads=[2,1,0,4]"),
    ("1-D", (12,), "kernel_shape=[3]"),
    ("1-D", (12,), "kernel_shape=[4], strides=[3], dilations=[2], pads=[3,1]"),
    ("3-D", (5, 4, 6), "kernel_shape=[2,3,1]"),
    ("3-D", (5, 6, 6), "kernel_shape=[3,2,3], strides=[1,2,3], dilations=[1,2,1], pads=[1,0,2,0,1,1]"),
]


def convolution(spatial: tuple[int, ...], attributes: str, bias: bool = True) -> Model:
    text = attributes.split("kernel_shape=[")[1].split("]")[0]
    window = tuple(int(size) for size in text.split(","))
    axes = ",".join(str(size) for size in spatial)
    outputs = "float[" + ",".join("ABCDE"[: 2 + len(spatial)]) + "] y"
    body = f"y = Conv<{attributes}>(x, w{', b' if bias else ''})"
    arrays = {"w": kernel(6, 4, *window), **({"b": BIAS} if bias else {})}
    return parse(body, x=f"N,4,{axes}", outputs=outputs, arrays=arrays)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def values_of(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": x, "y": run(model, {"x": x})[0]}


def check(model: Model, x: np.ndarray, view: Part, positions: np.ndarray | None = None) -> None:
    values = values_of(model, x)
    found = view.rows(values, positions) @ view.matrix(model.constants).T
    wanted = view.targets(values, positions)
    assert found.dtype == wanted.dtype == np.float64
    assert found.shape == wanted.shape
    assert relative(found, wanted) < 1e-5


@pytest.mark.parametrize(("rank", "spatial", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(rank: str, spatial: tuple[int, ...], attributes: str, bias: bool) -> None:
    model = convolution(spatial, attributes, bias)
    x = draw(3, 4, *spatial)
    view = view_of(model)
    assert (view.outputs, view.columns) == (6, model.constants["w"].size // 6)
    check(model, x, view)
    values = values_of(model, x)
    every = int(np.prod(values["y"].shape[2:]))
    assert view.rows(values, None).shape == (3 * every, view.columns + 1)
    for seed in range(3):
        chosen = view.choose(values, max(1, every // 2), np.random.default_rng(seed))
        check(model, x, view, chosen)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("shape", [(6,), (1, 6), None])
def test_gemm(trans: int, shape: tuple[int, ...] | None) -> None:
    weight = kernel(6, 5) if trans else kernel(5, 6)
    arrays = {"w": weight} if shape is None else {"w": weight, "b": BIAS.reshape(shape)}
    model = parse(f"y = Gemm<transB={trans}>(x, w{'' if shape is None else ', b'})", x="N,5", outputs="float[N,6] y",
                  arrays=arrays)  # fmt: skip
    view = view_of(model)
    assert (view.outputs, view.columns) == (6, 5)
    assert view.weights[0].outputs_along(1 - trans) is not None and view.weights[0].columns_along(trans) is not None
    check(model, draw(7, 5), view)


@pytest.mark.parametrize("leading", [(4,), (4, 3), (2, 3, 4)])
def test_matmul_takes_all_leading_axes_as_rows(leading: tuple[int, ...]) -> None:
    axes = ",".join("NABC"[: len(leading)])
    model = parse("y = MatMul(x, w)", x=f"{axes},5", outputs=f"float[{axes},6] y", w=kernel(5, 6))
    view = view_of(model)
    x = draw(*leading, 5)
    check(model, x, view)
    values = values_of(model, x)
    assert view.rows(values, None).shape == (int(np.prod(leading)), 6)
    chosen = view.choose(values, 1, np.random.default_rng(0))
    if len(leading) == 1:
        assert chosen is None
    else:
        assert chosen is not None and len(chosen) == 1
        assert view.rows(values, chosen).shape == (leading[0], 6)
        check(model, x, view, chosen)


@pytest.mark.parametrize(
    "model",
    [
        convolution((7, 7), "kernel_shape=[3,3], pads=[1,1,1,1]"),
        convolution((9,), "kernel_shape=[3]"),
        parse("y = Gemm<transB=1>(x, w)", x="N,5", outputs="float[N,6] y", w=kernel(6, 5)),
        parse("y = Gemm(x, w)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6)),
        parse("y = MatMul(x, w)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6)),
    ],
)
def test_matrix_and_back(model: Model) -> None:
    view = view_of(model)
    weight = model.constants["w"]
    (source,) = view.weights
    matrix = source.read(weight)
    assert matrix.shape == (view.outputs, view.columns)
    back = source.written(np.zeros_like(weight), matrix)
    assert back.dtype == weight.dtype
    assert back.flags.c_contiguous
    assert np.array_equal(back, weight)


def test_each_chunk_chooses_its_own_positions_and_small_maps_are_taken_whole() -> None:
    view = view_of(convolution((8, 8), "kernel_shape=[3,3]"))
    y = {"x": np.zeros((2, 4, 8, 8), np.float32), "y": np.zeros((2, 6, 6, 6), np.float32)}
    first, second = (view.choose(y, 5, np.random.default_rng([0, chunk])) for chunk in (0, 1))
    assert first is not None and second is not None
    assert not np.array_equal(first, second)
    for chosen in (first, second):
        assert np.array_equal(chosen, np.unique(chosen))
        assert len(chosen) == 5
        assert chosen.min() >= 0 and chosen.max() < 36
    assert view.choose(y, 36, np.random.default_rng(0)) is None
    assert view.choose(y, 99, np.random.default_rng(0)) is None


FLATTENED = """a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)
    p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r)  f = Flatten(p)  y = Gemm<transB=1>(f, w2, b2)"""


def test_columns_of_a_flattened_channel_are_all_its_pixels() -> None:
    model = parse(FLATTENED, x="N,2,6,4", outputs="float[N,3] y",
                  w1=kernel(5, 2, 3, 3), b1=kernel(5, 1).ravel(), w2=kernel(3, 30), b2=kernel(3, 1)[:, 0])  # fmt: skip
    (group,) = find_groups(model).prunable
    ((fit, blocks),) = consumers(model, group)
    (view,) = fit.parts
    assert blocks.tolist() == [[channel * 6 + pixel for pixel in range(6)] for channel in range(5)]
    x = draw(4, 2, 6, 4)
    pooled, flat = run(model, {"x": x}, ["p", "f"])
    rows = view.rows({"f": flat}, None)
    for channel in range(5):
        assert np.array_equal(rows[:, blocks[channel]], pooled[:, channel].reshape(4, 6))


def test_columns_of_a_convolution_channel_are_its_taps() -> None:
    view = view_of(convolution((7, 7), "kernel_shape=[3,2]"))
    along = view.weights[0].columns_along(1)
    assert along is not None and along.tolist() == [channel for channel in range(4) for _ in range(6)]
    x = draw(1, 4, 7, 7)
    rows = view.rows({"x": x}, None)[:, :-1][:, along == 2]
    assert np.array_equal(rows[0], x[0, 2, :3, :2].ravel())
