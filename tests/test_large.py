"""Large models: the ways that weights take above the limits, walked by small models with the limits lowered.

The real sizes (1 GB in memory, more than 2 GiB with external data) are in benchmarks/large.py.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from group_models import TOYS
from onnx import numpy_helper, parser, shape_inference
from toys import feed

from edgepress import runtime, storage
from edgepress.errors import ModelError, OutputError
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.ops.inference import infer_shapes
from edgepress.pipeline import explain
from edgepress.pipeline.prepare import read
from edgepress.request import Request
from edgepress.surgery.cut import cut
from edgepress.surgery.oracle import check_cut

WIDTH = 48
"""48 x 48 is above storage.SMALL elements."""

TEXT = """<ir_version: 10, opset_import: ["" : 21], metadata_props: ["author" : "a"]>
g (float[N,48] x) => (float[N,48] y) <int64[2] shape = {0, 48}> {
    a = MatMul(x, w1)  b = Relu(a)  c = Reshape(b, shape)  d = MatMul(c, w2)  e = Add(x, d)  y = Mul(e, scale) }"""


def proto() -> onnx.ModelProto:
    made = parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    for name, shape in (("w1", (WIDTH, WIDTH)), ("w2", (WIDTH, WIDTH)), ("scale", (WIDTH,))):
        values = (random.random(shape) - 0.5).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in made.graph.node:
        node.name = f"n_{node.output[0]}"
    return made


FEED = {"x": np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every model with big weights is large, and does not fit one file."""
    monkeypatch.setattr(storage, "LARGE", 0)
    monkeypatch.setattr(storage, "ONE_FILE", 0)
    yield


