"""Timing: laws of its statistics, its structure with a clock of our own, real sessions where one is clearly heavier."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.bench import compare, machine, statistics, timing
from edgepress.errors import InputError, ModelError

FEED = {"x": np.ones((1, 128), np.float32)}


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
    found = statistics.paired_ratio("a", same, "b", same.copy(), floor=0.0, seed=seed)
    assert (found.median, found.low, found.high, found.noise) == (1.0, 1.0, 1.0, "no difference")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_ratio_does_not_see_drift_that_hits_both(seed: int, factor: float) -> None:
    drift = np.random.default_rng(seed).lognormal(0, 1, 40)
    found = statistics.paired_ratio("a", drift * factor, "b", drift, floor=0.0, seed=seed)
    assert math.isclose(found.median, factor, rel_tol=1e-9)
    assert math.isclose(found.high, found.low, rel_tol=1e-9)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(5).normal(0.3, 1.0, (200, 41))
    bounds = [statistics.median_interval(values, seed=0) for values in draws]
    covered = sum(low <= 0.3 <= high for low, high in bounds)
    assert 180 <= covered < 200  # 95 % of 200 is 190; an interval that always covers would be useless too


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
    there = statistics.paired_ratio("a", a, "b", b, floor=0.0, seed=0)
    back = statistics.paired_ratio("b", b, "a", a, floor=0.0, seed=0)
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
    assert statistics.paired_ratio("a", base * factor, "b", base, floor=floor, seed=0).noise == noise


def test_the_noise_floor_is_how_far_the_twin_strays() -> None:
    base = np.ones(30)
    assert statistics.noise_floor(base, base, seed=0) == 0.0
    assert math.isclose(statistics.noise_floor(base * 1.1, base, seed=0), math.log(1.1))
    assert math.isclose(statistics.noise_floor(base / 1.1, base, seed=0), math.log(1.1))


def test_quantiles_are_of_single_runs() -> None:
    found = statistics.latency("a", np.arange(101.0), load_ms=5, first_ms=7, rounds=3)
    assert (found.p50, found.p90, found.p99) == (50.0, 90.0, 99.0)
    assert (found.load_ms, found.first_ms, found.rounds) == (5, 7, 3)


# --- structure, with a clock that only moves when a model runs -----------------------------------------


class Clock:
    """Time in ns, moved by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def racer(self, name: str, run_ms: float, runs: int = 3) -> timing._Racer:
        def run(feed: Mapping[str, np.ndarray]) -> object:
            self.log.append(f"{name}{feed['x'][0]:g}")
            self.now += int(run_ms * 1e6)
            return None

        return timing._Racer(name, run, 0.0, 0.0, runs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: made.now)
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now / 1e9)
    return made


def feeds(number: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([float(value)])} for value in range(number)]


def visits(log: Sequence[str], runs: int) -> Iterator[str]:
    """One entry per visit (a warm run and `runs` more)."""
    for start in range(0, len(log), runs + 1):
        assert len(set(log[start : start + runs + 1])) == 1
        yield log[start]


def test_every_round_visits_every_model_once_with_one_feed(clock: Clock) -> None:
    racers = [clock.racer(name, 1.0) for name in "abc"]
    taken = timing._rounds(racers, feeds(2), 0.0, 6, np.random.default_rng(0))
    order = list(visits(clock.log, 3))
    rounds = [order[start : start + 3] for start in range(0, 18, 3)]
    for number, visited in enumerate(rounds):
        assert sorted(visited) == [f"{name}{number % 2}" for name in "abc"]
    assert len({tuple(name[0] for name in visited) for visited in rounds}) > 1  # the order is shuffled
    assert [len(of_one) for of_one in taken] == [6, 6, 6]


def test_the_order_follows_the_seed(clock: Clock) -> None:
    logs = []
    for seed in (1, 1, 2):
        clock.log = []
        timing._rounds([clock.racer(n, 1.0) for n in "abcd"], feeds(1), 0.0, 8, np.random.default_rng(seed))
        logs.append(clock.log)
    assert logs[0] == logs[1] != logs[2]


def test_the_warm_run_is_not_recorded(clock: Clock) -> None:
    cost = count(start=100, step=-1)  # the first run of the visit is the dearest

    def run(_: object) -> object:
        clock.now += next(cost) * 1_000_000
        return None

    assert timing._visit(run, {}, 3).tolist() == [99.0, 98.0, 97.0]


@pytest.mark.parametrize(("run_ms", "runs"), [(0.0, 500), (0.001, 500), (1.0, 5), (4.0, 3), (99.0, 3), (100.0, 1)])
def test_runs_per_visit_aim_at_five_ms(run_ms: float, runs: int) -> None:
    assert timing._runs_per_visit(run_ms) == runs


def test_the_result_is_the_ratio_of_the_clock(clock: Clock) -> None:
    racers = [clock.racer("a", 2.0), clock.racer("b", 1.0), clock.racer("a", 2.0)]
    taken = timing._rounds(racers, feeds(1), 0.0, 5, np.random.default_rng(0))
    found = timing._summarize(racers, taken, "a", 1, 0, machine.describe())
    (ratio,) = found.ratios
    assert (ratio.name, ratio.reference, ratio.noise) == ("b", "a", "faster")
    assert math.isclose(ratio.median, 0.5)
    assert found.noise_floor == 0.0
    assert [(item.name, item.p50) for item in found.latencies] == [("a", 2.0), ("b", 1.0)]
    assert found.rounds == found.latency("a").rounds == 5


def test_a_ratio_does_not_depend_on_what_else_is_timed(clock: Clock) -> None:
    rng = np.random.default_rng(0)
    noisy = {name: [rng.uniform(1, 2, 3) for _ in range(20)] for name in "abc"}

    def ratio(names: str) -> statistics.Ratio | None:
        racers = [clock.racer(name, 1.0) for name in f"{names}a"]
        found = timing._summarize(racers, [noisy[n] for n in f"{names}a"], "a", 1, 0, machine.describe())
        return found.ratio("b")

    assert ratio("ab") == ratio("ba") == ratio("cab") is not None


@pytest.mark.parametrize(
    ("elapsed", "done", "goes_on"),
    [(0.0, 0, True), (0.0, 20, True), (6.0, 19, True), (6.0, 20, False), (24.0, 4, True), (24.0, 5, False)],
)
def test_when_the_rounds_end(elapsed: float, done: int, goes_on: bool) -> None:
    assert timing._goes_on(elapsed, done, 6.0, 20) is goes_on


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


def test_identical_sessions_show_no_difference_beyond_noise() -> None:
    model = chain(8)
    found = compare({"a": model, "b": model}, [FEED], seconds=0.4, min_rounds=40, reference="a")
    ratio = found.ratio("b")
    assert ratio is not None
    slack = math.exp(3 * found.noise_floor + 0.1)  # this machine may be busy; a 50-fold model is far outside
    assert ratio.low <= slack and ratio.high >= 1 / slack


def test_garbage_collection_is_back_on_afterwards_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), timing._no_garbage_collection():
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
    monkeypatch.setattr(machine, "_read", lambda path: "")
    found = machine.describe()
    assert (found.governor, found.frequency_mhz) == (None, None)
    assert found.cpu
