"""If, Loop, Scan, function bodies and shape arithmetic in the executor, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgepress import runtime
from edgepress.errors import ModelError, UnsupportedError
from edgepress.executor import Executor, gradients, per_sample_gradients, trainable
from edgepress.model import Model

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
Arrays = dict[str, np.ndarray]


def build(text: str, constants: Arrays | None = None, *, opset: int = 21, infer: bool = False) -> Model:
    proto = onnx.parser.parse_model(HEAD.replace("21", str(opset)) + text)
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto)
    return Model.of(onnx.shape_inference.infer_shapes(proto) if infer else proto)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def agree(model: Model, feed: Arrays, *, tolerance: float = 1e-5) -> dict[str, torch.Tensor]:
    expected = runtime.run(runtime.session(model.data, optimize=False), feed)
    got = Executor(model).run(feed)
    for name, wanted in expected.items():
        assert got[name].numpy().dtype == wanted.dtype
        np.testing.assert_allclose(got[name].numpy(), wanted, rtol=tolerance, atol=tolerance)
    return got


# --- If ---------------------------------------------------------------------------------------------

IF = """g (bool c, float[2,3] x) => (float[A,B] y) {
    h = Mul (x, w)
    y = If (c) <
        then_branch = t () => (float[2,3] p) { q = Relu (h)  p = Add (q, w) },
        else_branch = e () => (float[3,2] r) { r = Transpose (h) }
    >
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_if_runs_the_branch_that_is_asked_for_and_sees_outer_names(condition: bool) -> None:
    model = build(IF, {"w": draw(2, 3, seed=1)})
    agree(model, {"c": np.array(condition), "x": draw(2, 3)})
    agree(model, {"c": np.array(condition), "x": draw(2, 3)[:, ::-1]})


@pytest.mark.parametrize("condition", [True, False])
def test_gradients_flow_through_the_branch_that_was_taken(condition: bool) -> None:
    executor = Executor(build(IF, {"w": draw(2, 3, seed=1)}))
    x, w = torch.from_numpy(draw(2, 3)), torch.from_numpy(draw(2, 3, seed=1)).requires_grad_()
    feed: dict[str, np.ndarray | torch.Tensor] = {"c": np.array(condition), "x": x}
    got = gradients(executor, feed, lambda out: (out["y"] ** 2).sum(), parameters=["w"], capture=["h"])
    plain = (torch.relu(x * w) + w) if condition else (x * w).t()
    torch.testing.assert_close(got.parameters["w"], torch.autograd.grad((plain**2).sum(), w)[0])
    assert got.tensor_gradients["h"].shape == (2, 3)


def test_what_a_body_reads_lives_until_the_body_ran() -> None:
    executor = Executor(build(IF, {"w": draw(2, 3)}))
    assert [set(dead) for dead in executor.releases] == [{"x"}, {"c", "h"}]
    assert executor.reads(executor.nodes[1]) == ("c", "h", "w")


def test_a_branch_that_reads_what_nothing_makes_is_refused() -> None:
    proto = build(IF, {"w": draw(2, 3)}).edit()
    proto.graph.node[1].attribute[0].g.node[0].input[0] = "nobody"
    with pytest.raises(ModelError, match="'nobody' before it is made"):
        Executor(Model.of(proto))


def test_an_operator_in_a_branch_without_kernel_is_refused_when_the_executor_is_made() -> None:
    proto = build(IF, {"w": draw(2, 3)}).edit()
    proto.graph.node[1].attribute[0].g.node[0].op_type = "Det"
    with pytest.raises(UnsupportedError, match="Det"):
        Executor(Model.of(proto))


def test_a_condition_from_the_samples_needs_the_loop_form_of_per_sample_gradients() -> None:
    text = """g (float[N,3] x) => (float[N,3] y) {
        s = ReduceSum <keepdims = 0> (x)  c = Greater (s, zero)  h = Mul (x, w)
        y = If (c) < then_branch = t () => (float[N,3] p) { p = Exp (h) },
                     else_branch = e () => (float[N,3] r) { r = Neg (h) } >
    }"""
    executor = Executor(build(text, {"w": draw(3), "zero": np.zeros((), np.float32)}))
    x = np.array([[1, 2, 3], [-1, -2, -3]], np.float32)

    def loss(out: dict[str, torch.Tensor]) -> torch.Tensor:
        return out["y"].sum()

    with pytest.raises(UnsupportedError, match=r"If .*loop"):
        per_sample_gradients(executor, {"x": x}, loss)
    got = per_sample_gradients(executor, {"x": x}, loss, method="loop")["w"]
    w = draw(3)
    np.testing.assert_allclose(got.numpy(), np.stack([x[0] * np.exp(x[0] * w), -x[1]]), rtol=1e-5)


def test_an_if_on_shapes_stays_on_the_host() -> None:
    """What torch exports for squeeze(): an If on the size of an axis."""
    text = """g (float[N,M,3] x) => (float[A,B] y) {
        s = Shape <start = 1, end = 2> (x)  c = Equal (s, one)
        v = If (c) < then_branch = t () => (float[N,3] p) { p = Squeeze (x, one) },
                     else_branch = e () => (float[N,M,3] r) { r = Identity (x) } >
        k = If (c) < then_branch = t2 () => (int64[2] p2) { p2 = Constant <value = int64[2] {3, -1}> () },
                     else_branch = e2 () => (int64[2] r2) { r2 = Concat <axis = 0> (s, minus) } >
        y = Reshape (v, k)
    }"""
    model = build(text, {"one": np.array([1]), "minus": np.array([-1])})
    for size in (1, 4):
        agree(model, {"x": draw(2, size, 3)})
    executor = Executor(model)
    made: dict[str, Any] = {"x": torch.from_numpy(draw(2, 4, 3))}
    for node in executor.nodes:
        made.update(zip(node.outputs, executor.apply(node, made), strict=True))
    assert {name for name, value in made.items() if isinstance(value, np.ndarray)} == {"s", "c", "k"}


# --- Loop -------------------------------------------------------------------------------------------

LOOP = """g (int64 count, bool go, float[3] x, float limit) => (float[3] last, float[T,3] all, int64[T] turns) {
    last, all, turns = Loop (count, go, x) <
        body = b (int64 i, bool before, float[3] h) => (bool after, float[3] next, float[3] seen, int64 turn) {
            m = Mul (h, w)
            next = Add (m, x)
            seen = Sin (next)
            total = ReduceSum <keepdims = 0> (next)
            after = Less (total, limit)
            turn = Identity (i)
        }
    >
}"""


@pytest.mark.parametrize(("count", "go", "limit"), [(5, True, 1e9), (5, True, -1e9), (50, True, 4.0), (1, True, 0.0)])
def test_loop_counts_stops_and_stacks(count: int, go: bool, limit: float) -> None:
    model = build(LOOP, {"w": np.array([0.5, 1.5, -0.7], np.float32)})
    feed = {"count": np.array(count), "go": np.array(go), "x": np.abs(draw(3)), "limit": np.array(limit, np.float32)}
    got = agree(model, feed)
    assert len(got["all"]) == len(got["turns"]) > 0


@pytest.mark.parametrize(("count", "go"), [(0, True), (3, False)])
def test_a_loop_without_a_turn_returns_what_came_in_and_empty_stacks(count: int, go: bool) -> None:
    model = build(LOOP, {"w": draw(3)})
    feed = {"count": np.array(count), "go": np.array(go), "x": draw(3), "limit": np.array(1, np.float32)}
    got = agree(model, feed)
    assert got["all"].shape == (0, 3)


def test_a_loop_without_a_turn_and_without_a_stated_shape_is_refused() -> None:
    proto = build(LOOP, {"w": draw(3)}).edit()
    body = proto.graph.node[0].attribute[0].g
    body.output[2].type.tensor_type.shape.dim[0].dim_param = "C"
    feed = {"count": np.array(0), "go": np.array(True), "x": draw(3), "limit": np.array(1, np.float32)}
    with pytest.raises(UnsupportedError, match="makes no turn"):
        Executor(Model.of(proto)).run(feed)


@pytest.mark.parametrize("given", ["count, ", ", go"])
def test_count_and_condition_may_be_left_out(given: str) -> None:
    count, go = given.split(",")
    text = f"""g (int64 count, bool go, float[2] x) => (float[2] y) {{
        y = Loop ({count.strip() or '""'}, {go.strip() or '""'}, x) <
            body = b (int64 i, bool before, float[2] h) => (bool after, float[2] next) {{
                next = Mul (h, two)  n = ReduceMax <keepdims = 0> (next)  after = Less (n, top)
            }} >
    }}"""
    constants = {"two": np.array(2, np.float32), "top": np.array(100, np.float32)}
    proto = onnx.parser.parse_model(HEAD + text)
    proto.graph.node[0].input[:] = ["" if name == '""' else name for name in proto.graph.node[0].input]
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    agree(Model.of(proto), {"count": np.array(4), "go": np.array(True), "x": np.array([1, 3], np.float32)})


def test_gradients_flow_through_all_turns_and_scan_outputs() -> None:
    executor = Executor(build(LOOP, {"w": draw(3, seed=5)}), dtype=torch.float64)
    feed = {"count": np.array(4), "go": np.array(True), "x": draw(3), "limit": np.array(1e9, np.float32)}
    got = gradients(executor, feed, lambda out: (out["last"] ** 2).sum() + out["all"].sum(), parameters=["w"])
    w = executor.parameters["w"].clone().requires_grad_()
    x = torch.from_numpy(feed["x"]).double()
    h, total = x, torch.zeros((), dtype=torch.float64)
    for _ in range(4):
        h = h * w + x
        total = total + h.sin().sum()
    torch.testing.assert_close(got.parameters["w"], torch.autograd.grad((h**2).sum() + total, w)[0])


def test_shape_arithmetic_in_a_loop_stays_on_the_host_and_tensors_turn_back_into_tensors() -> None:
    text = """g (float[N,8] x) => (float[A,B] y, int64 z) {
        s = Shape (x)  n = Gather <axis = 0> (s, zero)
        twice, sum = Loop (three, "", n, x) <
            body = b (int64 i, bool before, int64 k, float[N,8] h) => (bool after, int64 k2, float[N,8] h2) {
                after = Identity (before)  k2 = Add (k, k)  f = Cast <to = 1> (i)  h2 = Add (h, f)
            } >
        z = Identity (twice)
        u = Unsqueeze (twice, front)  v = Concat <axis = 0> (u, minus)  y = Reshape (sum, v)
    }"""
    constants = {"zero": np.array(0), "three": np.array(3), "front": np.array([0]), "minus": np.array([-1])}
    proto = onnx.parser.parse_model(HEAD + text.replace('"", n', "none, n"))
    proto.graph.node[2].input[1] = ""
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = Model.of(proto)
    agree(model, {"x": draw(3, 8)})
    step = Executor(model)._by_outputs[("twice", "sum")]
    assert step.hosts == (True, False)


def test_stacks_of_different_shapes_are_refused() -> None:
    text = """g (float[1] x) => (float[M] y, float[T,K] all) {
        y, all = Loop (two, "", x) <
            body = b (int64 i, bool before, float[P] h) => (bool after, float[Q] next, float[R] seen) {
                after = Identity (before)  next = Concat <axis = 0> (h, h)  seen = Identity (next)
            } >
    }"""
    proto = onnx.parser.parse_model(HEAD + text.replace('""', "none"))
    proto.graph.node[0].input[1] = ""
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2), "two"))
    with pytest.raises(UnsupportedError, match="different shapes"):
        Executor(Model.of(proto)).run({"x": draw(1)})


