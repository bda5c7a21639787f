"""compress --device: the costs of the device decide, whatever this machine would say; only times are called fast."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from invented import MACHINE
from pipeline_models import CONV, HEAD, Small
from rich.console import Console

from edgepress import cli, targets
from edgepress.bench import Machine, Timing
from edgepress.bench.counted import exact
from edgepress.bench.meter import Small as One
from edgepress.devices import Level
from edgepress.errors import BudgetMissed, DataError, DeviceError, InputError
from edgepress.model import Model
from edgepress.pipeline import compress, place
from edgepress.pipeline.analysis import Analysis, analyze
from edgepress.pipeline.budgets import along_device
from edgepress.pipeline.place import Place, cpu_of
from edgepress.pipeline.prepare import clean, context_of, read
from edgepress.plan import Plan
from edgepress.planner import ALLOCATIONS, Costs, instructions
from edgepress.report import CLEANED, Report
from edgepress.report.costs import device_name
from edgepress.report.terminal import pairs, render
from edgepress.request import Request, plan_path

ROOT = Path(__file__).parents[1]
WIDE = Small(
    f"""g (float[N,3,8,8] x) => (float[N,5] y) {{
        a = {CONV}(x,w1,b1)  r1 = Relu(a)  c = {CONV}(r1,w2,b2)  r2 = Relu(c)  {HEAD} }}""",
    {"w1": (64, 3, 3, 3), "b1": (64,), "w2": (64, 64, 3, 3), "b2": (64,), "w3": (5, 64), "b3": (5,)},
)

A72 = {
    "cpu": "Invented board", "part": "0xd08", "flags": ["asimd", "fp"], "cores": 4, "machine": "aarch64",
    "os": "Linux 6.1 aarch64", "onnxruntime": "1.31.1", "numpy": "2.4.6", "python": "3.11.2",
}  # fmt: skip


def blocks(model: Model, size: int = 1) -> float:
    """Numbers of all matrices and kernels, widths rounded up to whole blocks, in thousands."""
    rounded = ([size * -(-each // size) for each in array.shape[:2]] for array in matrices(model).values())
    return 1e-3 * sum(float(np.prod(sizes)) for sizes in rounded)


def matrices(model: Model) -> dict[str, np.ndarray]:
    return {name: array for name, array in model.constants.items() if array.ndim > 1}


def int8(model: Model) -> bool:
    return any(node.op in ("QuantizeLinear", "QLinearConv") for node in model.nodes)


class Fake:
    """A device on which a run costs what a function of the model says, and 0.001 to start it."""

    def __init__(self, cost: Callable[[Model], float], level: Level = "counted") -> None:
        self.cost, self.level, self.spec = cost, level, ""
        self.asked = 0

    def machine(self) -> Machine:
        return dataclasses.replace(MACHINE, cpu="Invented board", cores=4)

    def compare(self, models: Mapping[str, bytes], feeds: Any, *, reference: str, **settings: Any) -> Timing:
        costs = {name: self._of(data) for name, data in models.items()}
        return dataclasses.replace(exact(costs, reference, self.level, self.machine()), threads=settings["threads"])

    def best(self, groups: Sequence[Sequence[One]], **settings: Any) -> list[np.ndarray]:
        self.asked += sum(map(len, groups))
        return [np.array([self._of(data) for data, _ in group]) for group in groups]

    def _of(self, data: bytes) -> float:
        return 0.001 + self.cost(Model.of(onnx.load_from_string(data)))


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Fake]:
    """Makes a device out of a cost; every SPEC means it."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))

    def plugged(cost: Callable[[Model], float] = blocks, level: Level = "counted", **about: Any) -> Fake:
        fake = Fake(cost, level)

        @contextlib.contextmanager
        def opened(spec: str) -> Iterator[SimpleNamespace]:
            fake.spec = spec
            yield SimpleNamespace(spec=spec)

        report = {"machine": {**A72, **about}, "before": {}}
        monkeypatch.setattr(place, "open_device", opened)
        monkeypatch.setattr(
            place, "Agent", lambda device: SimpleNamespace(perform=lambda job: SimpleNamespace(report=report))
        )
        monkeypatch.setattr(place, "meter_on", lambda agent: fake)
        return fake

    return plugged


