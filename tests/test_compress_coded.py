"""``compress -o small.epz``: what is written, what the report promises of it, and what a plan replays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from numeric_tools import run
from pipeline_models import CONV, MLP, TIME_FIRST, UNKNOWN_OPERATOR, Small

from edgepress import cli, codec
from edgepress.calibrate import Feed, open_feed, split
from edgepress.codec.grids import one_step, step_each
from edgepress.errors import BudgetMissed
from edgepress.model import Model
from edgepress.ops.weighted import output_axis
from edgepress.pipeline import apply, compress
from edgepress.pipeline.prepare import HOLD_OUT
from edgepress.plan import Plan
from edgepress.quality import Comparison
from edgepress.quantize.storage.reformed import reformed
from edgepress.quantize.weights.lattice import on_grid
from edgepress.quantize.weights.rated import REACH
from edgepress.report import CLEANED, Report
from edgepress.request import Request, plan_path, report_path

pytestmark = pytest.mark.usefixtures("quick")


@dataclass(frozen=True)
class Done:
    """A compression to a coded file."""

    request: Request
    report: Report

    @property
    def output(self) -> Path:
        assert self.request.output is not None
        return self.request.output

    @property
    def data(self) -> str:
        assert self.request.data is not None
        return self.request.data

    @cached_property
    def plan(self) -> Plan:
        return Plan.load(plan_path(self.output))

    @cached_property
    def original(self) -> Model:
        return Model.load(self.request.model)

    @cached_property
    def decoded(self) -> Model:
        """The ONNX file that the coded one holds."""
        return Model.of(onnx.load_from_string(codec.decode(self.output.read_bytes())))

    @cached_property
    def hold_out(self) -> Feed:
        """The samples that decisions were made on."""
        return split(open_feed(self.data, self.original), seed=self.request.seed, hold_out=HOLD_OUT)[1]

    def compared(self) -> Comparison:
        """Answers on these, as onnxruntime gives them."""
        part = next(iter(self.hold_out.chunks(len(self.hold_out))))
        return Comparison.of(run(self.original, part.inputs), run(self.decoded, part.inputs), part.labels)


def request_for(small: Small, folder: Path, count: int = 160, **changes: Any) -> Request:
    model, data = small.save(folder / "net.onnx"), small.save_samples(folder / "x.npz", count)
    base = Request(model, folder / "small.epz", str(data), threads=1, workers=1, bench_seconds=0.01)
    return dataclasses.replace(base, **changes)


def made(request: Request) -> Done:
    return Done(request, compress(request))


def unpruned(small: Small, folder: Path, **changes: Any) -> Done:
    return made(request_for(small, folder, prune=False, **changes))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


GIVEN = {"net.onnx", "x.npz"}
WRITTEN = {"small.epz", "small.plan.json", "small.report.json"}


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A perceptron, pruned and rounded for the coded file."""
    return made(request_for(MLP, tmp_path_factory.mktemp("coded")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same, with all its units."""
    return unpruned(MLP, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def speech(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A real network for keywords, with depthwise convolutions and labels."""
    output = tmp_path_factory.mktemp("speech") / "small.epz"
    data = output.with_name("x.npz")
    with np.load(shared / "calib" / "kws_dscnn_calib.npz") as arrays:
        np.savez(data, **{name: array[:120] for name, array in arrays.items()})
    model = shared / "models" / "kws_dscnn.onnx"
    return made(Request(model, output, str(data), prune=False, max_drop=5, threads=1, workers=1, bench_seconds=0.01))


@pytest.fixture(params=["mlp", "speech"])
def done(request: pytest.FixtureRequest) -> Done:
    """Each of both."""
    found: Done = request.getfixturevalue(request.param)
    return found


# --- what is written -----------------------------------------------------------------------------------------


def test_three_files_and_no_other(mlp: Done) -> None:
    assert files(mlp.output.parent) == GIVEN | WRITTEN
    assert Report.from_json(report_path(mlp.output).read_text()) == mlp.report
    assert mlp.report.output == str(mlp.output)


def test_it_decodes_to_a_model_with_the_same_interface(done: Done) -> None:
    proto = onnx.load_from_string(codec.decode(done.output.read_bytes()))
    onnx.checker.check_model(proto, full_check=True)
    assert done.decoded.inputs == done.original.inputs and list(done.decoded.outputs) == list(done.original.outputs)
    assert not [entry for entry in proto.metadata_props if entry.key.startswith("edgepress")]


def test_names_of_nodes_stay(mlp: Done) -> None:
    assert [node.name for node in mlp.decoded.nodes] == [node.name for node in mlp.original.nodes]


def test_answers_are_as_good_as_the_report_says(done: Done) -> None:
    quality, found = done.report.taken.quality, done.compared()
    assert quality is not None and quality.samples == len(found)
    assert quality.kl == pytest.approx(found.divergence.mean(), rel=1e-3, abs=1e-6)
    assert quality.agreement == pytest.approx(100 * (1 - found.changed.mean()))
    assert 10 * np.log10(found.signal.sum() / found.noise.sum()) == pytest.approx(quality.sqnr_db, abs=0.01)
    if found.right is not None:
        assert quality.after == pytest.approx(100 * found.right[:, 1].mean())
    assert quality.state != "over"


def test_sizes_are_those_of_the_files(done: Done) -> None:
    assert done.report.taken.file_bytes == done.output.stat().st_size
    assert done.report.original.file_bytes == done.request.model.stat().st_size
    cleaned = done.report.variant(CLEANED)
    assert cleaned is not None and cleaned.file_bytes < done.report.original.file_bytes  # coded, too
    assert done.report.taken.file_bytes == min(
        item.file_bytes for item in done.report.variants if item.quality and item.quality.state == "within"
    ) or "smaller" in done.report.verdict  # fmt: skip
    assert done.output.stat().st_size < 0.1 * done.report.original.file_bytes


def test_weights_are_whole_numbers_times_steps_on_the_grid(done: Done) -> None:
    coding = done.plan.coding
    assert coding is not None and done.plan.quantization is None
    weighted = [node for node in done.decoded.nodes if node.op in ("Conv", "Gemm", "MatMul")]
    assert coding.steps.keys() | set(coding.channels) == {node.name for node in weighted}
    for node in (node for node in weighted if node.name in coding.steps):
        weight = np.moveaxis(done.decoded.constants[node.inputs[1]], output_axis(node.op, node.attributes), 0)
        found = step_each(weight.reshape(len(weight), -1))
        assert found is not None and np.abs(found.whole.astype(int)).max() <= REACH
        alive = found.whole.any(1)
        assert alive.any()
        gains = found.steps[alive] / coding.steps[node.name]  # times what matches the outputs, or a few steps at once
        assert (gains > 0.1).all() and (gains < 2 * REACH).all()
        ones = (np.abs(found.whole) == 1).any(1) & alive
        assert np.array_equal(on_grid(found.steps[ones]), found.steps[ones]) or node.op == "MatMul"
        if len(node.inputs) > 2:
            assert one_step(done.decoded.constants[node.inputs[2]]) is not None


def test_plans_say_what_was_decided(done: Done) -> None:
    assert done.plan.model_sha256 == done.original.sha256 and done.plan.data_sha256
    assert bool(done.plan.cuts) == done.request.prune
    raw = json.loads(plan_path(done.output).read_text())
    assert raw["coding"]["steps"] and raw["quantization"] is None


def test_layers_say_bits_and_steps(mlp: Done) -> None:
    rows = {row.node: row for row in mlp.report.layers}
    assert rows.keys() == {"n_a", "n_c", "n_y"}
    for row in rows.values():
        assert row.bits is not None and 0 < row.bits < 6 and row.scale_low is not None and row.scale_high is not None
        assert 0 < row.scale_low <= row.scale_high and row.runs_as == "float32"
    assert sum(row.file_bytes for row in rows.values()) < mlp.output.stat().st_size
    assert mlp.report.weight_bits is not None and 0 < mlp.report.weight_bits < 6


def test_it_is_smaller_than_what_mixed_widths_leave(whole: Done, tmp_path: Path) -> None:
    other = compress(dataclasses.replace(whole.request, output=tmp_path / "auto.onnx", bits="auto"))
    assert whole.output.stat().st_size < 0.5 * other.taken.file_bytes
    assert whole.output.stat().st_size < len(codec.encode((tmp_path / "auto.onnx").read_bytes()))


def test_pruning_makes_it_smaller(mlp: Done, whole: Done) -> None:
    assert mlp.output.stat().st_size < 0.8 * whole.output.stat().st_size
    assert mlp.decoded.parameters < 0.8 * whole.decoded.parameters == 0.8 * whole.original.parameters
    assert mlp.plan.cuts and not whole.plan.cuts


# --- again -----------------------------------------------------------------------------------------------------


def test_a_plan_is_replayed_to_the_same_bytes(done: Done, tmp_path: Path) -> None:
    again = tmp_path / "again.epz"
    applied = apply(done.request.model, plan_path(done.output), done.data, again, workers=3)
    assert again.read_bytes() == done.output.read_bytes()
    assert applied.file_bytes == done.report.taken.file_bytes


def test_a_plan_also_makes_an_onnx_file_of_the_same_answers(mlp: Done, tmp_path: Path) -> None:
    plain = tmp_path / "again.onnx"
    apply(mlp.request.model, plan_path(mlp.output), mlp.data, plain)
    inputs = MLP.arrays(9, seed=3)
    assert np.array_equal(run(Model.load(plain), inputs)[0], run(mlp.decoded, inputs)[0])


@pytest.mark.parametrize("form", ["int8", "int4", "packed", "float"])
@pytest.mark.parametrize("name", ["whole", "speech"])
def test_every_form_answers_the_same_bit_by_bit(name: str, form: str, request: pytest.FixtureRequest) -> None:
    done: Done = request.getfixturevalue(name)
    if form == "int4" and done.decoded.opset < 21:
        pytest.skip("int4 needs operator set 21")
    other = reformed(done.decoded, form)
    inputs = next(iter(done.hold_out.chunks(16))).inputs
    assert np.array_equal(run(other, inputs)[0], run(done.decoded, inputs)[0])
    assert (form == "float") == (other.size == done.decoded.size) and other.size <= done.decoded.size


# --- what is asked for -------------------------------------------------------------------------------------------


def test_a_size_counts_coded_bytes(tmp_path: Path) -> None:
    found = unpruned(MLP, tmp_path, size_ratio=0.12, max_drop=5)
    goal = 0.12 * found.request.model.stat().st_size
    assert 0.8 * goal < found.output.stat().st_size == found.report.taken.file_bytes <= goal
    assert found.report.budgets["size_ratio"] == 0.12
    assert len(found.decoded.data) > goal  # the file as ONNX would not do


def test_a_tighter_limit_takes_more_bytes(whole: Done, tmp_path: Path) -> None:
    tighter = unpruned(MLP, tmp_path, max_drop=0.2)
    assert whole.output.stat().st_size < 0.9 * tighter.output.stat().st_size
    losses = [float(item.compared().divergence.mean()) for item in (tighter, whole)]
    assert 0 < losses[0] <= 0.2 * 0.02 and losses[0] < losses[1] <= 0.02


def test_what_cannot_be_lost_stays_as_it_was(tmp_path: Path) -> None:
    found = unpruned(MLP, tmp_path, max_drop=0)
    assert not found.compared().divergence.max() > 1e-9 and found.plan.coding is None
    assert "cleaned fp32" in found.report.verdict
    assert found.output.stat().st_size == found.report.taken.file_bytes


def test_no_quantization_keeps_float_weights(tmp_path: Path) -> None:
    found = unpruned(MLP, tmp_path, quantize=False)
    assert found.plan.coding is None and found.plan.quantization is None
    for node in found.original.nodes[::2]:
        kept = found.decoded.constants[found.decoded.node(node.name).inputs[1]]
        assert np.array_equal(kept, found.original.constants[node.inputs[1]])
    assert found.output.stat().st_size == found.report.taken.file_bytes


def test_a_width_that_is_named_makes_integers(tmp_path: Path) -> None:
    found = unpruned(MLP, tmp_path, bits="4", max_drop=50)
    assert found.plan.coding is None and found.plan.quantization is not None
    assert set(found.plan.quantization.levels.values()) == {16}
    assert found.output.stat().st_size == found.report.taken.file_bytes < 0.25 * found.original.size


def test_a_node_that_stays_float_is_not_rounded(tmp_path: Path) -> None:
    found = unpruned(MLP, tmp_path, keep_float=("n_c",))
    assert found.plan.coding is not None and found.plan.coding.steps.keys() == {"n_a", "n_y"}
    kept, others = (found.decoded.constants[found.decoded.node(name).inputs[1]] for name in ("n_c", "n_a"))
    assert step_each(kept) is None and step_each(others) is not None
    bias = found.decoded.constants[found.decoded.node("n_c").inputs[2]]
    assert one_step(bias) is None  # nor is what it adds
    rows = {row.node: row for row in found.report.layers}
    assert rows["n_c"].bits is None and rows["n_a"].bits is not None
    assert found.output.stat().st_size < 0.7 * found.original.size


def test_a_speed_out_of_reach_is_missed(tmp_path: Path) -> None:
    request = request_for(MLP, tmp_path, prune=False, speedup=1000)
    with pytest.raises(BudgetMissed, match="times as fast, 1000 was asked for") as caught:
        compress(request)
    assert files(tmp_path) == GIVEN and caught.value.exit_code == 3


# --- every kind of graph ---------------------------------------------------------------------------------------

DEPTHWISE = Small(
    f"""g (float[N,3,8,8] x) => (float[N,4,8,8] y) {{
    a = {CONV}(x,w1,b1)  r = Relu(a)  c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=16>(r,w2,b2)  s = Relu(c)
    y = Conv<kernel_shape=[1,1]>(s,w3,b3) }}""",
    {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,), "w3": (4, 16, 1, 1), "b3": (4,)},
)

TOKENS = Small(
    """g (int64[N,6] x) => (float[N,6,8] y) {
    e = Gather(table,x)  a = MatMul(e,w1)  h = Add(a,b1)  r = Relu(h)  m = MatMul(r,w2)  y = Add(m,b2) }""",
    {"table": (40, 24), "w1": (24, 32), "b1": (32,), "w2": (32, 8), "b2": (8,)},
)


def sqnr(found: Done) -> float:
    compared = found.compared()
    return float((10 * np.log10(compared.signal.sum(0) / compared.noise.sum(0))).min())


def test_models_that_do_not_classify_keep_their_signal(tmp_path: Path) -> None:
    """A depthwise convolution among them, which is rounded by itself."""
    found = unpruned(DEPTHWISE, tmp_path, min_sqnr=12)
    assert found.plan.coding is not None and found.report.taken.quality is not None
    assert sqnr(found) >= 12 and sqnr(found) == pytest.approx(found.report.taken.quality.sqnr_db, abs=0.01)
    assert found.plan.coding.steps.keys() == {"n_a", "n_y"} and found.plan.coding.channels == ("n_c",)
    for name in ("n_a", "n_c", "n_y"):
        weight = found.decoded.constants[found.decoded.node(name).inputs[1]]
        assert step_each(weight.reshape(len(weight), -1)) is not None
    assert found.output.stat().st_size < 0.25 * found.original.size


def test_tables_have_steps_of_their_own(tmp_path: Path) -> None:
    request = request_for(TOKENS, tmp_path, prune=False, min_sqnr=12)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 40, (120, 6)))
    found = made(request)
    coding = found.plan.coding
    assert coding is not None and list(coding.tables) == ["table"]
    table = next(found.decoded.constants[node.inputs[0]] for node in found.decoded.nodes if node.op == "Gather")
    steps = one_step(table)
    assert steps is not None and steps.steps[0] == np.float32(coding.tables["table"])
    assert np.abs(table - found.original.constants["table"]).max() <= 0.5001 * coding.tables["table"]
    assert sqnr(found) >= 12 and found.output.stat().st_size < 0.3 * found.original.size


