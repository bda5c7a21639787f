"""Weights of few levels: packed and unpacked they are the same, by numpy and by onnxruntime, and all of them fuse."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from quantize_tools import CONV, VNNI, kernel, parse, samples

from edgepress import runtime
from edgepress.errors import InvariantError
from edgepress.levels import INT8, LADDER, bounds
from edgepress.model import Model
from edgepress.ops.weighted import output_axis
from edgepress.plan import Quantization
from edgepress.quantize import Rounded, activations_to_observe, observe, quantize, ranges, unfused
from edgepress.quantize.storage.packing import bits_stored, is_smaller, pack
from edgepress.quantize.storage.unpacking import (
    FEWEST_HALVES,
    float_vector,
    int8_weight,
    narrowest,
    stored_bytes,
)
from edgepress.quantize.storage.writer import Writer
from edgepress.quantize.weights.scales import half
from edgepress.targets.releases import release

NARROWEST = {13: "", 17: "", 21: "1.24", 25: "1.24"}
"""The release that files of some operator set are made for here."""


def book(levels: int) -> np.ndarray:
    low, high = bounds(levels)
    return np.arange(low, high + 1, dtype=np.int8)


def draw(levels: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Whole numbers, the first and the last of the levels among them."""
    low, high = bounds(levels)
    values = np.random.default_rng([seed, levels, *shape]).integers(low, high + 1, shape).astype(np.int8)
    values.ravel()[: 2 if values.size > 1 else 0] = [low, high] if values.size > 1 else []
    return values


# --- numpy --------------------------------------------------------------------------------------------------


@given(st.integers(2, 255), st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 99))
def test_packing_is_undone_by_unpacking(levels: int, shape: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).choice(book(levels), shape)
    packed = pack(values, book(levels))
    assert packed.values.dtype == np.int8 and packed.values.shape == values.shape
    assert np.array_equal(packed.values, values)
    assert packed.words.dtype in (np.uint8, np.int64) and len(packed.words) == math.ceil(values.size / packed.digits)


@pytest.mark.parametrize("levels", range(2, 256))
def test_extremes_and_every_remainder(levels: int) -> None:
    digits = pack(book(levels), book(levels)).digits
    for count in range(digits, 2 * digits + 1):  # as many of the largest digit as a word holds: the largest word
        values = np.full(count, bounds(levels)[1], np.int8)
        assert np.array_equal(pack(values, book(levels)).values, values)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=30, unique=True), st.integers(0, 99))
def test_any_codebook_packs_even_one_of_a_single_value(chosen: list[int], seed: int) -> None:
    levels = np.array(sorted(chosen), np.int8)
    values = np.random.default_rng(seed).choice(levels, (5, 3))
    assert np.array_equal(pack(values, levels).values, values)


def test_a_value_that_is_not_in_the_codebook_is_a_bug() -> None:
    with pytest.raises(InvariantError, match="codebook"):
        pack(np.array([0, 2], np.int8), np.array([-1, 0, 1], np.int8))
    with pytest.raises(InvariantError, match="codebook"):
        pack(np.array([1], np.int8), np.array([-3, 0, 3], np.int8))


@pytest.mark.parametrize("levels", LADDER)
def test_the_ladder_is_stored_in_nearly_as_many_bits_as_it_has(levels: int) -> None:
    assert math.log2(levels) <= bits_stored(levels) <= 1.07 * math.log2(levels)
    assert is_smaller(levels) == (levels < INT8)


@given(st.integers(2, 254))
def test_more_levels_never_take_fewer_bits(levels: int) -> None:
    assert bits_stored(levels) <= bits_stored(levels + 1)


# --- onnxruntime --------------------------------------------------------------------------------------------


def stored(item: Rounded, opset: int) -> onnx.ModelProto:
    """A graph that hands out the int8 values of a weight as they are stored."""
    proto = onnx.ModelProto(ir_version=13 if opset >= 25 else 10)
    proto.opset_import.append(helper.make_opsetid("", opset))
    proto.graph.name = "stored"
    name = int8_weight(Writer(proto), "w", item, narrowest(opset, release(NARROWEST[opset])))
    proto.graph.node.append(helper.make_node("Identity", [name], ["y"]))
    proto.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.INT8, item.values.shape))
    return proto


