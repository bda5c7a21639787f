"""Folding BatchNormalization and constant Adds into linear operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalize_tools import assert_agree, clean, normal, ops, text
from onnx import numpy_helper

from edgepress.model import Model


@dataclass(frozen=True)
class Case:
    """A linear operator: its call, its weight, its output channels, the input it wants."""

    call: str
    weight: tuple[int, ...]
    channels: int
    shape: tuple[int, ...] = (4, 5, 5)


CASES = {
    "conv": Case("Conv <pads = [1,1,1,1]> (x, w{b})", (6, 4, 3, 3), 6),
    "grouped conv": Case("Conv <group = 2> (x, w{b})", (6, 2, 3, 3), 6),
    "depthwise conv": Case("Conv <group = 4> (x, w{b})", (8, 1, 3, 3), 8),
    "conv 1d": Case("Conv (x, w{b})", (6, 4, 3), 6, (4, 9)),
    "transposed conv": Case("ConvTranspose <strides = [2,2]> (x, w{b})", (4, 6, 3, 3), 6),
    "grouped transposed conv": Case("ConvTranspose <group = 2> (x, w{b})", (4, 3, 2, 2), 6),
    "gemm": Case("Gemm (x, w{b})", (4, 6), 6, (4,)),
    "gemm transposed": Case("Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w{b})", (6, 4), 6, (4,)),
}


def build(case: Case, tail: str, constants: dict[str, np.ndarray], *, bias: bool) -> Model:
    """``case`` followed by ``tail`` (which reads t and makes y)."""
    free = ",".join("ABCD"[: len(case.shape)])
    call = case.call.format(b=", b" if bias else "")
    shape = ",".join(map(str, case.shape))
    proto = text(f"g (float[N,{shape}] x) => (float[N,{free}] y) {{ [lin] t = {call} {tail} }}").edit()
    given_constants = {
        "w": normal(*case.weight, seed=1),
        **({"b": normal(case.channels, seed=2)} if bias else {}),
        **constants,
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given_constants.items())
    return Model.of(proto)


def statistics(channels: int) -> dict[str, np.ndarray]:
    """gamma, beta, mean and variance of a BatchNormalization."""
    made = {name: normal(channels, seed=seed) for seed, name in enumerate(("gamma", "beta", "mean", "var"), start=3)}
    return {**made, "var": np.abs(made["var"])}


BN = "y = BatchNormalization <epsilon = 1e-3> (t, gamma, beta, mean, var)"


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_batch_normalization_goes_into_the_linear_operator(name: str, bias: bool) -> None:
    case = CASES[name]
    before = build(case, BN, statistics(case.channels), bias=bias)
    after = clean(before)
    node = after.nodes[0]
    assert (len(after.nodes), node.name, node.op) == (1, "lin", before.nodes[0].op)
    assert node.inputs == ("x", "w", "b" if bias else "beta")
    assert after.constants[node.inputs[2]].shape == (case.channels,)
    assert_agree(before, after, *({"x": normal(batch, *case.shape)} for batch in (1, 3)))


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("lead", [False, True], ids=["[C,1]", "[1,C,1]"])
@pytest.mark.parametrize("name", CASES)
def test_constant_adds_become_the_bias(name: str, lead: bool, bias: bool) -> None:
    case = CASES[name]
    spatial = (1,) * (len(case.weight) - 2)
    added = normal(case.channels, seed=9).reshape((1, case.channels, *spatial) if lead else (case.channels, *spatial))
    before = build(case, "y = Add(c, t)", {"c": added}, bias=bias)
    after = clean(before)
    assert [node.op for node in after.nodes] == [before.nodes[0].op]
    assert after.nodes[0].inputs[1:] == ("w", "b" if bias else "c")
    assert_agree(before, after, {"x": normal(3, *case.shape)})


@pytest.mark.parametrize(
    "tail",
    [
        "u = Add(t, c) y = BatchNormalization (u, gamma, beta, mean, var)",
        "u = BatchNormalization (t, gamma, beta, mean, var) y = Add(u, c)",
        "u = BatchNormalization (t, gamma, beta, mean, var) y = BatchNormalization (u, var, beta, gamma, var)",
    ],
)
def test_chains_fold_into_one_operator(tail: str) -> None:
    case = CASES["conv"]
    before = build(case, tail, {**statistics(6), "c": normal(6, 1, 1, seed=9)}, bias=True)
    after = clean(before)
    assert ops(after) == {"Conv": 1}
    assert_agree(before, after, {"x": normal(2, 4, 5, 5)})


@pytest.mark.parametrize("shape", [(3,), (1, 3), (), (1,)])
def test_matmul_and_add_become_a_gemm(shape: tuple[int, ...]) -> None:
    case = Case("MatMul (x, w)", (4, 3), 3, (4,))
    before = build(case, "y = Add(t, c)", {"c": normal(*shape, seed=4)}, bias=False)
    after = clean(before)
    assert [(node.op, node.name, node.inputs, dict(node.attributes)) for node in after.nodes] == [
        ("Gemm", "lin", ("x", "w", "c"), {})
    ]
    assert after.constants["c"].shape == (3,)
    assert_agree(before, after, {"x": normal(2, 4)})


def test_matmul_and_batch_normalization_become_a_gemm() -> None:
    before = build(Case("MatMul (x, w)", (4, 3), 3, (4,)), BN, statistics(3), bias=False)
    after = clean(before)
    assert ops(after) == {"Gemm": 1}
    assert_agree(before, after, {"x": normal(2, 4)})


LEFT = {
    "matmul of a 3-D tensor": (Case("MatMul (x, w)", (5, 3), 3, (4, 5)), "y = Add(t, c)", (3,)),
    "add along the width": (CASES["conv"], "y = Add(t, c)", (5,)),
    "add that grows the rank": (CASES["conv"], "y = Add(t, c)", (1, 1, 6, 1, 1)),
    "add per row of a gemm": (CASES["gemm"], "y = Add(t, c)", (2, 1)),
    "add of itself": (CASES["conv"], "y = Add(t, t)", (1,)),
    "another reader": (CASES["conv"], "u = Add(t, c) v = Relu(t) y = Mul(u, v)", (6, 1, 1)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_per_channel_is_left(name: str) -> None:
    case, tail, shape = LEFT[name]
    before = build(case, tail, {"c": normal(*shape, seed=5)}, bias=False)
    if name == "add that grows the rank":
        proto = before.edit()
        del proto.graph.output[0].type.tensor_type.shape.dim[:]
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        before = Model.of(proto)
    after = clean(before)
    assert ops(after) == ops(before)
    assert_agree(before, after, {"x": normal(2, *case.shape)})


def test_a_linear_output_that_leaves_the_graph_keeps_its_normalization() -> None:
    before = build(CASES["conv"], BN, statistics(6), bias=True)
    proto = before.edit()
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[1].name = "t"
    after = clean(Model.of(proto))
    assert ops(after) == {"Conv": 1, "BatchNormalization": 1}
    assert_agree(Model.of(proto), after, {"x": normal(2, 4, 5, 5)})


def test_a_normalization_that_follows_nothing_foldable_is_left() -> None:
    before = build(CASES["conv"], f"r = Relu(t) {BN.replace('(t', '(r')}", statistics(6), bias=True)
    assert ops(clean(before)) == {"Conv": 1, "Relu": 1, "BatchNormalization": 1}


def test_a_shared_weight_keeps_its_value_for_its_other_reader() -> None:
    case = Case("Conv <pads = [1,1,1,1]> (x, w, b)", (4, 4, 3, 3), 4)
    tail = "u = BatchNormalization (t, gamma, beta, mean, var) [second] y = Conv <pads = [1,1,1,1]> (u, w, b)"
    before = build(case, tail, {**statistics(4), "b": normal(4, seed=2)}, bias=False)
    after = clean(before)
    assert ops(after) == {"Conv": 2}
    assert after.node("second").inputs == ("u", "w", "b")
    assert after.node("lin").inputs == ("x", "w.lin", "lin.bias")
    np.testing.assert_array_equal(after.constants["w"], before.constants["w"])
    assert_agree(before, after, {"x": normal(2, 4, 5, 5)}, limit=1e-4)


def test_weights_in_half_precision_are_folded_in_double() -> None:
    before = build(CASES["conv"], BN, statistics(6), bias=True)
    proto = before.edit()
    for item in proto.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = 10
    before = Model.of(proto)
    after = clean(before)
    assert ops(after) == {"Conv": 1}
    assert {array.dtype for array in after.constants.values()} == {np.dtype(np.float16)}
    assert_agree(before, after, {"x": normal(2, 4, 5, 5).astype(np.float16)}, limit=1e-2)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(CASES)), st.integers(0, 2**31), st.floats(1e-6, 1e-1))
def test_folded_weights_follow_the_formula(name: str, seed: int, epsilon: float) -> None:
    """Law: W' = W gamma / sqrt(var + eps), seen through the outputs."""
    case = CASES[name]
    source = np.random.default_rng(seed)
    made = {key: source.uniform(0.1, 2, case.channels).astype(np.float32) for key in ("gamma", "beta", "mean", "var")}
    tail = f"y = BatchNormalization <epsilon = {epsilon:.8f}> (t, gamma, beta, mean, var)"
    before = build(case, tail, made, bias=True)
    after = clean(before)
    assert len(after.nodes) == 1
    assert_agree(before, after, {"x": normal(2, *case.shape)}, limit=2e-5)