def test_recurrent_weights_are_rounded_as_tables(tmp_path: Path) -> None:
    found = unpruned(TIME_FIRST, tmp_path, min_sqnr=12)
    coding = found.plan.coding
    assert coding is not None and set(coding.tables) == {"w", "r"} and list(coding.steps) == ["n_y"]
    lstm = next(node for node in found.decoded.nodes if node.op == "LSTM")
    assert all(one_step(found.decoded.constants[name]) is not None for name in lstm.inputs[1:3])
    inputs = TIME_FIRST.arrays(30, seed=8)
    before, after = run(found.original, inputs)[0], run(found.decoded, inputs)[0]
    assert np.square(after - before).sum() < 10**-1.1 * np.square(before).sum()
    again = tmp_path / "again.epz"
    apply(found.request.model, plan_path(found.output), found.data, again)
    assert again.read_bytes() == found.output.read_bytes()


def test_what_the_executor_does_not_run_is_only_coded(tmp_path: Path) -> None:
    found = unpruned(UNKNOWN_OPERATOR, tmp_path)
    assert found.plan.coding is None and found.report.chosen == CLEANED
    assert "no kernel in torch" in " ".join(map(str, found.report.refusals))
    assert found.output.stat().st_size == found.report.taken.file_bytes < found.original.size
    for name, array in found.original.constants.items():
        if name.startswith("w"):
            assert any(np.array_equal(array, other) for other in found.decoded.constants.values())


