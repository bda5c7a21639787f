"""Surgery: a cut model equals the original with the consumers of its channels zeroed, on every model tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from group_models import TOYS, feed
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser
from random_graphs import random_graph

from edgepress import runtime
from edgepress.errors import InvariantError, ModelError
from edgepress.groups import Grouping, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.ops.couple import movement
from edgepress.surgery import mend
from edgepress.surgery.cut import Cutting, cut, silence, surgery_refusal
from edgepress.surgery.oracle import TOLERANCE, check_cut

CUTTABLE = [
    name
    for name, toy in TOYS.items()
    if any(not group.pinned and group.size > 1 for group in find_groups(toy.build()).groups)
]


def draw(grouping: Grouping, seed: int) -> dict[str, list[int]]:
    """Random channels of every group that is not pinned, residual streams included; some are left alone."""
    random = np.random.default_rng(seed)
    chosen = {}
    for group in grouping.groups:
        if not group.pinned and group.size > 1:
            count = int(random.integers(0, group.size))
            chosen[group.name] = sorted(random.choice(group.size, count, replace=False).tolist())
    return chosen


def feeds(model: Model, seed: int) -> list[dict[str, np.ndarray]]:
    """Two feeds of different batch sizes."""
    return [feed(model, batch, seed) for batch in (1, 3)]


def test_operators_that_onnxruntime_adds_are_no_obstacle() -> None:
    """SimplifiedLayerNormalization stands in the domain of onnx, whose checker does not know it."""
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,6] x) => (float[N,6] y) {
        n = SimplifiedLayerNormalization(x, s)  a = MatMul(n, w1)  r = Relu(a)  y = MatMul(r, w2) }"""
    )
    random = np.random.default_rng(0)
    for name, shape in (("s", (6,)), ("w1", (6, 8)), ("w2", (8, 6))):
        proto.graph.initializer.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), name))
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    model = Model.of(proto)
    grouping, removed = find_groups(model), {"n_a": [1, 5]}
    cutting = cut(model, grouping, removed)
    assert cutting.model.constants["w1"].shape == (6, 6)
    assert [node.op for node in cutting.model.nodes] == [node.op for node in model.nodes]
    assert check_cut(model, grouping, removed, cutting, feeds(model, 0)) <= TOLERANCE


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CUTTABLE)
def test_removal_equals_silence(name: str, seed: int) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    removed = draw(grouping, seed)
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, feeds(model, seed)) <= TOLERANCE
    if any(removed.values()):
        assert cutting.model.parameters < model.parameters


@pytest.mark.parametrize("name", CUTTABLE)
def test_cutting_down_to_one_channel(name: str) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    removed = {g.name: range(g.size - 1) for g in grouping.groups if not g.pinned}
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, feeds(model, 0)) <= TOLERANCE
    assert all(min(values.shape, default=1) > 0 for values in cutting.model.constants.values())
    assert find_groups(cutting.model).groups


@pytest.mark.parametrize("name", CUTTABLE)
def test_cutting_twice_is_cutting_once(name: str) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    both = {g.name: [0, 2] for g in grouping.groups if not g.pinned and g.size > 2}
    first = cut(model, grouping, {group: [0] for group in both})
    second = cut(first.model, find_groups(first.model), {group: [1] for group in both})
    at_once = cut(model, grouping, both)
    assert second.model.constants.keys() >= at_once.kept.keys()
    for tensor in at_once.kept:
        assert np.array_equal(second.model.constants[tensor], at_once.model.constants[tensor])


@pytest.mark.parametrize("name", CUTTABLE)
def test_kept_positions_say_where_weights_come_from(name: str) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    cutting = cut(model, grouping, draw(grouping, 1))
    for tensor, axes in cutting.kept.items():
        whole = [
            np.arange(n) if kept is None else kept for n, kept in zip(model.constants[tensor].shape, axes, strict=True)
        ]
        assert np.array_equal(cutting.model.constants[tensor], model.constants[tensor][np.ix_(*whole)])
    untouched = (model.constants.keys() & cutting.model.constants.keys()) - cutting.kept.keys()
    assert all(np.array_equal(model.constants[n], cutting.model.constants[n]) for n in untouched)


