"""The whole flow on the embedded network: what is written, what the report promises, and what a plan replays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import Compressed

from edgepress import cli
from edgepress.errors import EdgepressError, InputError, PlanError
from edgepress.model import Model
from edgepress.pipeline import apply, compress, explain
from edgepress.pipeline.candidates import candidate, distinct
from edgepress.pipeline.findings import never_measured
from edgepress.plan import Cut, Plan, Quantization
from edgepress.report import CLEANED, ORIGINAL, PLAIN_INT8, Explanation, Report
from edgepress.report.terminal import written
from edgepress.request import report_path


def answers(model: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def images(count: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).random((count, 1, 8, 8)).astype(np.float32)}


# --- what is written -----------------------------------------------------------------------------------------


def test_three_files_and_no_other(compressed: Compressed) -> None:
    folder = compressed.output.parent
    beside = {"digits.onnx", "out.onnx", "out.plan.json", "out.report.json"}
    assert {path.name for path in folder.iterdir()} >= beside
    assert not list(folder.glob(".*"))
    assert written(compressed.report) == [str(folder / name) for name in sorted(beside - {"digits.onnx"})]


def test_the_input_is_untouched(compressed: Compressed) -> None:
    assert compressed.request.model.read_bytes() == compressed.model_before
    assert compressed.request.model.stat().st_mtime_ns == compressed.mtime_before


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_axis_is_still_free(compressed: Compressed, batch: int) -> None:
    assert answers(compressed.output, images(batch)).shape == (batch, 10)


def test_the_result_answers_like_the_original(compressed: Compressed, digits_npz: Path) -> None:
    with np.load(digits_npz) as arrays:
        inputs, labels = {"image": arrays["image"][400:]}, arrays["label"][400:]  # none of these were handed over
    assert (answers(compressed.output, inputs).argmax(1) == labels).mean() > 0.96


def test_names_survive(compressed: Compressed) -> None:
    before, after = onnx.load(compressed.request.model), onnx.load(compressed.output)
    onnx.checker.check_model(after, full_check=True)
    for field in ("input", "output"):
        assert list(getattr(after.graph, field)) == list(getattr(before.graph, field))
    weighted = {node.name for node in before.graph.node if node.op_type in ("Conv", "Gemm")}
    assert weighted <= {node.name for node in after.graph.node}


def test_metadata(compressed: Compressed) -> None:
    found = {entry.key: entry.value for entry in onnx.load(compressed.output).metadata_props}
    plan = Plan.load(compressed.plan)
    assert found["author"] == "somebody" and found["stage"] == "17"
    assert found["edgepress.source_sha256"] == plan.model_sha256
    assert found["edgepress.channels_removed"] == str(sum(len(cut.removed) for cut in plan.cuts)) != "0"
    assert found["edgepress.weights"] == "int8"


# --- the report ----------------------------------------------------------------------------------------------


def test_the_report_beside_the_model_is_the_one_returned(compressed: Compressed) -> None:
    text = report_path(compressed.output).read_text()
    assert Report.from_json(text) == compressed.report
    assert json.loads(text)["format"] == "edgepress-report/2"


def test_sizes_are_those_of_the_files(compressed: Compressed) -> None:
    assert compressed.report.taken.file_bytes == compressed.output.stat().st_size
    assert compressed.report.original.file_bytes == len(compressed.model_before)


def test_parameters_and_macs_shrink(compressed: Compressed) -> None:
    original, taken = compressed.report.original, compressed.report.taken
    assert original.macs and taken.macs and taken.macs < 0.5 * original.macs
    assert taken.parameters < 0.5 * original.parameters


def test_quality_has_samples_and_an_interval(compressed: Compressed) -> None:
    quality = compressed.report.taken.quality
    assert quality is not None and quality.drop is not None and quality.low is not None and quality.high is not None
    assert (quality.measure, quality.samples, quality.source) == ("accuracy", 100, "hold-out")
    assert quality.low <= quality.drop <= quality.high and quality.before >= 99
    assert quality.after == pytest.approx(quality.before - quality.drop)
    assert compressed.report.data["fit"] + compressed.report.data["hold_out"] == 400


def test_every_variant_was_timed_against_the_cleaned_model(compressed: Compressed) -> None:
    for variant in compressed.report.variants:
        latency = variant.latency[1]
        assert 0 < latency.p50 <= latency.p90 <= latency.p99
        if variant.name not in (ORIGINAL, CLEANED):
            ratio = variant.ratio[1]
            assert ratio.reference == CLEANED and ratio.low <= ratio.median <= ratio.high


def test_where_and_with_what_it_was_measured(compressed: Compressed) -> None:
    report = compressed.report
    assert report.machine.cpu and report.machine.cores >= 1
    assert report.versions["onnxruntime"] == onnxruntime.__version__
    assert (report.threads, report.seed) == ((1,), 0)


def test_stages_have_time_and_memory(compressed: Compressed) -> None:
    rows = compressed.report.stages
    assert [row.name for row in rows] == [
        "read", "clean", "baseline", "analyze", "prune", "quantize", "verify", "write"
    ]  # fmt: skip
    assert all(row.seconds >= 0 and row.note and (row.peak_mb is None or row.peak_mb > 10) for row in rows)


def test_layers_are_as_wide_as_the_file_says(compressed: Compressed) -> None:
    after = onnx.load(compressed.output).graph
    shapes = {item.name: tuple(item.dims) for item in after.initializer}
    made = {node.output[0]: node for node in after.node}
    rows = {row.node: row for row in compressed.report.layers}
    assert any(row.width_after < row.width_before for row in rows.values())
    assert {row.runs_as for row in rows.values()} <= {"int8", "float32"}
    for node in after.node:
        if node.op_type == "Conv":
            weight = node.input[1] if node.input[1] in shapes else made[node.input[1]].input[0]
            weight = weight if weight in shapes else made[weight].input[0]  # behind the Cast of stored weights
            assert shapes[weight][0] == rows[node.name].width_after


def test_what_was_left_alone_has_a_reason(compressed: Compressed) -> None:
    refusals = {item.what: item.reason for item in compressed.report.refusals}
    assert "graph output 'logits'" in refusals["/head/fc"]
    assert "residual stream" in refusals["/stem/conv"]


def test_the_choice_follows_the_rule(compressed: Compressed) -> None:
    """The fastest that keeps the quality, the smallest within the noise, never slower than the cleaned model."""
    check_rule(compressed.report)


def check_rule(report: Report) -> None:
    candidates = [item for item in report.variants if item.name not in (ORIGINAL, PLAIN_INT8)]
    median = {item.name: item.ratio[1].median if item.ratio else 1.0 for item in candidates}
    slower = {item.name for item in candidates if median[item.name] > 1}
    slower -= {item.name for item in candidates if "-stored" in item.name and item.ratio[1].noise != "slower"}
    eligible = [item for item in candidates if "quality" not in item.verdict and item.name not in slower]
    taken = report.taken
    assert taken in eligible and taken.quality is not None and taken.quality.state != "over"
    assert [item.name for item in candidates if item.verdict == "written"] == [taken.name]
    for item in eligible:
        if median[item.name] < median[taken.name] * 0.95:
            # faster ones lost to a smaller file inside the noise, which may be wider than 5 %
            assert taken.file_bytes < item.file_bytes and "larger" in item.verdict
        if median[item.name] <= median[taken.name]:
            assert taken.file_bytes <= item.file_bytes
    for item in candidates:
        assert item.verdict
        if item.name in slower:
            assert item.verdict.startswith(("slower than fp32", "no faster", "over", "too few"))


# --- replay --------------------------------------------------------------------------------------------------


def replay(compressed: Compressed, output: Path, plan: Path | None = None, workers: int | None = None) -> bytes:
    apply(compressed.request.model, plan or compressed.plan, compressed.request.data, output, workers=workers)
    return output.read_bytes()


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_a_plan_gives_the_same_bytes(compressed: Compressed, tmp_path: Path, workers: int | None) -> None:
    assert replay(compressed, tmp_path / "again.onnx", workers=workers) == compressed.output.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


def test_workers_change_no_decision(compressed: Compressed, tmp_path: Path) -> None:
    request = dataclasses.replace(compressed.request, output=tmp_path / "out.onnx", workers=1)
    other = compress(request)
    candidates = {item.name: item for item in compressed.report.variants}
    for item in other.variants:  # timing may choose another one, but the same ones were there to choose from
        mine = candidates[item.name]
        assert (item.file_bytes, item.macs, item.quality) == (mine.file_bytes, mine.macs, mine.quality)
    again = replay(compressed, tmp_path / "again.onnx", tmp_path / "out.plan.json", workers=2)
    assert again == (tmp_path / "out.onnx").read_bytes()


def test_a_plan_of_another_model(compressed: Compressed, tmp_path: Path) -> None:
    model = onnx.load(compressed.request.model)
    model.graph.initializer[0].name += ""
    model.producer_name = "somebody else"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PlanError, match="belongs to another model"):
        apply(tmp_path / "other.onnx", compressed.plan, compressed.request.data, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_plan_with_other_samples_or_none(compressed: Compressed, digits_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="other samples"):
        apply(compressed.request.model, compressed.plan, str(digits_npz), tmp_path / "out.onnx")
    with pytest.raises(PlanError, match="--data"):
        apply(compressed.request.model, compressed.plan, None, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_the_plan_itself_is_not_overwritten(compressed: Compressed) -> None:
    with pytest.raises(InputError, match="same file"):
        apply(compressed.request.model, compressed.plan, compressed.request.data, compressed.plan)


def edited(compressed: Compressed, path: Path, change: Any) -> Path:
    """A plan file like that of the compression, after ``change`` of its JSON."""
    raw = json.loads(compressed.plan.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    return path


def test_a_plan_may_be_edited(compressed: Compressed, tmp_path: Path) -> None:
    def remove_less(raw: dict[str, Any]) -> None:
        raw["cuts"][0]["removed"] = raw["cuts"][0]["removed"][:-3]
        raw["quantization"]["float_nodes"] = ["/stem/conv"]

    plan = edited(compressed, tmp_path / "mine.json", remove_less)
    replay(compressed, tmp_path / "out.onnx", plan)
    assert answers(tmp_path / "out.onnx", images(2)).shape == (2, 10)
    removed = {entry.key: entry.value for entry in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert int(removed["edgepress.channels_removed"]) == sum(len(cut.removed) for cut in Plan.load(plan).cuts)


def test_a_plan_that_only_cleans_needs_no_samples(compressed: Compressed, tmp_path: Path) -> None:
    plan = edited(compressed, tmp_path / "mine.json", lambda raw: raw.update(cuts=[], quantization=None))
    apply(compressed.request.model, plan, None, tmp_path / "out.onnx")
    inputs = images(4)
    expected = answers(compressed.request.model, inputs)
    np.testing.assert_allclose(answers(tmp_path / "out.onnx", inputs), expected, rtol=1e-4, atol=1e-4)


BAD_EDITS: dict[str, tuple[Any, str]] = {
    "group": (lambda raw: raw["cuts"][0].update(group="/no/such"), "does not have: `edgepress explain`"),
    "stream": (
        lambda raw: raw["cuts"].append({"group": "/stem/conv", "size": 32, "removed": [0]}),
        "must stay whole (residual",
    ),
    "twice": (lambda raw: raw["cuts"].append(raw["cuts"][0]), "named twice"),
    "size": (lambda raw: raw["cuts"][0].update(size=1000), "has 1000 channels, but it has"),
    "index": (lambda raw: raw["cuts"][0].update(removed=[999]), "more is removed than"),
    "all": (lambda raw: raw["cuts"][0].update(removed=list(range(raw["cuts"][0]["size"]))), "more is removed than"),
    "negative": (lambda raw: raw["cuts"][0].update(removed=[-1]), "no list of whole numbers"),
    "broken index": (lambda raw: raw["cuts"][0].update(removed=[1.5]), "no list of whole numbers"),
    "repeated": (lambda raw: raw["cuts"][0].update(removed=[1, 1]), "removed twice"),
    "removed": (lambda raw: raw["cuts"][0].update(removed="1, 2"), "no list of whole numbers"),
    "cuts": (lambda raw: raw.update(cuts=7), "wrong or missing field"),
    "cut": (lambda raw: raw.update(cuts=[7]), "wrong or missing field"),
    "float node": (lambda raw: raw["quantization"].update(float_nodes=["/no/such"]), "no weighted node of that name"),
    "levels": (lambda raw: raw["quantization"].update(levels={"/no/such": 4}), "The plan's levels name node"),
    "codebooks": (lambda raw: raw["quantization"].update(codebooks=["/no/such"]), "mend codebooks in the plan"),
    "scales": (lambda raw: raw["quantization"].update(given_scales={"/no": [1.0]}), "given_scales name node '/no'"),
    "given ranges": (lambda raw: raw["quantization"].update(given_ranges={"no": [0, 1]}), "no such activation"),
    "float nodes": (lambda raw: raw["quantization"].update(float_nodes="/stem/conv"), "no list of names"),
    "ranges": (lambda raw: raw["quantization"].update(ranges="best"), "ranges is neither"),
    "compute": (lambda raw: raw["quantization"].update(compute="int4"), "compute is neither"),
    "percentile": (lambda raw: raw["quantization"].update(percentile=3), "percentile is not"),
    "weights": (lambda raw: raw["quantization"].update(weight_limit=4096), "weight_limit is not"),
    "quantization": (lambda raw: raw["quantization"].update(bits=4), "bits"),
    "field": (lambda raw: raw.update(color="red"), "unknown field 'color'"),
    "missing": (lambda raw: raw.pop("cuts"), "'cuts'"),
    "seed": (lambda raw: raw.update(seed="x"), "seed is no whole number"),
    "settings": (lambda raw: raw.update(settings=[1]), "settings is no object"),
    "other settings": (lambda raw: raw["settings"].update(rows=5), "other settings"),
    "target": (lambda raw: raw["settings"].update(target="gpu"), "There is no target 'gpu'"),
    "format": (lambda raw: raw.update(format="edgepress-plan/9"), "not an edgepress-plan/1 file"),
}


@pytest.mark.parametrize("case", BAD_EDITS)
def test_a_plan_that_was_edited_badly(case: str, compressed: Compressed, tmp_path: Path) -> None:
    change, message = BAD_EDITS[case]
    plan = edited(compressed, tmp_path / "mine.json", change)
    with pytest.raises(EdgepressError) as caught:
        apply(compressed.request.model, plan, compressed.request.data, tmp_path / "out.onnx")
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("text", ["", "hello", "[]", "{", "\0\xff", "[" * 100_000])
def test_a_plan_that_is_none(text: str, compressed: Compressed, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text, encoding="latin-1")
    done = CliRunner().invoke(
        cli.main,
        ["apply", str(compressed.request.model), str(tmp_path / "mine.json"), "-o", str(tmp_path / "out.onnx")],
    )
    assert done.exit_code == 2 and done.stderr.startswith("edgepress: error: ") and done.stderr.count("\n") == 1


def test_apply_through_the_command_line(compressed: Compressed, tmp_path: Path) -> None:
    arguments = [str(compressed.request.model), str(compressed.plan), "--data", str(compressed.request.data)]
    done = CliRunner().invoke(cli.main, ["apply", *arguments, "-o", str(tmp_path / "again.onnx")])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "again.onnx").read_bytes() == compressed.output.read_bytes()
    assert f"bytes\t{compressed.output.stat().st_size}" in done.stdout


def test_plans_come_back_from_json(compressed: Compressed) -> None:
    plan = Plan("a", "b", (Cut("g", 4, (1, 3)),), Quantization("percentile", 99.9, ("n",), 64, False, "float"), 3)
    assert Plan.from_json(plan.to_json()) == plan


# --- explain -------------------------------------------------------------------------------------------------


def test_explain(digits_model: Path) -> None:
    found = explain(digits_model)
    refused = {group.name: group.refusal for group in found.groups}
    assert sum(reason is None for reason in refused.values()) == 3
    assert "residual" in (refused["/stem/conv"] or "") and "graph output" in (refused["/head/fc"] or "")


def test_explain_through_the_command_line(digits_model: Path) -> None:
    done = CliRunner().invoke(cli.main, ["explain", str(digits_model)])
    assert done.exit_code == 0
    assert "group./stem/conv.refusal\tresidual stream" in done.stdout
    as_json = CliRunner().invoke(cli.main, ["explain", str(digits_model), "--json"])
    assert Explanation.from_json(as_json.stdout) == explain(digits_model)


@pytest.mark.parametrize("variant", ["bn", "folded", "dynamo"])
def test_explain_a_residual_network(shared: Path, variant: str) -> None:
    found = explain(shared / "models" / f"cifar10_resnet20_{variant}.onnx")
    free = [group for group in found.groups if group.refusal is None]
    assert len(free) == 9 and {group.size for group in free} == {16, 32, 64}
    assert any("residual stream" in (group.refusal or "") for group in found.groups)


# --- candidates ------------------------------------------------------------------------------------------------


def test_candidates_have_names_of_their_own(digits_model: Path) -> None:
    """Names carry two digits of the cost; near twins would be timed, and chosen, under one name."""
    model, verdict = Model.load(digits_model), never_measured()
    mild, twin, strong = (
        candidate(f"pruned-{cost:.2f}", "pruned fp32", model, (Cut("g", 9, removed),), verdict, None, cost)
        for cost, removed in ((0.144, (0,)), (0.141, (0, 1)), (0.1, (0, 1, 2)))
    )
    assert distinct([mild, twin, strong]) == [twin, strong]
