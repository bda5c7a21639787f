"""Where int8 begins and ends, and shortcuts as convolutions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantize_tools import CONV, answers, kernel, parse, samples, to_int8, worst_sqnr

from edgepress.model import Model
from edgepress.quantize.graph.regions import elements, int8_units, operands, typed, units
from edgepress.quantize.graph.shortcuts import as_convolutions

W1, W2, B = kernel(16, 16, 3, 3), kernel(16, 16, 3, 3, seed=1), kernel(16)


def inside(model: Model, *weighted: int) -> set[str]:
    """Operators of the units that run in int8, given the positions of the int8 weighted nodes."""
    names = [model.nodes[position].name for position in weighted]
    return {name.split("/")[-1] for name in int8_units(typed(model), names)}


def test_relu_joins_its_only_producer() -> None:
    model = typed(parse(f"h = {CONV}(x, w, b) r = Relu(h) t = Relu(r) y = Add(t, r)", w=W1, b=B))
    found = units(model)
    assert [(unit.node.op, unit.fused.op if unit.fused else None) for unit in found] == [
        ("Conv", "Relu"),
        ("Relu", None),
        ("Add", None),
    ]
    assert operands(model, found[2]) == ("t", "r")
    assert elements(model, "r") == 16 * 14 * 14


def test_float_pool_between_float_nodes_and_int8_pool_between_int8_nodes() -> None:
    pool = "MaxPool<kernel_shape=[2,2], strides=[2,2]>"
    model = parse(f"h = {CONV}(x, w, b) p = {pool}(h) y = {CONV}(p, v, b)", w=W1, v=W2, b=B)
    assert inside(model, 0, 2) == {"Conv.0", "MaxPool.1", "Conv.2"}
    assert inside(model, 2) == {"Conv.2"}  # the smaller tensor, behind the pool, is the one to quantize
    assert inside(model, 0) == {"Conv.0", "MaxPool.1"}
    assert inside(model) == set()


def test_add_of_two_float_branches_stays_float() -> None:
    model = parse(f"a = Tanh(x) b = Abs(x) c = Add(a, b) y = {CONV}(c, w)", w=W1)
    assert inside(model, 3) == {"Conv.3"}


def test_what_is_infinite_stays_float() -> None:
    model = typed(parse(f"a = {CONV}(x, w, b) t = {CONV}(x, v, b) c = Add(a, t) y = {CONV}(c, w)", w=W1, v=W2, b=B))
    convolutions = [node.name for node in model.nodes if node.op == "Conv"][:2]
    assert "/net/Add.2" in int8_units(model, [*convolutions, model.nodes[3].name])
    assert int8_units(model, convolutions, ["c"]) == set(convolutions)


def test_an_infinite_mask_is_left_alone() -> None:
    model = parse(
        f"a = {CONV}(x, w, b) m = Where(k, a, low) c = Add(a, m) s = Softmax(c) y = {CONV}(s, v, b)",
        arrays={"k": (np.arange(14) < 9).astype(np.float32), "low": np.array(-np.inf)}, w=W1, v=W2, b=B,
    )  # fmt: skip
    proto = model.edit()
    cast = onnx.helper.make_node("Cast", ["k"], ["bits"], name="/net/Cast", to=onnx.TensorProto.BOOL)
    proto.graph.node.insert(0, cast)
    proto.graph.node[2].input[0] = "bits"
    model, feed = Model.of(proto), samples(16, 14, 14)
    quantized = to_int8(model, feed)
    assert [node.op for node in quantized.nodes].count("QuantizeLinear") >= 2
    assert worst_sqnr(model, quantized, feed) > 20


def test_pooling_is_int8_only_behind_int8() -> None:
    model = parse(f"g = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) y = {CONV}(g, w)", w=W1)
    assert inside(model, 1) == {"Conv.1"}


SHORTCUT = {
    "z": np.array([0, 0]),
    "e": np.array([2**40, 2**40]),
    "ax": np.array([2, 3]),
    "st": np.array([2, 2]),
    "pads": np.array([0, 4, 0, 0, 0, 12, 0, 0]),
}


def shortcut(**changed: np.ndarray) -> Model:
    """Conv -> Slice -> Pad -> Conv."""
    weights = {**SHORTCUT, **changed}
    wide = 16 + int(weights["pads"][1] + weights["pads"][5])
    body = f"h = {CONV}(x, w, b) s = Slice(h, z, e, ax, st) p = Pad(s, pads, value) y = {CONV}(p, v, b)"
    given = {"value": np.array(0.0), **weights, "w": W1, "b": B, "v": kernel(16, wide, 3, 3)}
    return parse(body, x="N,16,13,13", arrays=given)


def test_shortcut_as_convolution_is_exact() -> None:
    model, feed = typed(shortcut()), samples(16, 13, 13)
    rewritten = as_convolutions(model, [model.nodes[0].name, model.nodes[3].name])
    assert [node.op for node in rewritten.model.nodes] == ["Conv", "Conv", "Conv"]
    assert rewritten.model.nodes[1].name == model.nodes[2].name
    assert np.array_equal(answers(model, feed)[0], answers(rewritten.model, feed)[0])
    assert worst_sqnr(model, to_int8(model, feed), feed) > 25


@pytest.mark.parametrize(
    "changed",
    [
        {"value": np.array(1.0)},
        {"pads": np.array([0, 4, 1, 0, 0, 12, 0, 0])},
        {"pads": np.array([0, -4, 0, 0, 0, 20, 0, 0])},
    ],
    ids=["value", "spatial", "negative"],
)
def test_other_pads_stay(changed: dict[str, np.ndarray]) -> None:
    model = typed(shortcut(**changed))
    assert as_convolutions(model, [model.nodes[0].name, model.nodes[3].name]).model is model


@pytest.mark.parametrize("changed", [{"z": np.array([1, 0])}, {"ax": np.array([1, 3])}, {"e": np.array([9, 9])}])
def test_other_slices_stay_and_the_pad_alone_goes(changed: dict[str, np.ndarray]) -> None:
    model = typed(shortcut(**changed))
    ops = [node.op for node in as_convolutions(model, [model.nodes[0].name, model.nodes[3].name]).model.nodes]
    assert "Slice" in ops


def test_shortcut_between_float_nodes_stays() -> None:
    model = typed(shortcut())
    assert as_convolutions(model, [model.nodes[3].name]).model is model
