"""Statistics of units are, merged, the bits of one run: however units are shared out, with any number of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of
from quantize_tools import kernel, parse

from edgepress.calibrate import open_feed
from edgepress.calibrate.features import Features
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import SLOPE_CHUNK, UNITS, collect, collect_units, merged_units
from edgepress.calibrate.slopes import SAMPLES, Gates, Outer, Slopes
from edgepress.calibrate.statistics import Gram, Moments, Probe, SplitGram, slope
from edgepress.executor import Executor
from edgepress.executor.slopes import LOSSES, SlopeRunner
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.pipeline.observing import observe, observe_units
from edgepress.scores.base import Options
from edgepress.scores.registry import BUILT_IN, find

B = kernel(99, 1).ravel()
few = settings(deadline=None, max_examples=8, derandomize=True)


def network(batch: str = "N") -> Model:
    """Conv, Conv, Gemm; logits of five classes."""
    body = """a = Conv<kernel_shape=[3,3]>(x, w1, b1)  r = Relu(a)  c = Conv<kernel_shape=[3,3]>(r, w2, b2)  s = Relu(c)
        p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, w3, b3)"""
    arrays = {"w1": 2 * kernel(6, 3, 3, 3), "b1": B[:6], "w2": 2 * kernel(7, 6, 3, 3), "b2": B[:7]}
    return parse(body, x=f"{batch},3,7,7", outputs=f"float[{batch},5] y", arrays=arrays, w3=kernel(5, 7), b3=B[:5])


def samples(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    return {"x": random.standard_normal((count, 3, 7, 7)).astype(np.float32), "label": random.integers(0, 5, count)}


@cache
def probes(model: Model) -> tuple[Probe, ...]:
    """What every score observes, under every loss, and moments of a tensor."""
    options = [Options(positions=5, loss=loss) for loss in LOSSES]
    every = [
        probe
        for option in options
        for name in BUILT_IN
        for group in find_groups(model).prunable
        for probe in find(name, option).needs(model, group)
    ]
    moments = Probe("moments", ("x",), lambda values, _: Moments.of(values["x"], 1))
    return tuple({probe.name: probe for probe in (*every, moments)}.values())


def bits(found: Any) -> Iterator[tuple[str, bytes]]:
    """Every number of a statistic, and its type and shape."""
    if dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            yield field.name, b""
            yield from bits(getattr(found, field.name))
    elif isinstance(found, Mapping):
        for name, value in found.items():
            yield str(name), b""
            yield from bits(value)
    elif isinstance(found, np.ndarray):
        yield f"{found.dtype}{found.shape}", found.tobytes()
    else:
        yield repr(found), b""


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert list(bits(found[name])) == list(bits(wanted[name])), name


def shared_out(model: Model, feed: Feed, cuts: Sequence[int], workers: Sequence[int] = (1,)) -> dict[str, Any]:
    """Units observed part by part, the last part first, each with another number of workers."""
    places = [0, *sorted(cuts), UNITS]
    parts = [range(start, stop) for start, stop in pairwise(places)]
    units: dict[int, Mapping[str, Any]] = {}
    for number, part in reversed(list(enumerate(parts))):
        own = observe_units(model, feed, probes(model), classifies=True, workers=workers[number % len(workers)],
                            seed=3, units=part)  # fmt: skip
        assert own.keys() <= set(part) and not own.keys() & units.keys()
        units |= own
    return merged_units(units)


def observed(model: Model, feed: Feed, workers: int = 1, seed: int = 3) -> Mapping[str, Any]:
    return observe(model, feed, probes(model), classifies=True, workers=workers, seed=seed)


@cache
def case(count: int) -> tuple[Model, Feed, Mapping[str, Any]]:
    """A model, samples, and the statistics of one run."""
    model = network()
    feed = feed_of(model, samples(count))
    return model, feed, observed(model, feed)


def saved(path: Path, model: Model, arrays: Mapping[str, Any]) -> Feed:
    """A feed over a file."""
    np.savez(path, **arrays)
    return open_feed(str(path), model)


def test_there_is_every_kind_of_statistic() -> None:
    _, _, found = case(70)
    kinds = {type(statistic) for statistic in found.values()}
    assert kinds == {SplitGram, Outer, Gates, Moments, Features, Gram}
    assert all(type(own) is Slopes for one in found.values() if isinstance(one, Gates) for own in one.parts.values())
    assert {probe.loss for probe in probes(case(70)[0])} == {"", *LOSSES}


@few
@given(st.lists(st.integers(0, UNITS), max_size=6), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_any_sharing_gives_the_bits_of_one_run(cuts: list[int], workers: list[int]) -> None:
    model, feed, whole = case(150)
    same(shared_out(model, feed, cuts, workers), whole)


@pytest.mark.parametrize("count", [1, 8, 9, 31, 129])
def test_few_samples(count: int) -> None:
    """A single chunk, fewer chunks than units, as many, one more."""
    model, feed, whole = case(count)
    for cuts in ([], [8], range(UNITS)):
        same(shared_out(model, feed, cuts), whole)
    assert whole["moments"].count == 49 * count
    assert all(one.samples == count for one in whole.values() if isinstance(one, Gates | Outer))


@pytest.mark.parametrize(("batch", "count"), [("1", 27), ("4", 24)])
def test_a_fixed_batch(batch: str, count: int, tmp_path: Path) -> None:
    model = network(batch)
    feed = saved(tmp_path / "x.npz", model, samples(27))
    assert len(feed) == count
    whole = observed(model, feed)
    same(shared_out(model, feed, [3, 4, 11], [2, 1]), whole)
    assert all(one.samples == len(feed) for one in whole.values() if isinstance(one, Gates | Outer))


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_any_number_of_workers_gives_the_same_bits(workers: int) -> None:
    model, feed, whole = case(90)
    same(observed(model, feed, workers), whole)


def test_complete_samples_count_their_rows_where_these_have_labels(tmp_path: Path) -> None:
    x, labels = samples(24)["x"].reshape(6, 4, 3, 7, 7), samples(24)["label"].reshape(6, 4)
    model = network("4")
    seen = Probe("rows", ("x",), lambda values, _: Moments(np.zeros(1), np.zeros(1), int(values[SAMPLES])))
    for arrays, rows in (({"x": x, "label": labels}, 24), ({"x": x}, 6)):
        feed = saved(tmp_path / f"{rows}.npz", model, arrays)
        assert collect(model, feed, [seen], workers=1)["rows"].count == rows


def test_units_hold_their_chunks_in_order() -> None:
    """Unit u holds the chunks k with u = floor(k UNITS / chunks)."""
    model, feed, _ = case(150)
    chunks = -(-150 // SLOPE_CHUNK)

    @dataclasses.dataclass(frozen=True)
    class Seen:
        numbers: tuple[int, ...]

        def merge(self, other: Seen) -> Seen:
            return Seen(self.numbers + other.numbers)

    probe = Probe("seen", (), lambda _, number: Seen((number,)), ("a",), "outputs")
    runner = SlopeRunner(Executor(model), "outputs", True, 0, mark=slope(""))
    found = collect_units(model, feed, [probe], workers=2, units=range(2, 9), runners={"outputs": runner})
    wanted: dict[int, tuple[int, ...]] = {}
    for number in range(chunks):
        unit = number * UNITS // chunks
        wanted[unit] = (*wanted.get(unit, ()), number)
    assert {unit: one["seen"].numbers for unit, one in found.items()} == {unit: wanted[unit] for unit in range(2, 9)}


def test_units_that_do_not_follow_one_another_are_refused() -> None:
    model, feed, _ = case(7)
    with pytest.raises(ValueError, match="follow one another"):
        collect_units(model, feed, probes(model), workers=1, units=range(0, UNITS, 2))


# --- draws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_draws_depend_on_the_seed_and_the_number_of_the_chunk_alone(loss: str) -> None:
    model, feed, _ = case(33)
    chunks = list(feed.chunks(SLOPE_CHUNK))
    executor = Executor(model)

    def run(seed: int, number: int) -> np.ndarray:
        runner = SlopeRunner(executor, loss, True, seed, mark=slope(""))
        return runner(number, chunks[2], ["x"], ["y"])[slope("y")]

    first = run(0, 2)
    run(0, 4)
    assert run(0, 2).tobytes() == first.tobytes()
    drawn = loss != "labels"
    assert (run(0, 3).tobytes() != first.tobytes()) is drawn
    assert (run(1, 2).tobytes() != first.tobytes()) is drawn


def test_another_seed_draws_others() -> None:
    model, feed, whole = case(33)
    other = observed(model, feed, seed=4)
    name = next(name for name, one in whole.items() if isinstance(one, Gates) and "@answer" in name)
    assert whole[name].square.tobytes() != other[name].square.tobytes()
    labelled = name.replace("@answer", "@labels")
    assert list(bits(whole[labelled])) == list(bits(other[labelled]))
