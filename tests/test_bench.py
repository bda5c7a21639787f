"""Timing: laws of its statistics, its structure with a clock of our own, real sessions where one is clearly heavier."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.bench import compare, machine, statistics, summary, timing
from edgepress.bench.statistics import Floor
from edgepress.devices import agent
from edgepress.errors import DeviceError, InputError, ModelError

FEED = {"x": np.ones((1, 128), np.float32)}
SINGLE = [1] * 100
"""Openings of one round each."""


def chain(products: int) -> bytes:
    """A model of that many dependent 128x128 matrix products."""
    weight = onnx.numpy_helper.from_array(np.eye(128, dtype=np.float32) * 1.001, "w")
    names = ["x", *(f"t{i}" for i in range(products - 1)), "y"]
    nodes = [onnx.helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 128]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


# --- statistics ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=40), st.integers(0, 5))
def test_interval_lies_inside_the_values_and_is_ordered(values: list[float], seed: int) -> None:
    low, high = statistics.median_interval(np.array(values), seed=seed)
    assert min(values) <= low <= high <= max(values)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_equal_times_give_the_ratio_one_and_no_claim(seed: int, scale: float) -> None:
    same = np.random.default_rng(seed).uniform(1, 2, 30) * scale
    found = statistics.paired_ratio("a", same, "b", same.copy(), SINGLE[:30], floor=Floor(), seed=seed)
    assert (found.median, found.low, found.high, found.noise) == (1.0, 1.0, 1.0, "no difference")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_ratio_does_not_see_drift_that_hits_both(seed: int, factor: float) -> None:
    drift = np.random.default_rng(seed).lognormal(0, 1, 40)
    found = statistics.paired_ratio("a", drift * factor, "b", drift, SINGLE[:40], floor=Floor(), seed=seed)
    assert math.isclose(found.median, factor, rel_tol=1e-9)
    assert math.isclose(found.high, found.low, rel_tol=1e-9)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(5).normal(0.3, 1.0, (200, 41))
    bounds = [statistics.median_interval(values, seed=0) for values in draws]
    covered = sum(low <= 0.3 <= high for low, high in bounds)
    assert 182 <= covered < 200  # 95 % of 200 is 190; an interval that always covers would be useless too


def test_the_interval_narrows_with_more_rounds() -> None:
    values = np.random.default_rng(1).normal(size=900)
    wide, narrow = (np.diff(statistics.median_interval(values[:n], seed=0))[0] for n in (30, 900))
    assert narrow < 0.5 * wide


def test_the_same_seed_gives_the_same_interval_another_nearly_the_same() -> None:
    values = np.random.default_rng(2).normal(size=200)
    first, again, other = (statistics.median_interval(values, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert np.allclose(first, other, atol=0.1)


def test_a_ratio_and_its_inverse_mirror_each_other() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.uniform(1, 2, 25), rng.uniform(1, 2, 25)
    there = statistics.paired_ratio("a", a, "b", b, SINGLE[:25], floor=Floor(), seed=0)
    back = statistics.paired_ratio("b", b, "a", a, SINGLE[:25], floor=Floor(), seed=0)
    assert np.allclose([1 / there.median, 1 / there.high, 1 / there.low], [back.median, back.low, back.high], rtol=0.05)


@pytest.mark.parametrize(
    ("factor", "floor", "noise"),
    [
        (0.5, 0.01, "faster"),
        (2.0, 0.01, "slower"),
        (0.97, 0.05, "no difference"),
        (1.03, 0.05, "no difference"),
        (0.97, 0.01, "faster"),
        (0.5, 1.0, "no difference"),
    ],
)
def test_nothing_inside_the_noise_floor_is_claimed(factor: float, floor: float, noise: str) -> None:
    base = np.random.default_rng(0).uniform(1, 2, 50)
    found = statistics.paired_ratio("a", base * factor, "b", base, SINGLE[:50], floor=Floor(0.0, floor), seed=0)
    assert found.noise == noise


def test_the_noise_floor_is_how_far_the_twin_strays() -> None:
    base = np.ones(30)
    assert statistics.noise_floor(base, base, SINGLE[:30], seed=0) == Floor(0.0, 0.0)
    for factor in (1.1, 1 / 1.1):
        found = statistics.noise_floor(base * factor, base, SINGLE[:30], seed=0)
        assert np.allclose([found.stray, found.reach], math.log(1.1))


def test_every_interval_is_widened_by_what_the_twin_strays() -> None:
    base = np.random.default_rng(0).uniform(1, 2, 30)
    plain, wide = (
        statistics.paired_ratio("a", base * 1.3, "b", base, SINGLE[:30], floor=Floor(stray, 0.0), seed=0)
        for stray in (0.0, 0.2)
    )
    assert np.allclose([wide.low, wide.high], [plain.low * math.exp(-0.2), plain.high * math.exp(0.2)])
    assert (plain.noise, wide.noise) == ("slower", "slower")
    assert statistics.paired_ratio("a", base, "b", base, SINGLE[:30], floor=Floor(0.2), seed=0).noise == "no difference"


def nested(seed: int, openings: int, rounds: int) -> np.ndarray:
    """Log ratios of 0 whose openings differ far more than their rounds."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(0, 0.03, openings), rounds) + rng.normal(0, 0.003, openings * rounds)


