"""Bad input to `edgepress quantize`: one sentence and exit code 2, or a file that loads and answers alike."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from pipeline_models import CONV, CONVNET, MAP, MLP, Small

from edgepress import cli, pipeline
from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.choose import time_all

SAMPLES = 48
LEAST_SQNR = 20.0
"""The default of --min-sqnr, which what is written must keep."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a good model and good samples."""
    monkeypatch.chdir(tmp_path)
    MAP.save(Path("net.onnx"))
    MAP.save_samples(Path("x.npz"), SAMPLES)
    return tmp_path


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """Times for a moment only, and keeps all that could have been handed over."""
    seen: list[Candidate] = []

    def quick(candidates: list[Candidate], others: Any, feeds: Any, request: Any, threads: Any, meter: Any) -> Any:
        seen.extend(candidates)
        return time_all(candidates, others, feeds, dataclasses.replace(request, bench_seconds=0.01), threads, meter)

    monkeypatch.setattr(pipeline, "time_all", quick)
    return seen


def run(*options: str, model: str = "net.onnx", data: str | None = "x.npz") -> Result:
    given = [] if data is None else ["--data", data]
    return CliRunner().invoke(cli.main, ["quantize", model, *given, "-o", "out.onnx", "--threads", "1", *options])


def is_one_sentence(done: Result, message: str) -> bool:
    """Exit code 2, one line of error that says this, and nothing else than stages that were done."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith(("edgepress: error: ", "Error: "))]
    return done.exit_code == 2 and len(errors) == 1 and message in errors[0] and "Traceback" not in done.output


# --- models that are refused ------------------------------------------------------------------------------------------


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # no types there
    def __init__(self) -> None:
        self.left = iter([{"x": MAP.arrays(1, seed)["x"]} for seed in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def by_onnxruntime(path: Path, form: QuantFormat, **more: Any) -> None:
    quantize_static(path, path, _Reader(), quant_format=form, weight_type=QuantType.QInt8, per_channel=True, **more)


def constant(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Replace an initializer; what ``change`` returns, or what it leaves in place."""
    model = onnx.load(path)
    item = next(item for item in model.graph.initializer if item.name == name)
    array = numpy_helper.to_array(item).copy()
    changed = change(array)
    item.CopyFrom(numpy_helper.from_array(array if changed is None else changed, name))
    onnx.save(model, path)


def fill(name: str, where: Any, value: float) -> Callable[[Path], None]:
    def change(array: np.ndarray) -> None:
        array[where] = value

    return lambda path: constant(path, name, change)


