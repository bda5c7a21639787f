"""Flattening: functions, sparse weights, weights listed as inputs, Constants, names, identities, constant nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from normalize_tools import assert_agree, clean, normal, ops, text
from onnx import helper, numpy_helper, parser

from edgepress.model import Model
from edgepress.normalize import constants, normalize, shapes
from edgepress.normalize.flatten import name_nodes

X = {"x": normal(2, 3)}


def test_local_functions_are_inlined_and_their_domain_goes() -> None:
    before = Model.of(
        parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
            g (float[N,3] x) => (float[N,3] y) { z = own.twice(x) y = own.twice(z) }
            <domain: "own", opset_import: ["" : 17]>
            twice (a) => (b) { two = Constant <value_float = 2.0> () b = Mul(a, two) }"""
        )
    )
    after = clean(before)
    assert ops(after) == {"Mul": 2}
    assert [entry.domain for entry in after.edit().opset_import] == [""]
    assert len(after.edit().functions) == 0
    assert_agree(before, after, X)


def test_nodes_are_sorted() -> None:
    """onnxruntime loads what its float16 converter writes: casts at the end, which are read before."""
    proto = text("g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = Neg(a) y = Add(a, b) }").edit()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend([nodes[2], nodes[0], nodes[1]])
    before = Model.of(proto)
    after = clean(before)
    assert [node.op for node in after.nodes] == ["Relu", "Neg", "Add"]
    assert_agree(before, after, X)


@pytest.mark.parametrize("indices", [np.array([1, 5]), np.array([[0, 1], [1, 2]])], ids=["linear", "coordinates"])
def test_sparse_weights_become_dense(indices: np.ndarray) -> None:
    proto = text("g (float[N,3] x) => (float[N,2] y) { y = Gemm <transB = 1> (x, w) }").edit()
    values = numpy_helper.from_array(np.array([2.0, -3.0], np.float32), "w")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), "w_idx"), [2, 3])
    )
    before = Model.of(proto)
    after = clean(before)
    np.testing.assert_array_equal(after.constants["w"], [[0, 2, 0], [0, 0, -3]])
    assert len(after.edit().graph.sparse_initializer) == 0
    assert_agree(before, after, X)


def test_ir3_weights_leave_the_inputs() -> None:
    proto = text(
        "g (float[N,3] x, float[3] w) => (float[N,3] y) <float[3] w = {1,2,3}> { y = Add(x, w) }", opset=8, ir=3
    )
    assert len(proto.edit().graph.input) == 2
    after = clean(proto)
    assert [value.name for value in after.edit().graph.input] == ["x"]
    assert after.ir_version == 10
    assert_agree(proto, after, X)