@pytest.fixture
def asked(tmp_path: Path) -> Request:
    """A request for a small network on an emulated core."""
    model, data = WIDE.save(tmp_path / "net.onnx"), WIDE.save_samples(tmp_path / "x.npz", 160)
    return Request(model, tmp_path / "out.onnx", str(data), max_drop=30.0, device="emulated://cortex-a72")


def page(report: Report) -> str:
    stream = io.StringIO()
    render(report, Console(file=stream, width=120, highlight=False), verbose=True)
    return stream.getvalue()


def widths(report: Report) -> dict[str, set[int]]:
    """Widths that layers have in the plan of a report."""
    assert report.plan is not None
    return {cut.group: {cut.size - len(cut.removed)} for cut in Plan.load(Path(report.plan)).cuts}


# --- which CPU a device has ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "name"),
    [
        (A72, "arm64-nodot"),
        ({**A72, "flags": ["asimd", "asimddp"]}, "arm64-dotprod"),
        ({**A72, "flags": []}, "arm64"),
        ({"machine": "arm64", "os": "Darwin 24 arm64", "flags": []}, "arm64-dotprod"),
        ({"machine": "x86_64", "os": "Linux 6 x86_64", "flags": ["avx2", "avx_vnni"]}, "x64-vnni"),
        ({"machine": "x86_64", "os": "Linux 6 x86_64", "flags": ["avx2"]}, "x64-avx2"),
    ],
)
def test_the_record_is_that_of_the_device(about: dict[str, Any], name: str) -> None:
    assert cpu_of(about).name == name


def test_the_model_is_made_for_the_device(plug: Callable[..., Fake], asked: Request) -> None:
    plug()
    compress(asked)
    assert asked.output is not None
    assert Plan.load(plan_path(asked.output)).settings["target"] == "arm64-nodot"


def test_another_target_of_its_kind_may_be_named(plug: Callable[..., Fake], asked: Request) -> None:
    plug()
    report = compress(dataclasses.replace(asked, target="arm64-dotprod", quantize=False, dry_run=True))
    assert "Decided for arm64-dotprod, but counted there (arm64-nodot)." in report.notes


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "x64-avx2"}, "--target x64-avx2 is for other processors than emulated://cortex-a72 has"),
        ({"threads": 2}, "counts the instructions of one thread: leave --threads out"),
        ({"data": None}, "--device is of no use without samples"),
    ],
)
def test_what_a_device_cannot_do(
    changes: dict[str, Any], message: str, plug: Callable[..., Fake], asked: Request, tmp_path: Path
) -> None:
    plug()
    with pytest.raises((InputError, DataError), match=message):
        compress(dataclasses.replace(asked, **changes))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"target": "qnn"}, InputError, "--device cannot run what is made for qnn"),
        ({"device": "emulated://cortex-a72/x"}, DeviceError, "names no device"),
        ({"device": ""}, DeviceError, "names no device"),
        ({"device": "carrier-pigeon"}, DeviceError, "no kind of device"),
    ],
)
def test_a_request_that_no_device_can_meet(
    changes: dict[str, Any], kind: type[Exception], message: str, asked: Request
) -> None:
    with pytest.raises(kind, match=message):
        compress(dataclasses.replace(asked, **changes))


def test_the_command_hands_the_device_over(asked: Request) -> None:
    words = [str(asked.model), "--data", str(asked.data), "-o", str(asked.output), "--device", "carrier-pigeon"]
    for command in ("compress", "quantize"):
        done = CliRunner().invoke(cli.main, [command, *words])
        assert done.exit_code == DeviceError.exit_code and "no kind of device 'carrier-pigeon'" in done.stderr


# --- costs of the device decide -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 16])
def test_widths_follow_the_steps_of_the_device(size: int, plug: Callable[..., Fake], asked: Request) -> None:
    """Nothing is gained inside a block: with a goal of cost alone, all widths are whole blocks."""
    plug(lambda model: blocks(model, size))
    report = compress(dataclasses.replace(asked, speedup=1.6, quantize=False))
    found = widths(report)
    assert found and all(width % size == 0 for kept in found.values() for width in kept)
    assert 1 / report.taken.ratio[1].median >= 1.6


def analyzed(asked: Request, dear: str) -> Analysis:
    """The analysis along a device on which channels that one of two convolutions makes cost everything."""

    def cost(model: Model) -> float:
        kernels = [array for array in matrices(model).values() if array.ndim == 4]
        return float(sum(len(array) for array in kernels if (array.shape[1] == 3) == (dear == "n_a")))

    opened = read(asked)
    assert opened.feed is not None
    where = Place(Fake(cost), targets.TARGETS["arm64-nodot"], A72)
    context, _ = context_of(asked, clean(opened).model, opened.feed, where)
    return along_device(asked, context, analyze(context))