def unpacked(proto: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(proto)
    return next(iter(runtime.run(runtime.session(proto.SerializeToString()), {}).values()))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*LADDER, 2, 8, 13, 28, 200]),
    st.sampled_from(list(NARROWEST)),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
)
def test_onnxruntime_unpacks_the_same_integers(levels: int, opset: int, shape: list[int]) -> None:
    values = draw(levels, 40, *shape)
    item = Rounded(values, np.ones(40, np.float32), 0, levels=levels)
    assert np.array_equal(unpacked(stored(item, opset)), values)


@pytest.mark.parametrize("opset", NARROWEST)
def test_a_codebook_is_unpacked_to_its_values(opset: int) -> None:
    levels = np.array([-127, -30, -2, 0, 1, 40, 99], np.int8)
    values = np.random.default_rng(0).choice(levels, (137, 41))
    item = Rounded(values, np.ones(137, np.float32), 0, levels=16, codebook=levels)
    proto = stored(item, opset)
    assert np.array_equal(unpacked(proto), values)
    assert proto.ByteSize() < values.size * 3.2 / 8 + 700  # never as integers of 4 bits: they do not reach that far


@pytest.mark.parametrize(("opset", "levels", "kind"), [
    (21, 16, "int4"), (21, 9, "int64"), (25, 16, "int4"), (25, 4, "int2"), (13, 16, "uint8"), (21, 3, "uint8"),
    (21, 22, "int64"), (17, INT8, "int8"),
])  # fmt: skip
def test_the_smallest_form_is_taken(opset: int, levels: int, kind: str) -> None:
    item = Rounded(draw(levels, 64, 64), np.ones(64, np.float32), 0, levels=levels)
    proto = stored(item, opset)
    largest = max(proto.graph.initializer, key=lambda tensor: tensor.ByteSize())
    assert onnx.TensorProto.DataType.Name(largest.data_type).lower() == kind
    assert np.array_equal(unpacked(proto), item.values)


def test_weights_so_few_that_packing_costs_more_stay_as_they_are() -> None:
    item = Rounded(draw(3, 8, 8), np.ones(8, np.float32), 0, levels=3)
    assert [node.op_type for node in stored(item, 13).graph.node] == ["Identity"]
    assert stored_bytes(64, 3, 8) == 64


@given(st.integers(0, 5000), st.sampled_from(LADDER), st.sampled_from([2, 4, 8]))
def test_no_form_takes_more_than_int8(count: int, levels: int, narrow: int) -> None:
    assert stored_bytes(count, levels, narrow) <= count
    assert stored_bytes(count, levels, 2) <= stored_bytes(count, levels, 4) <= stored_bytes(count, levels, 8)


@pytest.mark.parametrize("count", [FEWEST_HALVES - 1, FEWEST_HALVES, 64])
def test_vectors_come_back_exactly_by_float16_or_not(count: int) -> None:
    random = np.random.default_rng(count)
    wide = np.exp(random.uniform(-18, 18, count)).astype(np.float32)
    for values in (half(wide), half(wide.clip(1e-4, 6e4)), wide, np.full(count, 1e-8, np.float32)):
        proto = onnx.ModelProto(ir_version=8)
        proto.opset_import.append(helper.make_opsetid("", 13))
        proto.graph.name = "vector"
        name = float_vector(Writer(proto), "v", values)
        proto.graph.node.append(helper.make_node("Identity", [name], ["y"]))
        proto.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [count]))
        assert unpacked(proto).tobytes() == values.tobytes()
        fits = bool((values.astype(np.float64) == half(values)).all() and 1e-4 <= values.min() <= values.max() < 7e4)
        assert (proto.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16) == (fits and count >= FEWEST_HALVES)


# --- whole files --------------------------------------------------------------------------------------------

