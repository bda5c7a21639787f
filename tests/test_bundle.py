"""Bundles: what is in them is what onnxruntime says, the texts run, and a place that holds something else is left."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle_models as models
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgepress.bundle import Manifest, bundle, check, literals, ortformat
from edgepress.bundle.exact import Graph
from edgepress.bundle.make import JOB
from edgepress.bundle.needs import oldest_release
from edgepress.devices import agent
from edgepress.errors import EdgepressError, InputError, ModelError, OutputError
from edgepress.model import Model
from edgepress.report import bundle as page
from edgepress.report.bundle import Bundled
from edgepress.targets import TARGETS

STUB = Path(__file__).parent / "onnxruntime_stub"


@pytest.fixture(scope="module")
def digits(digits_model: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the embedded network."""
    folder = tmp_path_factory.mktemp("bundle") / "digits"
    bundle(digits_model, folder, str(digits_npz), samples=5)
    return folder


def made(model: onnx.ModelProto, folder: Path, **settings: Any) -> Manifest:
    """A bundle of a model in ``folder / "b"``."""
    bundle(models.saved(model, folder / "model.onnx"), folder / "b", **settings)
    return Manifest.load(folder / "b")


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def asked(path: Path, feeds: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """What onnxruntime answers."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [session.run(None, feed) for feed in feeds]


# --- contents -------------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_there_is(digits: Path, digits_model: Path) -> None:
    manifest = Manifest.load(digits)
    manifest.check_files(digits)
    assert {path.name for path in digits.iterdir()} == {*manifest.files, check.MANIFEST, check.SUMS}
    assert (digits / "model.onnx").read_bytes() == digits_model.read_bytes()
    assert manifest.source_sha256 == manifest.files["model.onnx"].sha256
    assert [(port.name, port.dtype, port.shape) for port in manifest.inputs] == [
        ("image", "float32", ("batch", 1, 8, 8))
    ]
    assert [(port.name, port.dtype, port.shape) for port in manifest.outputs] == [("logits", "float32", ("batch", 10))]
    proto = onnx.load(digits_model)
    assert manifest.opsets[""] == proto.opset_import[0].version and manifest.ir_version == proto.ir_version
    assert manifest.samples == 5 and not manifest.made_up and "digits.npz" in manifest.data
    assert manifest.target is None and manifest.recipe is None and manifest.ort is None


def test_the_sums_are_those_of_sha256sum(digits: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run(["sha256sum", "--check", "--strict", check.SUMS], cwd=digits, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(list(digits.iterdir())) - 1


def test_expected_outputs_are_those_of_onnxruntime(digits: Path, digits_model: Path, digits_npz: Path) -> None:
    with np.load(digits_npz) as archive:
        rows = archive["image"][:: len(archive["image"]) // 5][:5]
    inputs, expected = arrays(digits / "vectors.npz"), arrays(digits / "expected.npz")
    answers = asked(digits_model, [{"image": row[None]} for row in rows])
    assert inputs.keys() == {f"{number}/image" for number in range(5)}
    assert expected.keys() == {f"{number}/0" for number in range(5)}
    for number in range(5):
        assert np.array_equal(inputs[f"{number}/image"], rows[number][None])
        assert np.array_equal(expected[f"{number}/0"], answers[number][0])


def test_the_agent_and_the_check_are_there_as_they_are(digits: Path) -> None:
    assert (digits / "edgepress_agent.py").read_bytes() == Path(agent.__file__).read_bytes()
    assert (digits / "check.py").read_bytes() == Path(check.__file__).read_bytes()
    assert json.loads((digits / "job.json").read_text()) == JOB


def test_the_same_model_and_samples_give_the_same_bytes(
    digits: Path, digits_model: Path, digits_npz: Path, tmp_path: Path
) -> None:
    bundle(digits_model, tmp_path / "again", str(digits_npz), samples=5)
    assert {path.name: path.read_bytes() for path in digits.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


def test_inputs_are_made_up_without_samples_and_that_is_said(tmp_path: Path) -> None:
    manifest = made(models.linear(), tmp_path)
    assert manifest.made_up and "Made up" in manifest.data and "Made up" in (tmp_path / "b/README.md").read_text()
    found = arrays(tmp_path / "b/vectors.npz")
    assert [found[f"{number}/x"].shape for number in range(manifest.samples)] == [(1, 3), (2, 3)]  # the batch is free


def test_a_fixed_batch_makes_one_vector_of_several_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(30, dtype=np.float32).reshape(10, 3))
    manifest = made(models.linear("2"), tmp_path, data=str(tmp_path / "x.npz"), samples=2)
    found = arrays(tmp_path / "b/vectors.npz")
    assert manifest.samples == 2
    assert found["1/x"].tolist() == [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]


def test_weights_kept_apart_come_along(tmp_path: Path) -> None:
    path = models.external(tmp_path)
    bundle(path, tmp_path / "b")
    (tmp_path / "odd name.bin").unlink()
    inputs = arrays(tmp_path / "b/vectors.npz")
    expected = arrays(tmp_path / "b/expected.npz")
    (answer,) = asked(tmp_path / "b/model.onnx", [{"x": inputs["0/x"]}])
    assert np.array_equal(answer[0], expected["0/0"])
    assert not any("odd" in item.name for item in (tmp_path / "b").iterdir())


def test_the_recipe_is_there_word_for_word(digits_model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        picture = np.full((8, 8), 40 * number, np.uint8)
        image.fromarray(picture).save(tmp_path / f"pictures/{number}.png")
    recipe = {"format": "edgepress-recipe/1", "name": "grey", "size": [8, 8], "resize": None, "crop": "center",
              "layout": "NCHW", "color": "L", "scale": 0.00390625, "mean": [0.5], "std": [2.0],
              "labels": "none"}  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    bundle(digits_model, tmp_path / "b", str(tmp_path / "pictures"), recipe=str(tmp_path / "recipe.json"))
    manifest = Manifest.load(tmp_path / "b")
    assert manifest.recipe == recipe
    assert '"scale": 0.00390625' in (tmp_path / "b/README.md").read_text()
    assert arrays(tmp_path / "b/vectors.npz")["1/image"].ravel()[0] == (40 / 256 - 0.5) / 2


def plan(target: str, sha256: str) -> str:
    return json.dumps({"format": "edgepress-plan/1", "model_sha256": sha256, "data_sha256": "", "cuts": [],
                       "quantization": None, "seed": 0, "settings": {"target": target},
                       "provenance": {}})  # fmt: skip


@pytest.mark.parametrize(("sha256", "wanted"), [("abc", "arm64-dotprod"), ("another", None)])
def test_the_target_is_that_of_the_plan_of_this_model(tmp_path: Path, sha256: str, wanted: str | None) -> None:
    model = models.linear()
    onnx.helper.set_model_props(model, {"edgepress.source_sha256": "abc"})
    (tmp_path / "model.plan.json").write_text(plan("arm64-dotprod", sha256))
    assert made(model, tmp_path).target == wanted
    assert made(model, tmp_path, target="x64-vnni").target == "x64-vnni"


# --- the oldest onnxruntime -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "ir", "wanted"), [(13, 8, "1.14"), (19, 9, "1.16"), (21, 10, "1.18"), (22, 10, "1.21")]
)
def test_the_oldest_release_by_operator_set_and_version(opset: int, ir: int, wanted: str) -> None:
    body = "g (float[2] x) => (float[2] y) { y = Relu(x) }"
    assert str(oldest_release(Model.of(models.parsed(body, opset=opset, ir=ir)))) == wanted


@pytest.mark.parametrize(
    ("kind", "node", "opset", "wanted"),
    [
        (onnx.TensorProto.INT4, "y = DequantizeLinear(w, s)", 21, "1.19"),
        (onnx.TensorProto.INT4, "c = Cast <to = 3> (w) y = DequantizeLinear(c, s)", 21, "1.23"),
        (onnx.TensorProto.INT8, "y = DequantizeLinear(w, s)", 21, "1.18"),
    ],
)
def test_the_oldest_release_by_types(kind: int, node: str, opset: int, wanted: str) -> None:
    model = models.parsed(
        f"g (float[4] x) => (float[4] z) <float s = {{0.5}}> {{ {node} z = Add(x, y) }}", opset=opset, ir=10
    )
    model.graph.initializer.append(onnx.helper.make_tensor("w", kind, [4], [1, 2, -3, 4]))
    assert str(oldest_release(Model.of(model))) == wanted


def test_nothing_is_known_of_foreign_operators() -> None:
    model = models.parsed("g (float[2] x) => (float[2] y) { y = foreign.Thing(x) }", more=', "foreign": 1')
    assert oldest_release(Model.of(model)) is None


def test_what_is_not_sure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.saved(models.integers(), tmp_path / "model.onnx")
    monkeypatch.setattr("edgepress.targets.detect", lambda: TARGETS["x64-vnni"])
    assert bundle(path, tmp_path / "b").warnings == ()
    monkeypatch.setattr("edgepress.targets.detect", lambda: TARGETS["x64-avx2"])
    monkeypatch.setattr("edgepress.bundle.make.oldest_release", lambda model: None)
    unknown, saturates = bundle(path, tmp_path / "b").warnings
    assert "the one that is installed here" in unknown and "saturate" in saturates
    assert Manifest.load(tmp_path / "b").onnxruntime == ".".join(ort.__version__.split(".")[:2])
    assert all(f"**{note}**" in (tmp_path / "b/README.md").read_text() for note in (unknown, saturates))
    assert len(bundle(models.saved(models.linear(), path), tmp_path / "b").warnings) == 1  # floats do not saturate


# --- promises -------------------------------------------------------------------------------------------------------


def rules(manifest: Manifest) -> dict[str, tuple[str, float, float]]:
    return {item.output: (item.rule, item.relative, item.absolute) for item in manifest.promises}


def test_what_is_promised_depends_on_what_is_behind_an_output(tmp_path: Path) -> None:
    assert rules(made(models.two(), tmp_path)) == {
        "out " + models.ODD: ("close", 1e-4, 0.0),
        "fourth": ("equal", 0.0, 0.0),  # float arithmetic decides
        "fifth": ("exact", 0.0, 0.0),  # moved, not computed
    }


def test_integer_networks_are_exact_unless_cpus_add_otherwise(tmp_path: Path) -> None:
    assert rules(made(models.integers(), tmp_path))["y"] == ("exact", 0.0, 0.0)
    assert rules(made(models.integers(add=True), tmp_path))["y"] == ("close", 0.05, 0.0)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("g (float[N] x) => (uint8[N] y) <float s = {0.01}, uint8 z = {0}> { a = Exp(x) y = QuantizeLinear(a, s, z) }",
         ("close", 0.05, 1.0)),
        ("g (float[N,4] x) => (uint8[N,4] y) <float s = {0.01}, uint8 z = {0}> { y = QuantizeLinear(x, s, z) }",
         ("exact", 0.0, 0.0)),
        ("g (float[N,4] x) => (uint8[N,4] y) { a = Exp(x) b = Clip(a) c = Cast <to = 2> (b) y = Identity(c) }",
         ("close", 1e-4, 1.0)),
        ("g (float[N,4] x) => (uint8[N] y) { a = ArgMax <axis = 1, keepdims = 0> (x) y = Cast <to = 2> (a) }",
         ("equal", 0.0, 0.0)),
        ("g (float16[N,4] x) => (float16[N,4] y) { y = Exp(x) }", ("close", 1e-2, 0.0)),
        ("g (float[N,4] x) => (bool[N,4] y) { a = Exp(x) y = Greater(a, x) }", ("equal", 0.0, 0.0)),
    ],
)  # fmt: skip
def test_types_of_outputs(body: str, wanted: tuple[str, float, float], tmp_path: Path) -> None:
    assert rules(made(models.parsed(body), tmp_path))["y"] == wanted


IF = """g (float[N,4] x, bool c) => (float[N,4] y) <float s = {0.01}, uint8 z = {0}> { a = Exp(x)
    y = If (c) <then_branch = t () => (float[N,4] p) { p = Neg(x) }, else_branch = e () => (float[N,4] q) { BODY }> }"""


@pytest.mark.parametrize(
    ("body", "wanted"),
    [("q = Abs(x)", 1e-4), ("r = QuantizeLinear(x, s, z) q = DequantizeLinear(r, s, z)", 0.05)],
)
def test_bodies_are_looked_into(body: str, wanted: float, tmp_path: Path) -> None:
    assert rules(made(models.parsed(IF.replace("BODY", body)), tmp_path))["y"] == ("close", wanted, 0.0)


def test_what_bodies_read_is_behind_them() -> None:
    graph = models.parsed(IF.replace("BODY", "q = Identity(a)"))
    assert {node.op_type for node in Graph(graph, {"a": "tensor(float)", "y": "tensor(float)"}).behind("y")} == {
        "Exp",
        "If",
    }


def test_a_graph_that_cannot_be_looked_into_is_close_at_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.bundle.promises.exposed", lambda graph: onnx.ModelProto())  # no session takes it
    manifest = made(models.two(), tmp_path)
    assert list(rules(manifest).values()) == [("close", 0.05, 0.0), ("equal", 0.0, 0.0), ("equal", 0.0, 0.0)]
    assert "could not be looked into" in manifest.promises[0].why


# --- texts ----------------------------------------------------------------------------------------------------------


def test_the_python_example_runs(tmp_path: Path) -> None:
    made(models.two(), tmp_path)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path / "b", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (answer,) = asked(
        tmp_path / "model.onnx",
        [{key[2:]: value for key, value in arrays(tmp_path / "b/vectors.npz").items() if key.startswith("0/")}],
    )
    assert str(answer[0]) in done.stdout and "fifth int64 (1,)" in done.stdout


@pytest.mark.parametrize("model", [models.two(), models.every_type()], ids=["names", "types"])
def test_the_cpp_example_is_good_cpp(model: onnx.ModelProto, tmp_path: Path) -> None:
    """A stand-in has what is used of onnxruntime's header."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    made(model, tmp_path)
    words = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(STUB)]
    done = subprocess.run([*words, str(tmp_path / "b/example.cpp")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_are_read_back_as_they_were() -> None:
    names = ["plain", models.ODD, "line\nbreak\t\x7f", "??/ \\101", "\\u0041 ${x} \\(y)", "'''\"\"\"", "7\x009"]
    for name in names:
        assert ast.literal_eval(literals.python(name)) == name
        octal = literals.cpp(name)[1:-1].encode()
        assert re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), octal).decode() == name
        units = literals.kotlin(name)[1:-1]
        assert json.loads(f'"{units}"') == name and "$" not in units and '"' not in units
        points = literals.swift(name)[1:-1]
        assert re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: chr(int(found[1], 16)), points) == name
        assert '"' not in points and "\\(" not in points