def test_an_if_in_a_loop_sees_names_of_both() -> None:
    text = """g (float[3] x) => (float[3] y) {
        y = Loop (four, "", x) <
            body = b (int64 i, bool before, float[3] h) => (bool after, float[3] next) {
                after = Identity (before)
                odd = Mod (i, two)  is = Cast <to = 9> (odd)
                next = If (is) < then_branch = t () => (float[3] p) { p = Add (h, x) },
                                 else_branch = e () => (float[3] q) { q = Mul (h, w) } >
            } >
    }"""
    proto = onnx.parser.parse_model(HEAD + text.replace('""', "none"))
    proto.graph.node[0].input[1] = ""
    for name, array in {"four": np.array(4), "two": np.array(2), "w": draw(3)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = Model.of(proto)
    agree(model, {"x": draw(3, seed=3)})
    assert trainable(model) == ("w",)


# --- Scan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scan_input_directions": [1, 0], "scan_output_directions": [1]},
        {"scan_input_axes": [1, 0], "scan_output_axes": [1]},
        {"scan_input_axes": [-1, 0], "scan_output_axes": [-1], "scan_input_directions": [0, 1]},
    ],
)
def test_scan(settings: dict[str, Any]) -> None:
    body = onnx.parser.parse_graph(
        """b (float[3] h, float[3] a, float b1) => (float[3] h2, float[3] seen) {
            t = Mul (h, w)  u = Add (t, a)  h2 = Mul (u, b1)  seen = Tanh (h2)
        }"""
    )
    node = helper.make_node("Scan", ["h0", "xs", "bs"], ["last", "all"], body=body, num_scan_inputs=2, **settings)
    first = 1 if settings.get("scan_input_axes", [0])[0] else 0
    xs = draw(5, 3) if first == 0 else draw(3, 5)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [info("h0", 1, [3]), info("xs", 1, list(xs.shape)), info("bs", 1, [5])],
        [info("last", 1, [3]), info("all", 1, None)],
        [numpy_helper.from_array(draw(3, seed=2), "w")],
    )
    model = Model.of(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]))
    agree(model, {"h0": draw(3, seed=1), "xs": xs, "bs": draw(5, seed=4)})


