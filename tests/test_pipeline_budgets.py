"""Budgets and switches: what is asked for is met, or nothing is written and the best found is described."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from conftest import Compressed
from pipeline_models import CONVNET

from edgepress import cli, targets
from edgepress.errors import BudgetMissed
from edgepress.pipeline import apply, compress
from edgepress.plan import Plan
from edgepress.report import CLEANED, Report
from edgepress.report.terminal import render
from edgepress.request import Request

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """A small network with samples; nothing written yet."""
    model = CONVNET.save(tmp_path / "net.onnx")
    data = CONVNET.save_samples(tmp_path / "x.npz", 160)
    return Request(model, tmp_path / "out.onnx", str(data), threads=1, bench_seconds=0.01, max_drop=5)


def tried(request: Request, **changes: Any) -> Report:
    return compress(dataclasses.replace(request, **changes))


def either(request: Request, **changes: Any) -> Report:
    """The report, of the best found if need be: what is fast is not the same on all machines."""
    try:
        return tried(request, **changes)
    except BudgetMissed as missed:
        assert isinstance(missed.report, Report)
        return missed.report


def nothing_written(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} == {"net.onnx", "x.npz"}


def page(report: Report) -> str:
    from io import StringIO

    from rich.console import Console

    stream = StringIO()
    render(report, Console(file=stream, width=80, highlight=False), verbose=True)
    return " ".join(stream.getvalue().split())


# --- budgets within reach ------------------------------------------------------------------------------------


def test_a_size_is_met_by_the_file_itself(compressed: Compressed, tmp_path: Path) -> None:
    report = tried(compressed.request, output=tmp_path / "out.onnx", size_ratio=0.3, prune=False)
    assert report.taken.file_bytes == (tmp_path / "out.onnx").stat().st_size
    assert report.taken.file_bytes <= 0.3 * compressed.request.model.stat().st_size


def test_a_small_file_has_widths_of_its_own_for_every_layer_and_is_replayed(
    compressed: Compressed, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    report = tried(compressed.request, output=out, size_ratio=0.14, prune=False, max_drop=5)
    assert report.taken.file_bytes == out.stat().st_size <= 0.14 * report.original.file_bytes
    plan = Plan.load(tmp_path / "out.plan.json")
    assert plan.quantization is not None and plan.quantization.rounding == "joint"
    assert len(set(plan.quantization.levels.values())) > 1
    again = tmp_path / "again.onnx"
    assert compressed.request.data is not None
    apply(compressed.request.model, tmp_path / "out.plan.json", compressed.request.data, again)
    assert again.read_bytes() == out.read_bytes()


def test_multiply_adds_are_met(compressed: Compressed, tmp_path: Path) -> None:
    report = tried(compressed.request, output=tmp_path / "out.onnx", mac_ratio=0.5, quantize=False)
    cleaned = report.variant(CLEANED)
    assert cleaned is not None and cleaned.macs and report.taken.macs
    assert 0 < report.taken.macs <= 0.5 * cleaned.macs
    assert report.budgets["mac_ratio"] == 0.5


def test_several_budgets_at_once(compressed: Compressed, tmp_path: Path) -> None:
    report = tried(compressed.request, output=tmp_path / "out.onnx", speedup=1.2, size_ratio=0.3, mac_ratio=0.5)
    assert 1 / report.taken.ratio[1].median >= 1.2
    assert report.taken.file_bytes <= 0.3 * report.original.file_bytes
    assert report.taken.macs and report.original.macs and report.taken.macs <= 0.5 * report.original.macs


# --- out of reach --------------------------------------------------------------------------------------------

UNREACHABLE: dict[str, tuple[dict[str, float], str]] = {
    "speed": ({"speedup": 1000}, "times as fast, 1000 was asked for"),
    "size": ({"size_ratio": 0.001}, "of the file size, 0.001 was asked for"),
    "macs": ({"mac_ratio": 0.01, "max_drop": 0.1}, "of the multiply-adds, 0.01 was asked for"),
    "macs by no pruning": ({"mac_ratio": 0.5, "prune": False}, "1.000 of the multiply-adds, 0.5 was asked for"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_budget_out_of_reach(case: str, request_: Request, tmp_path: Path) -> None:
    budget, reason = UNREACHABLE[case]
    with pytest.raises(BudgetMissed, match="the best found") as caught:
        tried(request_, **budget)
    assert reason in str(caught.value)
    report = caught.value.report
    assert isinstance(report, Report) and report.output is None and report.plan is None
    assert report.taken.quality is not None and report.taken.quality.state != "over"
    assert nothing_written(tmp_path)
    text = page(report)
    assert "The budget was missed, nothing was written; the best found: " in text
    assert "would be" not in text and "was written." not in text


def test_the_best_found_is_narrower_when_multiply_adds_are_out_of_reach(request_: Request) -> None:
    with pytest.raises(BudgetMissed) as caught:
        tried(request_, mac_ratio=0.01)
    report = caught.value.report
    assert isinstance(report, Report) and report.taken.macs and report.original.macs
    assert report.taken.macs < report.original.macs


# --- through the command line --------------------------------------------------------------------------------


def run(request: Request, *options: str) -> Result:
    places = [str(request.model), "--data", str(request.data), "-o", str(request.output)]
    return CliRunner().invoke(cli.main, ["compress", *places, "--threads", "1", "--max-drop", "5", *options])


def test_exit_code_3_prints_the_best_found(request_: Request, tmp_path: Path) -> None:
    done = run(request_, "--speedup", "1000")
    assert done.exit_code == 3
    assert done.stdout.startswith("verdict\tThe budget was missed, nothing was written; the best found: ")
    assert "written\t" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("edgepress: error: No model met the budget within the quality limit")
    assert nothing_written(tmp_path)


def test_exit_code_3_as_json(request_: Request) -> None:
    done = run(request_, "--size-ratio", "0.001", "--json", "-q")
    assert done.exit_code == 3 and done.stderr.count("\n") == 1
    assert Report.from_json(done.stdout).output is None


def test_a_dry_run_writes_nothing(request_: Request, tmp_path: Path) -> None:
    done = run(request_, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "written" not in {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert nothing_written(tmp_path)


def test_a_second_run_overwrites_the_first(request_: Request, tmp_path: Path) -> None:
    first = run(request_, "--no-prune", "--no-quantize", "-q")
    assert (first.exit_code, first.stderr) == (0, "")
    second = run(request_, "--no-quantize", "-q", "-v", "--json")
    assert second.exit_code == 0
    assert json.loads((tmp_path / "out.report.json").read_text()) == json.loads(second.stdout)
    assert not list(tmp_path.glob(".*"))


# --- switches ------------------------------------------------------------------------------------------------


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_no_prune(request_: Request, tmp_path: Path) -> None:
    report = tried(request_, prune=False)
    assert Plan.load(tmp_path / "out.plan.json").cuts == ()
    assert all(row.width_after == row.width_before for row in report.layers)
    assert all(item.macs == report.original.macs for item in report.variants)


def test_no_quantize(request_: Request, tmp_path: Path) -> None:
    report = tried(request_, quantize=False)
    assert Plan.load(tmp_path / "out.plan.json").quantization is None
    assert operators(tmp_path / "out.onnx") <= operators(request_.model)
    assert {row.runs_as for row in report.layers} == {"float32"}


def test_neither_is_only_cleaned(request_: Request) -> None:
    report = tried(request_, prune=False, quantize=False)
    assert report.chosen == CLEANED
    assert report.verdict == "Neither pruning nor quantization was allowed: the cleaned fp32 model was written."


def test_threads_decide_and_are_reported(request_: Request) -> None:
    report = tried(request_, threads=2, prune=False)
    assert report.threads == (1, 2)
    assert set(report.taken.latency) == {1, 2}


def test_a_seed_splits_otherwise(request_: Request, tmp_path: Path) -> None:
    tried(request_, seed=5, prune=False, quantize=False)
    assert Plan.load(tmp_path / "out.plan.json").seed == 5


@pytest.mark.parametrize("multiple", [4, 5])
def test_widths_are_multiples(request_: Request, multiple: int) -> None:
    report = either(request_, width_multiple=multiple, quantize=False, mac_ratio=0.8)
    cut = [row.width_after for row in report.layers if row.width_after < row.width_before]
    assert cut and all(width % multiple == 0 for width in cut)


def test_a_target_without_vnni_gets_small_weights(compressed: Compressed, tmp_path: Path) -> None:
    changes = {"target": "x64-avx2", "prune": False, "size_ratio": 0.5}
    report = tried(compressed.request, output=tmp_path / "out.onnx", **changes)
    weights = [onnx.numpy_helper.to_array(item) for item in onnx.load(tmp_path / "out.onnx").graph.initializer]
    largest = [
        int(np.abs(array.astype(np.int64)).max()) for array in weights if array.dtype == np.int8 and array.ndim > 1
    ]
    assert largest and max(largest) <= 64
    if targets.detect().name != "x64-avx2":
        assert "Decided for x64-avx2, but timed on this machine." in report.notes


def test_a_target_of_this_machine_needs_no_note(request_: Request) -> None:
    report = tried(request_, target=targets.detect().name, prune=False, quantize=False)
    assert not any("timed on this machine" in note for note in report.notes)