def test_without_samples_the_cleaned_model_is_coded(tmp_path: Path) -> None:
    request = dataclasses.replace(request_for(MLP, tmp_path), data=None)
    report = compress(request)
    assert files(tmp_path) == GIVEN | WRITTEN and "No samples were given" in " ".join(report.notes)
    found = Done(request, report)
    inputs = MLP.arrays(9, seed=3)
    assert np.allclose(run(found.decoded, inputs)[0], run(found.original, inputs)[0], atol=1e-6)
    assert found.output.stat().st_size < 0.9 * found.original.size
    assert report.taken.file_bytes == found.output.stat().st_size


def test_more_loss_is_not_a_larger_file_where_work_is_bounded_too(tmp_path: Path) -> None:
    sizes = [made(request_for(MLP, tmp_path, mac_ratio=0.6, max_drop=drop)).report.taken.file_bytes for drop in (1, 3)]
    assert sizes[1] <= sizes[0]


def test_what_is_next_overwrites_nothing(tmp_path: Path) -> None:
    output = tmp_path / "net.epz"
    request = dataclasses.replace(request_for(MLP, tmp_path, prune=False), output=output)
    assert compress(request).next.split()[-1] == str(tmp_path / "net.decoded.onnx")


# --- the command line --------------------------------------------------------------------------------------------


