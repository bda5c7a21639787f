"""The lean file: short names, shared constants, nothing unused; names people use and values stay."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from quantize_tools import CONV, answers, kernel, parse, samples, to_int8

from edgepress.model import Model
from edgepress.quantize import slim
from edgepress.quantize.storage.slim import _counting


def residual() -> Model:
    weights = {f"layer.number.{i}.weight": kernel(16, 16, 3, 3, seed=i) for i in range(3)}
    body = f"h = {CONV}(x, w0, b) a = Relu(h) d = {CONV}(a, w1, b) e = Add(d, a) r = Relu(e) y = {CONV}(r, w2, b)"
    proto = parse(body, w0=kernel(1), w1=kernel(1), w2=kernel(1), b=kernel(16)).edit()
    for node in proto.graph.node:
        node.input[:] = [f"layer.number.{name[1]}.weight" if name[0] == "w" else name for name in node.input]
        node.doc_string = "where the exporter found it"
    for name, values in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    helper.set_model_props(proto, {"author": "me"})
    proto.graph.metadata_props.add(key="signature", value="of old names")
    return Model.of(onnx.shape_inference.infer_shapes(proto))


def test_inside_names_are_as_short_as_they_can_be() -> None:
    model = residual()
    int8 = to_int8(model, samples(16, 14, 14))
    assert list(int8.inputs) == ["x"]
    assert list(int8.outputs) == ["y"]
    names = {name for node in int8.nodes for name in (*node.inputs, *node.outputs)} - {"x", "y"}
    digits = next(n for n in range(1, 9) if 36**n >= len(names) + 2)
    assert max(map(len, names)) <= digits
    assert names == {name for name, _ in zip(_short(), range(len(names)), strict=False)}


def _short() -> list[str]:
    return [name for name, _ in zip((n for n in _counting() if n not in ("x", "y")), range(2000), strict=False)]


def test_names_of_original_nodes_and_metadata_survive() -> None:
    model = residual()
    int8 = to_int8(model, samples(16, 14, 14))
    proto = int8.edit()
    named = [node.name for node in proto.graph.node if node.name]
    assert named == [node.name for node in model.nodes]
    assert int8.metadata == {"author": "me"}
    assert not proto.graph.value_info
    assert not proto.graph.metadata_props
    assert not any(node.doc_string for node in proto.graph.node)


def test_constants_are_stored_once_and_raw() -> None:
    int8 = to_int8(residual(), samples(16, 14, 14))
    proto = int8.edit()
    kinds = [(i.data_type, tuple(i.dims), i.raw_data) for i in proto.graph.initializer]
    assert len(kinds) == len(set(kinds))
    assert all(i.HasField("raw_data") for i in proto.graph.initializer)
    used = {name for node in int8.nodes for name in node.inputs}
    assert set(int8.constants) <= used
    assert not any(a.dtype == np.float32 and a.ndim > 1 for a in int8.constants.values())


def test_same_model_same_bytes() -> None:
    first, second = (to_int8(residual(), samples(16, 14, 14)).data for _ in range(2))
    assert first == second


def test_a_float_model_keeps_its_values() -> None:
    model, feed = residual(), samples(16, 14, 14)
    lean = slim(model)
    assert lean.size < model.size
    assert np.array_equal(answers(model, feed)[0], answers(lean, feed)[0])
    assert slim(lean).data == lean.data


def test_names_that_subgraphs_capture_stay() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> outer (float[4] x, bool flag) => (float[4] y) {
        long_name = Add(x, x)
        y = If (flag) <then_branch = yes () => (float[4] a) { a = Mul(long_name, long_name) },
                       else_branch = no () => (float[4] b) { b = Neg(long_name) }>
    }"""
    model = Model.of(onnx.parser.parse_model(text))
    lean = slim(model)
    assert lean.nodes[0].output == "long_name"
    onnx.checker.check_model(lean.edit(), full_check=True)


def test_defaults_go_and_other_attributes_stay() -> None:
    body = (
        "y = Conv<kernel_shape=[3,3], pads=[0,0,0,0], strides=[1,1], dilations=[2,2], group=1, auto_pad='NOTSET'>(x, w)"
    )
    model = parse(body.replace("'", '"'), w=kernel(16, 16, 3, 3))
    assert dict(slim(model).nodes[0].attributes) == {"kernel_shape": (3, 3), "dilations": (2, 2)}
