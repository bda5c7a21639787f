"""Small models of every kind: what onnxruntime runs, and how close it stays to the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantize_tools import CONV, VNNI, kernel, parse, rounded_weights, samples, sqnr, to_int8, worst_sqnr

from edgepress import runtime
from edgepress.errors import InvariantError, ModelError
from edgepress.model import Model
from edgepress.plan import Quantization
from edgepress.quantize import activations_to_observe, observe, quantize, ranges, stays_float, unfused

W: dict[str, Any] = {f"w{i}": kernel(16, 16, 3, 3, seed=i) for i in range(1, 5)}
W |= {f"b{i}": 0.1 * kernel(16, seed=i) for i in range(1, 5)}


def conv(out: str, read: str, number: int) -> str:
    return f"{out} = {CONV}({read}, w{number}, b{number})"


HEAD = f"{conv('h', 'x', 1)} a = Relu(h)"

CASES: dict[str, tuple[str, dict[str, np.ndarray], dict[str, int]]] = {
    "chain": (f"{HEAD} {conv('d', 'a', 2)} y = Relu(d)", {}, {"QLinearConv": 2}),
    "conv to output": (f"{HEAD} {conv('y', 'a', 2)}", {}, {"QLinearConv": 2}),
    "no bias": (f"{HEAD} y = {CONV}(a, w2)", {}, {"QLinearConv": 2}),
    "clip6": (
        f"{conv('h', 'x', 1)} a = Clip(h, zero, six) {conv('y', 'a', 2)}",
        {"zero": np.array(0.0), "six": np.array(0.6)},
        {"QLinearConv": 2},
    ),
    "clip both sides": (
        f"{conv('h', 'x', 1)} a = Clip(h, low, high) {conv('y', 'a', 2)}",
        {"low": np.array(-0.5), "high": np.array(0.8)},
        {"QLinearConv": 2},
    ),
    "leaky": (
        f"{conv('h', 'x', 1)} a = LeakyRelu<alpha=0.1>(h) {conv('y', 'a', 2)}",
        {},
        {"QLinearConv": 2, "QLinearLeakyRelu": 1},
    ),
    "swish": (
        f"{conv('h', 'x', 1)} s = Sigmoid(h) a = Mul(h, s) {conv('y', 'a', 2)}",
        {},
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    "residual": (
        f"{HEAD} {conv('d', 'a', 2)} e = Add(d, a) r = Relu(e) {conv('y', 'r', 3)}",
        {},
        {"QLinearConv": 3, "QLinearAdd": 1},
    ),
    "residual of the input": (
        f"{HEAD} {conv('d', 'a', 2)} e = Add(d, x) r = Relu(e) {conv('y', 'r', 3)}",
        {},
        {"QLinearConv": 3, "QLinearAdd": 1},
    ),
    "concat": (
        f"{HEAD} {conv('d', 'a', 2)} e = Concat<axis=1>(d, a) y = {CONV}(e, w5, b1)",
        {"w5": kernel(16, 32, 3, 3)},
        {"QLinearConv": 3, "QLinearConcat": 1},
    ),
    "max pool": (
        f"{HEAD} p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) {conv('y', 'p', 2)}",
        {},
        {"QLinearConv": 2, "NhwcMaxPool": 1},
    ),
    "average pool": (
        f"{HEAD} p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a) {conv('y', 'p', 2)}",
        {},
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "squeeze and excite": (
        f"{HEAD} g = GlobalAveragePool(a) k = Conv(g, w5, b1) s = Sigmoid(k) m = Mul(a, s) {conv('y', 'm', 3)}",
        {"w5": kernel(16, 16, 1, 1)},
        {"QLinearConv": 3, "QLinearGlobalAveragePool": 1, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    "depthwise": (
        f"{HEAD} e = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(a, wd, b2) r = Relu(e) {conv('y', 'r', 3)}",
        {"wd": kernel(16, 1, 3, 3)},
        {"QLinearConv": 3},
    ),
    "split": (
        f"{HEAD} p, q = Split<axis=1, num_outputs=2>(a) e = Concat<axis=1>(q, p) {conv('y', 'e', 2)}",
        {},
        {"QLinearConv": 2, "QLinearConcat": 1},
    ),
    "computed shape": (
        f"{HEAD} {conv('d', 'a', 2)} s = Shape(a) z = Reshape(d, s) {conv('y', 'z', 3)}",
        {},
        {"QLinearConv": 3},
    ),
    "one input for two": (
        f"{HEAD} {conv('d', 'a', 2)} {conv('e', 'a', 3)} m = Add(d, e) {conv('y', 'm', 4)}",
        {},
        {"QLinearConv": 4, "QLinearAdd": 1},
    ),
    "shared weight": (f"{HEAD} {conv('d', 'a', 2)} r = Relu(d) {conv('y', 'r', 2)}", {}, {"QLinearConv": 3}),
    "float reader": (
        f"{conv('h', 'x', 1)} t = Tanh(h) {conv('d', 'h', 2)} e = Add(t, d) {conv('y', 'e', 3)}",
        {},
        {"QLinearConv": 3, "QLinearAdd": 1, "Tanh": 1},
    ),
    "softmax": (
        f"{HEAD} {conv('d', 'a', 2)} s = Softmax<axis=1>(d) {conv('y', 's', 3)}",
        {"w2": 0.05 * kernel(16, 16, 3, 3), "b2": np.zeros(16)},
        {"QLinearConv": 3, "QLinearSoftmax": 1},
    ),
    "constant factor": (
        f"{HEAD} m = Mul(a, k) {conv('y', 'm', 3)}",
        {"k": kernel(1, 16, 1, 1)},
        {"QLinearConv": 2, "Mul": 1},
    ),
    "channel shortcut": (
        f"{HEAD} s = Slice(a, z2, e2, ax, st) p = Pad(s, pads) d = Conv<kernel_shape=[3,3], strides=[2,2], "
        f"pads=[1,1,1,1]>(a, wp, bp) e = Add(d, p) r = Relu(e) y = {CONV}(r, wq, b3)",
        {
            "z2": np.array([0, 0]),
            "e2": np.array([2**40, 2**40]),
            "ax": np.array([2, 3]),
            "st": np.array([2, 2]),
            "pads": np.array([0, 8, 0, 0, 0, 8, 0, 0]),
            "wp": kernel(32, 16, 3, 3),
            "bp": kernel(32),
            "wq": kernel(16, 32, 3, 3),
        },
        {"QLinearConv": 4, "QLinearAdd": 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fuses_and_stays_close(name: str) -> None:
    body, more, wanted = CASES[name]
    model = parse(body, **{**{k: v for k, v in W.items() if f"{k}" in body}, **more})
    feed = samples(16, 14, 14)
    int8 = to_int8(model, feed)
    seen = runtime.fused_operators(int8.data)
    assert {op: seen.get(op, 0) for op in wanted} == wanted
    floats = {"Conv", "FusedConv", "Pad", "Add", "Concat", "Relu", "Clip", "MaxPool", "AveragePool", "Mul", "Sigmoid"}
    assert not floats & seen.keys() - wanted.keys()
    assert unfused(int8.data) == []
    assert worst_sqnr(model, int8, feed) > 25
    with_fusions, without = (
        runtime.run(runtime.session(int8.data, optimize=optimize), feed.inputs) for optimize in (True, False)
    )
    assert sqnr(without["y"], with_fusions["y"]) > 30  # the int8 kernels compute what the file says


def dense(bias: bool, transposed: bool, relu: bool) -> Model:
    first = kernel(256, 512) if transposed else kernel(256, 512).T
    given = ", b1" if bias else ""
    end = "r = Relu(h) y = Gemm(r, w2)" if relu else "y = Tanh(h)"
    arrays = {"w1": first, **({"b1": kernel(256)} if bias else {}), **({"w2": kernel(256, 256)} if relu else {})}
    body = f"h = Gemm<transB={int(transposed)}>(x, w1{given}) {end}"
    return parse(body, x="N,512", outputs="float[N,256] y", arrays=arrays)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_gemm_fuses_with_and_without_q_behind_it(bias: bool, transposed: bool, relu: bool) -> None:
    model, feed = dense(bias, transposed, relu), samples(512)
    int8 = to_int8(model, feed)
    assert runtime.fused_operators(int8.data)["QGemm"] == 1 + relu
    assert unfused(int8.data) == []
    assert worst_sqnr(model, int8, feed) > 30


def test_matmul_of_three_dimensions() -> None:
    model = parse("h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2)", x="N,16,256", outputs="float[N,16,256] y",
                  w1=kernel(256, 256), w2=kernel(256, 256, seed=1))  # fmt: skip
    feed = samples(16, 256)
    int8 = to_int8(model, feed)
    seen = runtime.fused_operators(int8.data)
    assert (seen["QLinearMatMul"], seen["MatMulIntegerToFloat"]) == (1, 1)
    assert worst_sqnr(model, int8, feed) > 25


def pooled_classifier() -> Model:
    body = f"{HEAD} {conv('d', 'a', 2)} r = Relu(d) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) "
    body += "f = Flatten(p) y = Gemm<transB=1>(f, w5, b5)"
    weights = {key: W[key] for key in ("w1", "b1", "w2", "b2")}
    return parse(body, outputs="float[N,100] y", w5=kernel(100, 784), b5=kernel(100), **weights)


def test_flatten_into_gemm_shares_the_grid_and_needs_no_dequantize() -> None:
    model, feed = pooled_classifier(), samples(16, 14, 14)
    seen = runtime.fused_operators(to_int8(model, feed).data)
    assert seen["QGemm"] == 1
    assert seen["QLinearConv"] == 2
    assert "DequantizeLinear" not in seen


def test_rules_keep_stem_small_gemm_and_groups_float() -> None:
    body = f"h = {CONV}(x, w0, b1) a = Relu(h) d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=2>(a, wg, b2) "
    body += f"{conv('e', 'd', 3)} g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, w5)"
    model = parse(body, x="N,3,14,14", outputs="float[N,10] y", w0=kernel(16, 3, 3, 3), wg=kernel(16, 8, 3, 3),
                  w3=W["w3"], b1=W["b1"], b2=W["b2"], b3=W["b3"], w5=kernel(16, 10))  # fmt: skip
    reasons = stays_float(model, VNNI)
    assert reasons.keys() == {"/net/Conv.0", "/net/Conv.2", "/net/Gemm.6"}
    assert "3 channel(s)" in reasons["/net/Conv.0"]
    assert "8 channels per group" in reasons["/net/Conv.2"]
    assert "160 multiply-adds" in reasons["/net/Gemm.6"]
    feed = samples(3, 14, 14)
    int8 = to_int8(model, feed)
    assert runtime.fused_operators(int8.data)["QLinearConv"] == 1
    assert unfused(int8.data) == []
    assert worst_sqnr(model, int8, feed) > 25
    assert {str(int8.constants[node.inputs[0]].dtype) for node in int8.nodes if node.op == "Cast"} == {"int8"}


def test_computed_weights_stay_float() -> None:
    model = parse("s = MatMul(x, x) y = Gemm<alpha=0.5>(s, w)", x="64,64", outputs="float[64,64] y", w=kernel(64, 64))
    assert "computed" in stays_float(model, VNNI)["/net/MatMul.0"]
    assert "scales" in stays_float(model, VNNI)["/net/Gemm.1"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_float_prefix(count: int) -> None:
    model = parse(f"{HEAD} {conv('d', 'a', 2)} r = Relu(d) {conv('y', 'r', 3)}",
                  **{key: W[key] for key in ("w1", "w2", "w3", "b1", "b2", "b3")})  # fmt: skip
    kept = tuple(node.name for node in model.nodes if node.op == "Conv")[:count]
    feed = samples(16, 14, 14)
    int8 = to_int8(model, feed, Quantization(float_nodes=kept))
    seen = runtime.fused_operators(int8.data)
    assert seen.get("QLinearConv", 0) == 3 - count
    assert sum(node.op == "QuantizeLinear" for node in int8.nodes) == (4 - count if count < 3 else 0)
    assert unfused(int8.data) == []
    if count == 3:
        assert worst_sqnr(model, int8, feed) > 100
    assert set(activations_to_observe(model, kept)) < set(activations_to_observe(model))


@pytest.mark.parametrize("target", ["x64-avx2", "x64-vnni"])
def test_weights_keep_to_the_limit(target: str) -> None:
    limit = 64 if target == "x64-avx2" else 127
    model, feed = pooled_classifier(), samples(16, 14, 14)
    int8 = to_int8(model, feed, Quantization(weight_limit=limit))
    largest = max(np.abs(a.astype(int)).max() for a in int8.constants.values() if a.dtype == np.int8)
    assert largest == limit
    assert worst_sqnr(model, int8, feed) > 25


def test_dead_channels_and_dead_tensors() -> None:
    dead = W["w1"].copy()
    dead[3] = 0
    faint = W["w2"].copy()
    faint[5] *= 1e-12
    weights = {"w1": dead, "b1": -10 * np.ones(16), "w2": faint, "b2": W["b2"], "w3": W["w3"], "b3": W["b3"]}
    model = parse(f"{HEAD} {conv('d', 'a', 2)} {conv('e', 'x', 3)} y = Add(d, e)", **weights)
    feed = samples(16, 14, 14)
    int8 = to_int8(model, feed)
    assert all(np.isfinite(values).all() for values in int8.constants.values())
    assert worst_sqnr(model, int8, feed) > 25


def test_large_bias_on_faint_weights_fits_int32() -> None:
    faint = W["w2"] * 1e-9
    model = parse(f"{HEAD} {conv('y', 'a', 2)}", w1=W["w1"], b1=W["b1"], w2=faint, b2=np.full(16, 3.0))
    feed = samples(16, 14, 14)
    int8 = to_int8(model, feed)
    assert worst_sqnr(model, int8, feed) > 40


def test_unfused_sees_a_conv_without_q_behind_it() -> None:
    model, feed = (
        parse(f"{HEAD} {conv('y', 'a', 2)}", w1=W["w1"], b1=W["b1"], w2=W["w2"], b2=W["b2"]),
        samples(16, 14, 14),
    )
    proto = to_int8(model, feed).edit()
    last = next(node for node in reversed(proto.graph.node) if node.op_type == "Conv")
    del proto.graph.node[list(proto.graph.node).index(last) + 1 :]
    last.output[0] = "y"
    assert unfused(proto.SerializeToString()) == [
        "Conv: 1 of 2 with int8 weights run in float",
        "DequantizeLinear: 3 run where 0 lead to float nodes",
    ]


def test_a_missing_range_is_an_error_not_a_guess() -> None:
    model = parse(f"{HEAD} {conv('y', 'a', 2)}", w1=W["w1"], b1=W["b1"], w2=W["w2"], b2=W["b2"])
    feed, settings = samples(16, 14, 14), Quantization()
    seen = ranges(observe(model, feed, ("x",)), settings)
    with pytest.raises(InvariantError, match="has no range"):
        quantize(model, seen, rounded_weights(model, settings, {}), settings, VNNI)


def test_other_operator_sets_are_declined() -> None:
    proto = parse(f"{HEAD} {conv('y', 'a', 2)}", **{key: W[key] for key in ("w1", "b1", "w2", "b2")}).edit()
    proto.opset_import[0].version = 11
    with pytest.raises(ModelError, match="normalize"):
        quantize(Model.of(proto), {}, {}, Quantization(), VNNI)
