"""The loop of steps: records, the parity check that guards each, made-up inputs; and the real models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from normalize_tools import Feed, assert_agree, clean, normal, ops, step, text
from onnx import helper

from edgepress.errors import ModelError, Refusal
from edgepress.model import Model
from edgepress.normalize import STEPS, Step, normalize, parity
from edgepress.normalize.feeds import current_sizes, made_up, resized, symbols

NET = text("g (float[N,3] x) => (float[N,3] y) { t = Relu(x) y = Identity(t) }")


def wrong_value(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
    proto.graph.node[0].op_type = "Neg"
    return proto


def wrong_shape(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
    proto.graph.node[-1].CopyFrom(helper.make_node("Concat", ["t", "t"], ["y"], axis=0))
    return proto


def unloadable(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
    proto.graph.node[0].input[0] = "nowhere"
    return proto


def failing(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
    raise RuntimeError("adapter is missing\nmore")


def invalid(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
    onnx.checker.check_node(helper.make_node("Relu", [], []))
    return proto


def refusing(proto: onnx.ModelProto, _: Sequence[Feed]) -> Refusal:
    return Refusal("this", "not today")


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        (wrong_value, "differ from the original's by"),
        (wrong_shape, "in shape"),
        (unloadable, "onnxruntime"),
        (failing, "RuntimeError: adapter is missing"),
        (invalid, "ValidationError"),
        (refusing, "not today"),
    ],
)
def test_a_bad_step_is_skipped_with_a_reason_and_the_rest_goes_on(rewrite: object, reason: str) -> None:
    bad = Step("bad", rewrite)  # type: ignore[arg-type]
    result = normalize(NET, [], steps=[STEPS[4], bad, *STEPS[5:]])
    record = step(result, "bad")
    assert reason in record.skipped
    assert "\n" not in record.skipped
    assert not record.changed
    assert ops(result.model) == {"Relu": 1}
    assert_agree(NET, result.model, {"x": normal(2, 3)})


def test_an_unknown_error_of_a_step_is_not_swallowed() -> None:
    def bug(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        normalize(NET, [], steps=[Step("bug", bug)])


def test_a_step_cannot_reach_the_model_it_was_given() -> None:
    before = NET.data
    normalize(NET, [], steps=[Step("bad", wrong_value)])
    assert bytes(NET.edit().SerializeToString(deterministic=True)) == before


def test_every_step_is_recorded_in_order_and_normalizing_twice_changes_nothing() -> None:
    once = normalize(NET, [])
    assert [record.name for record in once.steps] == [item.name for item in STEPS]
    assert step(once, "remove identities").changed
    twice = normalize(once.model, [])
    assert twice.model.data == once.model.data
    assert not any(record.changed or record.skipped for record in twice.steps)


def test_a_wrong_step_that_only_one_sample_shows_is_caught() -> None:
    samples = [{"x": -np.ones((1, 3), np.float32)}, {"x": np.ones((2, 3), np.float32)}]

    def forget_relu(proto: onnx.ModelProto, _: Sequence[Feed]) -> onnx.ModelProto:
        proto.graph.node[0].op_type = "Abs"
        return proto

    assert normalize(NET, samples[1:], steps=[Step("s", forget_relu)]).steps[0].changed
    assert normalize(NET, samples, steps=[Step("s", forget_relu)]).steps[0].skipped


def test_a_model_that_does_not_load_raises() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        normalize(text("g (float[N] x) => (float[N] y) { y = NoSuchOperator(x) }"), [])


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.0),
        (np.array([1.0, 2.5]), np.array([1.0, 2.0]), 0.25),
        (np.array([0.1]), np.array([0.3]), 0.2),  # small outputs are compared absolutely
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), 0.0),
        (np.array([np.nan]), np.array([1.0]), np.inf),
        (np.array([1.0]), np.array([-np.inf]), np.inf),
        (np.array([1.0], np.float32), np.array([1.0]), np.inf),
        (np.array([[1.0]]), np.array([1.0]), np.inf),
        (np.arange(2000), np.arange(2000), 0.0),
        (np.arange(2000), np.where(np.arange(2000) < 1, 9, np.arange(2000)), parity.LIMIT / 2),
        (np.array([1, 2]), np.array([1, 3]), 500 * parity.LIMIT),
        ([np.array([1.0])], [np.array([1.5])], 0.5 / 1.5),
        ([np.array([1.0])], [], np.inf),
        ([{"a": 1}], [{"a": 1}], 0.0),
        (np.zeros((0, 2)), np.zeros((0, 2)), 0.0),
    ],
)
def test_difference_of_outputs(found: object, expected: object, difference: float) -> None:
    assert parity._difference(found, expected, parity.LIMIT) == pytest.approx(difference)


def test_made_up_inputs_fit_the_types_and_are_the_same_every_time() -> None:
    model = text("g (float[N,2,L] x, int64[N,4] i, bool[3,?] b, float16[2] h) => (float[N,2,L] y) { y = Relu(x) }")
    assert symbols(model.inputs) == {"N": [("x", 0), ("i", 0)], "L": [("x", 2)], "b:1": [("b", 1)]}
    feed = made_up(model.inputs, batch=2, free=5)
    assert {name: (array.shape, str(array.dtype)) for name, array in feed.items()} == {
        "x": ((2, 2, 5), "float32"),
        "i": ((2, 4), "int64"),
        "b": ((3, 5), "bool"),
        "h": ((2,), "float16"),
    }
    assert set(np.unique(feed["i"])) <= {0, 1}
    again = made_up(model.inputs, batch=2, free=5)
    assert all(np.array_equal(feed[name], again[name]) for name in feed)
    bigger = resized(feed, model.inputs, {"N": 3, "L": 2})
    assert current_sizes(bigger, model.inputs) == {"N": 3, "L": 2, "b:1": 5}
    np.testing.assert_array_equal(bigger["x"][2], feed["x"][0, :, :2])


def test_inputs_that_cannot_be_made_up_ask_for_samples() -> None:
    with pytest.raises(ModelError, match="--data"):
        normalize(text("g (string[1] x) => (string[1] y) { y = Identity(x) }"), [])
    with pytest.raises(ModelError, match="states no shape"):
        normalize(Model.of(_shapeless()), [])


def test_free_sizes_are_tried_until_the_model_runs() -> None:
    conv = text("g (float[N,1,H,W] x, float[1,1,20,20] w) => (float[A,B,C,D] y) { y = Conv(x, w) }")
    assert not any(record.skipped for record in normalize(conv, []).steps)


def test_a_model_no_made_up_input_fits_asks_for_samples() -> None:
    model = text(
        "g (float[N,L] x) => (float[N,M] y) <float[7,2] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14}> { y = MatMul(x, w) }"
    )
    with pytest.raises(ModelError, match="--data"):
        normalize(model, [])
    after = normalize(model, [{"x": normal(2, 7)}]).model
    assert_agree(model, after, {"x": normal(3, 7)})


def _shapeless() -> onnx.ModelProto:
    proto = NET.edit()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


REAL = (
    "cifar10_resnet20_bn",
    "cifar10_resnet20_dynamo",
    "cifar10_resnet20_folded",
    "cifar10_resnet56_bn",
    "cifar10_resnet56_folded",
    "cifar10_resnet8_mlperf",
    "cifar10jpeg_resnet20_bn",
    "cifar10jpeg_resnet20_folded",
    "cifar10jpeg_vgg16q_folded",
    "fashion_vgg7bn_bn",
    "fashion_vgg7bn_folded",
    "fashion_vggw_bn",
    "imagenet_mobilenetv1_025_bn",
    "imagenet_mobilenetv1_025_folded",
    "kws_dscnn",
    "mnist8_opset8",
    "mnist_lenet300100",
    "mnist_lenet5caffe",
    "ultraface_rfb320_opset9",
    "ultraface_slim320_opset9",
)
CHAIN = {"BatchNormalization", "Constant", "Shape", "Gather", "Unsqueeze", "ConstantOfShape", "Identity", "Dropout"}


@functools.cache
def real(path: Path) -> tuple[Model, Model]:
    """A real model, as loaded and normalized."""
    loaded = Model.load(path)
    return loaded, clean(loaded)


@pytest.mark.parametrize("name", REAL)
def test_real_models_become_plain(shared: Path, name: str) -> None:
    before, after = real(shared / "models" / f"{name}.onnx")
    assert CHAIN.isdisjoint(ops(after))
    assert (after.opset, after.ir_version) == (21, 10)
    names = [node.name for node in after.edit().graph.node]
    assert len(set(names)) == len(names)
    assert all(output in after.types for node in after.nodes for output in node.outputs)
    assert not any("auto_pad" in node.attributes for node in after.nodes if node.op == "Conv" and "dynamo" not in name)
    feeds = [made_up(before.inputs, batch=batch, free=1) for batch in (1, 3)]
    assert_agree(before, after, *feeds[: 2 if symbols(before.inputs) else 1])


def test_all_real_models_are_in_the_list(shared: Path) -> None:
    assert {path.stem for path in (shared / "models").glob("*.onnx")} <= set(REAL)


def test_three_exports_of_one_network_end_up_alike(shared: Path) -> None:
    exports = [real(shared / "models" / f"cifar10_resnet20_{kind}.onnx")[1] for kind in ("bn", "folded", "dynamo")]
    counted = [{op: ops(export)[op] for op in ("Conv", "Gemm", "Relu", "Add")} for export in exports]
    assert counted == [{"Conv": 19, "Gemm": 1, "Relu": 19, "Add": 9}] * 3