def test_the_page_names_what_there_is(digits: Path) -> None:
    text = (digits / "README.md").read_text(encoding="utf-8")
    assert re.search(r"@[A-Z_]+@", text) is None
    for path in digits.iterdir():
        assert f"| `{path.name}` |" in text
    for words in ("`[batch, 1, 8, 8]`", "onnxruntime-android", "onnxruntime-objc", "adb push", "check.py", ">=1.14"):
        assert words in text


def test_odd_names_do_not_break_tables(tmp_path: Path) -> None:
    made(models.two(), tmp_path)
    rows = [
        line for line in (tmp_path / "b/README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    outputs = [row for row in rows if "out a" in row]
    assert len(outputs) == 1 and outputs[0].replace(r"\|", "").count("|") == 5


# --- the .ort file --------------------------------------------------------------------------------------------------


def test_an_ort_file_is_made_and_answers_alike(digits_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime.tools.convert_onnx_models_to_ort", reason="no converter here")
    found = bundle(digits_model, tmp_path / "b", target="arm64", ort=True)
    manifest = Manifest.load(tmp_path / "b")
    assert manifest.ort == "model.ort" and manifest.files.keys() >= {"model.ort", "required_operators.config"}
    config = (tmp_path / "b/required_operators.config").read_text()
    assert "Gemm" in config and "# - " not in config  # no names of temporary files
    assert any("minimal builds" in warning for warning in found.warnings)
    assert all(warning in (tmp_path / "b/README.md").read_text() for warning in found.warnings)
    inputs, expected = arrays(tmp_path / "b/vectors.npz"), arrays(tmp_path / "b/expected.npz")
    (answer,) = asked(tmp_path / "b/model.ort", [{"image": inputs["0/image"]}])
    assert np.allclose(answer[0], expected["0/0"], atol=1e-4)


@pytest.mark.parametrize(("target", "words"), [(None, "by --target"), ("qnn", "no .ort format for qnn")])
def test_an_ort_file_is_for_a_kind_of_processor(target: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        made(models.linear(), tmp_path, target=target, ort=True)
    assert not (tmp_path / "b").exists()


def test_a_converter_that_fails_is_an_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ortformat, "_CONVERTER", "there_is_none")
    with pytest.raises(ModelError, match=r"cannot convert the model to \.ort: .*there_is_none"):
        made(models.linear(), tmp_path, target="arm64", ort=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_warnings_are_those_that_apply() -> None:
    conv = Model.of(models.parsed("g (float[1,1,3,3] x, float[1,1,2,2] w) => (float[1,1,2,2] y) { y = Conv(x, w) }"))
    integers = Model.of(models.integers())

    def told(model: Model, target: str, ort_bytes: int) -> str:
        return " ".join(ortformat.warnings(model, TARGETS[target], 100, ort_bytes))

    assert "blocked layout" in told(conv, "x64-vnni", 110) and "blocked layout" not in told(conv, "arm64", 110)
    assert "many times slower" in told(integers, "arm64", 110) and "many times" not in told(integers, "x64-vnni", 110)
    assert "expanded" in told(conv, "arm64", 151) and "expanded" not in told(conv, "arm64", 150)


# --- refusals -------------------------------------------------------------------------------------------------------


def fails(model: onnx.ModelProto, folder: Path, kind: type[EdgepressError], words: str, **settings: Any) -> None:
    """Bundling fails, and leaves nothing behind."""
    path = models.saved(model, folder / "model.onnx")
    before = sorted(folder.rglob("*"))
    with pytest.raises(kind, match=words):
        bundle(path, settings.pop("output", folder / "b"), **settings)
    assert sorted(folder.rglob("*")) == before


def test_models_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    random = models.parsed("g (float[2] x) => (float[2] y) { n = RandomNormalLike(x) y = Add(x, n) }")
    fails(random, tmp_path, ModelError, "twice the same")
    alone = models.parsed("g () => (float[1] y) { y = Constant <value_floats = [1.0]> () }")
    fails(alone, tmp_path, ModelError, "no inputs")
    words = models.parsed("g (float[2] x) => (string[2] y) { y = Cast <to = 8> (x) }")
    fails(words, tmp_path, ModelError, "'y' is no tensor of numbers")
    sequence = models.parsed("g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }")
    fails(sequence, tmp_path, ModelError, "'y' is no tensor of numbers")


def test_settings_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    fails(models.linear(), tmp_path, InputError, "--samples 1", samples=0)
    fails(models.linear(), tmp_path, InputError, "--recipe is of no use without samples", recipe="r.json")
    fails(models.linear(), tmp_path, InputError, "no target 'arm46'", target="arm46")
    fails(models.linear(), tmp_path, EdgepressError, "no file or folder", data="nowhere.npz")


def test_places_that_hold_something_else_are_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    (tmp_path / "file").write_text("")
    for output, words in [("mine", "'diary.txt'"), ("file", "is a file"), ("none/b", "does not exist")]:
        fails(models.linear(), tmp_path, OutputError, words, output=tmp_path / output)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    made(models.linear(), tmp_path).check_files(tmp_path / "b")


def test_the_older_bundle_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(models.linear(), tmp_path)
    rename = Path.rename

    def stubborn(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    fails(models.two(), tmp_path, OutputError, "No space left")
    assert [port.name for port in Manifest.load(tmp_path / "b").inputs] == ["x"]


def test_an_older_bundle_is_replaced_but_nothing_besides(tmp_path: Path) -> None:
    made(models.linear(), tmp_path)
    (tmp_path / "b/outputs.npz").write_bytes(b"what running the check leaves")
    assert [port.name for port in made(models.two(), tmp_path).inputs] == [models.ODD, "second"]
    assert not (tmp_path / "b/outputs.npz").exists()
    (tmp_path / "b/env").mkdir()
    fails(models.linear(), tmp_path, OutputError, "'env'")
    (tmp_path / "b/env").rmdir()
    with pytest.raises(OutputError, match="would be replaced"):
        bundle(tmp_path / "b/model.onnx", tmp_path / "b")
    assert [port.name for port in Manifest.load(tmp_path / "b").inputs] == [models.ODD, "second"]


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_result_reads_back_and_is_printed(tmp_path: Path) -> None:
    from rich.console import Console

    found = bundle(models.saved(models.two(), tmp_path / "two.onnx"), tmp_path / "b")
    assert Bundled.from_json(found.to_json()) == found
    pairs = dict(page.bundled_pairs(found))
    assert pairs["fourth.rule"] == "equal" and pairs["made_up"] == "yes" and pairs["samples"] == "2"
    assert pairs["model.onnx.bytes"] == str((tmp_path / "two.onnx").stat().st_size)
    console = Console(width=80, record=True, file=io.StringIO())
    page.render_bundled(found, console)
    text = console.export_text()
    assert "2 test vectors of made-up inputs" in text and "0.010 % of the span" in text and str(tmp_path / "b") in text