BODY = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  f = Flatten(r)  g = Gemm(f, w1, b1)  s = Relu(g)
    h = Gemm<transB=1>(s, w2, b2)  t = Relu(h)  y = MatMul(t, w3)"""
FEED = samples(16, 4, 4, count=8)
EAGER = replace(VNNI, gemm_floor=0)
"""Small products are no exception."""


@cache
def network(opset: int) -> Model:
    arrays = {"w0": kernel(32, 16, 3, 3), "w1": kernel(512, 48), "w2": kernel(40, 48), "w3": kernel(40, 36)}
    biases = {name: 0.1 * kernel(size) for name, size in (("b0", 32), ("b1", 48), ("b2", 40))}
    proto = parse(BODY, x="N,16,4,4", outputs="float[N,36] y", arrays=arrays | biases).edit()
    proto.opset_import[0].version = opset
    return Model.of(proto)


@cache
def int8_file(opset: int, levels: int, said: int) -> Model:
    """Random integers of some levels as weights; the file is told that they have ``said`` levels."""
    model = network(opset)
    items = {}
    for node in model.nodes:
        if node.op in ("Conv", "Gemm", "MatMul"):
            shape = model.constants[node.inputs[1]].shape
            axis = output_axis(node.op, node.attributes) % len(shape)
            values = draw(levels, *shape)
            reach = np.sqrt((values.astype(np.float64) ** 2).mean() * values.size / shape[axis])
            scale = half(np.linspace(0.5, 1.5, shape[axis]) / reach)
            items[node.name] = Rounded(values, scale, axis, levels=said)
    chosen = Quantization(min_ort=NARROWEST[opset])
    seen = observe(model, FEED, activations_to_observe(model))
    return quantize(model, ranges(seen, chosen), items, chosen, EAGER)


def answer(model: Model) -> bytes:
    (found,) = runtime.run(runtime.session(model.data), FEED.inputs).values()
    return found.tobytes()


@pytest.mark.parametrize("levels", LADDER)
@pytest.mark.parametrize("opset", NARROWEST)
def test_packed_files_compute_what_int8_files_compute_with_the_same_kernels(opset: int, levels: int) -> None:
    packed, plain = int8_file(opset, levels, levels), int8_file(opset, levels, INT8)
    assert unfused(packed.data) == []
    assert answer(packed) == answer(plain)
    assert Counter(runtime.fused_operators(packed.data)) == Counter(runtime.fused_operators(plain.data))
    assert runtime.fused_operators(packed.data).get("QLinearConv", 0) == 1
    large = [tensor for tensor in packed.edit().graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert any(math.prod(tensor.dims) == 24576 for tensor in large) == (levels == INT8)


@pytest.mark.parametrize("levels", LADDER)
@pytest.mark.parametrize("opset", [13, 21, 25])
def test_files_are_as_large_as_was_told(opset: int, levels: int) -> None:
    sizes = [model.size for model in (int8_file(opset, levels, levels), int8_file(opset, levels, INT8))]
    narrow = narrowest(opset, release(NARROWEST[opset]))
    counts = [array.size for array in network(opset).constants.values() if array.ndim > 1]
    told = sum(stored_bytes(count, levels, narrow) - count for count in counts)
    assert abs(sizes[0] - sizes[1] - told) <= 70 * len(counts)


@pytest.mark.parametrize(("levels", "opset"), [(3, 13), (16, 21), (22, 17), (INT8, 17)])
def test_packed_weights_of_a_layer_that_runs_in_float_are_noticed(levels: int, opset: int) -> None:
    """Nothing quantizes what this convolution makes: it is computed in float, whatever its weights are."""
    item = Rounded(draw(levels, 32, 16, 3, 3), np.full(32, 0.01, np.float32), 0, levels=levels)
    proto = onnx.ModelProto(ir_version=10)
    proto.opset_import.append(helper.make_opsetid("", opset))
    proto.graph.name = "float"
    proto.graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 16, 4, 4]))
    proto.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    writer = Writer(proto)
    step, zero = writer.constant("s", np.array(0.1, np.float32)), writer.constant("z", np.array(7, np.uint8))
    x = writer.node("DequantizeLinear", [writer.node("QuantizeLinear", ["x", step, zero], "q"), step, zero], "d")
    name = int8_weight(writer, "w", item, narrowest(opset, release(NARROWEST[opset])))
    weight = writer.node("DequantizeLinear", [name, writer.constant("ws", item.scale)], "wd", axis=0)
    writer.node("Elu", [writer.node("Conv", [x, weight], "c")], "y")
    assert any("Conv: 1 of 1 with int8 weights run in float" in line for line in unfused(proto.SerializeToString()))
