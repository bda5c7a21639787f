"""Conversion to operator set 21, above all the places where the converter of onnx is wrong; written-out padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from normalize_tools import assert_agree, clean, normal, ops, step, text
from onnx import version_converter

from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.runtime import run, session

RESIZE = """g (float[N,1,4,5] x) => (float[A,B,C,D] y) <float[4] s = {{1,1,{scales}}}> {{
    [r] y = {op} <mode = "{mode}"> (x, s) }}"""
IMAGE = {"x": normal(2, 1, 4, 5)}


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("op", "opset"), [("Resize", 10), ("Upsample", 9)])
@pytest.mark.parametrize("scales", ["2,2", "1.5,2", "2.5,3.3"])
def test_old_resizes_keep_their_values(op: str, opset: int, mode: str, scales: str) -> None:
    before = text(RESIZE.format(scales=scales, op=op, mode=mode), opset=opset, ir=5)
    after = clean(before)
    assert (after.opset, ops(after)) == (21, {"Resize": 1})
    assert_agree(before, after, IMAGE)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_old_shrinking_resizes_keep_their_values(mode: str) -> None:
    before = text(RESIZE.format(scales="0.6,0.5", op="Resize", mode=mode), opset=10, ir=5)
    assert_agree(before, clean(before), IMAGE)


def test_the_converter_alone_gets_linear_resize_wrong() -> None:
    """The reason for the mend; when this fails, onnx has mended it and ours can go."""
    before = text(RESIZE.format(scales="2,2", op="Resize", mode="linear"), opset=10, ir=5)
    converted = Model.of(version_converter.convert_version(before.edit(), 21))
    found, expected = (run(session(model.data), IMAGE)["y"] for model in (converted, before))
    assert np.abs(found - expected).max() > 0.1


def test_new_resizes_keep_their_own_rule() -> None:
    before = text(
        """g (float[N,1,4,5] x) => (float[A,B,C,D] y) <float[4] s = {1,1,2,2}> {
        y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , s) }""",
        opset=13,
    )
    assert_agree(before, clean(before), IMAGE)


def test_group_normalization_gets_one_scale_per_channel() -> None:
    before = text(
        """g (float[N,6,4] x) => (float[N,6,4] y) <float[2] s = {1,2}, float[2] b = {0.5,1}> {
        y = GroupNormalization <num_groups = 2> (x, s, b) }""",
        opset=18,
    )
    after = clean(before)
    assert after.opset == 21
    assert_agree(before, after, {"x": normal(3, 6, 4)})


def test_group_normalization_of_unknown_width_keeps_its_operator_set() -> None:
    before = text(
        """g (float[N,C,4] x) => (float[N,C,4] y) <float[2] s = {1,2}, float[2] b = {0.5,1}> {
        y = GroupNormalization <num_groups = 2> (x, s, b) }""",
        opset=18,
    )
    result = normalize(before, [{"x": normal(2, 6, 4)}])
    assert "channel count" in step(result, "convert operator set").skipped
    assert result.model.opset == 18
    assert_agree(before, result.model, {"x": normal(2, 4, 4)})


OLD = {
    "batch normalization 7": (
        "y = BatchNormalization (x, k, k, k, k)",
        "float[4] k = {1,2,3,4}",
        7,
    ),
    "softmax 11": ("y = Softmax <axis = 1> (x)", "", 11),
    "dropout 7": ("t = Relu(x) y = Dropout <ratio = 0.4> (t)", "", 7),
    "clip 6": ("y = Clip <min = -0.5, max = 0.5> (x)", "", 6),
    "squeeze 11": ("t = Unsqueeze <axes = [0]> (x) y = Squeeze <axes = [0]> (t)", "", 11),
    "split 11": ("a, b = Split <axis = 1, split = [1, 3]> (x) y = Concat <axis = 1> (b, a)", "", 11),
    "slice 9": ("t = Slice <axes = [2], starts = [1], ends = [3]> (x) y = Concat <axis = 2> (t, t)", "", 9),
    "pad 10": ("y = Pad <pads = [0,0,0,0,0,0,0,0], value = 1.0> (x)", "", 10),
    "reduce 13": ("m = ReduceMean <axes = [2, 3], keepdims = 1> (x) y = Sub(x, m)", "", 13),
    "pool 10": ("y = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (x)", "", 10),
}


@pytest.mark.parametrize("case", OLD)
def test_old_operators_convert(case: str) -> None:
    body, weights, opset = OLD[case]
    before = text(f"g (float[N,4,4,4] x) => (float[N,4,4,4] y) <{weights}> {{ {body} }}", opset=opset, ir=5)
    after = clean(before)
    assert (after.opset, after.ir_version) == (21, 10)
    assert "Constant" not in ops(after)
    assert all(node.name for node in after.edit().graph.node)
    assert_agree(before, after, {"x": normal(2, 4, 4, 4)})


@pytest.mark.parametrize("opset", [21, 22, 23])
def test_newer_operator_sets_stay(opset: int) -> None:
    assert clean(text("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=opset, ir=10)).opset == opset


def test_operators_of_other_domains_survive() -> None:
    before = text(
        "g (float[N,4] x) => (float[N,4] y) { t = com.microsoft.Gelu(x) y = Relu(t) }", more=', "com.microsoft" : 1'
    )
    after = normalize(before, []).model
    assert (after.opset, ops(after)) == (21, {"Gelu": 1, "Relu": 1})
    assert {entry.domain for entry in after.edit().opset_import} == {"", "com.microsoft"}
    assert_agree(before, after, {"x": normal(2, 4)})


WINDOWS = {
    "conv": "Conv <kernel_shape = [3,2], {pad}, strides = [{s},{s}]> (x, w)",
    "conv without kernel_shape": "Conv <{pad}, strides = [{s},{s}]> (x, w)",
    "max pool": "MaxPool <kernel_shape = [3,2], {pad}, strides = [{s},{s}]> (x)",
    "average pool": "AveragePool <kernel_shape = [3,2], {pad}, strides = [{s},{s}]> (x)",
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_automatic_padding_is_written_out(window: str, mode: str, stride: int) -> None:
    body = WINDOWS[window].format(pad=f'auto_pad = "{mode}"', s=stride)
    proto = text(f"g (float[N,2,7,8] x) => (float[N,2,A,B] y) {{ y = {body} }}").edit()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(2, 2, 3, 2), "w"))
    before = Model.of(proto)
    after = clean(before)
    assert "auto_pad" not in after.nodes[0].attributes
    assert_agree(before, after, {"x": normal(2, 2, 7, 8)})


def test_automatic_padding_of_a_dilated_window_stays() -> None:
    before = text(
        """g (float[N,1,7,7] x) => (float[N,1,A,B] y) {
        t = MaxPool <kernel_shape = [3,3], auto_pad = "SAME_UPPER"> (x)
        y = MaxPool <kernel_shape = [2,2], auto_pad = "SAME_UPPER", dilations = [2,2]> (t) }"""
    )
    after = clean(before)
    assert ["auto_pad" in node.attributes for node in after.nodes] == [False, True]
    assert_agree(before, after, {"x": normal(2, 1, 7, 7)})


def test_automatic_padding_of_a_free_size_stays() -> None:
    before = text(
        'g (float[N,1,H,8] x) => (float[A,B,C,D] y) { y = MaxPool <kernel_shape = [2,2], auto_pad = "SAME_UPPER"> (x) }'
    )
    assert clean(before, [{"x": normal(1, 1, 8, 8)}]).nodes[0].attributes["auto_pad"] == "SAME_UPPER"