def test_without_a_goal_the_dear_layer_shrinks_more(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", "off")
    found = {}
    for dear, other in (("n_a", "n_c"), ("n_c", "n_a")):
        analysis = analyzed(asked, dear)
        costs, table = analysis.ladder.costs, analysis.table
        assert table is not None and costs.time is table
        assert table.ratio({dear: 32}) == pytest.approx(0.5, rel=0.01) and table.ratio({other: 32}) == pytest.approx(1)
        for removed in ({"n_a": 32}, {"n_c": 32}, {"n_a": 32, "n_c": 32}):
            weights = costs.weights(removed) / costs.weights({})
            assert costs.blend(removed) == pytest.approx(0.5 * table.ratio(removed) + 0.5 * weights)
        path = ALLOCATIONS["hybrid"].path(analysis.ladder, costs.blend)
        found[dear] = next(state.removed for state in path if costs.blend(state.removed) <= 0.7)
    assert found["n_a"].get("n_a", 0) > found["n_c"].get("n_a", 0)
    assert found["n_c"].get("n_c", 0) > found["n_a"].get("n_c", 0)


def test_int8_is_taken_where_it_is_cheap_and_left_where_it_is_dear(plug: Callable[..., Fake], asked: Request) -> None:
    chosen = {}
    for factor in (0.3, 3.0):
        plug(lambda model, factor=factor: blocks(model) * (factor if int8(model) else 1.0))
        report = compress(dataclasses.replace(asked, prune=False, output=asked.model.parent / f"{factor}.onnx"))
        chosen[factor] = report.taken.name, Plan.load(Path(report.plan or "")).quantization
    quantization = chosen[0.3][1]
    assert quantization is not None and quantization.compute != "float"
    dear = chosen[3.0][1]
    assert chosen[3.0][0] == CLEANED or (dear is not None and dear.compute == "float")


def test_what_is_predicted_is_what_the_device_says(plug: Callable[..., Fake], asked: Request) -> None:
    plug(lambda model: blocks(model, 16))
    report = compress(dataclasses.replace(asked, quantize=False, dry_run=True))
    narrow = [item for item in report.variants if item.pruning is not None]
    assert narrow
    for item in narrow:
        assert item.pruning is not None and item.pruning.latency_by == "counted"
        assert item.pruning.latency == pytest.approx(item.ratio[1].median, rel=0.02)


def test_a_second_compression_asks_nothing_and_decides_alike(plug: Callable[..., Fake], asked: Request) -> None:
    fake = plug()
    before = compress(asked)
    first, count = asked.output.read_bytes() if asked.output else b"", fake.asked
    after = compress(asked)
    assert asked.output is not None and asked.output.read_bytes() == first and fake.asked == count > 0
    known = [next(note for note in report.notes if note.startswith("Widths follow")) for report in (before, after)]
    assert " 0 of them known" in known[0]
    assert known[1].split()[2] == known[1].split(", ")[1].split()[0]  # all of them


# --- how it is told -----------------------------------------------------------------------------------------------


def test_instructions_are_never_called_time(plug: Callable[..., Fake], asked: Request) -> None:
    plug()
    report = compress(asked)
    assert (report.level, report.device, report.machine.cpu) == ("counted", asked.device, "Invented board")
    assert (
        report.verdict.startswith("Needs 0.") and "(counted, emulated cortex-a72; no time was taken)" in report.verdict
    )
    text = page(report) + "\n".join(map("\t".join, pairs(report))) + report.to_json()
    said = text.replace("no time was taken", "").replace('"faster"', "").replace('"slower"', "")  # Ratio.noise
    assert not [word for word in ("faster", "slower", "as long", "latency_1", "timed", "times:") if word in said]
    assert "instructions, counted" in text and " fewer" in text
    assert report.next.endswith("--device emulated://cortex-a72")
    assert Report.from_json(report.to_json()).to_json() == report.to_json()
    row = next(row for row in json.loads(report.to_json())["rows"] if row["key"] == "instructions")
    assert row["unit"] == "millions" and row["low"] is None
    assert row["values"]["edgepress"] == pytest.approx(report.taken.latency[1].p50)


def test_a_goal_out_of_reach_is_told_in_instructions(plug: Callable[..., Fake], asked: Request) -> None:
    plug()
    with pytest.raises(BudgetMissed, match=r"of the fp32 instructions, .* of the instructions, 0.001 was asked for"):
        compress(dataclasses.replace(asked, speedup=1000, quantize=False))


def test_where_nothing_needs_less_that_is_said(plug: Callable[..., Fake], asked: Request) -> None:
    plug(lambda model: 1.0)
    report = compress(dataclasses.replace(asked, prune=False, size_ratio=None))
    if report.chosen == CLEANED:
        assert report.verdict.startswith("Nothing needed fewer instructions within your limit")
    assert "faster" not in report.verdict


def test_times_of_a_device_are_times(plug: Callable[..., Fake], asked: Request) -> None:
    plug(level="measured")
    report = compress(dataclasses.replace(asked, device="ssh://pi@kitchen:2222", quantize=False))
    assert report.level == "measured" and report.threads == (1, 4)
    assert "faster" in report.verdict and report.verdict.endswith(", on ssh kitchen.")
    assert "Chosen by time measured on ssh kitchen (Invented board, onnxruntime 1.31.1)." in report.notes


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("emulated://cortex-a72?folder=x", "emulated cortex-a72"),
        ("local?python=x", "this machine"),
        ("a://b/c", "a://b/c"),
    ],
)
def test_devices_in_a_sentence(spec: str, name: str) -> None:
    assert device_name(spec) == name