def edgepress(*arguments: str | Path | float) -> Result:
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


HASTE = ("--no-prune", "--quiet", "--threads", 1)


def told(done: Result) -> dict[str, str]:
    assert done.exit_code == 0, done.output
    return dict(line.split("\t", 1) for line in done.stdout.splitlines())


def test_quantize_makes_the_same_bytes_as_compress_without_pruning(whole: Done, tmp_path: Path) -> None:
    output = tmp_path / "small.epz"
    lines = told(edgepress("quantize", whole.request.model, "--data", whole.data, "-o", output, *HASTE[1:]))
    assert files(tmp_path) == WRITTEN and output.read_bytes() == whole.output.read_bytes()
    assert plan_path(output).read_bytes() == plan_path(whole.output).read_bytes()
    assert str(output.stat().st_size) in " ".join(lines.values())


def test_a_dry_run_reports_the_coded_size_and_writes_nothing(whole: Done, tmp_path: Path) -> None:
    output = tmp_path / "small.epz"
    dry = edgepress("compress", whole.request.model, "--data", whole.data, "-o", output, *HASTE, "--dry-run", "--json")
    assert dry.exit_code == 0 and not files(tmp_path)
    report = Report.from_json(dry.stdout)
    assert report.output is None and report.chosen == whole.report.chosen
    assert report.taken.file_bytes == whole.output.stat().st_size


