"""`edgepress explain`: which channels may go and why others may not, for a model, a tensor and an operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from group_models import TOYS
from onnx import numpy_helper, parser
from rich.console import Console

from edgepress import cli
from edgepress.errors import InputError, ModelError
from edgepress.pipeline import explain, explain_operator, explain_tensor
from edgepress.report import answers, explanation
from edgepress.report.answers import OperatorAnswer, TensorAnswer
from edgepress.report.found import Explanation

Ask = Callable[[str], TensorAnswer]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, list(map(str, arguments)), catch_exceptions=False)


def screen(answer: TensorAnswer | OperatorAnswer | Explanation) -> str:
    console = Console(file=StringIO(), width=80)
    (explanation if isinstance(answer, Explanation) else answers).render(answer, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.fixture
def toy(tmp_path: Path) -> Callable[[str], Path]:
    def save(name: str) -> Path:
        onnx.save(TOYS[name].proto(), tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    return save


# --- the whole model --------------------------------------------------------------------------------------------------


def test_the_overview_counts_channels(toy: Callable[[str], Path]) -> None:
    found = explain(toy("residual"))
    assert "2 of 4 channel groups can be cut, 13 of 26 channels." in " ".join(screen(found).split())
    assert {group.name: group.stopper for group in found.groups} == {"n_a": "", "n_i": "", "n_c": "", "n_y": "y"}
    assert not found.notes
    pairs = dict(explanation.pairs(found))
    assert (pairs["channels"], pairs["channels.free"]) == ("26", "13")


def free_axes(path: Path) -> Path:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,T,4] x) => (float[N,T,3] y) {
        a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2) }"""
    made = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("w1", (4, 6)), ("w2", (6, 3))):
        made.graph.initializer.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), name))
    onnx.save(made, path)
    return path


def test_assumed_sizes_are_said(tmp_path: Path) -> None:
    model = free_axes(tmp_path / "m.onnx")
    found = explain(model)
    assert [group.size for group in found.groups if group.refusal is None] == [6]
    (note,) = found.notes
    assert note.startswith("T: ") and "assumes" in note and "note " in screen(found)
    assert "note\tT: " in run("explain", model).stdout


