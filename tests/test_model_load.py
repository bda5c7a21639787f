"""Model: bad files are refused in one sentence, files are left alone, values cannot be changed, saving is atomic."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from normalize_tools import assert_agree, normal
from onnx import TensorProto, helper, numpy_helper, parser

from edgepress import storage
from edgepress.errors import ModelError, OutputError
from edgepress.model import Model
from edgepress.runtime import run, session

BODY = """<ir_version: 8, opset_import: ["" : 17], metadata_props: ["author" : "a"]>
g (float[N,4] x) => (float[N,3] y) <int64[1] axes = {0}> {
    [fc] t = Gemm <transB = 1> (x, w, b) [pool] u = Concat <axis = 0> (t, t) s = Squeeze(axes) y = Relu(t) }"""


def proto() -> onnx.ModelProto:
    made = parser.parse_model(BODY)
    made.graph.initializer.append(numpy_helper.from_array(normal(3, 4), "w"))
    made.graph.initializer.append(numpy_helper.from_array(normal(3), "b"))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    onnx.save(proto(), file)
    return file


def refused(path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        Model.load(path)
    assert "\n" not in str(caught.value).strip()
    assert str(path) in str(caught.value)


# --- bad files ----------------------------------------------------------------------------------------


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "is not a file")
    refused(tmp_path, "is not a file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am no model\n",
        b"PK\x03\x04" + bytes(40),
        b"\x89PNG\r\n\x1a\n" + bytes(30),
        bytes(100),
        b"\x08\x08",
    ],
    ids=["empty", "text", "zip", "png", "zeros", "header only"],
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    refused(file, "ONNX")


@pytest.mark.parametrize("ending", [".json", ".onnxtxt", ".txt", ".textproto"])
def test_the_ending_does_not_change_how_a_file_is_read(path: Path, ending: str) -> None:
    renamed = path.rename(path.with_suffix(ending))
    assert Model.load(renamed).nodes[0].name == "fc"
    renamed.write_text("{}")
    refused(renamed, "ONNX")


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    bare = proto()
    del bare.metadata_props[:]
    without_metadata = len(bare.SerializeToString())  # metadata comes last; that it is gone nobody can know
    for length in set(range(len(whole))) - {without_metadata}:
        path.write_bytes(whole[:length])
        refused(path, "ONNX")


def test_a_real_model_cut_in_half(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "models" / "cifar10_resnet20_bn.onnx").read_bytes()
    file = tmp_path / "half.onnx"
    file.write_bytes(whole[: len(whole) // 2])
    refused(file, "truncated")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_bytes_load_or_are_refused(path: Path, edits: list[tuple[int, int]]) -> None:
    """Law: whatever the bytes, loading gives a readable model or a ModelError, nothing else."""
    content = bytearray(proto().SerializeToString())
    for position, value in edits:
        content[position % len(content)] = value
    path.write_bytes(bytes(content))
    try:
        model = Model.load(path)
    except ModelError:
        return
    assert len(model.nodes) > 0
    assert model.data == Model.of(model.edit()).data


@pytest.mark.parametrize("damage", ["short", "undefined type"])
def test_weights_that_cannot_be_decoded(path: Path, damage: str) -> None:
    made = proto()
    if damage == "short":
        made.graph.initializer[1].raw_data = made.graph.initializer[1].raw_data[:-4]
    else:
        made.graph.initializer[1].data_type = TensorProto.UNDEFINED
    path.write_bytes(made.SerializeToString())
    refused(path, "damaged")


# --- weights outside the file -------------------------------------------------------------------------


def external(folder: Path, **kwargs: Any) -> Path:
    file = folder / "model.onnx"
    onnx.save(proto(), file, save_as_external_data=True, location="weights.bin", size_threshold=0, **kwargs)
    return file


def relocated(file: Path, location: str) -> Path:
    made = onnx.load(file, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(made.SerializeToString())
    return file


def test_external_weights_are_read_and_the_files_are_left_alone(tmp_path: Path) -> None:
    file = external(tmp_path)
    assert b"external" not in file.read_bytes()
    files = sorted(tmp_path.iterdir())
    before = [(item.name, item.read_bytes(), item.stat().st_mtime_ns) for item in files]
    model = Model.load(file)
    assert_agree(Model.of(proto()), model, {"x": normal(2, 4)}, limit=0)
    np.testing.assert_array_equal(model.constants["w"], normal(3, 4))
    assert model.sha256 == Model.of(proto()).sha256
    model.save(tmp_path / "copy.onnx")
    assert [(item.name, item.read_bytes(), item.stat().st_mtime_ns) for item in files] == before
    assert_agree(Model.load(tmp_path / "copy.onnx"), model, {"x": normal(2, 4)}, limit=0)


def test_missing_external_weights(tmp_path: Path) -> None:
    file = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    refused(file, "'weights.bin', which is missing")


@pytest.mark.parametrize("size", [0, 10])
def test_truncated_external_weights(tmp_path: Path, size: int) -> None:
    file = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(size))
    refused(file, "read|damaged")


@pytest.mark.parametrize("kind", ["absolute", "parent", "hidden parent", "link", "folder", "empty"])
def test_external_weights_outside_the_folder(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = external(folder)
    outside = (folder / "weights.bin").rename(tmp_path / "weights.bin")
    location = {
        "absolute": str(outside),
        "parent": "../weights.bin",
        "hidden parent": "sub/../../weights.bin",
        "link": "link.bin",
        "folder": ".",
        "empty": "",
    }[kind]
    (folder / "link.bin").symlink_to(outside)
    refused(relocated(file, location), "outside its folder")


def test_external_weights_in_a_folder_below(tmp_path: Path) -> None:
    file = external(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "data" / "weights.bin")
    assert Model.load(relocated(file, "data/weights.bin")).sha256 == Model.of(proto()).sha256


# --- a value nobody can change ------------------------------------------------------------------------


def test_views_are_read_only(path: Path) -> None:
    model = Model.load(path)
    for mapping in (model.constants, model.types, model.inputs, model.outputs, model.nodes[0].attributes):
        with pytest.raises(TypeError):
            mapping["new"] = 1  # type: ignore[index]
    for array in model.constants.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        model.nodes[0].name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        model.types["x"].dtype = "int8"  # type: ignore[misc]


def test_attributes_are_values() -> None:
    made = helper.make_node("Op", ["x"], ["y"], numbers=[1, 2], words=["a", "b"], word="c", none=[0.5])
    made.attribute.append(helper.make_attribute("tensor", numpy_helper.from_array(np.zeros(2, np.float32))))
    graph = helper.make_graph([made], "g", [], [])
    model = Model.of(helper.make_model(graph))
    attributes = model.nodes[0].attributes
    assert {name: attributes[name] for name in ("numbers", "words", "word", "none")} == {
        "numbers": (1, 2),
        "words": ("a", "b"),
        "word": "c",
        "none": (0.5,),
    }
    before = model.edit()
    attributes["tensor"].dims[0] = 7
    assert model.edit() == before


def test_edits_do_not_reach_the_model(path: Path) -> None:
    model = Model.load(path)
    data = model.data
    edited = model.edit()
    edited.graph.node[0].name = "other"
    del edited.graph.initializer[:]
    changed = model.with_constants({"w": np.zeros((3, 4), np.float32)}).with_metadata({"author": "b"})
    assert (changed.metadata["author"], model.metadata["author"]) == ("b", "a")
    assert Model.of(model.edit()).data == data
    np.testing.assert_array_equal(model.constants["w"], normal(3, 4))


def test_the_hash_is_that_of_the_content(path: Path) -> None:
    model = Model.load(path)
    assert model.sha256 == hashlib.sha256(model.data).hexdigest() == Model.load(path).sha256
    other = path.with_name("other.onnx")
    model.save(other)
    assert Model.load(other).sha256 == model.sha256
    assert model.with_constants({"b": np.zeros(3, np.float32)}).sha256 != model.sha256


def test_exposing_states_types_only_where_they_are_known() -> None:
    exposed = Model.of(onnx.load_from_string(Model.of(proto()).exposing(["t", "s"])))
    found = run(session(exposed.data), {"x": normal(2, 4)})
    assert found["t"].shape == (2, 3)
    assert found["s"].dtype == np.int64


# --- saving -------------------------------------------------------------------------------------------


def test_loading_leaves_the_file_alone(path: Path) -> None:
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    os.chmod(path, 0o444)
    model = Model.load(path)
    _ = model.nodes, model.constants, model.types, model.data, model.sha256
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_failing_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(path)
    target = path.with_name("out.onnx")
    target.write_bytes(b"old")

    def full(path: Path, parts: Iterable[bytes]) -> None:
        path.write_bytes(b"".join(parts)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_fill", full)
    with pytest.raises(OutputError, match="No space left"):
        model.save(target)
    assert target.read_bytes() == b"old"
    assert sorted(item.name for item in path.parent.iterdir()) == ["model.onnx", "out.onnx"]


@pytest.mark.parametrize("where", ["none/out.onnx", "model.onnx/out.onnx", "folder"])
def test_places_that_cannot_be_written(path: Path, where: str) -> None:
    (path.parent / "folder").mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        Model.load(path).save(path.parent / where)
    assert sorted(item.name for item in path.parent.iterdir()) == ["folder", "model.onnx"]


def test_saving_replaces_the_whole_file(path: Path) -> None:
    target = path.with_name("out.onnx")
    target.write_bytes(bytes(10**6))
    Model.load(path).save(target)
    assert Model.load(target).sha256 == Model.load(path).sha256
    assert sorted(item.name for item in path.parent.iterdir()) == ["model.onnx", "out.onnx"]