@pytest.fixture
def tiny_is_big(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the toys count as big."""
    monkeypatch.setattr(storage, "SMALL", 4)
    monkeypatch.setattr(storage, "LARGE", 0)


def answer(model: Model) -> np.ndarray:
    return runtime.run(model.session(), FEED)["y"]


# --- the graph without its weights ------------------------------------------------------------------------------------


def test_an_outline_declares_big_weights_and_keeps_small_ones() -> None:
    light = storage.outline(proto())
    assert {item.name for item in light.graph.initializer} == {"scale", "shape"}
    assert {value.name for value in light.graph.input} == {"x", "w1", "w2"}
    assert light.metadata_props[0].value == "a" and light.ByteSize() < 3000
    whole, inferred = (shape_inference.infer_shapes(one, strict_mode=True).graph.value_info for one in (proto(), light))
    assert list(whole) == list(inferred)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_shapes_of_an_outline_are_those_of_the_model(name: str, tiny_is_big: None) -> None:
    made = TOYS[name].proto()
    del made.graph.value_info[:]
    try:
        whole = infer_shapes(made)
    except shape_inference.InferenceError as error:
        with pytest.raises(shape_inference.InferenceError, match=re.escape(str(error).strip().splitlines()[-1])):
            infer_shapes(storage.outline(made))
        return
    assert list(infer_shapes(storage.outline(made)).graph.value_info) == list(whole.graph.value_info)


def test_an_input_that_is_listed_is_not_declared_twice() -> None:
    made = proto()
    made.graph.input.append(onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [WIDTH, WIDTH]))
    assert [value.name for value in storage.outline(made).graph.input] == ["x", "w1", "w2"]
    assert storage.refilled(storage.outline(made), made).graph.input == made.graph.input


def test_a_refilled_outline_is_the_model() -> None:
    made = proto()
    again = storage.refilled(storage.outline(made), made)
    assert sorted(item.name for item in again.graph.initializer) == ["scale", "shape", "w1", "w2"]
    assert again.graph.node == made.graph.node and again.graph.input == made.graph.input


@pytest.mark.parametrize("limit", [0, storage.LARGE], ids=["lightly", "whole"])
def test_a_tool_sees_weights_only_where_they_are_small(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(storage, "LARGE", limit)
    seen: list[set[str]] = []

    def rewrite(one: onnx.ModelProto) -> onnx.ModelProto:
        seen.append({item.name for item in one.graph.initializer})
        one.graph.node[1].op_type = "Tanh"
        return one

    made = storage.lightly(rewrite, proto())
    assert made.graph.node[1].op_type == "Tanh" and {item.name for item in made.graph.initializer} >= {"w1", "w2"}
    assert seen == [{"scale", "shape"} if limit == 0 else {"scale", "shape", "w1", "w2"}]


# --- a model in memory ------------------------------------------------------------------------------------------------


def test_constants_are_the_same_and_read_only(large: None) -> None:
    model = Model.of(proto())
    assert model.large and dict(model.types) and len(model.constants) == 4
    for item in proto().graph.initializer:
        values = model.constants[item.name]
        np.testing.assert_array_equal(values, numpy_helper.to_array(item))
        assert not values.flags.writeable
    assert model.constants["w1"] is not model.constants["w1"] and model.constants["scale"] is model.constants["scale"]
    with pytest.raises(KeyError):
        _ = model.constants["none"]


def test_a_session_with_injected_weights_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answer(Model.of(proto()))
    monkeypatch.setattr(storage, "LARGE", 0)
    np.testing.assert_array_equal(answer(Model.of(proto())), expected)


def test_weights_that_are_stored_as_numbers_are_injected_too(large: None) -> None:
    made = proto()
    for item in made.graph.initializer[1:3]:
        values = numpy_helper.to_array(item)
        item.ClearField("raw_data")
        item.float_data.extend(values.ravel().tolist())
    np.testing.assert_array_equal(answer(Model.of(made)), answer(Model.of(proto())))


def test_weights_that_nobody_reads_are_not_injected(large: None) -> None:
    made = proto()
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((64, 64), np.float32), "unread"))
    np.testing.assert_array_equal(answer(Model.of(made)), answer(Model.of(proto())))
    made.graph.input.append(onnx.helper.make_tensor_value_info("unread", onnx.TensorProto.FLOAT, [64, 64]))
    made.ir_version = 3  # files as old as that list their weights among the inputs
    made.graph.input.extend(
        onnx.helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
        for item in made.graph.initializer[:-1]
    )
    np.testing.assert_array_equal(answer(Model.of(made)), answer(Model.of(proto())))


def test_over_two_gigabytes_there_are_no_bytes(large: None) -> None:
    with pytest.raises(ModelError, match="over 2 GiB"):
        _ = Model.of(proto()).data


def test_identity_and_equality_without_bytes(large: None) -> None:
    model, other = Model.of(proto()), Model.of(proto())
    assert model.sha256 == other.sha256 and model.size == other.size > 2 * 4 * WIDTH * WIDTH
    assert model.same(other)
    changed = proto()
    values = numpy_helper.to_array(changed.graph.initializer[1]).copy()
    values[-1, -1] += 1
    changed.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, changed.graph.initializer[1].name))
    assert not model.same(Model.of(changed)) and model.sha256 != Model.of(changed).sha256
    renamed = proto()
    renamed.graph.node[0].name = "other"
    assert not model.same(Model.of(renamed))


def test_being_large_does_not_change_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Model.of(proto())
    assert not small.large
    monkeypatch.setattr(storage, "LARGE", 0)
    big = Model.of(proto())
    assert big.large
    assert (big.sha256, big.size, big.data) == (small.sha256, small.size, small.data)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_model_over_the_limit_is_two_files(large: None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    Model.of(proto()).save(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 3000
    stored = onnx.load(path, load_external_data=False)
    offsets = {
        entry.value for item in stored.graph.initializer for entry in item.external_data if entry.key == "offset"
    }
    assert {int(offset) % storage.ALIGNMENT for offset in offsets} == {0} and len(offsets) == 2
    onnx.checker.check_model(str(path), full_check=True)
    again = Model.load(path)
    assert again.external == {tmp_path / "m.onnx.data"} and again.same(Model.of(proto()))
    np.testing.assert_array_equal(runtime.run(runtime.session(path), FEED)["y"], answer(Model.of(proto())))


def test_what_is_saved_does_not_depend_on_how_it_was_kept(large: None, tmp_path: Path) -> None:
    Model.of(proto()).save(tmp_path / "a.onnx")
    (tmp_path / "b").mkdir()
    Model.load(tmp_path / "a.onnx").save(tmp_path / "b" / "a.onnx")
    for name in ("a.onnx", "a.onnx.data"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("full_at", ["m.onnx.data", "m.onnx"])
def test_a_full_disk_leaves_the_old_files(
    large: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    path = tmp_path / "m.onnx"
    Model.of(proto()).save(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    real = storage._fill

    def fill(place: Path, parts: Iterable[bytes]) -> None:
        real(place, parts)
        if place.name.startswith(f".{full_at}.") and place.name.count(".data") == full_at.count(".data"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_fill", fill)
    changed = proto()
    changed.graph.node[1].op_type = "Tanh"
    with pytest.raises(OutputError, match=r"No space left"):
        Model.of(changed).save(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_no_folder_to_write_to(large: None, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="another output path"):
        Model.of(proto()).save(tmp_path / "none" / "m.onnx")


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_external_data_is_normalized_cut_and_saved(large: None, tmp_path: Path) -> None:
    Model.of(proto()).save(tmp_path / "in.onnx")
    model = normalize(Model.load(tmp_path / "in.onnx"), []).model
    grouping = find_groups(model)
    (group,) = grouping.prunable
    removed = {group.name: list(range(0, WIDTH, 3))}
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, [FEED]) < 1e-5
    cutting.model.save(tmp_path / "out.onnx")
    expected = runtime.run(cutting.model.session(), FEED)["y"]
    np.testing.assert_array_equal(runtime.run(runtime.session(tmp_path / "out.onnx"), FEED)["y"], expected)
    assert Model.load(tmp_path / "out.onnx").constants["w1"].shape == (WIDTH, WIDTH - WIDTH // 3)


def test_explain_works_over_the_limit(large: None, tmp_path: Path) -> None:
    Model.of(proto()).save(tmp_path / "in.onnx")
    assert [group.size for group in explain(tmp_path / "in.onnx").groups if group.refusal is None] == [WIDTH]


def test_compress_says_so_before_any_work(large: None, tmp_path: Path) -> None:
    Model.of(proto()).save(tmp_path / "in.onnx")
    with pytest.raises(ModelError, match=r"over 2 GiB, which compress does not take"):
        read(Request(model=tmp_path / "in.onnx", output=tmp_path / "out.onnx", data=None))


@pytest.mark.parametrize("name", ["residual", "mlp", "upsampled", "lstm"])
def test_operator_sets_of_large_models_are_converted(name: str, tiny_is_big: None) -> None:
    original = Model.of(TOYS[name].proto(13))
    cleaned = normalize(original, [])
    assert next(step for step in cleaned.steps if step.name == "convert operator set").changed
    assert cleaned.model.opset == 21 and cleaned.model.inputs.keys() == original.inputs.keys()


@pytest.mark.parametrize(
    "name",
    ["residual", "depthwise_multiplier", "mlp", "normalized", "upsampled", "lstm", "shared_weights", "attention"],
)
def test_a_large_model_is_normalized_and_cut_as_a_small_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TOYS[name].proto()
    small = normalize(Model.of(made), [])
    plain = find_groups(small.model)
    monkeypatch.setattr(storage, "SMALL", 4)
    monkeypatch.setattr(storage, "LARGE", 0)
    monkeypatch.setattr(storage, "ONE_FILE", 0)
    big = normalize(Model.of(made), [])
    assert [(step.name, step.changed, step.skipped) for step in big.steps] == [
        (step.name, step.changed, step.skipped) for step in small.steps
    ]
    grouping = find_groups(big.model)
    assert [(group.name, group.size, group.refusal) for group in grouping.groups] == [
        (group.name, group.size, group.refusal) for group in plain.groups
    ]
    removed = {group.name: [0] for group in grouping.prunable}
    cutting = cut(big.model, grouping, removed)
    assert check_cut(big.model, grouping, removed, cutting, [feed(big.model, 2, 0)]) < 1e-4
    for tensor, values in cut(small.model, plain, removed).model.constants.items():
        np.testing.assert_array_equal(cutting.model.constants[tensor], values)
