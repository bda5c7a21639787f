"""What cannot be used: one sentence on stderr, exit code 2, nothing written; and interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from pipeline_models import CONVNET, CUSTOM_OPERATOR, TWO_INPUTS

from edgepress import cli
from edgepress.report import Report

ROOT = Path(__file__).parents[1]
SAMPLES = 40


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a good model and good samples."""
    monkeypatch.chdir(tmp_path)
    CONVNET.save(Path("net.onnx"))
    CONVNET.save_samples(Path("x.npz"), SAMPLES, label=np.arange(SAMPLES) % 5)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["compress", *arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def is_one_sentence(done: Result, message: str) -> bool:
    lines = done.stderr.splitlines()
    told = [line for line in lines if not line.startswith(("read\t", "clean\t"))]  # stages that were done
    return (
        done.exit_code == 2
        and len(told) == 1
        and told[0].startswith("edgepress: error: ")
        and message in told[0]
        and "Traceback" not in done.output
        and done.stdout == ""
    )


# --- models --------------------------------------------------------------------------------------------------


def not_onnx(path: Path) -> None:
    path.write_text("hello, I am a text\n" * 50)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def missing(path: Path) -> None:
    path.unlink()


def external(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def external_missing(path: Path) -> None:
    external(path)
    path.with_name("weights.bin").unlink()


def external_outside(path: Path) -> None:
    external(path)
    model = onnx.load(path, load_external_data=False)
    for item in model.graph.initializer:
        next(entry for entry in item.external_data if entry.key == "location").value = "../weights.bin"
    onnx.save(model, path)


def external_truncated(path: Path) -> None:
    external(path)
    path.with_name("weights.bin").write_bytes(b"1234")


def weight_is(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        model = onnx.load(path)
        item = next(item for item in model.graph.initializer if item.name == "w2")
        array = numpy_helper.to_array(item).copy()
        array[0, 0, 0, 0] = value
        item.CopyFrom(numpy_helper.from_array(array, "w2"))
        onnx.save(model, path)

    return spoil


def quantized(path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N,3,8,8] x) => (float[N,3,8,8] y) <float s = {0.5}, int8 z = {0}> {
    q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"""
    onnx.save(onnx.parser.parse_model(text), path)


def custom(path: Path) -> None:
    CUSTOM_OPERATOR.save(path)


def no_inputs(path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g () => (float[2] y) <float[2] c = {1, 2}> { y = Relu(c) }"""
    onnx.save(onnx.parser.parse_model(text), path)


def wrong_types(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Gemm"
    onnx.save(model, path)


def cyclic(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].input[0] = model.graph.node[2].output[0]
    onnx.save(model, path)


BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "text": (not_onnx, "not an ONNX file"),
    "truncated": (truncated, "truncated"),
    "empty": (empty, "no ONNX graph"),
    "folder": (folder, "is a folder"),
    "missing": (missing, "is not a file"),
    "external data missing": (external_missing, "which is missing"),
    "external data outside": (external_outside, "outside its folder"),
    "external data truncated": (external_truncated, "cannot be read"),
    "NaN weight": (weight_is(float("nan")), "holds NaN"),
    "infinite weight": (weight_is(float("inf")), "holds infinity"),
    "quantized": (quantized, "quantized already"),
    "custom operator": (custom, "onnxruntime"),
    "no inputs": (no_inputs, "no inputs"),
    "wrong operator": (wrong_types, "onnxruntime"),
    "cycle": (cyclic, "not acyclic"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_models_that_cannot_be_used(case: str, here: Path) -> None:
    spoil, message = BAD_MODELS[case]
    spoil(here / "net.onnx")
    before = files(here)
    for more in (["--data", "x.npz"], []):
        done = run("net.onnx", *more, "-o", "out.onnx")
        assert is_one_sentence(done, message), done.output
    assert files(here) == before


# --- samples -------------------------------------------------------------------------------------------------


def save(**arrays: np.ndarray) -> None:
    np.savez("x.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes no mapping


def good() -> np.ndarray:
    return CONVNET.arrays(SAMPLES)["x"]


def with_value(value: float) -> np.ndarray:
    array = good()
    array[7, 1, 2, 3] = value
    return array


def labels(change: int = 0, count: int = SAMPLES) -> np.ndarray:
    return np.arange(count) % 5 + change


BAD_SAMPLES: dict[str, tuple[Callable[[], object], str]] = {
    "wrong name": (lambda: save(image=good()), "image"),
    "one more": (lambda: save(x=good(), z=good()), "z"),
    "wrong shape": (lambda: save(x=good()[:, :, :4]), "shape"),
    "wrong rank": (lambda: save(x=good()[:, 0]), "shape"),
    "wrong type": (lambda: save(x=good().astype(np.uint8)), "uint8"),
    "text inside": (lambda: save(x=np.array(["a"] * SAMPLES)), "x"),
    "NaN": (lambda: save(x=with_value(float("nan"))), "NaN"),
    "infinity": (lambda: save(x=with_value(float("inf"))), "inf"),
    "empty": (lambda: save(x=good()[:0]), "x.npz"),
    "too few": (lambda: save(x=good()[:7]), "7 samples: compression needs at least 8"),
    "nothing": (lambda: save(), "x.npz"),
    "too few labels": (lambda: save(x=good(), label=labels(count=39)), "label"),
    "labels too large": (lambda: save(x=good(), label=labels(1)), "outside 0..4"),
    "negative labels": (lambda: save(x=good(), label=labels(-1)), "label"),
    "labels of one hot": (lambda: save(x=good(), label=np.eye(5)[labels()]), "label"),
    "broken zip": (lambda: Path("x.npz").write_bytes(Path("x.npz").read_bytes()[:500]), "x.npz"),
    "text": (lambda: Path("x.npz").write_text("1 2 3"), "x.npz"),
    "missing": (lambda: Path("x.npz").unlink(), "no file or folder"),
    "all the same": (lambda: save(x=np.repeat(good()[:1], SAMPLES, 0)), "all alike"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_samples_that_cannot_be_used(case: str, here: Path) -> None:
    spoil, message = BAD_SAMPLES[case]
    spoil()
    before = files(here)
    done = run("net.onnx", "--data", "x.npz", "-o", "out.onnx")
    assert is_one_sentence(done, message), done.output
    assert files(here) == before


def test_samples_of_another_kind(here: Path) -> None:
    (here / "x.txt").write_text("1 2 3")
    assert is_one_sentence(run("net.onnx", "--data", "x.txt"), "kind that cannot be read")
    (here / "empty").mkdir()
    assert is_one_sentence(run("net.onnx", "--data", "empty"), "holds no samples")
    assert is_one_sentence(run("net.onnx", "--data", "no.such:function"), "cannot be imported")
    assert is_one_sentence(run("net.onnx", "--data", ""), "--data is empty")


def test_one_input_is_missing(here: Path) -> None:
    TWO_INPUTS.save(here / "net.onnx")
    assert is_one_sentence(run("net.onnx", "--data", "x.npz"), "extra")


def test_pictures_need_a_recipe(here: Path) -> None:
    (here / "pictures").mkdir()
    (here / "pictures" / "a.png").write_bytes(b"no picture")
    assert is_one_sentence(run("net.onnx", "--data", "pictures"), "--recipe")
    assert is_one_sentence(run("net.onnx", "--data", "pictures", "--recipe", "no.json"), "cannot be read as a recipe")
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "--recipe", "no.json"), "leave --recipe out")
    (here / "deep.json").write_text("[" * 100_000)
    assert is_one_sentence(run("net.onnx", "--data", "pictures", "--recipe", "deep.json"), "deep.json")


def test_eval_data_is_checked_alike(here: Path) -> None:
    np.savez("e.npz", x=good()[:, :, :4])
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "--eval-data", "e.npz"), "shape")
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "--eval-data", "gone.npz"), "no file or folder")
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "--eval-data", "x.npz"), "also in --data")