# --- function bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_an_operator_without_kernel_runs_by_its_function_body(opset: int) -> None:
    text = """g (float[N,3,4,5] x) => (float[N,3,4,5] y) {
        h = Mul (x, w)  y = MeanVarianceNormalization <axes = [0,2,3]> (h)
    }"""
    model = build(text, {"w": draw(3, 1, 1)}, opset=opset)
    agree(model, {"x": draw(2, 3, 4, 5)}, tolerance=1e-4)
    assert trainable(model) == ("w",)


def test_attributes_left_out_of_a_function_have_their_defaults() -> None:
    model = build("g (float[2,3,4,5] x) => (float[2,3,4,5] y) { y = MeanVarianceNormalization (x) }")
    agree(model, {"x": draw(2, 3, 4, 5)}, tolerance=1e-4)


@pytest.mark.parametrize("sizes", [[4, 10], [9, 3]])
def test_a_body_that_depends_on_types(sizes: list[int]) -> None:
    text = "g (float[5,7] x) => (float[A,B] y) { y = CenterCropPad (x, to) }"
    agree(build(text, {"to": np.array(sizes)}, infer=True), {"x": draw(5, 7)})


def test_a_body_that_depends_on_types_nobody_states_is_refused() -> None:
    text = "g (float[5,7] x) => (float[A,B] y) { h = Relu (x)  y = CenterCropPad (h, to) }"
    with pytest.raises(UnsupportedError, match="infer the shapes"):
        Executor(build(text, {"to": np.array([4, 10])}))


