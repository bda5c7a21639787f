"""A MatMul and the Add behind it: onnxruntime makes a Gemm of them, which has to stay in int8."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from quantize_tools import VNNI, Arrays, answers, kernel, parse, to_int8, worst_sqnr
from sequence_models import EXPORTERS, exported, fused
from zoo import NETS

from edgepress import runtime
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.quantize import unfused
from edgepress.quantize.graph.regions import typed, units

ALL = dataclasses.replace(VNNI, gemm_floor=0)
"""Every product is int8, however small."""

TRANSFORMERS = ("vit", "bert", "decoder", "gpt2", "t5")
W, V, B = kernel(16, 16), kernel(16, 16, seed=1), kernel(16, seed=2)


def fixed(model: Model, feed: dict[str, np.ndarray]) -> Model:
    """The model for inputs of these shapes only."""
    proto = model.edit()
    for given in proto.graph.input:
        for axis, size in zip(given.type.tensor_type.shape.dim, feed[given.name].shape, strict=True):
            axis.dim_value = size
    for made in proto.graph.output:
        for axis in made.type.tensor_type.shape.dim:
            axis.ClearField("dim_param")
    del proto.graph.value_info[:]
    return Model.of(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def feed_of(name: str, model: Model) -> Arrays:
    return Arrays(dict(zip(model.inputs, NETS[name].samples(24).values(), strict=True)), most=1)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_product_of_a_transformer_runs_in_int8(name: str, exporter: str, free: bool) -> None:
    model = exported(name, exporter)[0]
    feed = feed_of(name, model)
    one = next(feed.chunks(1)).inputs
    cleaned = normalize(model if free else fixed(model, one), [one]).model
    int8 = to_int8(cleaned, feed, target=ALL, correct=False)
    assert unfused(int8.data) == []
    assert fused(int8, "QGemm", "QLinearMatMul", "MatMulIntegerToFloat") >= 5
    assert fused(int8, "Gemm", "FusedGemm") == 0
    assert worst_sqnr(cleaned, int8, feed) > 20


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_it_stays_so_if_the_free_axes_are_fixed_later(name: str, free: bool) -> None:
    model = exported(name, "legacy")[0]
    feed = feed_of(name, model)
    one = next(feed.chunks(1)).inputs
    int8 = to_int8(normalize(model, [one]).model, feed, target=ALL, correct=False)
    later = fixed(int8, dict(one)) if free else int8
    assert fused(later, "Gemm", "FusedGemm") == 0


def two(body: str, x: str, outputs: str = "float[A,B] y") -> Model:
    """Two products with a Tanh between them."""
    return parse(body, x=x, outputs=outputs, w=W, v=V, b=B)


SHAPES = {"rows": "6,16", "free rows": "T,16", "sequence": "2,3,16", "free sequence": "N,T,16"}


@pytest.mark.parametrize("order", ["Add(h, b)", "Add(b, h)"])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_bias_on_either_side(kind: str, order: str) -> None:
    shape = SHAPES[kind]
    axes = ",".join("ABC"[: shape.count(",") + 1])
    model = two(f"h = MatMul(x, w) a = {order} t = Tanh(a) y = MatMul(t, v)", shape, f"float[{axes}] y")
    sizes = [{"N": 2, "T": 3}.get(axis) or int(axis) for axis in shape.split(",")]
    values = np.random.default_rng(0).standard_normal((24, *sizes)).astype(np.float32)
    feed = Arrays({"x": values.reshape(-1, *sizes[1:])}, most=sizes[0])
    int8 = to_int8(model, feed, target=ALL, correct=False)
    assert unfused(int8.data) == []
    assert worst_sqnr(model, int8, feed) > 30
    assert fused(int8, "QGemm") == (0 if kind == "free sequence" else 1)


@pytest.mark.parametrize("other", ["x", "c", "s", "m"], ids=["residual", "column", "scalar", "matrix"])
def test_what_is_no_bias_is_added_outside(other: str) -> None:
    arrays = {"c": kernel(6, 1), "s": np.array(0.5), "m": kernel(6, 16)}
    model = parse(
        f"h = MatMul(x, w) a = Add(h, {other}) t = Tanh(a) y = MatMul(t, v)",
        x="6,16",
        outputs="float[A,B] y",
        arrays={**{key: values for key, values in arrays.items() if key == other}, "w": W, "v": V},
    )
    feed = Arrays({"x": np.random.default_rng(0).standard_normal((48, 16)).astype(np.float32)}, most=6)
    int8 = to_int8(model, feed, target=ALL, correct=False)
    assert unfused(int8.data) == []
    assert worst_sqnr(model, int8, feed) > 30


def test_a_bias_far_above_the_products_keeps_its_value() -> None:
    far = B.copy()
    far[3] = 1e4
    model = parse(
        "h = MatMul(x, w) a = Add(h, b) t = Clip(a, low, high) y = MatMul(t, v)",
        x="6,16",
        outputs="float[A,B] y",
        arrays={"low": np.array(-5e3), "high": np.array(2e4), "w": W * 1e-9, "v": V, "b": far},
    )
    feed = Arrays({"x": np.random.default_rng(0).standard_normal((48, 16)).astype(np.float32)}, most=6)
    assert worst_sqnr(model, to_int8(model, feed, target=ALL, correct=False), feed) > 30


def test_units_know_what_is_added() -> None:
    def first(body: str, x: str, outputs: str = "float[A,B] y") -> tuple[str, bool]:
        unit = units(typed(two(body, x, outputs)))[0]
        return unit.added, unit.hands_out_float

    plain = "h = MatMul(x, w) y = Add(h, b)"
    assert first(plain, "6,16") == ("b", True)
    assert first(plain, "N,T,16", "float[A,B,C] y") == ("", False)
    assert first("h = MatMul(x, w) y = Tanh(h)", "6,16") == ("", True)
    assert first("h = MatMul(x, w) y = Add(h, b)", "6,16", "float[A,B] y, float[C,D] h") == ("", True)
    assert first("h = MatMul(x, w) z = Add(h, b) y = Add(h, z)", "6,16") == ("", True)


def test_the_answers_are_those_of_the_float_model_but_for_rounding() -> None:
    model = two("h = MatMul(x, w) a = Add(h, b) t = Tanh(a) y = MatMul(t, v)", "6,16")
    feed = Arrays({"x": np.random.default_rng(0).standard_normal((48, 16)).astype(np.float32)}, most=6)
    int8 = to_int8(model, feed, target=ALL, correct=False)
    slow = runtime.session(int8.data, optimize=False)
    plain = np.concatenate([runtime.run(slow, chunk.inputs)["y"] for chunk in feed.chunks(6)])
    assert np.allclose(plain, answers(int8, feed)[0], atol=1e-2)