# --- places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("net.onnx", "same file as the input"),
        ("x.npz", "same file as the input"),
        ("../{name}/net.onnx", "same file as the input"),
        ("gone/out.onnx", "does not exist"),
        ("net.onnx/out.onnx", "does not exist"),
        (".", "is a folder"),
        ("", "is a folder"),
    ],
)
def test_outputs_that_cannot_be_written(output: str, message: str, here: Path) -> None:
    before = files(here)
    done = run("net.onnx", "--data", "x.npz", "-o", output.format(name=here.name))
    assert is_one_sentence(done, message), done.output
    assert files(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(here: Path) -> None:
    (here / "locked").mkdir(mode=0o555)
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "-o", "locked/out.onnx"), "cannot be written to")


def test_the_plan_and_the_report_overwrite_no_input_either(here: Path) -> None:
    """Beside `-o net` they would be called net.plan.json and net.report.json."""
    shutil.move("net.onnx", "net.plan.json")
    assert is_one_sentence(run("net.plan.json", "-o", "net"), "same file as the input net.plan.json")
    shutil.move("net.plan.json", "net.onnx")
    (here / "pictures").mkdir()
    (here / "pictures" / "a.png").write_bytes(b"no picture")
    (here / "net.report.json").write_text("{}")
    done = run("net.onnx", "--data", "pictures", "--recipe", "net.report.json", "-o", "net.onnx.edge")
    assert "same file" not in done.stderr  # that is net.onnx.report.json
    done = run("net.onnx", "--data", "pictures", "--recipe", "net.report.json", "-o", "net.edge")
    assert is_one_sentence(done, "same file as the input net.report.json")