@pytest.mark.parametrize("align", [0, 1])
def test_a_body_with_branches_on_shapes(align: int) -> None:
    text = f"g (float[2,2,3] theta) => (float[2,4,5,2] y) {{ y = AffineGrid <align_corners = {align}> (theta, size) }}"
    agree(build(text, {"size": np.array([2, 1, 4, 5])}), {"theta": draw(2, 2, 3)})


def test_a_function_body_with_unknown_operators_is_refused_by_the_name_of_the_node() -> None:
    text = """g (float[2,3] x) => (uint8[2,3] y, float s, uint8 z) {
        y, s, z = DynamicQuantizeLinear (x)
    }"""
    with pytest.raises(UnsupportedError, match=r"DynamicQuantizeLinear .* function body .*QuantizeLinear"):
        Executor(build(text))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_bodies_within_bodies(reduction: str) -> None:
    """SoftmaxCrossEntropyLoss is LogSoftmax and NegativeLogLikelihoodLoss, which has a body of its own."""
    text = f"""g (float[4,5] x, int64[4] labels) => (float[] y) {{
        y = SoftmaxCrossEntropyLoss <reduction = "{reduction}"> (x, labels)
    }}"""
    proto = onnx.parser.parse_model(HEAD + text)
    feed = {"x": draw(4, 5), "labels": np.array([0, 4, 2, 2])}
    x, labels = torch.from_numpy(feed["x"]), torch.from_numpy(feed["labels"])
    expected = torch.nn.functional.cross_entropy(x, labels, reduction=reduction)
    torch.testing.assert_close(Executor(Model.of(proto)).run(feed)["y"], expected)


