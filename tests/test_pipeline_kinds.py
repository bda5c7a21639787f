"""All kinds of models and samples: what can be done is done, what cannot be has a reason."""

from __future__ import annotations

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Compressed
from onnx import numpy_helper
from pipeline_models import (
    ANSWERS_ONLY,
    CHANGING_ROWS,
    CONTROL_FLOW,
    CONVNET,
    FIXED,
    FIXED_FOUR,
    MAP,
    MLP,
    NOT_A_NUMBER,
    SCALAR,
    TIME_FIRST,
    TINY,
    TWO_INPUTS,
    UNKNOWN_OPERATOR,
    WITH_ANCHORS,
    Small,
)
from rich.console import Console

from edgepress.errors import DataError, ModelError
from edgepress.pipeline import apply, compress
from edgepress.report import CLEANED, ORIGINAL, PLAIN_INT8, Report
from edgepress.report.terminal import render
from edgepress.request import Request

pytestmark = pytest.mark.usefixtures("quick")


def request_for(small: Small, folder: Path, count: int = 120, **changes: Any) -> Request:
    model, data = small.save(folder / "net.onnx"), small.save_samples(folder / "x.npz", count)
    base = Request(model, folder / "out.onnx", str(data), threads=1, bench_seconds=0.01, max_drop=5)
    return dataclasses.replace(base, **changes)


def run(model: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, inputs)]


def page(report: Report, *, verbose: bool = False) -> str:
    stream = StringIO()
    render(report, Console(file=stream, width=80, highlight=False), verbose=verbose)
    folder = str(Path(report.output or report.model).parent)
    lines = [line for line in stream.getvalue().splitlines() if folder not in line]
    assert max(map(len, lines)) <= 80  # paths and commands are never broken
    return " ".join(stream.getvalue().split())


def labels_of(report: Report) -> set[str]:
    return {item.label for item in report.variants}


# --- every kind of graph ---------------------------------------------------------------------------------------

GRAPHS = {
    "conv": CONVNET,
    "fixed batch": FIXED,
    "fixed batch of four": FIXED_FOUR,
    "two inputs": TWO_INPUTS,
    "mlp": MLP,
    "map": MAP,
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_it_is_pruned_and_quantized(kind: str, tmp_path: Path) -> None:
    """Whatever the timing of so small a model chooses: narrower and int8 forms were made, judged and timed."""
    request = request_for(GRAPHS[kind], tmp_path, min_sqnr=8)
    report = compress(request)
    tried = [item for item in report.variants if item.name not in (ORIGINAL, PLAIN_INT8, CLEANED)]
    assert any("int8" in item.label for item in tried)
    assert any(item.macs is not None and item.macs < (report.original.macs or 0) for item in tried)
    assert all(item.quality is not None and item.ratio and item.verdict for item in tried)
    assert len({item.name for item in report.variants}) == len(report.variants)
    one = GRAPHS[kind].arrays(4, seed=9) if kind.endswith("four") else GRAPHS[kind].arrays(1, seed=9)
    for mine, theirs in zip(run(tmp_path / "out.onnx", one), run(request.model, one), strict=True):
        assert mine.shape == theirs.shape
    again = tmp_path / "again.onnx"
    apply(request.model, tmp_path / "out.plan.json", request.data, again)
    assert again.read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_an_unknown_operator_limits_pruning_only(tmp_path: Path) -> None:
    report = compress(request_for(UNKNOWN_OPERATOR, tmp_path))
    reasons = " ".join(str(item) for item in report.refusals)
    assert "unknown operator Det" in reasons and "no kernel in torch" in reasons
    assert all(item.macs == report.original.macs for item in report.variants)
    assert any(label.startswith(("int8", "fp32, weights stored as int8")) for label in labels_of(report))


def test_control_flow_is_left_alone(tmp_path: Path) -> None:
    request = request_for(CONTROL_FLOW, tmp_path)
    report = compress(request)
    assert any("stopped by 'n_s'" in str(item) for item in report.refusals)
    assert "If" in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}