def test_weights_beside_the_model_are_not_overwritten(here: Path) -> None:
    external(here / "net.onnx")
    before = files(here)
    assert is_one_sentence(run("net.onnx", "-o", "weights.bin"), "same file as the input")
    assert files(here) == before


def test_a_plan_place_that_is_a_folder(here: Path) -> None:
    (here / "out.plan.json").mkdir()
    assert is_one_sentence(run("net.onnx", "--data", "x.npz", "-o", "out.onnx"), "is a folder")
    assert not (here / "out.onnx").exists()


# --- odd but fine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out", "a b/ü (1).onnx", "./out.v2.onnx", ".hidden"])
def test_odd_places_are_fine(output: str, here: Path) -> None:
    (here / "a b").mkdir()
    model = shutil.copy("net.onnx", here / "a b" / "mödel 1.onnx")
    done = run(str(model), "-o", output)
    assert done.exit_code == 0, done.output
    place = Path(output)
    onnx.checker.check_model(onnx.load(place, format="protobuf"))
    report = Report.from_json(place.with_suffix(".report.json").read_text())
    assert (report.output, report.plan) == (str(place), str(place.with_suffix(".plan.json")))
    written = [line.split("\t")[1] for line in done.stdout.splitlines() if line.startswith("written\t")]
    assert len(written) == 3 and all(Path(path).is_file() for path in written)


def test_external_data_ends_up_inside(here: Path) -> None:
    external(here / "net.onnx")
    before = files(here)
    assert run("net.onnx").exit_code == 0
    onnx.checker.check_model(onnx.load("net.edge.onnx"))
    assert {path: data for path, data in files(here).items() if path in before} == before
    assert (here / "net.edge.onnx").stat().st_size > (here / "weights.bin").stat().st_size


# --- interruptions -------------------------------------------------------------------------------------------


@pytest.fixture
def working(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A compression that is being timed (which takes seconds, by default)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepress", "compress", "net.onnx", "--data", "x.npz", "-o", "out.onnx"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path_factory.mktemp("tmp"))},
    )
    assert process.stderr is not None
    for line in process.stderr:  # verify comes next
        if line.startswith("quantize\t"):
            break
    time.sleep(0.5)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_interrupted(number: signal.Signals, code: int, working: subprocess.Popen[str], here: Path) -> None:
    working.send_signal(number)
    out, err = working.communicate(timeout=20)
    assert working.returncode == code
    assert out == "" and "Traceback" not in err
    if code == 130:
        assert err.splitlines()[-1] == "edgepress: interrupted before it was done."
    assert {path.name for path in here.iterdir() if path.is_file()} == {"net.onnx", "x.npz"}