CONSTANTS = {
    "value": "<value = float[3] {1,2,3}>",
    "value_float": "<value_float = 2.5>",
    "value_floats": "<value_floats = [1.0, 2.0, 3.0]>",
    "value_int": "<value_int = 7>",
    "value_ints": "<value_ints = [7, 8, 9]>",
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_every_kind_of_constant_is_hoisted(kind: str) -> None:
    before = text(
        f"""g (float[N,3] x) => (float[N,3] y) {{
        c = Constant {CONSTANTS[kind]} () f = Cast <to = 1> (c) y = Mul(x, f) }}"""
    )
    after = clean(before)
    assert ops(after) == {"Mul": 1}
    assert_agree(before, after, X)


def test_sparse_constants_are_hoisted() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { y = Add(x, c) }").edit()
    value = numpy_helper.from_array(np.array([5.0], np.float32))
    sparse = helper.make_sparse_tensor(value, numpy_helper.from_array(np.array([2])), [3])
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    after = clean(Model.of(proto))
    np.testing.assert_array_equal(after.constants["c"], [0, 0, 5])
    assert_agree(Model.of(proto), after, X)


@pytest.mark.parametrize("kind", ["value_string", "value_strings"])
def test_string_constants_are_hoisted(kind: str) -> None:
    value = '"a"' if kind == "value_string" else '["a"]'
    before = text(
        f"g (string[1] x) => (bool[1] y) {{ c = Constant <{kind} = {value}> () y = Equal(x, c) }}", opset=19, ir=9
    )
    feed = {"x": np.array(["a"], object)}
    after = clean(before, [feed])
    assert ops(after) == {"Equal": 1}
    assert_agree(before, after, feed)


def test_a_constant_that_is_a_graph_output_stays() -> None:
    before = text(
        "g (float[N,3] x) => (float[N,3] y, float[1] c) { c = Constant <value_floats = [3.0]> () y = Add(x, c) }"
    )
    after = clean(before)
    assert ops(after) == {"Constant": 1, "Add": 1}
    assert_agree(before, after, X)


def test_names_are_made_unique_and_existing_ones_survive() -> None:
    body = "{ [a] t = Relu(x) [a] u = Relu(t) v = Neg(u) [Abs_4] w = Neg(v) y = Abs(w) }"
    before = text(f"g (float[N,3] x) => (float[N,3] y) {body}")
    names = [node.name for node in name_nodes(before.edit()).graph.node]
    assert names == ["a", "Relu_1", "Neg_2", "Abs_4", "Abs_9"]


def test_nodes_without_a_name_get_one() -> None:
    after = clean(text("g (float[N,3] x) => (float[N,3] y) { t = Relu(x) y = Neg(t) }"))
    assert [node.name for node in after.edit().graph.node] == ["Relu_0", "Neg_1"]


PASSES = {
    "identity between nodes": ("t = Relu(x) u = Identity(t) y = Neg(u)", {"Relu": 1, "Neg": 1}),
    "identity makes the output": ("t = Relu(x) y = Identity(t)", {"Relu": 1}),
    "chain of identities": ("t = Relu(x) u = Identity(t) v = Identity(u) y = Identity(v)", {"Relu": 1}),
    "output read elsewhere": ("t = Relu(x) u = Neg(t) v = Add(t, u) y = Identity(v)", {"Relu": 1, "Neg": 1, "Add": 1}),
    "renamed tensor has readers": ("t = Relu(x) y = Identity(t) u = Neg(t) z = Abs(u)", {"Relu": 1}),
    "input to output stays": ("y = Identity(x)", {"Identity": 1}),
    "dropout": ("t = Relu(x) y = Dropout(t)", {"Relu": 1}),
    "dropout with ratio": ("r = Constant <value_float = 0.5> () t = Dropout(x, r) y = Relu(t)", {"Relu": 1}),
    "dropout whose mask is read": (
        "t, m = Dropout(x) f = Cast <to = 1> (m) y = Mul(t, f)",
        {"Dropout": 1, "Cast": 1, "Mul": 1},
    ),
}


@pytest.mark.parametrize("case", PASSES)
def test_passthrough_nodes_go_and_output_names_stay(case: str) -> None:
    body, expected = PASSES[case]
    before = text(f"g (float[N,3] x) => (float[N,3] y) {{ {body} }}")
    after = clean(before)
    assert ops(after) == expected
    assert_agree(before, after, X)


def test_a_tied_weight_behind_an_identity_stays_one_weight() -> None:
    before = text(
        """g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> {
        v = Identity(w) t = MatMul(x, w) y = MatMul(t, v) }"""
    )
    after = clean(before)
    assert list(after.constants) == ["w"]
    assert_agree(before, after, {"x": normal(2, 2)})


def test_training_dropout_is_left_alone() -> None:
    before = text(
        "g (float[N,3] x) => (float[N,3] y) <float r = {0.5}, bool t = {1}> { y = Dropout <seed = 1> (x, r, t) }"
    )
    assert ops(normalize(before, []).model) == {"Dropout": 1}


def test_constant_nodes_are_evaluated() -> None:
    before = text(
        """g (float[N,3] x) => (float[N,3] y) <float[3] a = {1,2,3}, float[3] b = {4,5,6}, int64[1] s = {3}> {
        c = Add(a, b) d = Mul(c, c) e = Reshape(d, s) y = Add(x, e) }"""
    )
    after = clean(before)
    assert ops(after) == {"Add": 1}
    np.testing.assert_array_equal(after.constants["e"], [25, 49, 81])
    assert list(after.constants) == ["e"]
    assert_agree(before, after, X)


def test_results_stand_in_graph_order() -> None:
    """In an order of their own for every process, models would have other bytes in each."""
    names = [f"c{number}" for number in range(16)]
    made = " ".join(f"{name} = Neg(a)" for name in names)
    before = text(
        f"g (float[N,3] x) => (float[N,3] y) <float[3] a = {{1,2,3}}> {{ {made} y = Sum(x, {', '.join(names)}) }}"
    )
    assert list(clean(before).constants) == names


def test_random_and_growing_nodes_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """g (float[N,9] x) => (float[N,9] y) <float[1] a = {1}, int64[1] s = {9}> {
        e = Expand(a, s) r = RandomNormalLike <scale = 1e-9> (a) t = Add(x, e) y = Add(t, r) }"""
    assert ops(clean(text(body))) == {"RandomNormalLike": 1, "Add": 2}
    for module in (constants, shapes):
        monkeypatch.setattr(module, "GROWTH_LIMIT", 0)
    after = clean(text(body))
    assert ops(after)["Expand"] == 1
    assert_agree(text(body), after, {"x": normal(2, 9)})


def test_a_constant_graph_output_keeps_its_node() -> None:
    before = text("g (float[N,3] x) => (float[N,3] y, float[3] z) <float[3] a = {1,2,3}> { z = Neg(a) y = Add(x, z) }")
    after = clean(before)
    assert ops(after) == {"Neg": 1, "Add": 1}
    assert_agree(before, after, X)


IF_MODEL = """g (float[N,3] x) => (float[N,3] y) <float[3] w = {1,2,3}, float z = {0}> {
    c = Constant <value_float = 2.0> ()
    s = ReduceSum <keepdims = 0> (x)
    b = Greater(s, z)
    t = Identity(w)
    y = If (b) <then_branch = th () => (float[N,3] p) { q = Mul(x, t) p = Mul(q, c) },
                else_branch = el () => (float[N,3] p) { p = Sub(x, c) }>
}"""


def test_models_with_subgraphs_keep_what_their_branches_read() -> None:
    before = text(IF_MODEL)
    result = normalize(before, [{"x": np.abs(normal(2, 3))}, {"x": -np.abs(normal(1, 3))}])
    assert not any(record.skipped for record in result.steps)
    assert ops(result.model) == {"ReduceSum": 1, "Greater": 1, "If": 1}
    assert {"t", "c"} <= result.model.constants.keys(), "the branches read them by these names"
    assert result.model.opset == 21
    assert_agree(before, result.model, {"x": np.abs(normal(4, 3))}, {"x": -np.abs(normal(4, 3))})


def test_unused_weights_and_domains_go() -> None:
    before = text(
        "g (float[N,3] x) => (float[N,3] y) <float[3] a = {1,2,3}> { t = Neg(x) y = Relu(x) }",
        more=', "com.microsoft" : 1',
    )
    after = clean(before)
    assert (ops(after), dict(after.constants)) == ({"Relu": 1}, {})
    assert [(entry.domain, entry.version) for entry in after.edit().opset_import] == [("", 21)]


def test_metadata_survives() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { [keep] t = Relu(x) y = Identity(t) }").edit()
    helper.set_model_props(proto, {"author": "a"})
    proto.graph.metadata_props.add(key="graph", value="b")
    proto.graph.node[0].metadata_props.add(key="node", value="c")
    proto.graph.node[0].doc_string = "d"
    proto.doc_string, proto.producer_name, proto.model_version = "e", "f", 7
    after = clean(Model.of(proto))
    new = after.edit()
    assert after.metadata == {"author": "a"}
    assert [(item.key, item.value) for item in new.graph.metadata_props] == [("graph", "b")]
    node = next(node for node in new.graph.node if node.name == "keep")
    assert ([(item.key, item.value) for item in node.metadata_props], node.doc_string) == ([("node", "c")], "d")
    assert (new.doc_string, new.producer_name, new.model_version) == ("e", "f", 7)


def test_types_are_stated_for_every_tensor() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { t = Relu(x) u = Neg(t) y = Abs(u) }").edit()
    proto.graph.value_info.append(helper.make_tensor_value_info("gone", onnx.TensorProto.FLOAT, [5]))
    after = clean(Model.of(proto))
    assert after.types["u"].shape == ("N", 3)
    assert "gone" not in after.types