def dynamic(path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    MLP.save(path)
    quantize_dynamic(path, path)


def nothing_to_round(path: Path) -> None:
    Small("g (float[N,3,8,8] x) => (float[N,3,8,8] y) { r = Relu(x) y = Sigmoid(r) }", {}).save(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_nodes(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    onnx.save(helper.make_model(helper.make_graph([], "g", [value], [value]), ir_version=10), path)


QDQ, QOPERATOR = QuantFormat.QDQ, QuantFormat.QOperator
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "QDQ": (lambda path: by_onnxruntime(path, QDQ), "quantized already"),
    "QLinear": (lambda path: by_onnxruntime(path, QOPERATOR), "quantized already"),
    "partly QDQ": (lambda path: by_onnxruntime(path, QDQ, nodes_to_exclude=["n_c", "n_y"]), "quantized already"),
    "partly QLinear": (lambda path: by_onnxruntime(path, QOPERATOR, nodes_to_exclude=["n_a"]), "quantized already"),
    "dynamic": (dynamic, "quantized already"),
    "NaN weight": (fill("w2", (0, 0, 0, 0), np.nan), "'w2' holds NaN"),
    "infinite weight": (fill("w2", (0, 0, 0, 0), -np.inf), "'w2' holds infinity"),
    "NaN bias": (fill("b1", 3, np.nan), "'b1' holds NaN"),
    "infinite bias": (fill("b1", 3, np.inf), "'b1' holds infinity"),
    "empty file": (empty, "no ONNX graph"),
    "no nodes": (no_nodes, "no "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_be_quantized(case: str, here: Path) -> None:
    spoil, message = REFUSED[case]
    spoil(here / "net.onnx")
    done = run()
    assert is_one_sentence(done, message), done.output
    assert not list(here.glob("out.*"))


# --- options that are refused -----------------------------------------------------------------------------------------

OPTIONS = [
    *[(("--bits", text), f"--bits is {text}:") for text in ("9", "abc", "0", "-4", "nan", "inf", "1e400", "8,4", "")],
    *[(("--min-ort", text), "is no version of onnxruntime") for text in ("abc", "1", "1.", "-1.2", "v1.20", "1,20")],
    (("--min-ort", "1.10"), "onnxruntime 1.10 is too old for int8 models of edgepress: name 1.14 or newer"),
    (("--min-ort", "0.5"), "too old"),
    (("--target", "x86"), "x64-vnni"),
    (("--activations", "16", "--target", "x64-avx2"), "--activations"),
    (("--keep-float", "n_aa"), "did you mean"),
    (("--keep-float", "nothing like it"), "nothing like it"),
    (("--overrides", "gone.json"), "gone.json"),
    (("--size-ratio", "0"), "--size-ratio"),
    (("--min-sqnr", "nan"), "--min-sqnr"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda value: " ".join(value) or "-")
def test_options_that_make_no_sense(options: tuple[str, ...], message: str, here: Path) -> None:
    done = run(*options)
    assert is_one_sentence(done, message), done.output
    assert not list(here.glob("out.*"))


def test_samples_are_needed(here: Path) -> None:
    assert is_one_sentence(run(data=None), "give them by --data")
    np.savez("none.npz", x=np.zeros((0, 3, 8, 8), np.float32))
    assert is_one_sentence(run(data="none.npz"), "none.npz")
    assert not list(here.glob("out.*"))


SAMPLED = Small(
    f"""g (float[N,3,8,8] x, float[N,4,4,2] at) => (float[N,16,4,4] y) {{
    a = {CONV}(x,w1,b1)  r = Relu(a)  y = GridSample<mode="cubic">(r,at) }}""",
    {"w1": (16, 3, 3, 3), "b1": (16,)},
    {"x": (3, 8, 8), "at": (4, 4, 2)},
)


def test_an_operator_that_the_named_release_lacks(here: Path, tried: list[Candidate]) -> None:
    small = Small(SAMPLED.text.replace('<mode="cubic">(r,at)', '<mode="cubic">(u,at)').replace(
        "y = GridSample", "u = Gelu(r)  y = GridSample"
    ), SAMPLED.constants, SAMPLED.samples)  # fmt: skip
    small.save(here / "net.onnx")
    small.save_samples(here / "x.npz", SAMPLES)
    done = run("--min-ort", "1.15")
    assert is_one_sentence(done, "--min-ort 1.15 cannot be kept at n_u: Gelu"), done.output
    assert "from 1.17 on" in done.stderr and not list(here.glob("out.*"))
    assert run("--min-ort", "1.17").exit_code == 0


# --- odd, but quantized -----------------------------------------------------------------------------------------------


def old(opset: int, *, as_inputs: bool = True) -> Callable[[Path], None]:
    """An operator set of old, with IR 3: initializers are inputs as well."""

    def rewrite(path: Path) -> None:
        model = onnx.load(path)
        model.opset_import[0].version, model.ir_version = opset, 3
        kinds = helper.make_tensor_value_info
        listed = [kinds(item.name, item.data_type, item.dims) for item in model.graph.initializer if as_inputs]
        model.graph.input.extend(listed)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    return rewrite


def half(path: Path) -> None:
    """Float16 weights behind Casts."""
    model = onnx.load(path)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for item in model.graph.initializer:
        name = item.name
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), f"{name}/half"))
        model.graph.node.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def all_half(path: Path) -> None:
    """A model of float16 between Casts."""
    model = onnx.load(path)
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
    for node in model.graph.node:
        node.input[:] = ["x/half" if name == "x" else name for name in node.input]
        node.output[:] = ["y/half" if name == "y" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x/half"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["y/half"], ["y"], to=TensorProto.FLOAT))
    onnx.save(model, path)


def several(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def each(path: Path) -> None:
        for step in steps:
            step(path)

    return each


def scaled(name: str, factor: float) -> Callable[[Path], None]:
    return lambda path: constant(path, name, lambda array: (array.astype(np.float64) * factor).astype(np.float32))


ODD: dict[str, Callable[[Path], None]] = {
    "zero output channels": several(fill("w1", slice(0, 5), 0), fill("b1", slice(0, 5), 0)),
    "zero input channels": fill("w2", (slice(None), slice(0, 5)), 0),
    "zero weights, constant activations": fill("w1", slice(None), 0),
    "zero weights and bias": several(fill("w1", slice(None), 0), fill("b1", slice(None), 0)),
    "zero in the middle": fill("w2", slice(None), 0),
    "dead behind Relu": several(fill("w2", slice(None), 0), fill("b2", slice(None), -1)),
    "constant result": fill("w3", slice(None), 0),
    "one huge weight": fill("w1", (2, 0, 0, 0), 1e30),
    "a huge channel that nobody reads": several(fill("w1", 2, 1e30), fill("w2", (slice(None), 2), 0)),
    "ranges of 1e30": several(scaled("w1", 1e30), scaled("b1", 1e30), scaled("w2", 1e-30)),
    "ranges of 1e-30": several(scaled("w1", 1e-30), scaled("b1", 1e-30), scaled("w2", 1e30)),
    "result of 1e30": several(scaled("w3", 1e30), scaled("b3", 1e30)),
    "subnormal weights": scaled("w2", 1e-40),
    "tiny scales": several(scaled("w1", 1e-38), fill("b1", slice(None), 0)),
    "a huge bias": fill("b1", 3, 1e6),
    "a bias of 1e30": fill("b2", 3, 1e30),
    "operator set 9, IR 3": old(9),
    "operator set 10, IR 3": old(10),
    "operator set 11, IR 3": old(11),
    "operator set 12, IR 3": old(12),
    "float16 weights": half,
    "float16": all_half,
}


BITS = {"8": ("--bits", "8"), "4": ("--bits", "4", "--min-ort", "1.24")}


@pytest.mark.parametrize(("case", "bits"), [*zip(ODD, itertools.cycle("884"), strict=False)])
def test_odd_models_give_files_that_answer_alike(case: str, bits: str, here: Path, tried: list[Candidate]) -> None:
    ODD[case](here / "net.onnx")
    before = answers("net.onnx")
    done = run(*BITS[bits])
    assert done.exit_code == 0, (done.output, done.exception)
    onnx.checker.check_model(onnx.load("out.onnx"), full_check=True)
    assert sqnr(before, answers("out.onnx")) > LEAST_SQNR - 1, [item.name for item in tried]
    for item in tried:  # any of them might have been the fastest
        if item.verdict.acceptable:
            Path("tried.onnx").write_bytes(item.model.data)
            assert sqnr(before, answers("tried.onnx")) > LEAST_SQNR - 1, item.name


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.concatenate([x[:, :2], np.zeros_like(x[:, :1])], 1),
        lambda x: np.concatenate([x[:, :2], np.full_like(x[:, :1], 7)], 1),
        lambda x: x * np.float32(1e30),
        lambda x: x * np.float32(1e-30),
        lambda x: np.where(np.arange(8) == 3, x * np.float32(1e4), x),
    ],
    ids=["zero channel", "constant channel", "1e30", "1e-30", "outliers"],
)
def test_odd_samples(change: Callable[[np.ndarray], np.ndarray], here: Path, tried: list[Candidate]) -> None:
    arrays = change(MAP.arrays(SAMPLES)["x"])
    np.savez("x.npz", x=arrays)
    before = answers("net.onnx")
    done = run("--bits", "auto")
    assert done.exit_code == 0, (done.output, done.exception)
    assert sqnr(before, answers("out.onnx")) > LEAST_SQNR - 1


@pytest.mark.parametrize("min_ort", ["1.14", "1.15.1", "1.17", "1.18", "1.24", "1.99"])
def test_every_release_that_may_be_named(min_ort: str, here: Path, tried: list[Candidate]) -> None:
    CONVNET.save(here / "net.onnx")
    before = answers("net.onnx")
    assert run("--min-ort", min_ort, "--task", "regress").exit_code == 0
    made = onnx.load("out.onnx")
    assert made.opset_import[0].version <= 18 and made.ir_version <= (8 if min_ort == "1.14" else 10)
    assert sqnr(before, answers("out.onnx")) > LEAST_SQNR - 1


def answers(path: str) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    with np.load("x.npz") as stored:
        return np.asarray(session.run(None, {item.name: stored[item.name] for item in session.get_inputs()[:1]})[0])


def sqnr(before: np.ndarray, after: np.ndarray) -> float:
    """Signal to noise in decibels; a signal without power must be met exactly."""
    assert before.shape == after.shape and before.dtype == after.dtype and np.isfinite(after).all()
    signal, noise = (np.square(part, dtype=np.float64).sum() for part in (before, before.astype(np.float64) - after))
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))