def test_a_tiny_model_is_only_cleaned(tmp_path: Path) -> None:
    request = request_for(TINY, tmp_path)
    report = compress(request)
    if report.chosen == CLEANED:  # the clock may favor another by chance, never one that is slower
        assert report.verdict == "Nothing was faster within your limit: the cleaned fp32 model was written."
        assert report.verdict in page(report)
    inputs = TINY.arrays(5)
    for mine, theirs in zip(run(tmp_path / "out.onnx", inputs), run(request.model, inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.1)


def test_answers_without_scores_are_compared_exactly(tmp_path: Path) -> None:
    report = compress(request_for(ANSWERS_ONLY, tmp_path, quantize=False, prune=False))
    quality = report.taken.quality
    assert quality is not None and quality.measure == "sqnr"
    assert "exact" in page(report) and "200.0 dB" not in page(report)


@pytest.mark.parametrize(
    ("small", "count"),
    [
        (TIME_FIRST, 120),  # samples are counted by the second axis of the output
        (WITH_ANCHORS, 140),  # held out are 35 samples, 32 and 3: as many as there are anchors, which are no rows
    ],
)
def test_rows_of_outputs_are_found(small: Small, count: int, tmp_path: Path) -> None:
    report = compress(request_for(small, tmp_path, count, quantize=False, min_sqnr=10))
    quality = report.taken.quality
    assert quality is not None and (quality.measure, quality.samples) == ("sqnr", count // 4)
    assert any(item.label == "pruned fp32" for item in report.variants)


@pytest.mark.parametrize("opset", [22, 26])
def test_newer_operator_sets_are_quantized(opset: int, tmp_path: Path) -> None:
    request = request_for(MLP, tmp_path, prune=False)
    proto = onnx.load(request.model)
    proto.opset_import[0].version, proto.ir_version = opset, 13
    onnx.save(proto, request.model)
    labels = labels_of(compress(request))  # of layers this small, the target may want none in int8
    assert labels & {"int8", "fp32, weights stored as int8"} and "plain onnxruntime int8" in labels
    assert onnx.load(tmp_path / "out.onnx").opset_import[0].version == opset


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_float_types_are_pruned_in_their_own(dtype: str, tmp_path: Path) -> None:
    request = request_for(MLP, tmp_path, max_drop=50)
    proto = onnx.load(request.model)
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for item in proto.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(dtype), item.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = code
    onnx.save(proto, request.model)
    report = compress(request)
    assert f"int8: only float32 weights are rounded, and those of the model are {dtype}" in map(str, report.refusals)
    assert not any(item.what == "redistribution" for item in report.refusals)
    pruned = [item for item in report.variants if item.label == "pruned fp32"]
    assert pruned and pruned[-1].macs is not None and pruned[-1].macs < (report.original.macs or 0)
    assert {item.data_type for item in onnx.load(tmp_path / "out.onnx").graph.initializer} == {code}


def test_an_operator_set_without_int8_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a model is left where the converter fails; the float forms are made all the same."""
    monkeypatch.setattr("edgepress.normalize.opset.OPSET", 12)
    request = request_for(MLP, tmp_path)
    proto = onnx.load(request.model)
    proto.opset_import[0].version, proto.ir_version = 12, 7
    onnx.save(proto, request.model)
    report = compress(request)
    assert "int8: it needs operator set 13 to 26, and the model has 12" in map(str, report.refusals)
    assert labels_of(report) & {"pruned fp32"} and not labels_of(report) & {"int8", "pruned int8"}


@pytest.mark.parametrize(
    ("small", "message"),
    [
        (SCALAR, "do not have one row per sample"),
        (CHANGING_ROWS, "do not have one row per sample"),
        (NOT_A_NUMBER, "answers NaN or infinity"),
    ],
)
def test_outputs_that_nothing_can_be_judged_by(small: Small, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        compress(request_for(small, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "x.npz"}


# --- what quality is measured by ---------------------------------------------------------------------------------


def test_without_labels_it_is_agreement(compressed: Compressed, digits_npz: Path, tmp_path: Path) -> None:
    with np.load(digits_npz) as arrays:
        np.savez(tmp_path / "x.npz", image=arrays["image"][:200])
    report = compress(
        dataclasses.replace(compressed.request, data=str(tmp_path / "x.npz"), output=tmp_path / "out.onnx")
    )
    quality = report.taken.quality
    assert quality is not None and quality.measure == "agreement" and quality.kl is not None
    assert quality.kl <= quality.limit == pytest.approx(0.02)
    assert (
        quality.kl_low is not None and quality.kl_high is not None and quality.kl_low <= quality.kl <= quality.kl_high
    )
    assert quality.before == 100 and quality.after == quality.agreement
    text = page(report)
    assert "of the answers unchanged, on this CPU." in text and "your limit: KL 0." in text
    assert "same answer" in text and not report.data["labelled"]
    assert any("Without labels quality is agreement" in note for note in report.notes)


@pytest.mark.parametrize("task", ["auto", "regress"])
def test_a_map_is_judged_by_signal_to_noise(task: str, tmp_path: Path) -> None:
    report = compress(request_for(MAP, tmp_path, task=task, min_sqnr=15))
    quality = report.taken.quality
    assert quality is not None and quality.measure == "sqnr"
    assert (quality.limit, quality.drop, quality.kl) == (15, None, None) and quality.after >= 15
    if report.chosen != CLEANED:
        assert "signal to noise" in report.verdict
    assert "of at least 15.0 dB" in page(report) and "signal/noise" in page(report)


def test_regress_overrides_labels(tmp_path: Path) -> None:
    request = request_for(CONVNET, tmp_path, task="regress", prune=False, quantize=False)
    CONVNET.save_samples(tmp_path / "x.npz", 120, label=np.zeros(120, np.int64))
    quality = compress(request).taken.quality
    assert quality is not None and quality.measure == "sqnr"


def test_a_map_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--task regress"):
        compress(request_for(MAP, tmp_path, task="classify"))


# --- which samples -----------------------------------------------------------------------------------------------


def test_without_samples_it_is_only_cleaned(digits_model: Path, tmp_path: Path) -> None:
    report = compress(Request(digits_model, tmp_path / "out.onnx", None))
    assert report.chosen == CLEANED and report.taken.quality is None and report.data == {"source": None}
    assert report.verdict == "Without samples nothing could be pruned or quantized: the cleaned fp32 model was written."
    assert any("pass --data" in note for note in report.notes)
    assert "faster" not in page(report)
    inputs = {"image": np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(
        run(tmp_path / "out.onnx", inputs)[0], run(digits_model, inputs)[0], rtol=1e-4, atol=1e-4
    )
    apply(digits_model, tmp_path / "out.plan.json", None, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_without_samples_a_dry_run_claims_no_file(digits_model: Path, tmp_path: Path) -> None:
    report = compress(Request(digits_model, None, None, dry_run=True))
    assert report.verdict.endswith("the cleaned fp32 model would be written.")


@pytest.mark.parametrize(
    "asked", [{"mac_ratio": 0.5}, {"size_ratio": 0.5}, {"speedup": 2.0}, {"eval_data": "x.npz"}, {"recipe": "r.json"}]
)
def test_without_samples_some_wishes_make_no_sense(asked: dict[str, Any], digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="add --data"):
        compress(dataclasses.replace(Request(digits_model, tmp_path / "out.onnx", None), **asked))
    assert not list(tmp_path.iterdir())


def test_few_samples_are_no_missed_budget(digits_npz: Path, digits_model: Path, tmp_path: Path) -> None:
    """No candidate can be shown to keep a limit of a point on 15 samples: the cleaned model is the answer."""
    with np.load(digits_npz) as arrays:
        np.savez(tmp_path / "x.npz", image=arrays["image"][:60], label=arrays["label"][:60])
    request = Request(digits_model, tmp_path / "out.onnx", str(tmp_path / "x.npz"), threads=1, bench_seconds=0.01)
    report = compress(request)
    assert report.output is not None
    if report.chosen == CLEANED:
        assert report.verdict.startswith("Nothing was sure to keep your limit: ")
        assert any("more samples in --data" in note for note in report.notes)


def test_eval_data_is_for_the_last_figures_only(compressed: Compressed, digits_npz: Path, tmp_path: Path) -> None:
    with np.load(digits_npz) as arrays:
        np.savez(tmp_path / "eval.npz", image=arrays["image"][400:], label=arrays["label"][400:])
    report = compress(
        dataclasses.replace(
            compressed.request, eval_data=str(tmp_path / "eval.npz"), output=tmp_path / "out.onnx", prune=False
        )
    )
    quality = report.taken.quality
    assert quality is not None and (quality.source, quality.samples) == ("eval-data", 797)
    others = [item.quality for item in report.variants if item.name not in (report.chosen, PLAIN_INT8, ORIGINAL)]
    assert others and all(item is not None and (item.source, item.samples) == ("hold-out", 100) for item in others)
    assert report.data["evaluation"] == str(tmp_path / "eval.npz") and report.data["hold_out"] == 100
    assert "samples of --eval-data" in page(report)


def test_eval_data_that_overlaps_is_refused(compressed: Compressed, digits_npz: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(compressed.request, eval_data=str(digits_npz), output=tmp_path / "out.onnx")
    with pytest.raises(DataError, match="400 samples of --eval-data are also in --data"):
        compress(request)
    assert not list(tmp_path.iterdir())


def test_labels_of_eval_data_are_checked_too(compressed: Compressed, digits_npz: Path, tmp_path: Path) -> None:
    with np.load(digits_npz) as arrays:
        np.savez(tmp_path / "eval.npz", image=arrays["image"][400:], label=arrays["label"][400:] + 1)
    request = dataclasses.replace(
        compressed.request, eval_data=str(tmp_path / "eval.npz"), output=tmp_path / "out.onnx"
    )
    with pytest.raises(DataError, match=r"outside 0\.\.9"):
        compress(request)


# --- real models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "samples"), [("kws_dscnn", "kws_dscnn"), ("mnist8_opset8", "mnist8")])
def test_real_models(name: str, samples: str, shared: Path, tmp_path: Path) -> None:
    """Depthwise convolutions with Softmax, and a file of 2018 whose weights are inputs, too."""
    model, data = shared / "models" / f"{name}.onnx", shared / "calib" / f"{samples}_calib.npz"
    report = compress(Request(model, tmp_path / "out.onnx", str(data), threads=1, bench_seconds=0.01, max_drop=2))
    assert report.taken.quality is not None and report.taken.quality.state != "over"
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    assert report.taken.file_bytes < report.original.file_bytes
