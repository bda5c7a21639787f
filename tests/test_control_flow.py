"""If, Loop and Scan: bodies are walls, everything outside is analysed, cut and cleaned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from normalize_tools import clean, normal, ops, text
from onnx import numpy_helper

from edgepress.groups import find_groups
from edgepress.groups.bodies import captured
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.runtime import run, session
from edgepress.surgery.cut import cut, surgery_refusal
from edgepress.surgery.oracle import TOLERANCE, check_cut

MIDDLE = "a = MatMul(x,w1) r = Relu(a) b = MatMul(r,w2)"
TAIL = "e = MatMul(d,w3) f = Relu(e) y = MatMul(f,w4)"

BODIES = {
    # the branches read the tensor b, the constant v and a constant of the layer before
    "if": """s = ReduceSum<keepdims=0>(x) c = Greater(s,zero)
        d = If(c) <then_branch = g1 () => (float[N,6] p) { q = Mul(b,v) p = Add(q,v) },
                   else_branch = g2 () => (float[N,6] p) { p = Neg(b) }>""",
    "loop": """d = Loop(three,yes,b) <body = g1 (int64 i, bool go, float[N,6] held) => (bool on, float[N,6] p) {
        on = Identity(go) q = Mul(held,v) p = Tanh(q) }>""",
    "scan": """t = Transpose<perm=[1,0]>(b) u = Scan<num_scan_inputs=1, body = g1 (float[N] row) => (float[N] p) {
        p = Tanh(row) }>(t) d = Transpose<perm=[1,0]>(u)""",
}


def build(kind: str, *, tail: str = TAIL, width: int = 7) -> Model:
    """MatMul 8, MatMul 6, control flow, MatMul of ``width``, MatMul 3."""
    model = text(f"g (float[N,5] x) => (float[N,3] y) {{ {MIDDLE} {BODIES[kind]} {tail} }}", opset=18)
    proto = model.edit()
    shapes = {"w1": (5, 8), "w2": (8, 6), "w3": (6, width), "w4": (width, 3), "v": (6,)}
    for place, (name, shape) in enumerate(shapes.items()):
        proto.graph.initializer.append(numpy_helper.from_array(normal(*shape, seed=place), name))
    for name, value in (("zero", np.float32(0)), ("three", np.int64(3)), ("yes", np.bool_(True))):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    onnx.checker.check_model(proto)
    return Model.of(proto)


def feeds(seed: int) -> list[dict[str, np.ndarray]]:
    """Both branches are taken."""
    positive = np.abs(normal(4, 5, seed=seed))
    return [{"x": positive}, {"x": -positive[:1]}]


@pytest.mark.parametrize("kind", BODIES)
def test_layers_outside_are_found(kind: str) -> None:
    grouping = find_groups(build(kind))
    assert [(group.name, group.size) for group in grouping.prunable] == [("n_a", 8), ("n_e", 7)]
    stopped = str(grouping.group("n_b").refusal)
    assert "control flow" in stopped
    assert kind in stopped.lower()
    assert any("control flow" in refusal.reason for refusal in grouping.refusals)


@pytest.mark.parametrize("kind", BODIES)
def test_layers_outside_are_cut(kind: str) -> None:
    model = build(kind)
    assert surgery_refusal(model) is None
    grouping = find_groups(model)
    removed = {"n_a": [0, 5], "n_e": [1, 2, 6]}
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, feeds(0)) <= TOLERANCE
    before, after = ({node.name: node for node in x.edit().graph.node} for x in (model, cutting.model))
    assert before == after, "nothing but weights changes, bodies least of all"
    assert cutting.model.constants["w2"].shape == (6, 6)


def test_constants_that_bodies_read_keep_their_width() -> None:
    tail = "e = MatMul(d,w3) h = Add(e,v) f = Relu(h) y = MatMul(f,w4)"
    grouping = find_groups(build("if", tail=tail, width=6))
    assert "shares the constant 'v'" in str(grouping.group("n_e").refusal)
    assert [group.name for group in grouping.prunable] == ["n_a"]


def test_names_read_inside_are_found_through_bodies_of_bodies() -> None:
    inner = onnx.parser.parse_graph("g2 () => (float[N] p) { p = Mul(outer, own) }")
    outer = onnx.parser.parse_graph("g1 () => (float[N] q) { own = Neg(first) }")
    outer.node.append(onnx.helper.make_node("If", ["flag"], ["q"], then_branch=inner, else_branch=inner))
    node = onnx.helper.make_node("If", ["which"], ["y"], then_branch=outer, else_branch=outer)
    assert captured([node]) == ("which", "first", "flag", "outer")


# --- normalization ----------------------------------------------------------------------------------------

CLEANED = """g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[1] k = {2.0}, int64[1] one = {1}> {
    h = Identity(x) a = Conv(h,w1) n = BatchNormalization(a,scale,shift,mean,var) m = Identity(n)
    k2 = Mul(k,k) s = ReduceSum<keepdims=0>(x) c = Greater(s,zero)
    d = If(c) <then_branch = g1 () => (float[N,4,4,4] p) { p = Mul(m,k2) },
               else_branch = g2 () => (float[N,4,4,4] p) { p = Neg(m) }>
    y = Conv(d,w2) }"""


def test_the_main_graph_is_cleaned_around_bodies() -> None:
    proto = text(CLEANED, opset=16).edit()
    weights = {"w1": normal(4, 3, 1, 1), "w2": normal(2, 4, 1, 1), "zero": np.zeros((), np.float32)}
    weights |= {name: np.abs(normal(4, seed=9)) + 1 for name in ("scale", "shift", "mean", "var")}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    before = Model.of(proto)
    samples = [{"x": np.abs(normal(2, 3, 4, 4))}, {"x": -np.abs(normal(1, 3, 4, 4))}]
    result = normalize(before, samples)
    assert not any(record.skipped for record in result.steps)
    after = result.model
    assert ops(after) == {"Conv": 2, "Identity": 1, "ReduceSum": 1, "Greater": 1, "If": 1}
    assert after.constants["k2"].tolist() == [4.0]
    assert after.opset == 21
    for sample in samples:
        expected, found = (run(session(model.data), sample)["y"] for model in (before, after))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


DECIDED = """g (float[N,1,4] x) => (float[N,4] y) <int64[1] one = {1}, float[4] w = {1,2,3,4}> {
    s = Shape<start=1, end=2>(x) c = Equal(s,one) q = Relu(x)
    d = If(c) <then_branch = g1 () => (float[N,4] p) <int64[1] axis = {1}> { r = Abs(x) p = Squeeze(r,axis) },
               else_branch = g2 () => (float[N,1,4] p) { p = Identity(x) }>
    t = ReduceMean<keepdims=0, axes=[1]>(q) u = Add(t,d) y = Mul(u,w) }"""


def test_branches_that_are_always_taken_are_written_out() -> None:
    before = text(DECIDED, opset=16)
    after = clean(before, [{"x": normal(2, 1, 4)}])
    assert "If" not in ops(after)
    assert ops(after)["Abs"] == 1
    for batch in (1, 3):
        sample = {"x": normal(batch, 1, 4, seed=batch)}
        expected, found = (run(session(model.data), sample)["y"] for model in (before, after))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_branches_that_depend_on_data_stay() -> None:
    after = clean(text(DECIDED.replace("Equal(s,one)", "Equal(one,other)").replace("int64[1] one = {1},", "").replace(
        "float[N,1,4] x)", "float[N,1,4] x, int64[1] one, int64[1] other)"), opset=16),
        [{"x": normal(2, 1, 4), "one": np.array([1]), "other": np.array([1])}],
    )  # fmt: skip
    assert ops(after)["If"] == 1


def test_branches_with_branches_inside_stay() -> None:
    inner = """g1 () => (float[N,4] p) { z = If(c) <then_branch = g3 () => (float[N,4] o) { o = Abs(x) },
        else_branch = g4 () => (float[N,4] o) { o = Neg(x) }> p = Relu(z) }"""
    body = f"""g (float[N,4] x) => (float[N,4] y) <bool c = {{1}}> {{
        d = If(c) <then_branch = {inner}, else_branch = g2 () => (float[N,4] p) {{ p = Neg(x) }}> y = Relu(d) }}"""
    after = clean(text(body, opset=16), [{"x": normal(2, 4)}])
    assert ops(after)["If"] == 1


# --- widths and functions ---------------------------------------------------------------------------------


def test_a_width_that_a_body_reads_stays() -> None:
    body = """g (float[N,5] x) => (float[N,3] y, float[1] z) {
        a = MatMul(x,w1) s = Shape<start=1>(a) f = Cast<to=1>(s) r = Relu(a) b = MatMul(r,w2) t = Relu(b)
        z = If(c) <then_branch = g1 () => (float[1] p) { p = Neg(f) },
                   else_branch = g2 () => (float[1] p) { p = Abs(f) }>
        y = MatMul(t,w3) }"""
    proto = text(body.replace("(float[N,5] x)", "(float[N,5] x, bool c)"), opset=18).edit()
    for name, shape in (("w1", (5, 8)), ("w2", (8, 6)), ("w3", (6, 3))):
        proto.graph.initializer.append(numpy_helper.from_array(normal(*shape), name))
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    grouping = find_groups(Model.of(proto))
    assert "its width enters a computation" in str(grouping.group("n_a").refusal)
    assert [group.name for group in grouping.prunable] == ["n_b"]


def test_local_functions_are_walls_until_they_are_inlined() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[N,5] x) => (float[N,3] y) { a = MatMul(x,w1) r = own.twice(a) y = MatMul(r,w2) }
        <domain: "own", opset_import: ["" : 18]> twice (u) => (v) { v = Add(u,u) }"""
    )
    for name, shape in (("w1", (5, 8)), ("w2", (8, 3))):
        proto.graph.initializer.append(numpy_helper.from_array(normal(*shape), name))
    model = Model.of(proto)
    assert "unknown operator own.twice" in str(find_groups(model).groups[0].refusal)
    assert "functions" in str(surgery_refusal(model))
    flat = clean(model)
    assert [group.size for group in find_groups(flat).prunable] == [8]
    assert surgery_refusal(flat) is None
