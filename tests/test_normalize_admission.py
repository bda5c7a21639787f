"""What edgepress does not take in, each with a sentence that names the culprit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from normalize_tools import text
from onnx import helper, numpy_helper

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.normalize import admit

QDQ = """g (float[N,3] x) => (float[N,3] y) <float s = {0.1}, uint8 z = {0}> {
    [q] t = QuantizeLinear(x, s, z) y = DequantizeLinear(t, s, z) }"""
INTEGER = "g (uint8[2,3] x) => (int32[2,2] y) <uint8[3,2] w = {1,2,3,4,5,6}> { [m] y = MatMulInteger(x, w) }"
DYNAMIC = "g (float[N,3] x) => (uint8[N,3] y, float s, uint8 z) { [d] y, s, z = DynamicQuantizeLinear(x) }"
INSIDE = """g (float[N,3] x, bool b) => (float[N,3] y) <float s = {0.1}, uint8 z = {0}> {
    y = If (b) <then_branch = th () => (float[N,3] p) { [q] r = QuantizeLinear(x, s, z) p = DequantizeLinear(r, s, z) },
                else_branch = el () => (float[N,3] p) { p = Relu(x) }> }"""
QLINEAR = """g (uint8[2,2] x) => (uint8[2,2] y) <float s = {1}, uint8 z = {0}, uint8[2,2] w = {1,2,3,4}> {
    [l] y = QLinearMatMul(x, s, z, w, s, z, s, z) }"""


@pytest.mark.parametrize(
    ("body", "node"),
    [(QDQ, "'q' is a QuantizeLinear"), (INTEGER, "'m'"), (DYNAMIC, "'d'"), (INSIDE, "'q'"), (QLINEAR, "QLinearMatMul")],
    ids=["qdq", "integer", "dynamic", "in a branch", "qlinear"],
)
def test_quantized_models_are_refused(body: str, node: str) -> None:
    with pytest.raises(ModelError, match=node):
        admit(text(body))


def test_weight_only_quantized_models_are_refused() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", more=', "com.microsoft" : 1').edit()
    proto.graph.node[0].CopyFrom(
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=3, N=3)
    )
    with pytest.raises(ModelError, match="MatMulNBits"):
        admit(Model.of(proto))


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn])
def test_narrow_weights_are_refused(dtype: type) -> None:
    with pytest.raises(ModelError, match="'w'"):
        admit(with_weight(np.zeros(4).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_broken_weights_are_named(dtype: type, bad: float, word: str) -> None:
    with pytest.raises(ModelError, match=f"'w' holds {word}"):
        admit(with_weight(np.array([[1, bad]]).astype(dtype)))


def test_infinite_masks_and_bounds_are_fine() -> None:
    admit(text("g (float[N,3] x) => (float[N,3] y) <float z = {0}, float m = {-inf}> { y = Max(x, m) }"))
    with pytest.raises(ModelError, match="'m' holds NaN"):
        admit(text("g (float[N,3] x) => (float[N,3] y) <float m = {nan}> { y = Max(x, m) }"))


def test_models_without_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="no inputs"):
        admit(text("g () => (float[1] y) <float[1] w = {1}> { y = Relu(w) }"))


TENSOR = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1])


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (helper.make_sequence_type_proto(TENSOR), "a sequence"),
        (helper.make_optional_type_proto(TENSOR), "an optional"),
        (helper.make_map_type_proto(onnx.TensorProto.INT64, TENSOR), "a map"),
    ],
)
def test_inputs_that_are_not_tensors_are_refused(kind: onnx.TypeProto, word: str) -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }").edit()
    proto.graph.input.add(name="extra", type=kind)
    with pytest.raises(ModelError, match=f"'extra' is {word}"):
        admit(Model.of(proto))


def with_weight(weight: np.ndarray) -> Model:
    proto = text("g (float[N,1] x) => (float[N,2] y) { y = MatMul(x, w) }").edit()
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return Model.of(proto)


def test_float_models_are_admitted() -> None:
    assert admit(with_weight(np.ones((1, 2), np.float32))) is None  # type: ignore[func-returns-value]
