"""Dynamic int8: what it computes, what onnxruntime makes of it, which nodes qualify."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import numpy_helper
from quantize_tools import LIMIT
from sequence_models import (
    EXPORTERS,
    INT8_PRODUCTS,
    RECURRENT,
    TRANSFORMERS,
    exported,
    fused,
    language,
    noise,
    normal,
    outputs,
    products,
    same_interface,
    text,
)

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.quantize.forms.dynamic import MISREAD, dynamic, dynamic_candidates
from edgepress.quantize.weights.nearest import Rounded, round_weights

ROWS, DEPTH, WIDTH = 20, 96, 24
FORMS = {
    "MatMul": ("y = MatMul(x, w)", "M,96"),
    "MatMul of three axes": ("y = MatMul(x, w)", "B,M,96"),
    "MatMul, bias behind": ("h = MatMul(x, w) y = Add(h, b)", "B,M,96"),
    "MatMul, bias in front": ("h = MatMul(x, w) y = Add(b, h)", "B,M,96"),
    "Gemm": ("y = Gemm(x, w)", "M,96"),
    "Gemm with bias": ("y = Gemm(x, w, b)", "M,96"),
    "Gemm, transposed": ("y = Gemm<transB=1>(x, v)", "M,96"),
    "Gemm, transposed, with bias": ("y = Gemm<transB=1, alpha=1.0, beta=1.0>(x, v, b)", "M,96"),
    "Gemm with one number": ("y = Gemm(x, w, one)", "M,96"),
    "Gemm with a row": ("y = Gemm(x, w, row)", "M,96"),
}


def single(body: str, shape: str, **constants: np.ndarray) -> Model:
    w, b = normal(DEPTH, WIDTH, scale=0.1), normal(WIDTH, seed=1)
    known = {"w": w, "v": w.T.copy(), "b": b, "one": b[:1], "row": b[None], **constants}
    read = {name: values for name, values in known.items() if re.search(rf"\b{name}\b[,)]", body)}
    axes = ",".join("PQR"[: shape.count(",") + 1])
    return text(f"(float[{shape}] x) => (float[{axes}] y) {{ {body} }}", arrays=read)


def feed(shape: str) -> dict[str, np.ndarray]:
    return {"x": normal(*([3] if shape.count(",") == 2 else []), ROWS, DEPTH, seed=5) + np.float32(0.5)}


def expected(model: Model, x: np.ndarray, limit: int) -> np.ndarray:
    """The same product in numpy: x on 256 levels of its own range, weights rounded, float64 sums."""
    node = next(each for each in model.nodes if each.op in ("MatMul", "Gemm"))
    weight = model.constants[node.inputs[1]]
    weight = weight.T if node.attributes.get("transB", 0) else weight
    step = np.float32((max(x.max(), 0) - min(x.min(), 0)) / 255)
    zero = np.rint(-min(x.min(), 0) / step)
    rounded = (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * np.float64(step)
    found = rounded @ round_weights(weight, 1, limit).weight
    biases = [v for name, v in model.constants.items() if name != node.inputs[1]]
    return np.asarray(found + biases[0] if biases else found)


@pytest.mark.parametrize("limit", sorted({LIMIT, 64}))
@pytest.mark.parametrize("form", FORMS)
def test_every_form_fuses_and_computes_the_rounded_product(form: str, limit: int) -> None:
    model, given = single(*FORMS[form]), feed(FORMS[form][1])
    made = dynamic(model, products(model), limit)
    assert same_interface(model, made)
    assert fused(made, "DynamicQuantizeMatMul") == fused(made) == 1
    assert np.abs(outputs(made, given)[0] - expected(model, given["x"], limit)).max() < 1e-4
    assert all(np.abs(v).max() <= limit for v in made.constants.values() if v.dtype == np.int8)
    assert not any(v.ndim == 2 and v.shape[0] > 1 for v in made.constants.values() if v.dtype == np.float32)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [("y = Gemm(x, w, column)", ""), ("y = Gemm(x, w, c)", ", float[24] c")],
    ids=["differs between rows", "is an input"],
)
def test_a_bias_that_cannot_be_fused_is_added_behind(body: str, inputs: str) -> None:
    constants = {"w": normal(DEPTH, WIDTH, scale=0.1)}
    if "column" in body:
        constants["column"] = normal(ROWS, 1, seed=2)
    model = text(f"(float[M,96] x{inputs}) => (float[M,24] y) {{ {body} }}", arrays=constants)
    given = feed("M,96") | ({"c": normal(WIDTH)} if inputs else {})
    made = dynamic(model, products(model), LIMIT)
    assert fused(made, "DynamicQuantizeMatMul") == fused(made, "Add") == 1
    assert noise(model, made, given) > 35


@pytest.mark.parametrize("call", ["Add(h, c)", "Add(c, h)"])
@pytest.mark.parametrize(
    ("width", "constant", "reason"),
    [(8, (8,), ""), (8, (1, 8), ""), (8, (1, 1, 8), MISREAD), (1, (5,), MISREAD), (8, (1,), ""), (8, (6, 1), "")],
)
def test_what_onnxruntime_would_misread_stays_float(
    width: int, constant: tuple[int, ...], reason: str, call: str
) -> None:
    axes = "P,Q,R" if len(constant) == 3 else "P,Q"
    constants = {"w": normal(64, width), "c": normal(*constant)}
    model = text(f"(float[M,64] x) => (float[{axes}] y) {{ h = MatMul(x, w) y = {call} }}", arrays=constants)
    assert dynamic_candidates(model) == {"MatMul.0": reason}
    if reason:
        with pytest.raises(ModelError, match=f"'MatMul.0' cannot be quantized: {reason}"):
            dynamic(model, ["MatMul.0"])
        return
    made, given = dynamic(model, ["MatMul.0"], LIMIT), {"x": normal(6, 64, seed=4)}
    assert fused(made) == (1 if constant[-1] == width else 2)
    assert same_interface(model, made)
    assert noise(model, made, given) > 35


def test_readers_of_one_tensor_share_its_integers() -> None:
    body = "a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b)"
    model = text(
        f"(float[M,96] x) => (float[M,24] y) {{ {body} }}", w=normal(96, 24, scale=0.1), v=normal(96, 24, seed=1)
    )
    made = dynamic(model, products(model), LIMIT)
    assert [node.op for node in made.nodes].count("DynamicQuantizeLinear") == 1
    assert fused(made, "MatMulIntegerToFloat") == 2
    assert noise(model, made, feed("M,96")) > 35


def test_given_roundings_and_their_bias_are_taken() -> None:
    model = single(*FORMS["Gemm, transposed, with bias"])
    node, given = model.nodes[0], feed("M,96")
    weight = round_weights(model.constants["v"], 0, 20)
    taken = Rounded(weight.values, weight.scale, 0, bias=np.full(WIDTH, 3, np.float32))
    made = dynamic(model, [node.name], rounded={node.name: taken})
    found, plain = outputs(made, given)[0], outputs(dynamic(model, [node.name], 20), given)[0]
    assert np.allclose(found - plain, 3 - model.constants["b"], atol=1e-5)
    with pytest.raises(ModelError, match="no scale per output channel"):
        dynamic(model, [node.name], rounded={node.name: round_weights(model.constants["v"], 1, 20)})


@pytest.mark.parametrize(
    ("body", "shape", "sizes", "reason"),
    [
        ("y = MatMul(x, w)", "64,96", {}, ""),
        ("y = MatMul(x, w)", "63,96", {}, "63 rows of 96 channels are faster in float"),
        ("y = MatMul(x, d)", "16,128", {}, ""),
        ("y = MatMul(x, d)", "15,128", {}, "15 rows of 128 channels are faster in float"),
        ("y = MatMul(x, e)", "1,256", {}, ""),
        ("y = MatMul(x, w)", "M,96", {}, ""),
        ("y = MatMul(x, w)", "M,96", {"M": 1}, "1 rows of 96 channels are faster in float"),
        ("y = MatMul(x, w)", "M,5,96", {"M": 13}, ""),
        ("y = MatMul(x, s)", "M,32", {}, "32 input channels are faster in float"),
        ("y = MatMul(x, t)", "M,4,96", {}, "its weight is float32 of 3 axes, not a float32 matrix"),
        ("y = Gemm<alpha=2.0>(x, w)", "M,96", {}, "it scales or transposes its input"),
        ("y = Gemm<transA=1>(x, w)", "96,M", {}, "it scales or transposes its input"),
        ("h = Abs(w) y = MatMul(x, h)", "M,96", {}, "its weight is computed, not constant"),
        ("y = MatMul(x, bad)", "M,96", {}, "its weight has values that are not finite"),
    ],
)
def test_candidates_have_many_rows_and_deep_weights(body: str, shape: str, sizes: dict[str, int], reason: str) -> None:
    bad = normal(DEPTH, WIDTH)
    bad[3, 4] = np.nan
    model = single(body, shape, s=normal(32, WIDTH), t=normal(4, 96, 8), d=normal(128, 8), e=normal(256, 8), bad=bad)
    assert list(dynamic_candidates(model, sizes).values()) == [reason]


def test_what_cannot_be_rewritten_is_an_error() -> None:
    model = single("h = Abs(w) y = MatMul(x, h)", "M,96")
    with pytest.raises(ModelError, match=r"'MatMul\.1' cannot be quantized: its weight is computed"):
        dynamic(model, ["MatMul.1"])
    with pytest.raises(ModelError, match="'nobody' cannot be quantized: there is no such node"):
        dynamic(model, ["nobody"])
    with pytest.raises(ModelError, match="operator set 10, and 11 is needed"):
        dynamic(text("(float[M,9] x) => (float[M,9] y) { y = MatMul(x, w) }", opset=10, w=normal(9, 9)), ["MatMul.0"])


def test_names_are_never_taken_twice() -> None:
    model = text("(float[M,8] x) => (float[M,8] y) { a = MatMul(x, w) y = MatMul(a, taken) }", w=normal(8, 8))
    proto = model.edit()
    proto.graph.node[1].input[1] = "MatMul.0/w"
    proto.graph.initializer.append(numpy_helper.from_array(normal(8, 8, seed=1), "MatMul.0/w"))
    model = Model.of(proto)
    made = dynamic(model, ["MatMul.0"], LIMIT)
    assert made.constants["MatMul.0/w"].dtype == np.float32
    assert made.constants["MatMul.0/w/2"].dtype == np.int8
    assert noise(model, made, {"x": normal(20, 8)}) > 35


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", TRANSFORMERS + RECURRENT)
def test_networks_keep_their_answers(name: str, exporter: str) -> None:
    model, given = exported(name, exporter)
    made = dynamic(model, products(model), LIMIT)
    assert same_interface(model, made)
    assert fused(made, *INT8_PRODUCTS) == len(products(model))
    assert fused(made, "MatMulInteger") == 0
    assert noise(model, made, given) > (26 if LIMIT == 127 else 24)


def test_a_wide_transformer_is_a_quarter_with_next_to_no_noise() -> None:
    model, given = language(64)
    chosen = [name for name, reason in dynamic_candidates(model).items() if not reason]
    made = dynamic(model, chosen, LIMIT)
    assert len(chosen) == 7
    assert fused(made, *INT8_PRODUCTS) == 7
    assert noise(model, made, given) > 35
    assert made.size < 0.4 * model.size  # the table stays float here


def test_same_model_same_bytes() -> None:
    model, _ = exported("bert", EXPORTERS[0])
    assert dynamic(model, products(model)).data == dynamic(model, products(model)[::-1]).data
