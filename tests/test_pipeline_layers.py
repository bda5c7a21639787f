"""The layer table is what the file holds and onnxruntime computes; other devices are chosen for without times."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import Compressed
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_models import CONVNET
from quantize_tools import VNNI, kernel, parse, rounded_weights, samples

from edgepress import cli, runtime, targets
from edgepress.errors import BudgetMissed
from edgepress.levels import NAMED
from edgepress.model import Model
from edgepress.pipeline import compress
from edgepress.pipeline.stored_weights import File
from edgepress.plan import Plan, Quantization
from edgepress.quantize import activations_to_observe, observe, quantize, ranges
from edgepress.quantize.weights.joint import Wanted, round_nearest
from edgepress.report import CLEANED, LayerRow, Report
from edgepress.report.result import average_bits
from edgepress.request import Request

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    model = CONVNET.save(tmp_path / "net.onnx")
    data = CONVNET.save_samples(tmp_path / "x.npz", 160)
    return Request(
        model, tmp_path / "out.onnx", str(data), threads=1, bench_seconds=0.01, max_drop=60, prune=False
    )  # fmt: skip


def tried(request: Request, prefer: str = "-int8", **changes: Any) -> Report:
    """The report; forms with some name are the fastest whatever the clock of this machine says."""
    choose = importlib.import_module("edgepress.pipeline.choose")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choose, "_slower", lambda *_: False)
        patched.setattr(choose, "ratio_of", lambda name, _: 0.5 if prefer in name else 1.0)
        return compress(dataclasses.replace(request, **changes))


def rows_of(report: Report) -> dict[str, LayerRow]:
    return {row.node: row for row in report.layers}


# --- what the file holds -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.sampled_from(sorted(NAMED.values())), st.booleans(), st.sampled_from(["", "1.24"]))
def test_weights_in_every_storage_form(levels: int, uneven: bool, min_ort: str) -> None:
    uneven = uneven and levels <= 16
    model = parse("y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)", w=kernel(32, 16, 3, 3), b=kernel(32))
    (node,) = model.nodes
    item = round_nearest(model.constants["w"], 0, Wanted(levels=levels, uneven=uneven))
    seen = observe(model, samples(16, 14, 14, count=4), activations_to_observe(model))
    chosen = Quantization(min_ort=min_ort)
    made = quantize(model, ranges(seen, chosen), {node.name: item}, chosen, VNNI)
    found = File(made).weights([made.node(node.name).inputs[1]])
    assert found.integers and found.count == 32 * 16 * 9
    assert found.scales == (float(item.scale.min()), float(item.scale.max()))
    bits = np.log2(levels if not uneven else len(np.unique(item.values)))
    assert bits * found.count / 8 < found.size <= found.count + 32 * 4 + 200
    bias = File(made).weights([made.node(node.name).inputs[2]])
    assert found.size < made.size < found.size + bias.size + 1500


def test_float_weights_and_activations() -> None:
    model = parse("y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)", w=kernel(8, 16, 3, 3))
    (node,) = model.nodes
    found = File(model).weights(node.inputs)
    assert (found.integers, found.count, found.scales) == (False, 8 * 16 * 9, None)
    assert 4 * found.count < found.size < 4 * found.count + 40
    nothing = File(model).weights(["x", "", "y"])
    assert (nothing.size, nothing.count, nothing.integers) == (0, 0, False)
    assert rounded_weights(model, Quantization(), {})


# --- the table -----------------------------------------------------------------------------------------------


def output_of(model: Model, node: str, x: np.ndarray) -> np.ndarray:
    name = model.node(node).output
    return runtime.run(runtime.session(model.exposing([name])), {"x": x}, [name])[name]


def test_every_layer_has_bits_bytes_scales_and_error(request_: Request) -> None:
    report = tried(request_, bits="4")
    assert request_.output is not None and request_.data is not None
    result, rows = Model.load(request_.output), rows_of(report)
    source = Model.load(request_.model)
    assert list(rows) == ["n_a", "n_c", "n_y"]
    for name, weight in (("n_a", "w1"), ("n_c", "w2"), ("n_y", "w3")):
        row = rows[name]
        assert (row.bits, row.levels, row.weights) == (4.0, 16, source.constants[weight].size)
        assert row.scale_low is not None and row.scale_high is not None and 0 < row.scale_low <= row.scale_high
        assert row.share == pytest.approx(100 * row.file_bytes / request_.output.stat().st_size, rel=1e-3)
        assert row.sqnr_db is not None and 5 < row.sqnr_db < 60
    assert report.weight_bits == 4.0
    # the error is that of the outputs that onnxruntime computes: any samples give nearly the same
    x = CONVNET.arrays(160)["x"]
    y, other = (output_of(model, "n_c", x).astype(np.float64) for model in (source, result))
    found = rows["n_c"].sqnr_db
    assert found is not None
    assert found == pytest.approx(10 * np.log10(np.square(y).sum() / np.square(y - other).sum()), abs=2.5)


def test_layers_that_stay_float_have_no_levels(request_: Request) -> None:
    report = tried(request_, keep_float=("n_c",))
    row = rows_of(report)["n_c"]
    assert (row.bits, row.levels, row.scale_low, row.scale_high) == (None, None, None, None)
    assert row.file_bytes > 4 * row.weights
    assert (row.runs_as, row.reason) == ("float32", "kept float by --keep-float")
    bits = 7.0 if targets.detect().weight_limit == 64 else 8.0  # where sums of wider ones saturate
    assert report.weight_bits == rows_of(report)["n_y"].bits == bits


def test_a_float_result_has_no_bits_and_the_cleaned_model_no_errors(request_: Request) -> None:
    report = tried(request_, quantize=False)
    assert report.chosen == CLEANED and report.weight_bits is None
    assert all(row.bits is None and row.sqnr_db is None for row in report.layers)


def test_layers_that_lost_channels_are_compared_by_those_that_are_left(compressed: Compressed, tmp_path: Path) -> None:
    report = tried(compressed.request, "pruned", output=tmp_path / "out.onnx", quantize=False, max_drop=5, prune=True)
    cut = [row for row in report.layers if row.width_after < row.width_before]
    assert cut and all(row.sqnr_db is not None for row in report.layers)
    first = cut[0]
    assert first.sqnr_db is not None and first.sqnr_db > 20  # its input is whole, so what is left of it is as it was


def test_the_average_is_by_weights() -> None:
    rows = [
        LayerRow("a", "Conv", 1, 1, "int8", "", bits=2.0, levels=4, weights=300),
        LayerRow("b", "Conv", 1, 1, "int8", "", bits=8.0, levels=255, weights=100),
        LayerRow("c", "Conv", 1, 1, "float32", "", weights=1000),
    ]
    assert average_bits(rows) == 3.5
    assert average_bits(rows[2:]) is None


def test_predicted_error_stands_beside_the_measured_one(compressed: Compressed, tmp_path: Path) -> None:
    report = tried(compressed.request, output=tmp_path / "out.onnx", size_ratio=0.14, prune=False, max_drop=5)
    assert report.taken.predicted is not None and report.taken.predicted > 0
    assert any(f"predicted to cost {report.taken.predicted:.4f} nats in all" in note for note in report.notes)
    assert report.original.predicted is None


# --- other devices, other activations ------------------------------------------------------------------------


@pytest.mark.parametrize("activations", ["8", "16"])
def test_an_accelerator_is_chosen_for_without_times(request_: Request, activations: str) -> None:
    report = compress(dataclasses.replace(request_, target="qnn", activations=activations))
    assert report.threads == () and not report.taken.latency and not report.taken.ratio
    assert report.verdict.startswith("Speed not measured") and "on this CPU" not in report.verdict
    assert any(note.startswith("Made for qnn, which this machine is not: nothing was timed") for note in report.notes)
    assert report.next == ""
    assert {row.bits for row in report.layers} == {8.0}
    assert {row.runs_as for row in report.layers} == {"int16" if activations == "16" else "int8"}
    acceptable = [item for item in report.variants[2:] if item.quality and item.quality.state != "over"]
    assert report.taken.file_bytes == min(item.file_bytes for item in acceptable)
    assert request_.output is not None
    kinds = {
        item.data_type
        for item in onnx.load(request_.output).graph.initializer
        if item.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.UINT16)
    }
    assert kinds == {onnx.TensorProto.UINT16 if activations == "16" else onnx.TensorProto.UINT8}


def test_a_budget_that_an_accelerator_cannot_meet(request_: Request) -> None:
    with pytest.raises(BudgetMissed, match=r"has 0\.\d+ of the file size and") as caught:
        compress(dataclasses.replace(request_, target="qnn", size_ratio=0.001))
    assert "fp32 time" not in str(caught.value)


def test_float_activations_leave_forms_that_only_store_integers(request_: Request, tmp_path: Path) -> None:
    report = tried(request_, "-stored", activations="float", bits="4")
    assert {item.name for item in report.variants[3:]} == {"cleaned-stored-4bit"}
    plan = Plan.load(tmp_path / "out.plan.json")
    assert plan.quantization is not None and plan.quantization.compute == "float"
    assert {row.runs_as for row in report.layers} == {"float32"}
    assert {row.bits for row in report.layers} == {4.0}
    mixed = tried(request_, "-stored", activations="float", bits="auto")
    assert all("-stored" in item.name for item in mixed.variants[3:])


def test_a_target_of_another_family_is_noted(request_: Request) -> None:
    other = "x64-avx2" if targets.detect().family == "arm64" else "arm64"
    report = compress(dataclasses.replace(request_, target=other, dry_run=True))
    assert any(f"Decided for {other}, but timed on this machine, whose times say little" in n for n in report.notes)


def test_the_command_line_writes_the_overrides(request_: Request, tmp_path: Path) -> None:
    saved = tmp_path / "o.json"
    arguments = [str(request_.model), "--data", str(request_.data), "-o", str(request_.output), "--max-drop", "60"]
    done = CliRunner().invoke(
        cli.main, ["quantize", *arguments, "--threads", "1", "--save-overrides", str(saved), "-q"]
    )
    assert done.exit_code == 0, done.stderr
    assert saved.read_text().startswith("{")
    taken = CliRunner().invoke(cli.main, ["quantize", *arguments, "--overrides", str(saved), "--dry-run", "-q"])
    assert taken.exit_code == 0, taken.stderr
    wrong = CliRunner().invoke(cli.main, ["quantize", *arguments, "--keep-float", "n_d", "-q"])
    assert wrong.exit_code == 2 and "did you mean" in wrong.stderr