@given(st.sampled_from(CUTTABLE), st.data())
@settings(deadline=None, max_examples=25)
def test_any_choice_of_channels_is_exact(name: str, data: st.DataObject) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    removed = {
        group.name: sorted(data.draw(st.sets(st.integers(0, group.size - 1), max_size=group.size - 1)))
        for group in grouping.groups
        if not group.pinned
    }
    check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, 5))


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    model = random_graph(seed).build()
    grouping = find_groups(model)
    removed = draw(grouping, seed)
    assert check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, seed)) <= TOLERANCE


def test_silence_zeroes_consumers_only() -> None:
    model = TOYS["flatten_chain"].build()
    grouping = find_groups(model)
    quiet = silence(model, grouping, {"n_a": [1, 4]}).constants
    expected = model.constants["w2"].copy()
    expected[:, [*range(9, 18), *range(36, 45)]] = 0
    assert np.array_equal(quiet["w2"], expected)
    assert all(np.array_equal(quiet[n], v) for n, v in model.constants.items() if n != "w2")


def test_removing_nothing_changes_nothing() -> None:
    model = TOYS["residual"].build()
    grouping = find_groups(model)
    nothing: list[dict[str, list[int]]] = [{}, {"n_i": []}]
    for removed in nothing:
        cutting = cut(model, grouping, removed)
        assert cutting.model is model
        assert not cutting.kept


# --- mutants: the oracle has teeth ------------------------------------------------------------------------


def caught(name: str, seeds: int = 6) -> bool:
    """Whether the checks in cut and the oracle notice that something is wrong, for some random removal."""
    model = TOYS[name].build()
    for seed in range(seeds):
        grouping = find_groups(model)
        try:
            removed = draw(grouping, seed)
            check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, seed))
        except InvariantError:
            return True
    return False