@pytest.mark.parametrize(("openings", "rounds"), [(6, 20), (12, 10), (40, 3)])
def test_openings_are_the_draws_not_rounds(openings: int, rounds: int) -> None:
    covered = {"openings": 0, "rounds": 0}
    for seed in range(100):
        logs = nested(seed, openings, rounds)
        for way, values in (("openings", statistics.per_opening(logs, [rounds] * openings)), ("rounds", logs)):
            low, high = statistics.median_interval(values, seed=seed, resamples=1000)
            covered[way] += low <= 0 <= high
    assert covered["openings"] >= 93  # 95 is what is promised, and 3 standard errors are 6.5
    assert covered["rounds"] < covered["openings"] - 10


def test_openings_may_have_different_numbers_of_rounds() -> None:
    logs = np.array([1.0, 5.0, 9.0, 2.0, 3.0, 3.0, 7.0, 1.0, 6.0, 8.0])
    assert statistics.per_opening(logs, [3, 1, 2, 1, 1, 2]).tolist() == [5.0, 2.0, 3.0, 7.0, 1.0, 7.0]
    assert statistics.per_opening(logs, [5, 5]) is logs


@pytest.mark.parametrize(("openings", "noise"), [(6, "slower"), (5, "no difference"), (1, "no difference")])
def test_few_openings_allow_no_small_claim(openings: int, noise: str) -> None:
    base = np.ones(60)
    split = [60 // openings] * openings
    floor = statistics.noise_floor(base, base, split, seed=0)
    assert statistics.paired_ratio("a", base * 1.04, "b", base, split, floor=floor, seed=0).noise == noise


def test_quantiles_are_of_single_runs() -> None:
    found = statistics.latency("a", np.arange(101.0), load_ms=5, first_ms=7, rounds=3)
    assert (found.p50, found.p90, found.p99) == (50.0, 90.0, 99.0)
    assert (found.load_ms, found.first_ms, found.rounds) == (5, 7, 3)


# --- structure, with a clock that only moves when a model is opened or runs -------------------------------------------

LOAD_MS = 7.5


class Clock:
    """Time in ns, moved by hand; models are called by name and take what ``cost`` says, in ms."""

    def __init__(self, **cost: float) -> None:
        self.now = 0
        self.cost = cost
        self.log: list[str] = []
        self.open = 0

    def opened(self, name: str, threads: int, **settings: Any) -> Any:
        self.now += int(LOAD_MS * 1e6)
        self.log.append(f"open {name}")
        return SimpleNamespace(run=lambda names, feed: self.run(name, feed), get_outputs=list)

    def run(self, name: str, feed: Mapping[str, np.ndarray]) -> None:
        self.log.append(f"{name}{feed['x'][0]:g}")
        self.now += int(self.cost[name] * 1e6)

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(a=1.0, b=1.0, c=1.0, d=1.0)
    replaced = SimpleNamespace(
        perf_counter_ns=lambda: made.now, perf_counter=lambda: made.now / 1e9, sleep=lambda s: made.sleep(s)
    )
    monkeypatch.setattr(agent, "time", replaced)
    monkeypatch.setattr(agent, "opened", made.opened)
    return made


def feeds(number: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([float(value)])} for value in range(number)]


