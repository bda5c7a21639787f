"""Meters, and what bench finds out beside times: operators after fusion, memory, profiles, disturbances."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from invented import MACHINE, times
from rich.console import Console
from test_bench import FEED, chain

from edgepress import runtime
from edgepress.bench import Conditions, Health, Machine, Ratio, Timing, counted, inspect, meter, statistics, summary
from edgepress.bench.here import Here
from edgepress.bench.inspect import Memory, NodeTime, Profile
from edgepress.bench.remote import Remote, sent, sent_feeds
from edgepress.bench.timing import Limits
from edgepress.benchmark import NO_CLOCK, How
from edgepress.cli import main
from edgepress.devices import Agent, agent, open_device
from edgepress.devices.remote import ARCHIVE, NAME
from edgepress.errors import DeviceError, InputError, ModelError
from edgepress.report import Benchmark, BenchModel, benchmark


@pytest.fixture(scope="module")
def local() -> Iterator[Agent]:
    with open_device("local") as device:
        yield Agent(device)


# --- meters -----------------------------------------------------------------------------------------------------------


def test_the_meter_of_nothing_is_this_process_and_of_a_device_its_clock() -> None:
    with meter.meter_of(None) as found:
        assert isinstance(found, Here) and (found.spec, found.level) == ("local", "measured")
    with meter.meter_of("local", Limits(70.0)) as remote:
        assert isinstance(remote, Remote) and (remote.spec, remote.level) == ("local", "measured")
        assert remote.limits.max_temp_c == 70.0


def test_a_device_whose_time_means_nothing_is_counted() -> None:
    device: Any = SimpleNamespace(level="counted", spec="emulated://cortex-a72")
    found = meter.meter_on(Agent(device))
    assert isinstance(found, counted.Counted) and (found.spec, found.level) == (device.spec, "counted")


def test_here_and_a_device_agree_on_what_is_heavy(local: Agent) -> None:
    groups = [[(chain(1), FEED), (chain(60), FEED)], [(chain(30), FEED)]]
    for each in (Here(), Remote(local)):
        first, second = each.best(groups, seconds=0.05)
        assert first.shape == (2,) and second.shape == (1,)
        assert 0 < 3 * first[0] < first[1]


def test_a_race_on_a_device_is_summed_up_here(local: Agent) -> None:
    found = Remote(local).compare({"light": chain(1), "heavy": chain(50)}, [FEED], seconds=0.1, reference="light")
    ratio = found.ratio("heavy")
    assert ratio is not None and ratio.median > 1.5 and ratio.low <= ratio.median <= ratio.high
    assert len(found.openings) >= agent.FEWEST_OPENINGS and found.rounds == sum(found.openings)
    assert found.samples.keys() == {"light", "heavy", summary.TWIN}
    assert found.machine.cpu == Remote(local).machine().cpu and found.machine.onnxruntime


@pytest.mark.parametrize("each", ["here", "remote"])
def test_a_model_that_cannot_run(each: str, local: Agent) -> None:
    found = Here() if each == "here" else Remote(local)
    with pytest.raises(ModelError, match="cannot load this model"):
        found.best([[(b"no model", FEED)]])
    with pytest.raises(ModelError, match="cannot load this model"):
        found.compare({"a": b"no model"}, [FEED], seconds=0, reference="a")
    with pytest.raises(InputError, match="at least one sample"):
        found.compare({"a": chain(1)}, [], reference="a")


def test_limits_reach_the_loop(local: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []

    def stop(*job: Any) -> None:
        jobs.append(job)
        raise ZeroDivisionError

    monkeypatch.setattr(local, "perform", stop)
    monkeypatch.setattr(agent, "compared", stop)
    for each in (Here(Limits(61.0, 77.0)), Remote(local, Limits(61.0, 77.0))):
        with pytest.raises(ZeroDivisionError):
            each.compare({"a": chain(1)}, [FEED], seconds=0, reference="a")
    assert jobs[0][-2:] == (61.0, 77.0) and (jobs[1][0]["max_temp_c"], jobs[1][0]["overtime"]) == (61.0, 77.0)


def test_a_machine_that_does_not_say_how_hot_it_is(local: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "health", lambda: {"temperature_c": None})
    with pytest.raises(DeviceError, match="does not say how hot"):
        Here(Limits(max_temp_c=50.0)).compare({"a": chain(1)}, [FEED], seconds=0, reference="a")


def test_equal_models_and_samples_are_sent_once() -> None:
    pushed: list[str] = []
    device: Any = SimpleNamespace(
        spec="there", level="measured", python=("python",), native=None, push=lambda source, name: pushed.append(name)
    )
    host = Agent(device)
    names = sent(host, {"a": chain(1), "b": chain(2), "again": chain(1)})
    assert names["a"] == names["again"] != names["b"] and len(pushed) == 2
    assert sent_feeds(host, [FEED]) == sent_feeds(host, [dict(FEED)])
    others = [{"x": FEED["x"] + 1}, {"y": FEED["x"]}, {"x": FEED["x"][0]}, {"x": FEED["x"].astype(np.float64)}]
    assert len({sent_feeds(host, [feed]) for feed in (FEED, *others)}) == 5


def test_small_models_are_sent_together(local: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[str] = []
    push = local.device.push

    def noted(source: Path, name: str) -> None:
        pushed.append(name)
        push(source, name)

    monkeypatch.setattr(local.device, "push", noted)
    groups = [[(chain(number), FEED), (chain(number + 20), FEED)] for number in range(3, 9)]
    found = Remote(local).best(groups, seconds=0.01)
    assert [costs.shape for costs in found] == [(2,)] * 6 and all((costs > 0).all() for costs in found)
    assert [name for name in pushed if name != NAME] == [ARCHIVE]


def test_a_small_model_that_cannot_run_on_its_sample(local: Agent) -> None:
    for each in (Here(), Remote(local)):
        with pytest.raises(ModelError, match="cannot run this model on these inputs"):
            each.best([[(chain(1), {"x": np.zeros((3, 5, 7), np.float32)})]])


def test_counts_of_small_networks_have_a_wider_margin() -> None:
    """Some hundred instructions more or less are much there."""
    found = counted.exact({"a": 0.05, "b": 0.0504, "c": 0.0506, "d": 4.0}, "a", "counted", MACHINE)
    assert [(ratio.name, ratio.noise) for ratio in found.ratios] == [
        ("b", "no difference"), ("c", "slower"), ("d", "slower")
    ]  # fmt: skip
    assert math.isclose(found.noise_floor, 500 / 50_000, rel_tol=1e-2)


def test_an_emulated_core_is_asked_once_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Remote] = []

    def machine(remote: Remote) -> Machine:
        asked.append(remote)
        return MACHINE

    monkeypatch.setattr(Remote, "machine", machine)
    device: Any = SimpleNamespace(level="counted", spec="emulated://cortex-a72")
    found = counted.Counted(Agent(device))
    assert found.machine() is found.machine() is MACHINE and len(asked) == 1


def test_counts_have_exact_ratios_and_the_margin_of_counting() -> None:
    found = counted.exact({"a": 10.0, "b": 10.005, "c": 10.2, "d": 4.0}, "a", "counted", MACHINE)
    assert [(ratio.name, ratio.noise) for ratio in found.ratios] == [
        ("b", "no difference"), ("c", "slower"), ("d", "faster")
    ]  # fmt: skip
    for ratio in found.ratios:
        assert ratio.low == ratio.median == ratio.high
    assert math.isclose(found.ratios[2].median, 0.4) and found.level == "counted"
    assert math.isclose(found.noise_floor, 0.001, rel_tol=1e-3)
    latency = found.latency("d")
    assert (latency.p50, latency.p99) == (4.0, 4.0) and math.isnan(latency.load_ms)


def test_counts_come_back_from_json() -> None:
    found = made(timing=counted.exact({"a.onnx": 10.0, "b.onnx": 8.0}, "a.onnx", "counted", MACHINE))
    again = Benchmark.from_json(found.to_json())
    assert again.timing.ratios == found.timing.ratios and math.isnan(again.timing.latencies[0].load_ms)


def test_counting_takes_one_thread() -> None:
    host: Any = SimpleNamespace(device=SimpleNamespace(spec="emulated://cortex-a72", level="counted"))
    with pytest.raises(InputError, match="one thread"):
        counted.Counted(host).compare({"a": b""}, [FEED], threads=2, reference="a")


@pytest.mark.parametrize(("cycles", "level"), [(False, "counted"), (True, "cycles")])
def test_costs_of_an_emulated_core_come_in_the_order_of_the_models(
    cycles: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        counted, "counts_each", lambda host, models: [SimpleNamespace(total=1e6 * len(model)) for model, _ in models]
    )
    monkeypatch.setattr(
        counted,
        "cycles_each",
        lambda host, models: [SimpleNamespace(cycles=2e6 * len(model), model="llvm-mca, a57") for model, _ in models],
    )
    monkeypatch.setattr(counted.Counted, "machine", lambda self: MACHINE)
    device: Any = SimpleNamespace(level="counted", spec="emulated://cortex-a72")
    found = meter.meter_on(Agent(device), cycles=cycles)
    unit = 2.0 if cycles else 1.0
    first, second = found.best([[(b"abc", FEED), (b"ab", FEED)], [(b"a", FEED)]])
    assert first.tolist() == [3 * unit, 2 * unit] and second.tolist() == [unit]
    timing = found.compare({"a": b"aaaa", "b": b"bb"}, [FEED], reference="a")
    assert [latency.p50 for latency in timing.latencies] == [4 * unit, 2 * unit] and timing.level == level
    assert timing.ratios[0].median == pytest.approx(0.5) and found.level == level
    assert not cycles or getattr(found, "simulator", "") == "llvm-mca, a57"


def test_cycles_of_what_has_a_clock_are_refused(local: Agent) -> None:
    with pytest.raises(DeviceError, match="local has a clock"):
        meter.meter_on(local, cycles=True)
    with pytest.raises(DeviceError, match="emulated cores only"), meter.meter_of(None, cycles=True):
        pass


# --- operators after fusion -------------------------------------------------------------------------------------------


def test_the_walk_counts_what_onnx_counts(digits_model: Path) -> None:
    for data in (digits_model.read_bytes(), chain(7)):
        nodes = onnx.load_from_string(data).graph.node
        assert agent.operators_of(data) == dict(sorted(Counter(node.op_type for node in nodes).items()))


def test_the_walk_passes_over_every_kind_of_field() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "com.acme" : 3], metadata_props: ["key" : "value"]>
    agraph (float[N, 4] x, bool c) => (float[N, 4] y) <float[4] w = {1.5, 2.5, 3.5, -1.0}> {
      a = Add(x, w)
      y = If(c) <then_branch = t () => (float[N, 4] u) { u = Relu(a) },
                 else_branch = e () => (float[N, 4] v) { v = Exp(a) }>
      z = com.acme.Odd <alpha: float = 0.25, steps: ints = [300, 70000, -1]> (y)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(300), "raw"))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, [10**9, 4]))
    assert agent.operators_of(model.SerializeToString()) == {"Add": 1, "If": 1, "Odd": 1}


def test_operators_on_a_device_are_those_of_onnxruntime_there(local: Agent, digits_model: Path) -> None:
    data = digits_model.read_bytes()
    found = inspect.operators(local, {"digits": data, "chain": chain(3)})
    assert found["digits"] == runtime.fused_operators(data) and found["chain"] == {"MatMul": 3}


# --- memory -----------------------------------------------------------------------------------------------------------


def weighty(megabytes: int) -> bytes:
    weight = onnx.numpy_helper.from_array(np.ones((128, megabytes * 2048), np.float32), "w")
    ends = [onnx.helper.make_tensor_value_info(*end) for end in (("x", 1, [1, 128]), ("y", 1, [1, megabytes * 2048]))]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "weighty", ends[:1], ends[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def test_every_model_has_the_memory_of_a_process_of_its_own(local: Agent) -> None:
    found = inspect.memory(
        local, {"heavy": weighty(64), "light": weighty(1)}, FEED
    )  # the light one after the heavy one
    light, heavy = (found[name].model_bytes for name in ("light", "heavy"))
    assert light is not None and heavy is not None
    assert 0 < light < 40e6 < 64e6 < heavy


def test_a_system_that_does_not_say_has_no_memory() -> None:
    assert Memory(None, 5).model_bytes is None and Memory(5, None).model_bytes is None
    assert Memory(100, 350).model_bytes == 250 * 1024


# --- profiles ---------------------------------------------------------------------------------------------------------


def event(name: str, ts: int, dur: int, op: str = "") -> dict[str, Any]:
    kind = {"cat": "Node", "args": {"op_name": op}} if op else {"cat": "Session"}
    return {"name": name, "ts": ts, "dur": dur, **kind}


def test_a_profile_is_the_median_over_the_last_runs() -> None:
    events = [event("session_initialization", 0, 90)]
    for run, (first, second) in enumerate(((500, 70), (10, 1), (30, 3), (20, 2))):  # the first is a warm-up
        start = 1000 * (run + 1)
        events += [
            event("model_run", start, 900),
            event("c_fence_before", start, 5, "Conv"),
            event("c_kernel_time", start + 100, first, "Conv"),
            event("r_kernel_time", start + 700, second, "Relu"),
            event("r_kernel_time", start + 800, second, "Relu"),  # inside a loop
        ]
    found = agent.profiled(events[::-1], 3)
    assert found == {"run_us": 900, "nodes": [["c", "Conv", 20], ["r", "Relu", 4]]}


def test_a_profile_of_a_real_model(local: Agent) -> None:
    found = inspect.profiles(local, {"chain": chain(5), "other": chain(2)}, FEED)
    assert [len(profile.nodes) for profile in found.values()] == [5, 2]
    profile = found["chain"]
    assert {node.operator for node in profile.nodes} == {"MatMul"}
    assert profile.by_operator() == {"MatMul": sum(node.us for node in profile.nodes)}
    assert profile.run_us > 0 and profile.between_us >= 0
    assert not list(Path.cwd().glob("profile*.json"))


def test_shares_add_up_by_operator() -> None:
    nodes = (NodeTime("a", "Conv", 5.0), NodeTime("b", "Relu", 3.0), NodeTime("c", "Conv", 1.0))
    profile = Profile(12.0, nodes)
    assert list(profile.by_operator().items()) == [("Conv", 6.0), ("Relu", 3.0)] and profile.between_us == 3.0
    assert Profile(8.0, nodes).between_us == 0.0  # the profiler's own clock counts whole µs


# --- disturbances -----------------------------------------------------------------------------------------------------

QUIET = Conditions(Health("performance", 2000.0, 2000.0, 50.0, False, 0.5), Health(temperature_c=52.0), 1.0, 1.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"canary_after_ms": 1.11}, "1.11 times as long"),
        ({"before": Health(throttled=True)}, "held down"),
        ({"after": Health(throttled=True)}, "held down"),
        ({"after": Health(temperature_c=61.0)}, "11 °C hotter, to 61 °C"),
        ({"before": Health(load_1m=2.1)}, "load was 2.1 on 2 cores"),
    ],
)
def test_every_disturbance_is_said(changes: dict[str, Any], words: str) -> None:
    assert QUIET.warnings(2) == Conditions().warnings(2) == Conditions(Health(load_1m=2.0)).warnings(2) == ()
    (warning,) = dataclasses.replace(QUIET, **changes).warnings(2)
    assert words in warning


def test_one_core_is_one() -> None:
    assert "on 1 core:" in Conditions(Health(load_1m=2.0)).warnings(1)[0]


# --- the page ---------------------------------------------------------------------------------------------------------


def page(found: Benchmark, width: int = 120) -> str:
    console = Console(width=width, file=None, record=True, highlight=False, color_system=None, quiet=False)
    with console.capture() as text:
        benchmark.render(found, console)
    return text.get()


def made(level: Any = "measured", **changes: Any) -> Benchmark:
    profiles = (
        Profile(100.0, (NodeTime("conv1", "Conv", 60.0), NodeTime("act", "Relu", 20.0))),
        Profile(50.0, (NodeTime("conv1", "QLinearConv", 45.0),)),
    )
    models = tuple(
        BenchModel(name, name, 1000, {"Conv": 1}, (), Memory(1000, 3000 + 10 * place), profiles[place])
        for place, name in enumerate(("a.onnx", "b.onnx"))
    )
    ratios = (Ratio("b.onnx", "a.onnx", 0.5, 0.49, 0.51, "faster"),)
    latencies = (times("a.onnx", 0.4), times("b.onnx", 0.2))
    samples = {"a.onnx": ((0.41, 0.4),), "b.onnx": ((0.2, 0.21),), "": ((0.4, 0.4),)}
    timing = Timing("a.onnx", 1, 1, latencies, ratios, 0.012, MACHINE, level, (1,), QUIET, samples)
    return dataclasses.replace(Benchmark(models, timing, ("Run on it.",), "ssh://pi@kitchen"), **changes)


def test_the_page_of_a_device() -> None:
    text = page(made())
    assert "b.onnx is 2.00× faster than a.onnx (95 % interval 1.96 to 2.04)." in text
    assert "2048 kB" in text and "2058 kB" in text
    assert "all sessions opened 1 times, 1 thread, on ssh kitchen (Invented CPU" in " ".join(text.split())
    assert "governor performance, 2000 MHz, 50 °C before and 52 °C after, load 0.5" in " ".join(text.split())
    assert "warning" not in text


def test_profiles_stand_side_by_side() -> None:
    lines = [" ".join(line.split()) for line in page(made()).splitlines()]
    assert "operator before share after share" in lines and "node before share after share" in lines
    assert "QLinearConv — — 45.0 µs 90 %" in lines
    assert "Conv 60.0 µs 60 % — —" in lines and "Relu 20.0 µs 20 % — —" in lines
    assert "(between nodes) 20.0 µs 20 % 5.00 µs 10 %" in lines
    assert "conv1 (Conv) 60.0 µs 60 % — —" in lines
    assert lines.index("QLinearConv — — 45.0 µs 90 %") < lines.index("Conv 60.0 µs 60 % — —")
    alone = page(dataclasses.replace(made(), models=made().models[:1], timing=made().timing))
    assert "operator" in alone and "after" not in alone.split("node ")[1].split("runs")[0]


def test_a_count_never_looks_like_a_time() -> None:
    text = page(made("counted", notes=(NO_CLOCK,)))
    assert "b.onnx needs 2.00× fewer instructions than a.onnx (counted: this is no time)." in " ".join(text.split())
    table = text.split("operator")[0]
    assert "M instructions (counted)" in table and " ms" not in table and "µs" not in table and "faster" not in text
    assert "M cycles (estimated)" in page(made("cycles"))
    found = dict(benchmark.pairs(made("counted")))
    assert (
        found["b.onnx.m_instructions"] == "0.2" and found["b.onnx.finding"] == "fewer" and found["level"] == "counted"
    )
    assert not any(key.endswith("_ms") for key in found)


def test_disturbances_are_warnings_on_the_page_and_in_the_pipe() -> None:
    timing = dataclasses.replace(made().timing, conditions=dataclasses.replace(QUIET, canary_after_ms=2.0))
    disturbed = made(timing=timing)
    assert "warning    A fixed piece of work took 2.00 times as long" in page(disturbed)
    assert "2.00 times as long" in dict(benchmark.pairs(disturbed))["warning"]


def test_raw_samples_are_in_the_json_and_not_on_the_page() -> None:
    found = made()
    text = found.to_json()
    assert json.loads(text)["format"] == "edgepress-bench/2"
    assert json.loads(text)["timing"]["samples"]["b.onnx"] == [[0.2, 0.21]]
    assert Benchmark.from_json(text) == found
    assert "0.21" not in page(found)


def test_a_real_run_comes_back_from_its_json(local: Agent) -> None:
    timing = Remote(local).compare({"a": chain(1), "b": chain(3)}, [FEED], seconds=0, reference="a")
    found = made(timing=timing)
    assert Benchmark.from_json(found.to_json()) == found


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.onnx").write_bytes(chain(2))
    (tmp_path / "b.onnx").write_bytes(chain(40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(*words: str) -> Any:
    return CliRunner().invoke(main, ["bench", "a.onnx", "b.onnx", *words])


def test_bench_on_a_device_with_everything(models: Path) -> None:
    done = bench("--device", "local", "--rounds", "21", "--profile", "--json")
    assert done.exit_code == 0, done.stderr
    found = Benchmark.from_json(done.stdout)
    assert found.device == "local" and found.timing.rounds >= 21
    assert [model.operators for model in found.models] == [{"MatMul": 2}, {"MatMul": 40}]
    assert all(model.memory is not None and (model.memory.model_bytes or 0) > 0 for model in found.models)
    assert [len(model.profile.nodes) for model in found.models if model.profile] == [2, 40]
    ratio = found.timing.ratio("b.onnx")
    assert ratio is not None and ratio.median > 2


def test_bench_without_a_profile_has_none(models: Path) -> None:
    done = bench("--seconds", "0")
    assert done.exit_code == 0, done.stderr
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert float(found["a.onnx.memory_bytes"]) > 0
    assert not any(".us." in key for key in found) and "device" not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "telegraph://"), "no kind of device 'telegraph'"),
        (("--device", "local", "--threads", "0"), "at least 1 thread"),
        (("--rounds", "0"), "--rounds"),
    ],
)
def test_bench_refuses(words: tuple[str, ...], message: str, models: Path) -> None:
    done = bench(*words)
    assert done.exit_code == 2 and message in done.stderr


def test_an_emulated_core_tells_no_times(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting itself is tested where the emulator is set up."""
    from edgepress import benchmark as whole

    asked: list[str] = []

    class Emulated:
        spec, level, python, native = "emulated://cortex-a72", "counted", ("python",), None

        def __enter__(self) -> Emulated:
            return self

        def __exit__(self, *problem: object) -> None:
            asked.append("closed")

    class Meter:
        level = "counted"

        def compare(self, models: Any, feeds: Any, *, reference: str, **rest: Any) -> Timing:
            costs = {name: float(len(data)) for name, data in models.items()}
            return counted.exact(costs, reference, "counted", MACHINE)

    monkeypatch.setattr(whole, "open_device", lambda spec: Emulated())
    monkeypatch.setattr(whole, "meter_on", lambda agent, limits, cycles: Meter())
    monkeypatch.setattr(inspect, "operators", lambda agent, data, threads: {name: {"MatMul": 1} for name in data})
    found = whole.bench_files([Path("a.onnx"), Path("b.onnx")], how=How("emulated://cortex-a72", profile=True))
    assert asked == ["closed"] and NO_CLOCK in found.notes
    assert all(model.memory is None and model.profile is None for model in found.models)
    assert statistics.noise(math.log(2), math.log(2), found.timing.noise_floor) == "slower"
    assert isinstance(found.timing.machine, Machine)


def test_counted_on_an_emulated_core(arm: Path) -> None:
    with meter.meter_of(f"emulated://cortex-a72?folder={arm}") as found:
        timing = found.compare({"a": chain(10), "b": chain(20)}, [FEED], reference="a")
    ratio = timing.ratio("b")
    assert ratio is not None and ratio.noise == "slower"
    assert 1.2 < ratio.median < 2.0  # ten products more, of about 20; what a run needs besides is the same
    assert timing.level == "counted" and timing.machine.os.endswith("aarch64")