# --- without a device ---------------------------------------------------------------------------------------------


def test_this_process_is_the_place_where_none_is_named() -> None:
    found = place.here()
    assert not found.named and not found.counts and found.cache(1) is None and found.cpu is targets.detect()
    assert found.threads(3) == (1, 3)
    assert Place(Fake(blocks), found.cpu, A72).threads(None) == (1,)


def test_instructions_by_lanes() -> None:
    model = Model.of(onnx.shape_inference.infer_shapes(WIDE.proto()))
    macs = {"n_a": 64 * 27 * 64, "n_c": 64 * 64 * 9 * 64, "n_y": 5 * 64}
    for name in ("arm64-dotprod", "arm64-nodot", "x64-vnni"):
        target = targets.TARGETS[name]
        assert target.lanes is not None
        plain, wide = target.lanes
        costs = Costs.of(model, (), target)
        assert instructions(costs, {}) == pytest.approx(sum(macs.values()) / plain / 1e6)
        mixed = (macs["n_a"] + macs["n_y"]) / plain + macs["n_c"] / wide
        assert instructions(costs, {}, {"n_c"}) == pytest.approx(mixed / 1e6)
    assert instructions(Costs.of(model, (), targets.TARGETS["qnn"]), {}) is None


@pytest.mark.skipif(targets.detect().family == "arm64", reason="times of this machine speak for the target")
def test_targets_that_nothing_stands_for_get_instructions_by_lanes(asked: Request, quick: None) -> None:
    report = compress(dataclasses.replace(asked, device=None, target="arm64-dotprod", threads=1, dry_run=True))
    original, taken = report.original.analytic, report.taken.analytic
    assert original is not None and taken is not None and taken < original
    assert "instructions, analytic" in page(report)
    integers = [item for item in report.variants if item.pruning is not None and item.pruning.file_bytes is None]
    assert integers and all(item.pruning.latency_by == "analytic" for item in integers if item.pruning)


# --- an emulated core ---------------------------------------------------------------------------------------------


def test_on_an_emulated_core(asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ.get("EDGEPRESS_ARM") or ROOT / "build" / "arm")
    if not (folder / "plugins" / "classes.so").is_file():
        pytest.skip(f"no emulated ARM that counts in {folder}: make test-arm sets it up")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("edgepress.planner.timing.COUNTING_S", 0.0)  # the coarsest grid
    spec = f"emulated://cortex-a72?folder={folder}"
    report = compress(dataclasses.replace(asked, device=spec, quantize=False, width_multiple=32))
    assert report.level == "counted" and "emulated cortex-a72" in report.verdict
    narrow = [item for item in report.variants if item.pruning is not None]
    assert narrow
    for item in narrow:
        assert item.pruning is not None and item.pruning.latency is not None
        assert item.pruning.latency == pytest.approx(item.ratio[1].median, rel=0.1)