def race(names: str, number: int = 1, seconds: float = 0.0, rounds: int = 6, seed: int = 0) -> tuple[Any, list[int]]:
    racers = [agent.Racer(name) for name in names]
    return racers, agent.take_turns(racers, feeds(number), seconds, rounds, seed)


def blocks(log: Sequence[str], racers: int) -> Iterator[list[str]]:
    """What follows every opening of all sessions: the runs of its rounds."""
    parts = [list(group) for begins, group in groupby(log, lambda entry: entry.startswith("open")) if not begins]
    for number, last in enumerate(parts[racers - 1 :: racers]):
        yield last[1 if number else 5 :]  # the first run belongs to the opening; in the first one also a visit of three


def visits(log: Sequence[str], runs: int) -> Iterator[str]:
    """One entry per visit (a warm run and `runs` more)."""
    assert len(log) % (runs + 1) == 0
    for start in range(0, len(log), runs + 1):
        assert len(set(log[start : start + runs + 1])) == 1
        yield log[start]


def test_every_round_visits_every_model_once_with_one_feed(clock: Clock) -> None:
    racers, openings = race("abc", 2, rounds=20)
    order = [name for block in blocks(clock.log, 3) for name in visits(block, 5)]
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert len(rounds) == sum(openings) >= 20
    for number, visited in enumerate(rounds):
        assert sorted(visited) == [f"{name}{number % 2}" for name in "abc"]
    assert len({tuple(name[0] for name in visited) for visited in rounds}) > 1  # the order is shuffled
    assert {len(racer.visits) for racer in racers} == {sum(openings)}


def test_every_opening_opens_every_session_in_an_order_of_its_own(clock: Clock) -> None:
    racers, openings = race("abc")
    opened = [entry[-1] for entry in clock.log if entry.startswith("open")]
    orders = [tuple(opened[start : start + 3]) for start in range(0, len(opened), 3)]
    assert len(orders) == len(openings) >= agent.FEWEST_OPENINGS
    assert all(sorted(order) == ["a", "b", "c"] for order in orders) and len(set(orders)) > 1
    for racer in racers:
        assert racer.load_ms == [LOAD_MS] * len(openings) and racer.first_ms == [1.0] * len(openings)
        assert not hasattr(racer, "run")  # nothing is left open


def test_rounds_take_as_long_as_the_opening_and_no_longer(clock: Clock) -> None:
    _, openings = race("ab", seconds=1.0)
    first, opening, of_one = 2 * (LOAD_MS + 5), 2 * (LOAD_MS + 1), 2 * 6  # ms: two sessions; two visits of 6 runs
    assert openings[0] == math.ceil(first / of_one) != math.ceil(opening / of_one)
    assert set(openings[1:-1]) == {math.ceil(opening / of_one)} and len(openings) > 10  # the time ends the last one


