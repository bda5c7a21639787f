"""Linear views: rows times the matrix are what onnxruntime computes, for every form a dense operator may have."""

from __future__ import annotations

import numpy as np
import pytest
from numeric_tools import matrix_of, relative, run, view_of
from quantize_tools import kernel, parse

from edgepress.calibrate.linear import Linear, linear
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


def check(model: Model, x: np.ndarray, view: Linear, positions: np.ndarray | None = None) -> None:
    (y,) = run(model, {"x": x})
    found = view.rows(x, positions) @ matrix_of(model, view).T
    wanted = view.targets(y, positions)
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
    (y,) = run(model, {"x": x})
    every = int(np.prod(y.shape[2:]))
    assert view.rows(x, None).shape == (3 * every, view.columns + 1)
    for seed in range(3):
        chosen = view.choose(y, max(1, every // 2), np.random.default_rng(seed))
        check(model, x, view, chosen)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("shape", [(6,), (1, 6), None])
def test_gemm(trans: int, shape: tuple[int, ...] | None) -> None:
    weight = kernel(6, 5) if trans else kernel(5, 6)
    arrays = {"w": weight} if shape is None else {"w": weight, "b": BIAS.reshape(shape)}
    model = parse(f"y = Gemm<transB={trans}>(x, w{'' if shape is None else ', b'})", x="N,5", outputs="float[N,6] y",
                  arrays=arrays)  # fmt: skip
    view = view_of(model)
    assert (view.outputs, view.columns, view.output_axis, view.input_axis) == (6, 5, 1 - trans, trans)
    check(model, draw(7, 5), view)


@pytest.mark.parametrize("leading", [(4,), (4, 3), (2, 3, 4)])
def test_matmul_takes_all_leading_axes_as_rows(leading: tuple[int, ...]) -> None:
    axes = ",".join("NABC"[: len(leading)])
    model = parse("y = MatMul(x, w)", x=f"{axes},5", outputs=f"float[{axes},6] y", w=kernel(5, 6))
    view = view_of(model)
    x = draw(*leading, 5)
    check(model, x, view)
    assert view.rows(x, None).shape == (int(np.prod(leading)), 6)
    assert view.choose(run(model, {"x": x})[0], 1, np.random.default_rng(0)) is None


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
    matrix = view.matrix(weight)
    assert matrix.shape == (view.outputs, view.columns)
    back = view.weight_of(matrix, weight)
    assert back.dtype == weight.dtype
    assert back.flags.c_contiguous
    assert np.array_equal(back, weight)


def test_each_chunk_chooses_its_own_positions_and_small_maps_are_taken_whole() -> None:
    view = view_of(convolution((8, 8), "kernel_shape=[3,3]"))
    y = np.zeros((2, 6, 6, 6), np.float32)
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
    ((view, blocks),) = consumers(model, group)
    assert blocks.tolist() == [[channel * 6 + pixel for pixel in range(6)] for channel in range(5)]
    x = draw(4, 2, 6, 4)
    pooled, flat = run(model, {"x": x}, ["p", "f"])
    rows = view.rows(flat, None)
    for channel in range(5):
        assert np.array_equal(rows[:, blocks[channel]], pooled[:, channel].reshape(4, 6))


def test_columns_of_a_convolution_channel_are_its_taps() -> None:
    view = view_of(convolution((7, 7), "kernel_shape=[3,2]"))
    assert view.columns_of(np.array([0, 2])).tolist() == [list(range(6)), list(range(12, 18))]
    x = draw(1, 4, 7, 7)
    rows = view.rows(x, None)[:, view.columns_of(np.array([2]))[0]]
    assert np.array_equal(rows[0], x[0, 2, :3, :2].ravel())


IMAGE = "N,4,6,6"
ANY = "float[N,C,H,W] y"


@pytest.mark.parametrize(
    "model",
    [
        parse("y = Conv<group=2,kernel_shape=[1,1]>(x, w)", x=IMAGE, outputs=ANY, w=kernel(6, 2, 1, 1)),
        parse("y = Conv<group=4,kernel_shape=[1,1]>(x, w)", x=IMAGE, outputs=ANY, w=kernel(4, 1, 1, 1)),
        parse('y = Conv<auto_pad="SAME_UPPER",kernel_shape=[3,3]>(x, w)', x=IMAGE, outputs=ANY, w=kernel(6, 4, 3, 3)),
        parse("y = Gemm<transA=1>(x, w)", x="5,N", outputs="float[N,6] y", w=kernel(5, 6)),
        parse("y = Gemm<alpha=2.0>(x, w)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6)),
        parse("y = Gemm<beta=0.5>(x, w, b)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6), b=BIAS),
        parse("y = Gemm(x, w, b)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6), b=BIAS[:1]),
        parse("y = Gemm(x, w, b)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6), b=BIAS[0]),
        parse("y = Gemm(x, w, b)", x="6,5", outputs="float[6,6] y", w=kernel(5, 6), b=BIAS[:, None]),
        parse("y = MatMul(x, w)", x="N,3,5", outputs="float[N,3,6] y", w=kernel(1, 5, 6)),
        parse("y = MatMul(w, x)", x="5,N", outputs="float[6,N] y", w=kernel(6, 5)),
        parse("y = MatMul(x, x)", x="5,5", outputs="float[5,5] y"),
        parse("y = Relu(x)", x=IMAGE, outputs=ANY),
    ],
    ids=lambda model: model.nodes[0].op,
)
def test_what_has_no_linear_view(model: Model) -> None:
    run(model, {"x": draw(*[size if isinstance(size, int) else 6 for size in model.inputs["x"].shape or ()])})
    assert linear(model, model.nodes[0]) is None
