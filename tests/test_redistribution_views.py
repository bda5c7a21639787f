"""Linear views of every kind of consumer: rows times the matrix are what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import parts_of, relative, run, view_of
from quantize_tools import kernel, parse

from edgepress.calibrate.fits import fits_of
from edgepress.calibrate.views import Part, parts
from edgepress.errors import Refusal
from edgepress.model import Model

B = np.linspace(-1, 1, 24).astype(np.float32)
few = settings(deadline=None, max_examples=30, derandomize=True)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def values_of(model: Model, part: Part, x: np.ndarray) -> dict[str, np.ndarray]:
    names = [name for name in part.geometry.tensors if name not in model.inputs]
    return {"x": x, **dict(zip(names, run(model, {"x": x}, names), strict=True))}


def check(model: Model, x: np.ndarray, position: int = 0) -> int:
    """Every part of a node against onnxruntime, whole and on chosen positions; returns the number of rows."""
    total = 0
    for part in parts_of(model, position):
        values = values_of(model, part, x)
        rows, targets = part.rows(values, None), part.targets(values, None)
        assert rows.shape == (len(targets), part.columns + 1)
        assert relative(rows @ part.matrix().T, targets) < 1e-5
        assert part.matrix().shape == (part.outputs, part.columns + 1)
        for count in (1, 3):
            chosen = part.choose(values, count, np.random.default_rng(count))
            assert part.targets(values, chosen).shape[0] == part.rows(values, chosen).shape[0] <= len(rows)
            assert relative(part.rows(values, chosen) @ part.matrix().T, part.targets(values, chosen)) < 1e-5
        total += len(rows) * part.outputs
    return total


def check_writing(model: Model, position: int = 0) -> None:
    """Reading and writing all fits of a node gives its constants back."""
    fits, refusals = fits_of(model, [model.nodes[position].name])
    assert not refusals
    for fit in fits:
        matrix = fit.matrix(model.constants)
        assert matrix.shape == (fit.outputs, fit.width)
        for name, array in fit.written(matrix, model.constants).items():
            assert array.dtype == model.constants[name].dtype and array.flags.c_contiguous
            assert np.allclose(array, model.constants[name], atol=1e-6)
        changed = model.with_constants(fit.written(2 * matrix + 1, model.constants))
        (again,) = [other for other in fits_of(changed, [model.nodes[position].name])[0] if other.name == fit.name]
        assert np.allclose(again.matrix(changed.constants), 2 * matrix + 1, atol=1e-5)


# --- convolutions ----------------------------------------------------------------------------------------

SIZES = st.integers(1, 3)


@few
@given(st.integers(1, 2), SIZES, st.integers(2, 3), st.data())
def test_grouped_convolution(rank: int, groups: int, each: int, data: st.DataObject) -> None:
    def some(low: int, high: int) -> list[int]:
        return [data.draw(st.integers(low, high)) for _ in range(rank)]

    window, strides, dilations = some(1, 3), some(1, 3), some(1, 2)
    pads = some(0, 2) + some(0, 2)
    attributes = f"group={groups}, kernel_shape={window}, strides={strides}, dilations={dilations}, pads={pads}"
    sizes = [9, 8][:rank]
    model = parse(f"y = Conv<{attributes}>(x, w, b)", x=f"N,{groups * each},{','.join(map(str, sizes))}",
                  outputs="float[" + ",".join("NCHW"[: 2 + rank]) + "] y", w=kernel(2 * groups, each, *window),
                  b=B[: 2 * groups])  # fmt: skip
    x = draw(2, groups * each, *sizes)
    assert check(model, x) == run(model, {"x": x})[0].size
    assert len(parts_of(model)) == groups
    check_writing(model)


@few
@given(st.integers(1, 2), SIZES, SIZES, st.booleans(), st.data())
def test_transposed_convolution_phase_by_phase(
    rank: int, groups: int, each: int, bias: bool, data: st.DataObject
) -> None:
    def some(low: int, high: int) -> list[int]:
        return [data.draw(st.integers(low, high)) for _ in range(rank)]

    window, strides, dilations = some(1, 4), some(1, 3), some(1, 2)
    extents = [(k - 1) * d for k, d in zip(window, dilations, strict=True)]
    pads = [data.draw(st.integers(0, min(2, e))) for e in extents * 2]
    extra = [data.draw(st.integers(0, step - 1)) for step in strides]
    attributes = f"group={groups}, kernel_shape={window}, strides={strides}, dilations={dilations}, pads={pads}, output_padding={extra}"  # noqa: E501
    sizes = [4, 5][:rank]
    model = parse(f"y = ConvTranspose<{attributes}>(x, w{', b' if bias else ''})",
                  x=f"N,{groups * each},{','.join(map(str, sizes))}",
                  outputs="float[" + ",".join("NCHW"[: 2 + rank]) + "] y",
                  arrays={"w": kernel(groups * each, 2, *window)} | {"b": B[: 2 * groups]})  # fmt: skip
    x = draw(2, groups * each, *sizes)
    assert check(model, x) == run(model, {"x": x})[0].size  # the phases cover all outputs, each once
    assert len(parts_of(model)) == groups * np.prod(strides)
    check_writing(model)


def test_phases_with_a_bias_are_one_fit_and_without_one_they_are_many() -> None:
    arrays = {"w": kernel(3, 2, 4, 4)}
    body = "y = ConvTranspose<kernel_shape=[4,4],strides=[2,2]>(x, w{})"
    plain = parse(body.format(""), x="N,3,5,5", arrays=arrays)
    biased = parse(body.format(", b"), x="N,3,5,5", arrays=arrays | {"b": B[:2]})
    (joint,) = fits_of(biased, ["/net/ConvTranspose.0"])[0]
    assert (joint.columns, joint.biases, len(joint.parts)) == (3 * 16, 1, 4)
    alone = fits_of(plain, ["/net/ConvTranspose.0"])[0]
    assert [(fit.columns, fit.biases) for fit in alone] == [(3 * 4, 0)] * 4


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(mode: str) -> None:
    for size in (7, 8, 9):
        model = parse(f'y = Conv<auto_pad="{mode}",kernel_shape=[3,4],strides=[2,3]>(x, w, b)', x="N,4,H,W",
                      w=kernel(6, 4, 3, 4), b=B[:6])  # fmt: skip
        check(model, draw(2, 4, size, size + 1))


# --- products with matrices ------------------------------------------------------------------------------

PRODUCTS: dict[str, tuple[str, str, tuple[int, ...], dict[str, np.ndarray]]] = {
    "gemm": ("Gemm<transB=1>(x, w, b)", "N,5", (7, 5), {"w": kernel(6, 5), "b": B[:6]}),
    "alpha and beta": ("Gemm<alpha=0.5,beta=3.0>(x, w, b)", "N,5", (7, 5), {"w": kernel(5, 6), "b": B[:6]}),
    "beta of zero": ("Gemm<beta=0.0>(x, w, b)", "N,5", (7, 5), {"w": kernel(5, 6), "b": B[:6]}),
    "transposed input": ("Gemm<transA=1>(x, w, b)", "5,N", (5, 7), {"w": kernel(5, 6), "b": B[None, :6]}),
    "x W": ("MatMul(x, w)", "N,3,5", (7, 3, 5), {"w": kernel(5, 6)}),
    "W x": ("MatMul(w, x)", "N,5,3", (7, 5, 3), {"w": kernel(6, 5)}),
    "W x of rank 2": ("MatMul(w, x)", "5,N", (5, 7), {"w": kernel(6, 5)}),
    "W x of rank 4": ("MatMul(w, x)", "N,2,5,3", (7, 2, 5, 3), {"w": kernel(6, 5)}),
    "einsum": ('Einsum<equation="bik,km->bim">(x, w)', "N,3,5", (7, 3, 5), {"w": kernel(5, 6)}),
    "einsum left": ('Einsum<equation="mk,bki->bmi">(w, x)', "N,5,3", (7, 5, 3), {"w": kernel(6, 5)}),
    "einsum heads": ('Einsum<equation="btk,khd->bhtd">(x, w)', "N,3,5", (7, 3, 5), {"w": kernel(5, 2, 3)}),
    "einsum of heads": ('Einsum<equation="bhtd,hdm->btm">(x, w)', "N,2,4,3", (7, 2, 4, 3), {"w": kernel(2, 3, 6)}),
    "einsum turned": ('Einsum<equation="tbk,mk->bmt">(x, w)', "3,N,5", (3, 7, 5), {"w": kernel(6, 5)}),
    "einsum dots": ('Einsum<equation="...k,km->...m">(x, w)', "N,3,5", (7, 3, 5), {"w": kernel(5, 6)}),
    "einsum dots left": ('Einsum<equation="mk,k...->m...">(w, x)', "5,3,N", (5, 3, 7), {"w": kernel(6, 5)}),
}


def product(name: str) -> tuple[Model, np.ndarray]:
    body, axes, shape, arrays = PRODUCTS[name]
    x = draw(*shape)
    model = parse(f"y = {body}", x=axes, outputs="float y", arrays=arrays)
    proto = model.edit()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return Model.of(proto), x


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    model, x = product(name)
    assert check(model, x) == run(model, {"x": x})[0].size
    check_writing(model)


BEHIND = [
    ("MatMul(x, w)", "N,3,5", kernel(5, 6), (6,)),
    ("MatMul(x, w)", "N,3,5", kernel(5, 6), (1, 1, 6)),
    ("MatMul(w, x)", "N,5,3", kernel(6, 5), (6, 1)),
    ("Gemm(x, w)", "N,5", kernel(5, 6), (1, 6)),
    ("Conv<kernel_shape=[2]>(x, w)", "N,5,4", kernel(6, 5, 2), (6, 1)),
    ("Conv<group=2,kernel_shape=[2]>(x, w)", "N,6,4", kernel(6, 3, 2), (1, 6, 1)),
    ("ConvTranspose<strides=[2],kernel_shape=[3]>(x, w)", "N,5,4", kernel(5, 6, 3), (6, 1)),
    ('Einsum<equation="btk,km->btm">(x, w)', "N,3,5", kernel(5, 6), (6,)),
    ('Einsum<equation="btk,km->bmt">(x, w)', "N,3,5", kernel(5, 6), (1, 6, 1)),
    ('Einsum<equation="btk,khd->bthd">(x, w)', "N,3,5", kernel(5, 2, 3), (2, 3)),
    ('Einsum<equation="btk,khd->bhtd">(x, w)', "N,3,5", kernel(5, 2, 3), (1, 2, 1, 3)),
]


@pytest.mark.parametrize(("body", "axes", "weight", "shape"), BEHIND, ids=lambda item: str(item)[:30])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_bias_of_the_add_behind(
    body: str, axes: str, weight: np.ndarray, shape: tuple[int, ...], swapped: bool
) -> None:
    order = "b, a" if swapped else "a, b"
    model = parse(f"a = {body}  y = Add({order})", x=axes, outputs="float y", w=weight, b=B[:6].reshape(shape))
    proto = model.edit()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = Model.of(proto)
    x = draw(4, *(int(size) for size in axes.split(",")[1:]))
    check(model, x)
    check_writing(model)
    for part in parts_of(model):
        assert part.outside and part.readers == tuple(node.name for node in model.nodes)
        values = values_of(model, part, x)
        with_bias = part.geometry.outputs(run(model, {"x": x}, ["y"])[0], None)
        assert relative(part.targets(values, None), with_bias) < 1e-6


NOT_BEHIND = [
    "a = MatMul(x, w)  y = Add(a, b)  z = Relu(a)",
    "a = MatMul(x, w)  y = Add(a, b)  z = Relu(b)",
    "a = MatMul(x, w)  y = Add(a, one)  z = Relu(y)",
    "a = MatMul(x, w)  y = Add(a, rows)  z = Relu(y)",
    "a = MatMul(x, w)  y = Mul(a, b)  z = Relu(y)",
    "z = MatMul(x, w)  y = Add(z, b)",
]


@pytest.mark.parametrize("body", NOT_BEHIND)
def test_what_is_no_bias_behind(body: str) -> None:
    model = parse(body, x="N,6,5", outputs="float[N,6,6] y, float z", w=kernel(5, 6), b=B[:6], one=B[:1],
                  rows=B[:6, None])  # fmt: skip
    assert view_of(model).bias == ()


# --- recurrent operators ---------------------------------------------------------------------------------


def recurrent(
    op: str, direction: str = "forward", bias: bool = True, start: str = "", attributes: str = "", seed: int = 0
) -> Model:
    """Input of 3 features, 4 units; named outputs."""
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1
    arrays = {"w": 2 * kernel(directions, gates * 4, 3, seed=seed)}
    arrays |= {"r": 2 * kernel(directions, gates * 4, 4, seed=seed)}
    arrays |= {"b": kernel(directions, 2 * gates * 4, seed=seed)} if bias else {}
    arrays |= {"h0": 0.5 * kernel(directions, 2, 4, seed=seed)} if start else {}
    inputs = f"x, w, r, {'b' if bias else ''}, , {start}".rstrip(", ")
    body = f'y = {op}<hidden_size=4,direction="{direction}"{attributes}>({inputs})'
    return parse(body, x="5,2,3", outputs="float[5,D,2,4] y", arrays=arrays)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def replayed(model: Model, x: np.ndarray, before: bool = False) -> np.ndarray:
    """Y from the targets of the parts, by the formulas of the operator."""
    op, made = model.nodes[0].op, []
    everyone = parts_of(model)
    directions = model.constants["w"].shape[0]
    each = len(everyone) // directions
    for number in range(directions):
        own = everyone[number * each : (number + 1) * each]
        values = values_of(model, own[0], x)
        gates = np.concatenate([part.targets(values, None) for part in own], axis=1).reshape(5, 2, -1)
        past = own[0].geometry.states(values, None)
        assert past is not None
        past = past.reshape(5, 2, 4)
        if op == "RNN":
            made.append(np.tanh(gates))
        elif op == "GRU":
            z, r, *rest = np.split(gates, gates.shape[-1] // 4, axis=-1)
            hidden = rest[0] + sigmoid(r) * rest[1] if before else rest[0]
            made.append((1 - sigmoid(z)) * np.tanh(hidden) + sigmoid(z) * past)
        else:
            i, o, f, c = np.split(gates, 4, axis=-1)
            cells = np.zeros((2, 4))
            steps = range(4, -1, -1) if own[0].geometry.backward else range(5)  # type: ignore[attr-defined]
            y = np.zeros((5, 2, 4))
            for t in steps:
                cells = sigmoid(f[t]) * cells + sigmoid(i[t]) * np.tanh(c[t])
                y[t] = sigmoid(o[t]) * np.tanh(cells)
            made.append(y)
    return np.stack(made, axis=1)


RECURRENT = [("RNN", ""), ("GRU", ""), ("GRU", ",linear_before_reset=1"), ("LSTM", "")]


@pytest.mark.parametrize("start", ["", "h0"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "attributes"), RECURRENT)
def test_gates_are_the_operators_own(op: str, attributes: str, direction: str, bias: bool, start: str) -> None:
    model = recurrent(op, direction, bias, start, attributes)
    x = draw(5, 2, 3)
    (y,) = run(model, {"x": x})
    assert relative(replayed(model, x, before=bool(attributes)), y) < 1e-5
    check(model, x)
    check_writing(model)


@pytest.mark.parametrize(("op", "attributes"), RECURRENT)
def test_columns_of_a_unit_are_those_that_read_its_state(op: str, attributes: str) -> None:
    model = recurrent(op, attributes=attributes)
    fits, _ = fits_of(model, [model.nodes[0].name])
    index = np.arange(4)[:, None]
    for fit in fits:
        owners = fit.owners([("r", 2, index)])
        reading = [source for part in fit.parts for source in part.weights if source.tensor == "r"]
        assert sorted(owners[owners >= 0].tolist()) == (list(range(4)) if reading else [])
        if reading:
            assert owners[-4:].tolist() == list(range(4))


# --- what has no view ------------------------------------------------------------------------------------

IMAGE, ANY = "N,4,6,6", "float[N,C,H,W] y"
REFUSED: list[tuple[Any, str]] = [
    (parse("y = Relu(x)", x=IMAGE, outputs=ANY), "Relu is not a linear operator"),
    (parse("y = Conv<group=4,kernel_shape=[1,1]>(x, w)", x=IMAGE, outputs=ANY, w=kernel(4, 1, 1, 1)), "depthwise"),
    (parse("y = MatMul(x, x)", x="5,5", outputs="float[5,5] y"), "computed"),
    (parse("y = Conv<kernel_shape=[6,6]>(x, x)", x="4,4,6,6", outputs=ANY), "computed"),
    (parse("y = MatMul(x, w)", x="N,3,5", outputs="float[N,3,6] y", w=kernel(1, 5, 6)), "not a matrix"),
    (parse("y = Gemm(x, w, b)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6), b=B[:1]), "bias"),
    (parse("y = Gemm(x, w, b)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6), b=B[0]), "bias"),
    (parse("y = Gemm(x, w, b)", x="6,5", outputs="float[6,6] y", w=kernel(5, 6), b=B[:6, None]), "bias"),
    (parse("y = Gemm<alpha=0.0>(x, w)", x="N,5", outputs="float[N,6] y", w=kernel(5, 6)), "by zero"),
    (parse("y = Gemm(w, w)", x="N,5", outputs="float[5,5] y", w=kernel(5, 5)), "constants only"),
    (parse('y = ConvTranspose<auto_pad="SAME_UPPER",strides=[2,2],kernel_shape=[3,3]>(x, w)', x=IMAGE, outputs=ANY,
           w=kernel(4, 3, 3, 3)), "wanted size"),
    (parse("y = ConvTranspose<output_shape=[12,12],strides=[2,2],kernel_shape=[3,3]>(x, w)", x=IMAGE, outputs=ANY,
           w=kernel(4, 3, 3, 3)), "wanted size"),
    (parse('y = Einsum<equation="bhi,hij->bhj">(x, w)', x="N,3,5", outputs="float[N,3,6] y", w=kernel(3, 5, 6)),
     "not one product"),
    (parse('y = Einsum<equation="bik,km->bm">(x, w)', x="N,3,5", outputs="float[N,6] y", w=kernel(5, 6)),
     "not one product"),
    (parse('y = Einsum<equation="bk,bk->b">(x, x)', x="N,5", outputs="float[N] y"), "only a product"),
    (parse("q = Sum(x, x)  y = LSTM<hidden_size=4>(q, w, r, , lengths)", x="5,2,3", outputs="float[5,1,2,4] y",
           w=kernel(1, 16, 3), r=kernel(1, 16, 4), lengths=np.array([5, 3])), "not a linear"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "reason"), REFUSED, ids=lambda item: item if isinstance(item, str) else "")
def test_what_is_not_linear_says_why(model: Model, reason: str) -> None:
    found = parts(model, model.nodes[0])
    assert isinstance(found, Refusal)
    assert found.what == model.nodes[0].name and reason in found.reason


def test_recurrent_operators_that_cannot_be_read() -> None:
    weights: Mapping[str, np.ndarray] = {"w": kernel(1, 12, 3), "r": kernel(1, 12, 4)}
    cases = {
        "y = GRU<hidden_size=4,layout=1>(x, w, r)": "come first",
        ", y = GRU<hidden_size=4>(x, w, r)": "at every step",
        'y = GRU<hidden_size=4,activations=["Tanh","Tanh"]>(x, w, r)': "not a sigmoid",
        "y = GRU<hidden_size=4>(x, x, r)": "computed",
    }
    for body, reason in cases.items():
        model = parse(body.replace(", y =", "skipped, y ="), x="5,2,3", outputs="float y", arrays=weights)
        if "skipped" in body or body.startswith(","):
            proto = model.edit()
            proto.graph.node[0].output[0] = ""
            model = Model.of(proto)
        found = parts(model, model.nodes[0])
        assert isinstance(found, Refusal) and reason in found.reason, body


def test_weights_read_in_two_ways_are_not_fitted() -> None:
    model = parse("a = MatMul(x, w)  r = Relu(a)  y = Gemm<transB=1>(r, w)", x="N,5", outputs="float[N,5] y",
                  w=kernel(5, 5))  # fmt: skip
    fits, refusals = fits_of(model, ["/net/MatMul.0"])
    assert not fits
    assert refusals[0].what == "/net/MatMul.0" and "reads its weights 'w' as well" in refusals[0].reason


def test_weights_read_alike_are_one_fit_with_two_biases() -> None:
    model = parse("a = Gemm(x, w, b)  r = Relu(a)  y = Gemm(r, w, c)", x="N,5", outputs="float[N,5] y", w=kernel(5, 5),
                  b=B[:5], c=B[5:10])  # fmt: skip
    (fit,), refusals = fits_of(model, ["/net/Gemm.2"])
    assert not refusals
    assert (fit.columns, fit.biases) == (5, 2)
    assert [part.name for part in fit.parts] == ["/net/Gemm.0", "/net/Gemm.2"]
    assert fit.place(fit.parts[1]).tolist() == [0, 1, 2, 3, 4, 6]