def test_a_size_out_of_reach_is_missed(whole: Done, tmp_path: Path) -> None:
    output = tmp_path / "small.epz"
    missed = edgepress("compress", whole.request.model, "--data", whole.data, "-o", output, *HASTE, "--json",
                       "--size-ratio", 0.01)  # fmt: skip
    assert missed.exit_code == 3 and not files(tmp_path)
    assert "0.01 was asked for" in missed.stderr and "Traceback" not in missed.output
    report = Report.from_json(missed.stdout)
    assert "missed, nothing was written" in report.verdict and report.output is None
    assert report.taken.file_bytes <= whole.output.stat().st_size  # the smallest that keeps the limit, or smaller


def test_a_coded_file_is_applied_and_decoded_by_commands(whole: Done, tmp_path: Path) -> None:
    again, plain = tmp_path / "again.epz", tmp_path / "again.onnx"
    lines = told(edgepress("apply", whole.request.model, plan_path(whole.output), "--data", whole.data, "-o", again))
    assert lines["bytes"] == str(whole.output.stat().st_size) and again.read_bytes() == whole.output.read_bytes()
    told(edgepress("decode", again, "-o", plain))
    assert plain.read_bytes() == codec.decode(whole.output.read_bytes())
    inputs = MLP.arrays(9, seed=3)
    for form in ("int8", "packed"):
        other = tmp_path / f"{form}.onnx"
        told(edgepress("decode", again, "-o", other, "--form", form))
        assert np.array_equal(run(Model.load(other), inputs)[0], run(Model.load(plain), inputs)[0])