def test_sequences_are_refused() -> None:
    text = """g (seq(float[3]) x) => (seq(float[3]) y) {
        y = SequenceMap (x) < body = b (float[3] a) => (float[3] c) { c = Relu (a) } >
    }"""
    with pytest.raises(UnsupportedError, match="SequenceMap"):
        Executor(Model.of(onnx.parser.parse_model(HEAD + text)))


def test_an_input_of_a_type_torch_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="input 'x' holds uint16"):
        Executor(build("g (uint16[2] x) => (uint16[2] y) { y = Identity (x) }")).run({"x": np.zeros(2, np.uint16)})


def test_gradients_through_a_function_body_are_those_of_its_formula() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { h = Mul (x, w)  y = MeanVarianceNormalization <axes = [0]> (h) }"
    executor = Executor(build(text, {"w": draw(3)}), dtype=torch.float64)
    x = torch.from_numpy(draw(6, 3)).double()
    weight = executor.parameters["w"].clone().requires_grad_()
    h = x * weight
    plain = (h - h.mean(0)) / ((h**2).mean(0) - h.mean(0) ** 2).sqrt().add(1e-9)
    got = gradients(executor, {"x": x}, lambda out: (out["y"] ** 3).sum(), parameters=["w"])
    expected = torch.autograd.grad((plain**3).sum(), weight)[0]
    torch.testing.assert_close(got.parameters["w"], expected, rtol=1e-6, atol=1e-7)


# --- host values ------------------------------------------------------------------------------------

CHAIN = """g (float[N,6,4] x) => (float[A,B,C] y) {
    s = Shape (x)  n = Gather <axis = 0> (s, first)  front = Unsqueeze (n, axis)
    f = Cast <to = 1> (s)  g2 = Mul (f, half)  k = Floor (g2)  c = Cast <to = 7> (k)  tail = Slice (c, from, till)
    to = Concat <axis = 0> (front, tail, minus)
    h = MatMul (x, w)
    b = Add (h, bias)
    y = Reshape (b, to)
}"""
NUMBERS = {
    "first": np.array(0),
    "axis": np.array([0]),
    "half": np.array([0.5, 0.5, 0.5], np.float32),
    "from": np.array([1]),
    "till": np.array([2]),
    "minus": np.array([-1]),
}


def test_shape_chains_are_host_values_and_their_constants_are_not_trained() -> None:
    model = build(CHAIN, {**NUMBERS, "w": draw(4, 4), "bias": draw(4)})
    agree(model, {"x": draw(2, 6, 4)})
    executor = Executor(model)
    made: dict[str, Any] = {"x": torch.from_numpy(draw(2, 6, 4))}
    for node in executor.nodes:
        made.update(zip(node.outputs, executor.apply(node, made), strict=True))
    hosts = {name for name, value in made.items() if isinstance(value, np.ndarray)}
    assert hosts == {"s", "n", "front", "f", "g2", "k", "c", "tail", "to"}
    assert made["to"].tolist() == [2, 3, -1]
    assert executor.trainable == ("w", "bias")