def test_memory_of_another_size_lies_before_every_session(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = np.ones

    def ones(size: int, *rest: Any) -> np.ndarray:
        sizes.append(size)
        return real(size, *rest)

    monkeypatch.setattr(np, "ones", ones)
    race("ab")
    assert len(sizes) >= 2 * agent.FEWEST_OPENINGS and len(set(sizes)) == len(sizes)
    assert all(0 < size < agent.JITTER for size in sizes)


def test_the_order_follows_the_seed(clock: Clock) -> None:
    logs = []
    for seed in (1, 1, 2):
        clock.log = []
        race("abcd", seed=seed)
        logs.append(clock.log)
    assert logs[0] == logs[1] != logs[2]


def test_the_warm_run_is_not_recorded(clock: Clock) -> None:
    cost = count(start=100, step=-1)  # the first run of the visit is the dearest

    def run(_: object) -> object:
        clock.now += next(cost) * 1_000_000
        return None

    assert agent.visit(run, {}, 3) == [99.0, 98.0, 97.0]


@pytest.mark.parametrize(("run_ms", "runs"), [(0.0, 500), (0.001, 500), (1.0, 5), (4.0, 3), (99.0, 3), (100.0, 1)])
def test_runs_per_visit_aim_at_five_ms(run_ms: float, runs: int) -> None:
    assert agent.runs_per_visit(run_ms) == runs


def test_models_about_as_fast_as_the_first_run_as_often(clock: Clock) -> None:
    clock.cost |= {"a": 1.0, "b": 0.9, "c": 1.2, "d": 0.5}
    racers, _ = race("abcd")
    assert [racer.runs for racer in racers] == [5, 5, 5, 10]
    assert [{len(visit) for visit in racer.visits} for racer in racers] == [{5}, {5}, {5}, {10}]


def compared(names: str, reference: str = "a") -> summary.Timing:
    found = agent.compared({name: name for name in names}, reference, feeds(1), 1, 0.0, 5, 0)
    return summary.summarize({**found, **REPORTED}, reference, 1, 0)


REPORTED = {"machine": agent.machine(), "before": agent.health(), "after": agent.health()}


def test_the_result_is_the_ratio_of_the_clock(clock: Clock) -> None:
    clock.cost |= {"a": 2.0, "b": 1.0}
    found = compared("ab")
    (ratio,) = found.ratios
    assert (ratio.name, ratio.reference, ratio.noise) == ("b", "a", "faster")
    assert math.isclose(ratio.median, 0.5)
    assert found.noise_floor == 0.0
    assert [(item.name, item.p50) for item in found.latencies] == [("a", 2.0), ("b", 1.0)]
    assert found.rounds == found.latency("a").rounds == sum(found.openings) >= 6
    assert found.latency("b").load_ms == LOAD_MS and found.latency("b").first_ms == 1.0


def test_every_single_run_is_kept(clock: Clock) -> None:
    found = compared("ab")
    assert found.samples.keys() == {"a", "b", summary.TWIN}
    for visited in found.samples.values():
        assert [set(visit) for visit in visited] == [{1.0}] * found.rounds
        assert {len(visit) for visit in visited} == {5}


def raced(runs: Mapping[str, Sequence[Sequence[float]]], twin: Sequence[Sequence[float]]) -> dict[str, Any]:
    rows = {name: {"load_ms": 1.0, "first_ms": 1.0, "visits": visited} for name, visited in runs.items()}
    return {"models": rows, "twin": {"visits": twin}, "rounds": len(twin), "openings": [1] * len(twin), **REPORTED}


def test_a_ratio_does_not_depend_on_what_else_is_timed() -> None:
    rng = np.random.default_rng(0)
    noisy = {name: [list(rng.uniform(1, 2, 3)) for _ in range(20)] for name in "abct"}

    def ratio(names: str) -> statistics.Ratio | None:
        found = summary.summarize(raced({name: noisy[name] for name in names}, noisy["t"]), "a", 1, 0)
        return found.ratio("b")

    assert ratio("ab") == ratio("ba") == ratio("cab") is not None


def test_a_report_without_openings_has_one() -> None:
    report = raced({"a": [[1.0]] * 20, "b": [[1.04]] * 20}, [[1.0]] * 20)
    many = summary.summarize(report, "a", 1, 0)
    one = summary.summarize({key: value for key, value in report.items() if key != "openings"}, "a", 1, 0)
    assert many.ratios[0].noise == "slower"
    assert one.openings == (20,) and one.ratios[0].noise == "no difference" and one.noise_floor == statistics.PLACES


@pytest.mark.parametrize(
    ("elapsed", "done", "goes_on", "fewest"),
    [
        (0.0, 0, True, 6),
        (0.0, 20, True, 6),
        (6.0, 19, True, 6),
        (6.0, 20, False, 6),
        (23.9, 4, True, 6),
        (24.0, 4, True, 1),
        (24.0, 5, False, 1),
    ],
)
def test_when_the_rounds_end(elapsed: float, done: int, goes_on: bool, fewest: int) -> None:
    assert agent._more_rounds(elapsed, done, 6.0, 20, 4) is goes_on
    assert agent._fewest(elapsed, 6.0, 4) == fewest


def test_a_model_that_opens_for_long_is_not_run_for_as_long(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOAD_MS", 3000.0)
    _, openings = race("ab", seconds=1.0, rounds=20)
    assert openings == [5]  # six seconds: over time after the first opening, and five rounds are insisted on
    _, openings = race("ab", seconds=10.0, rounds=20)
    assert openings[0] > 100 and len(openings) == 6  # the time is up after the second: six openings are insisted on
    assert openings[2:] == [1, 1, 1, 1]


def test_a_hot_machine_is_waited_for_outside_of_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    temperature = iter([71.0, 71.0, *[60.0] * 1000])
    monkeypatch.setattr(agent, "health", lambda: {"temperature_c": next(temperature)})
    racers = [agent.Racer("a")]
    openings = agent.take_turns(racers, feeds(1), 1.0, 1, 0, max_temp_c=70.0)
    cool = agent.take_turns([agent.Racer("a")], feeds(1), 1.0, 1, 0)
    assert openings == cool


@pytest.mark.parametrize(("found", "message"), [(None, "does not say how hot"), (90.0, "It stays at 90 °C")])
def test_a_machine_that_stays_hot_or_does_not_say(
    found: float | None, message: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "health", lambda: {"temperature_c": found})
    with pytest.raises(DeviceError, match=message), timing.failures_as_errors():
        agent.cool_down(70.0)


# --- real sessions -------------------------------------------------------------------------------------


def test_a_model_fifty_times_as_heavy_is_found_slower() -> None:
    found = compare({"light": chain(1), "heavy": chain(50)}, [FEED], seconds=0.3, min_rounds=5, reference="light")
    ratio = found.ratio("heavy")
    assert ratio is not None and ratio.median > 1.5
    assert ratio.low <= ratio.median <= ratio.high
    assert found.ratio("light") is None
    for latency in found.latencies:
        assert 0 < latency.p50 <= latency.p90 <= latency.p99
        assert latency.load_ms > 0 and latency.first_ms > 0
    assert found.noise_floor >= 0 and found.machine.cores >= 1
    assert len(found.openings) >= agent.FEWEST_OPENINGS
    assert found.conditions.canary_before_ms is not None and found.conditions.canary_before_ms > 0


def test_identical_sessions_show_no_difference_beyond_noise() -> None:
    model = chain(8)
    found = compare({"a": model, "b": model}, [FEED], seconds=0.4, min_rounds=40, reference="a")
    ratio = found.ratio("b")
    assert ratio is not None
    slack = math.exp(3 * found.noise_floor + 0.1)  # this machine may be busy; a 50-fold model is far outside
    assert ratio.low <= slack and ratio.high >= 1 / slack


def test_garbage_collection_is_back_on_afterwards_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), agent.no_garbage_collection():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feeds": []}, "give at least one sample"),
        ({"reference": "c"}, "no model 'c'"),
        ({"threads": 0}, "at least 1 thread"),
        ({"min_rounds": 0}, "at least 1 thread"),
        ({"seconds": math.nan}, "at least 1 thread"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"models": {"a": b""}, "feeds": [FEED], "reference": "a", **changes}
    with pytest.raises(InputError, match=message):
        compare(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("feed", [{"x": np.ones((1, 3), np.float32)}, {"x": np.ones((1, 128), np.int64)}])
def test_inputs_the_model_does_not_take(feed: dict[str, np.ndarray]) -> None:
    with pytest.raises(ModelError, match="cannot run this model"):
        compare({"a": chain(1)}, [feed], seconds=0, min_rounds=1, reference="a")


def test_bytes_that_are_no_model() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        compare({"a": b"no model"}, [FEED], seconds=0, min_rounds=1, reference="a")


# --- the machine -----------------------------------------------------------------------------------------


def test_the_machine_is_described_without_gaps_in_what_python_knows() -> None:
    found = machine.describe()
    assert found.cpu and found.cores >= 1 and found.os
    assert found.numpy == np.__version__
    assert found.onnxruntime[0].isdigit()


def test_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_read", lambda path: None)
    found = machine.describe()
    assert (found.governor, found.frequency_mhz) == (None, None)
    assert found.cpu