def test_samples_give_sizes(tmp_path: Path) -> None:
    model = free_axes(tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", x=np.zeros((9, 5, 4), np.float32))
    assert not explain(model, str(tmp_path / "s.npz")).notes
    assert explain_tensor(model, "a", str(tmp_path / "s.npz")).shape == (1, 5, 6)


# --- a tensor ---------------------------------------------------------------------------------------------------------


def test_an_activation_that_may_be_cut(toy: Callable[[str], Path]) -> None:
    answer = explain_tensor(toy("residual"), "ir")
    (row,) = answer.axes
    assert (answer.kind, answer.shape, answer.producer) == ("activation", (1, 7, 8, 8), "n_ir (Relu)")
    assert answer.consumers == ("n_b (Conv)",)
    assert (row.axis, row.group, row.positions, row.refusal, row.way) == (1, "n_i", 7, None, ())
    assert (row.producers, row.consumers) == (("n_i",), ("n_b",))
    assert row.shrinks == ("w2 (axis 0)", "b2 (axis 0)", "w3 (axis 1)")
    assert "ir (activation): its 7 channels may go." in screen(answer)


def test_a_weight_has_a_group_on_either_side(toy: Callable[[str], Path]) -> None:
    answer = explain_tensor(toy("residual"), "w2")
    assert [(row.axis, row.group, row.refusal is None) for row in answer.axes] == [(0, "n_i", True), (1, "n_a", False)]
    assert "w2 (axis" not in " ".join(answer.axes[0].shrinks)
    assert "w2 (weight): it may shrink along axis 0, axis 1 must stay whole." in screen(answer)


def test_gates_are_not_counted_as_channels(tmp_path: Path) -> None:
    """Recurrent weights hold each hidden unit several times, along two axes."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[4,N,3] x) => (float[4,N,2] y) {
        a = GRU<hidden_size=5>(x, w, r)  b = Squeeze(a, one)  y = MatMul(b, v) }"""
    made = parser.parse_model(text)
    for name, shape in (("w", (1, 15, 3)), ("r", (1, 15, 5)), ("v", (5, 2))):
        made.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    made.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    onnx.save(made, tmp_path / "m.onnx")
    answer = explain_tensor(tmp_path / "m.onnx", "r")
    assert [(row.axis, row.positions, row.channels) for row in answer.axes] == [(1, 15, 5), (2, 5, 5)]
    assert "r (weight): it may shrink along axes 1 and 2." in screen(answer)


def test_a_residual_stream_names_its_joins(toy: Callable[[str], Path]) -> None:
    (row,) = explain_tensor(toy("residual"), "s").axes
    assert row.producers == ("n_a", "n_b") and row.joins == ("n_s (Add)",)
    assert row.stopper == "" and row.refusal is not None and "residual stream" in row.refusal


def test_a_gate_is_no_join_of_its_own_channels(toy: Callable[[str], Path]) -> None:
    """Mul(x, Sigmoid(x)) is one stream."""
    assert all(not row.joins for row in explain_tensor(toy("squeeze_excite"), "y").axes)


def test_the_way_to_what_stops_channels(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,3] y) {
        a = MatMul(x, w1)  b = Relu(a)  c = Tanh(b)  d = Softmax(c)  y = MatMul(d, w2) }"""
    made = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("w1", (4, 6)), ("w2", (6, 3))):
        made.graph.initializer.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), name))
    for node in made.graph.node:
        node.name = f"n_{node.output[0]}"
    onnx.save(made, tmp_path / "m.onnx")
    (row,) = explain_tensor(tmp_path / "m.onnx", "a").axes
    assert (row.stopper, row.way) == ("n_d", ("n_b", "n_c", "n_d"))
    assert "n_b → n_c → n_d" in screen(explain_tensor(tmp_path / "m.onnx", "a"))
    (row,) = explain_tensor(tmp_path / "m.onnx", "w1").axes
    assert row.way == ("n_a", "n_b", "n_c", "n_d")
    behind = explain_tensor(tmp_path / "m.onnx", "d")
    assert not behind.axes and "channels stop at n_d (Softmax)" in behind.reasons[0]


def test_a_long_way_is_shortened() -> None:
    assert answers.shortened([*"abcdefg"]) == [*"abcdefg"]
    assert answers.shortened([*"abcdefghij"]) == ["a", "b", "c", "4 nodes", "h", "i", "j"]


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("residual", "x", "come from the graph input 'x'"),
        ("unknown_operator", "b", "channels stop at n_b"),
        ("image_from_vector", "y", ""),
    ],
)
def test_tensors_that_must_stay_say_why(toy: Callable[[str], Path], name: str, tensor: str, says: str) -> None:
    answer = explain_tensor(toy(name), tensor)
    assert all(row.refusal is not None for row in answer.axes)
    said = (*answer.reasons, *(row.refusal or "" for row in answer.axes))
    assert said and any(says in text for text in said)


def test_the_output_is_said_to_be_one(toy: Callable[[str], Path]) -> None:
    answer = explain_tensor(toy("residual"), "y")
    assert answer.kind == "output" and answer.axes[0].stopper == "y"
    assert "its 5 channels must stay." in screen(answer)


def test_an_unknown_tensor_has_near_names(toy: Callable[[str], Path]) -> None:
    path = toy("residual")
    with pytest.raises(InputError, match=r"'w22' is no tensor of the model: did you mean .*'w2'"):
        explain_tensor(path, "w22")
    done = run("explain", path, "--tensor", "nothing_like_it")
    assert done.exit_code == 2 and "its tensors are x, " in done.stderr and done.stdout == ""


def test_a_tensor_that_cleaning_merged(digits_model: Path) -> None:
    nodes = onnx.load(digits_model).graph.node
    gone = next(node.input[0] for node in nodes if node.op_type == "BatchNormalization")
    with pytest.raises(InputError, match="merged into others when the model is cleaned"):
        explain_tensor(digits_model, gone)


# --- an operator ------------------------------------------------------------------------------------------------------


def test_an_operator_that_stops_one_group_and_passes_another(toy: Callable[[str], Path]) -> None:
    answer = explain_operator(toy("softmax_over_channels"), "Softmax")
    assert answer.known and answer.rule == "mixing" and "along other axes" in answer.meaning
    first, second = answer.nodes
    assert (first.node, first.stops, first.passes) == ("n_s", ("n_a",), ())
    assert first.reason.startswith("it normalizes over channels")
    assert (second.node, second.stops, second.passes) == ("n_t", (), ("n_c",))
    assert "Softmax: 2 nodes, 1 of them stop channels." in screen(answer)


def test_channels_that_must_stay_for_another_reason(toy: Callable[[str], Path]) -> None:
    answer = explain_operator(toy("residual"), "Add")
    (row,) = answer.nodes
    assert (row.passes, row.stays, row.stops, row.reason) == ((), ("n_a",), (), "")
    assert [refusal.what for refusal in answer.held] == ["n_a"] and "residual stream" in answer.held[0].reason
    assert "held       n_a, at 1 node: residual stream" in screen(answer)


def unknown(path: Path) -> Path:
    text = (
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4,4] x) => (float[N] y) { a = Relu(x)  y = Det(a) }"""
    )
    onnx.save(parser.parse_model(text), path)
    return path