MUTANTS = {
    "Add does not tie": ("edgepress.ops.couple.elementwise._join", lambda board, op, left, right: left, "residual"),
    "constants do not go along": (
        "edgepress.ops.couple.elementwise._carry",
        lambda board, node, slot, result: None,
        "mlp",
    ),
    "no box rule": ("edgepress.groups.trace._box", lambda board: None, "channel_shuffle"),
    "shared weights are not tied": ("edgepress.groups.trace._tie_shared", lambda board, model: None, "shared_weights"),
    "steps do not tie": ("edgepress.ops.couple.movement._slice", movement._run, "strided_slice"),
    "blocks are not tied": (
        "edgepress.ops.couple.contract._blocks",
        lambda board, node, width: board.channels(node.inputs[0], 1).reshape(-1, width),
        "transposed_blocks",
    ),
    "states are not tied": (
        "edgepress.ops.couple.recurrent._start",
        lambda board, node, slot, hidden: None,
        "encoder_decoder",
    ),
    "nothing is mended": ("edgepress.surgery.cut.mend", lambda graph, model, left: None, "gather"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, replacement, name = MUTANTS[mutant]
    assert not caught(name)
    monkeypatch.setattr(target, replacement)
    assert caught(name)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("Conv", "concat_depthwise_split"),
        ("Split", "concat_depthwise_split"),
        ("Reshape", "image_from_vector"),
        ("Slice", "slices"),
        ("Expand", "expand_tile"),
        ("Conv", "resnext"),
        ("ConvTranspose", "transposed_blocks"),
        ("GroupNormalization", "group_normalized"),
        ("Reshape", "group_normalized_exported"),
        ("Resize", "upsampled"),
        ("Slice", "flipped"),
        ("Slice", "old_parameters"),
        ("Split", "old_parameters"),
        ("Expand", "expanded_mask"),
        ("LSTM", "lstm"),
        ("GRU", "gru"),
        ("RNN", "encoder_decoder"),
    ],
)
def test_every_mend_is_needed(operator: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {op: mender for op, mender in mend.MENDERS.items() if op != operator}
    monkeypatch.setattr(mend, "MENDERS", rest)
    assert caught(name)


def test_the_oracle_rejects_another_cut() -> None:
    model = TOYS["residual"].build()
    grouping = find_groups(model)
    with pytest.raises(InvariantError, match="changed the outputs"):
        check_cut(model, grouping, {"n_i": [0, 1]}, cut(model, grouping, {"n_i": [5, 6]}), feeds(model, 0))


def test_the_oracle_notices_lost_values_and_shapes() -> None:
    model = TOYS["mlp"].build()
    grouping = find_groups(model)
    broken = model.with_constants({"w3": np.full((7, 5), np.nan, np.float32)})
    with pytest.raises(InvariantError, match="changed the outputs"):
        check_cut(model, grouping, {}, Cutting(broken, {}), feeds(model, 0))
    proto = TOYS["mlp"].proto()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    wider = Model.of(proto).with_constants({"w3": np.ones((7, 6), np.float32)})
    with pytest.raises(InvariantError, match="changed the shape of output 'y'"):
        check_cut(model, grouping, {}, Cutting(wider, {}), feeds(model, 0))


# --- the frame stays --------------------------------------------------------------------------------------


def annotated() -> onnx.ModelProto:
    """A model with a note everywhere ONNX allows one."""
    proto = TOYS["residual"].proto()
    proto.doc_string, proto.domain, proto.model_version = "a model", "org.example", 7
    proto.producer_name, proto.producer_version = "maker", "1.2"
    proto.graph.doc_string = "a graph"
    helper.set_model_props(proto, {"edgepress.note": "kept", "author": "me"})
    for item in (proto.graph, *proto.graph.node, *proto.graph.initializer):
        entry = item.metadata_props.add()
        entry.key, entry.value = "from", item.name
    for node in proto.graph.node:
        node.doc_string = f"doc of {node.name}"
    proto.graph.input[0].doc_string = "pixels"
    return proto


def test_the_frame_survives() -> None:
    proto = annotated()
    model = Model.of(proto)
    grouping = find_groups(model)
    after = cut(model, grouping, {"n_i": [0, 3]}).model.edit()
    assert [node.SerializeToString() for node in after.graph.node] == [n.SerializeToString() for n in proto.graph.node]
    weights = {item.name: item for item in after.graph.initializer}
    for item in proto.graph.initializer:
        assert weights[item.name].metadata_props == item.metadata_props
    for part in (proto.graph.node, proto.graph.initializer):
        del part[:]
    del after.graph.node[:], after.graph.initializer[:], after.graph.value_info[:]
    assert after == proto


@pytest.mark.parametrize("name", ["channel_shuffle", "flatten_chain", "expand_tile"])
def test_the_batch_stays_symbolic(name: str) -> None:
    model = TOYS[name].build()
    grouping = find_groups(model)
    smaller = cut(model, grouping, draw(grouping, 2)).model
    assert dict(smaller.inputs) == dict(model.inputs)
    assert dict(smaller.outputs) == dict(model.outputs)
    opened = runtime.session(smaller.data)
    for batch in (1, 3, 4):
        assert runtime.run(opened, feed(smaller, batch, 0))["y"].shape[0] == batch


def test_shapes_inside_are_stated_anew() -> None:
    proto = onnx.shape_inference.infer_shapes(TOYS["residual"].proto())
    model = Model.of(proto)
    smaller = cut(model, find_groups(model), {"n_i": [0, 3]}).model
    assert model.types["ir"].shape == ("N", 7, 8, 8)
    assert smaller.types["ir"].shape == ("N", 5, 8, 8)


def test_shared_shape_constants_are_not_overwritten() -> None:
    proto = TOYS["image_from_vector"].proto()
    proto.graph.node.append(helper.make_node("Reshape", ["x2", "shape"], ["z"], name="n_z"))
    proto.graph.input.append(helper.make_tensor_value_info("x2", onnx.TensorProto.FLOAT, ["N", 80]))
    proto.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 5, 4, 4]))
    model = Model.of(proto)
    grouping = find_groups(model)
    removed = {"n_h": [0, 2]}
    assert check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, 0)) <= TOLERANCE


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"nobody": [0]}, "no channel group 'nobody'"),
        ({"n_i": [7]}, "channels 0 to 6"),
        ({"n_i": [-1]}, "channels 0 to 6"),
        ({"n_i": range(7)}, "leave at least one"),
        ({"n_y": [0]}, "graph output 'y'"),
    ],
)
def test_impossible_removals(removed: dict[str, list[int]], message: str) -> None:
    model = TOYS["residual"].build()
    grouping = find_groups(model)
    for act in (cut, silence):
        with pytest.raises(ValueError, match=message):
            act(model, grouping, removed)