def test_outputs_and_captured_host_values_are_tensors() -> None:
    model = build("g (float[N,3] x) => (int64[2] s) { s = Shape (x)  t = Size (x)  y = Relu (x) }")
    got = Executor(model).run({"x": draw(4, 3)}, capture=["t"])
    assert (got["s"].tolist(), got["t"].item()) == ([4, 3], 12)
    assert got["s"].dtype == torch.int64


def test_a_slice_of_an_embedding_at_host_positions_keeps_its_gradient() -> None:
    text = """g (float[N,T,3] x) => (float[N,T,3] y) {
        s = Shape <start = 1, end = 2> (x)  p = Slice (table, zero, s, one)  y = Add (x, p)
    }"""
    model = build(text, {"table": draw(1, 8, 3), "zero": np.array([0]), "one": np.array([1])})
    executor = Executor(model)
    assert executor.trainable == ("table",)
    got = gradients(executor, {"x": draw(2, 5, 3)}, lambda out: out["y"].sum())
    assert got.parameters["table"].sum().item() == 2 * 5 * 3


@pytest.mark.parametrize(
    "line", ["y = Add (z, table)", "e = Add (table, z)  y = Mul (e, x)", "y = Where (b, z, table)"]
)
def test_an_embedding_that_meets_zeros_of_a_computed_shape_stays_a_tensor(line: str) -> None:
    text = f"g (float[N,12] x) => (float[N,12] y) {{ s = Shape (x)  z = ConstantOfShape (s)  b = IsNaN (z)  {line} }}"
    executor = Executor(build(text, {"table": draw(12)}))
    got = gradients(executor, {"x": draw(2, 12)}, lambda out: out["y"].sum(), parameters=["table"])
    assert got.parameters["table"].all()
    assert executor.trainable == (() if "Where" in line else ("table",))


def test_a_gradient_through_shape_arithmetic_is_refused() -> None:
    executor = Executor(build(CHAIN, {**NUMBERS, "w": draw(4, 4), "bias": draw(4)}))
    with pytest.raises(UnsupportedError, match=r"Mul .*shape arithmetic"):
        gradients(executor, {"x": draw(2, 6, 4)}, lambda out: out["y"].sum(), parameters=["half"])


def test_integers_of_the_file_keep_their_type_in_shape_arithmetic() -> None:
    text = """g (float[N,3] x) => (int32[2] y) { s = Shape (x)  i = Cast <to = 6> (s)  y = Add (i, one) }"""
    got = agree(build(text, {"one": np.array([1, 1], np.int32)}), {"x": draw(4, 3)})
    assert got["y"].dtype == torch.int32


def test_large_numbers_of_the_file_are_rounded_as_in_the_file_whatever_the_working_type() -> None:
    """10 * 0.7 is 7 in float32 and 6.9999998 in float64: shapes must not depend on the working type."""
    text = """g (float[10,7] x) => (float[A,B] y) {
        s = Shape <end = 1> (x)  f = Cast <to = 1> (s)  m = Mul (f, share)  k = Floor (m)  c = Cast <to = 7> (k)
        to = Concat <axis = 0> (c, minus)  y = Reshape (x, to)
    }"""
    model = build(text, {"share": np.array([0.7], np.float32), "minus": np.array([-1])})
    x = draw(10, 7)
    agree(model, {"x": x})
    assert Executor(model, dtype=torch.float64).run({"x": x})["y"].shape == (7, 10)


def test_types_of_the_work() -> None:
    text = """g (float[N,3] x, int64[3] i) => (float16[N,3] y, float[3] z) {
        a = Cast <to = 10> (x)  y = Mul (a, h)  b = Cast <to = 1> (i)  c = Constant <value_floats = [1.0, 2.0, 3.0]> ()
        z = Add (b, c)
    }"""
    model = build(text, {"h": np.ones(3, np.float16)})
    feed = {"x": draw(2, 3), "i": np.arange(3)}
    got = Executor(model, dtype=torch.float64).run(feed)
    assert {name: tensor.dtype for name, tensor in got.items()} == {"y": torch.float64, "z": torch.float64}
    torch.testing.assert_close(got["y"], torch.from_numpy(feed["x"]).double(), rtol=0, atol=0)
    agree(model, feed, tolerance=1e-3)