def test_an_operator_without_a_row(tmp_path: Path) -> None:
    answer = explain_operator(unknown(tmp_path / "m.onnx"), "Det")
    assert not answer.known and answer.rule == "unknown" and "no row for it" in answer.meaning
    assert "unknown" in screen(answer)


def test_an_operator_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    done = run("explain", unknown(tmp_path / "m.onnx"), "--op", "Conv")
    assert done.exit_code == 2 and done.stderr == "edgepress: error: The model has no Conv: it has Det, Relu.\n"


def test_an_operator_that_cleaning_removes(digits_model: Path) -> None:
    answer = explain_operator(digits_model, "BatchNormalization")
    assert answer.nodes == () and "6 of them are in the file" in answer.notes[0]


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "form"),
    [
        ((), Explanation, "edgepress-explain/2"),
        (("--tensor", "s"), TensorAnswer, "edgepress-explain-tensor/1"),
        (("--op", "Conv"), OperatorAnswer, "edgepress-explain-operator/1"),
    ],
)
def test_json_and_pipe(
    toy: Callable[[str], Path],
    options: tuple[str, ...],
    kind: type[Explanation] | type[TensorAnswer] | type[OperatorAnswer],
    form: str,
) -> None:
    path = toy("residual")
    text = run("explain", path, *options, "--json").stdout
    found = kind.from_json(text)
    assert json.loads(text)["format"] == form and json.loads(found.to_json()) == json.loads(text)
    lines = run("explain", path, *options).stdout.splitlines()
    assert lines and all(line.count("\t") == 1 and line.split("\t")[1] for line in lines)
    assert max(map(len, screen(found).splitlines())) <= 79


NOT_RUN = {"cropped_channels"}
"""onnxruntime resizes no channels."""


@pytest.mark.parametrize("name", sorted(TOYS))
def test_every_tensor_of_every_toy_has_an_answer(toy: Callable[[str], Path], name: str) -> None:
    """One tensor in the middle of each; what may be cut agrees with the overview."""
    path = toy(name)
    if name in NOT_RUN:
        with pytest.raises(ModelError, match="does not run"):
            explain(path)
        return
    may_go = {group.name for group in explain(path).groups if group.refusal is None}
    tensors = [output for node in onnx.load(path).graph.node for output in node.output]
    try:
        answer = explain_tensor(path, tensors[len(tensors) // 2])
    except InputError as error:
        assert "merged into others" in str(error)
        return
    assert {row.group for row in answer.axes if row.refusal is None} <= may_go
    assert answer.axes or answer.reasons
    assert all(row.way or not row.stopper for row in answer.axes)