def with_branch() -> onnx.ModelProto:
    branch = onnx.parser.parse_graph("b () => (float[1] o) { o = Constant<value = float[1] {1.0}>() }")
    proto = TOYS["mlp"].proto()
    proto.graph.node.append(
        helper.make_node("If", ["which"], ["chosen"], "n_if", then_branch=branch, else_branch=branch)
    )
    proto.graph.output.append(helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, [1]))
    proto.graph.input.append(helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, []))
    return proto


def with_int4() -> onnx.ModelProto:
    proto = TOYS["mlp"].proto()
    proto.graph.initializer.append(helper.make_tensor("packed", onnx.TensorProto.INT4, [4], [1, 2, 3, 4]))
    return proto


def with_sequence() -> onnx.ModelProto:
    proto = TOYS["mlp"].proto()
    proto.graph.input.append(helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, [3]))
    return proto


def with_sparse() -> onnx.ModelProto:
    proto = TOYS["mlp"].proto()
    values = numpy_helper.from_array(np.ones(1, np.float32), "thin")
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))
    return proto


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (with_int4, "int4 weights"),
        (with_sequence, "only tensors"),
        (with_sparse, "sparse"),
    ],
)
def test_graphs_that_cannot_be_edited(build: object, reason: str) -> None:
    assert callable(build)
    model = Model.of(build())
    refusal = surgery_refusal(model)
    assert refusal is not None
    assert reason in refusal.reason
    grouping = find_groups(TOYS["mlp"].build())
    with pytest.raises(ModelError, match=reason):
        cut(model, grouping, {"n_a": [0]})


def test_plain_graphs_can_be_edited() -> None:
    assert surgery_refusal(TOYS["residual"].build()) is None


def test_graphs_with_branches_can_be_edited() -> None:
    model = Model.of(with_branch())
    assert surgery_refusal(model) is None
    grouping = find_groups(model)
    removed = draw(grouping, 1)
    assert removed
    inputs = [{**feed(TOYS["mlp"].build(), 2, 0), "which": np.array(True)}]
    assert check_cut(model, grouping, removed, cut(model, grouping, removed), inputs) <= TOLERANCE


# --- real models ------------------------------------------------------------------------------------------

REAL = [
    "cifar10_resnet20_bn",
    "cifar10_resnet20_dynamo",
    "cifar10_resnet8_mlperf",
    "fashion_vgg7bn_bn",
    "imagenet_mobilenetv1_025_bn",
    "kws_dscnn",
    "mnist_lenet300100",
    "mnist_lenet5caffe",
    "mnist8_opset8",
    "ultraface_rfb320_opset9",
    "ultraface_slim320_opset9",
]


@pytest.mark.parametrize("name", REAL)
def test_real_models(shared: Path, name: str) -> None:
    model = normalize(Model.load(shared / "models" / f"{name}.onnx"), []).model
    grouping = find_groups(model)
    inputs = [feed(model, 2, 0)]
    for seed in range(2):
        removed = draw(grouping, seed)
        cutting = cut(model, grouping, removed)
        assert check_cut(model, grouping, removed, cutting, inputs) <= TOLERANCE
        assert cutting.model.parameters < model.parameters