def damaged(done: Done, folder: Path, changes: Mapping[str, Any]) -> Path:
    raw = json.loads(plan_path(done.output).read_text())
    raw["coding"] |= changes
    path = folder / "damaged.plan.json"
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": {"n_a": 0}},
        {"steps": {"n_a": 1e300}},
        {"steps": {"n_a": -0.5}},
        {"channels": "n_a"},
        {"tables": {"w1": "wide"}},
        {"rate": -1},
        {"step": {}},
    ],
    ids=str,
)
def test_a_damaged_plan_is_one_sentence(mlp: Done, changes: dict[str, Any], tmp_path: Path) -> None:
    plan = damaged(mlp, tmp_path, changes)
    done = edgepress("apply", mlp.request.model, plan, "--data", mlp.data, "-o", tmp_path / "out.epz")
    assert done.exit_code == 2 and files(tmp_path) == {plan.name}
    assert len(done.stderr.splitlines()) == 1 and "wrong or missing field" in done.stderr


@pytest.mark.parametrize(
    "changes", [{"steps": {"nosuch": 0.1}}, {"channels": ["nosuch"]}, {"tables": {"w1": 0.1}}], ids=str
)
def test_a_plan_of_another_network_is_one_sentence(mlp: Done, changes: dict[str, Any], tmp_path: Path) -> None:
    plan = damaged(mlp, tmp_path, changes)
    done = edgepress("apply", mlp.request.model, plan, "--data", mlp.data, "-o", tmp_path / "out.epz")
    assert done.exit_code == 2 and files(tmp_path) == {plan.name}
    assert len(done.stderr.splitlines()) == 1 and f"mend {next(iter(changes))} in the plan's coding" in done.stderr


def test_a_plan_without_its_samples_is_refused(mlp: Done, tmp_path: Path) -> None:
    done = edgepress("apply", mlp.request.model, plan_path(mlp.output), "-o", tmp_path / "out.epz")
    assert done.exit_code == 2 and "needs samples" in done.stderr and not files(tmp_path)
    other = MLP.save_samples(tmp_path / "other.npz", 160, seed=5)
    done = edgepress("apply", mlp.request.model, plan_path(mlp.output), "--data", other, "-o", tmp_path / "out.epz")
    assert done.exit_code == 2 and "other samples" in done.stderr and files(tmp_path) == {"other.npz"}
