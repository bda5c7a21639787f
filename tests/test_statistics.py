"""Statistics: they merge as sums do, and a run over a feed gives the same bits for any number of workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import chunks, feed_of, parts_of, run, split_of, view_of
from quantize_tools import CONV, kernel, parse
from threadpoolctl import threadpool_info

from edgepress.calibrate import open_feed
from edgepress.calibrate.run import collect, outputs
from edgepress.calibrate.statistics import HELD_OUT, Gram, Moments, Probe, SplitGram, gram_probe
from edgepress.model import Model
from edgepress.parallel import one_blas_thread, ordered_map

few = settings(deadline=None, max_examples=25, derandomize=True)
sizes = st.lists(st.integers(1, 6), min_size=3, max_size=6)


def grams(counts: list[int], seed: int = 0) -> list[Gram]:
    random = np.random.default_rng([seed, *counts])
    rows = [np.column_stack([random.standard_normal((n, 3)), np.ones(n)]) for n in counts]
    return [Gram.of(part, random.standard_normal((len(part), 2))) for part in rows]


def same(a: Gram, b: Gram) -> bool:
    pairs = [(a.inner, b.inner), (a.cross, b.cross), (a.energy, b.energy)]
    return a.rows == b.rows and all(np.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in pairs)


# --- laws ------------------------------------------------------------------------------------------------


@few
@given(sizes)
def test_gram_merges_in_any_grouping_and_order(counts: list[int]) -> None:
    parts = grams(counts)
    left = reduce(Gram.merge, parts)
    assert same(left, reduce(lambda whole, part: part.merge(whole), parts[::-1]))
    assert same(left, reduce(Gram.merge, parts[::-1]))
    middle = len(parts) // 2
    assert same(left, reduce(Gram.merge, parts[:middle]).merge(reduce(Gram.merge, parts[middle:])))


@few
@given(sizes, st.integers(0, 1000))
def test_gram_of_chunks_is_the_gram_of_all_rows(counts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, targets = random.standard_normal((sum(counts), 4)), random.standard_normal((sum(counts), 3))
    ends = np.cumsum(counts)[:-1]
    parts = zip(np.split(rows, ends), np.split(targets, ends), strict=True)
    assert same(Gram.of(rows, targets), reduce(Gram.merge, [Gram.of(x, y) for x, y in parts]))


@few
@given(sizes, st.integers(0, 1000))
def test_moments_are_those_of_all_values(counts: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((sum(counts), 3, 4)).astype(np.float32) * 5 + 2
    parts = [Moments.of(part, 1) for part in np.split(values, np.cumsum(counts)[:-1])]
    for merged in (reduce(Moments.merge, parts), reduce(Moments.merge, parts[::-1])):
        assert merged.count == values.shape[0] * 4
        assert np.allclose(merged.mean, values.mean((0, 2), dtype=np.float64), rtol=1e-10)
        assert np.allclose(merged.deviation, values.std((0, 2), dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_moments_along_any_axis(axis: int) -> None:
    values = np.random.default_rng(0).standard_normal((4, 5, 6))
    others = tuple(a for a in range(3) if a != axis % 3)
    assert np.allclose(Moments.of(values, axis).mean, values.mean(others))
    assert np.allclose(Moments.of(values, axis).deviation, values.std(others))


def test_moments_of_a_constant_have_no_deviation_below_zero() -> None:
    values = np.full((7, 2, 11), 1234.567, np.float32)
    found = Moments.of(values, 1)
    assert np.isfinite(found.deviation).all()
    assert (found.deviation < 1e-3).all()


@few
@given(st.integers(5, 40), st.integers(0, 1000))
def test_gram_error_is_the_mean_squared_residual(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = np.column_stack([random.standard_normal((count, 3)), np.ones(count)])
    targets, matrix = random.standard_normal((count, 2)) + 3, random.standard_normal((2, 4))
    found = Gram.of(rows, targets)
    assert found.error(matrix) == pytest.approx(float(((targets - rows @ matrix.T) ** 2).sum(1).mean()), rel=1e-10)
    assert found.variance == pytest.approx(float(targets.var(0).sum()), rel=1e-9)


def test_gram_error_never_falls_below_zero() -> None:
    random = np.random.default_rng(0)
    rows = np.column_stack([1e4 * random.standard_normal((50, 3)), np.ones(50)])
    matrix = random.standard_normal((2, 4))
    assert 0.0 <= Gram.of(rows, rows @ matrix.T).error(matrix) < 1e-4


def test_gram_restricted_to_columns_and_outputs() -> None:
    random = np.random.default_rng(0)
    rows, targets = random.standard_normal((30, 5)), random.standard_normal((30, 3))
    columns, chosen = np.array([0, 3, 4]), np.array([2, 0])
    whole = Gram.of(rows, targets)
    assert same(whole.select(columns), Gram.of(rows[:, columns], targets))
    assert same(whole.select(columns, chosen), Gram.of(rows[:, columns], targets[:, chosen]))


def test_split_keeps_every_fourth_chunk_out_and_may_lack_a_side() -> None:
    parts = [SplitGram.of(gram, number) for number, gram in enumerate(grams([1, 2, 3, 4, 5]))]
    assert [part.held is not None for part in parts] == [False, False, False, True, False]
    merged = reduce(SplitGram.merge, parts)
    assert merged.fit is not None and merged.held is not None
    assert (merged.fit.rows, merged.held.rows, merged.whole.rows) == (1 + 2 + 3 + 5, 4, 15)
    only_fit = parts[0].merge(parts[1])
    assert only_fit.held is None and only_fit.whole.rows == 3
    assert SplitGram(None, None).merge(only_fit) == only_fit == only_fit.merge(SplitGram(None, None))
    assert parts[3].whole.rows == 4
    with pytest.raises(ValueError, match="no rows"):
        _ = SplitGram(None, None).whole


@few
@given(st.permutations(range(6)))
def test_split_merges_in_any_order(order: list[int]) -> None:
    parts = [SplitGram.of(gram, number) for number, gram in enumerate(grams([3, 1, 2, 4, 2, 5]))]
    first = reduce(SplitGram.merge, parts)
    other = reduce(SplitGram.merge, [parts[i] for i in order])
    for a, b in ((first.fit, other.fit), (first.held, other.held)):
        assert a is not None and b is not None and same(a, b)


# --- runs ------------------------------------------------------------------------------------------------


def network(batch: str = "N") -> Model:
    body = f"a = {CONV}(x, w1, b1)  r = Relu(a)  c = {CONV}(r, w2)  y = Relu(c)"
    arrays = {"w1": kernel(8, 3, 3, 3), "b1": kernel(8, 1).ravel(), "w2": kernel(4, 8, 3, 3)}
    return parse(body, x=f"{batch},3,8,8", arrays=arrays)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


def probes(model: Model, positions: int = 9) -> list[Probe]:
    positions_of = [position for position, node in enumerate(model.nodes) if node.op == "Conv"]
    views = [part for position in positions_of for part in parts_of(model, position)]
    return [gram_probe(view, positions=positions, seed=3) for view in views]


def bits(found: Mapping[str, SplitGram]) -> list[bytes]:
    sides = [side for name in found for side in (found[name].fit, found[name].held) if side is not None]
    return [array.tobytes() for side in sides for array in (side.inner, side.cross, side.energy)]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_collect_gives_the_same_bits_for_any_number_of_workers(workers: int) -> None:
    model = network()
    feed = feed_of(model, {"x": pictures(90)})
    once = collect(model, feed, probes(model), workers=1, chunk=8)
    assert bits(collect(model, feed, probes(model), workers=workers, chunk=8)) == bits(once)
    assert len(bits(once)) == 12


def test_collect_observes_what_the_model_computes() -> None:
    model = network()
    x = pictures(24)
    found = collect(model, feed_of(model, {"x": x}), probes(model, 999), workers=2, chunk=5)
    for position, (source, made) in {0: ("x", "a"), 2: ("r", "c")}.items():
        view = view_of(model, position)
        values = dict(zip(("a", "r", "c"), run(model, {"x": x}, ["a", "r", "c"]), strict=True)) | {"x": x}
        assert view.geometry.tensors == (source, made)
        whole = Gram.of(view.rows(values, None), view.targets(values, None))
        split = found[view.node.name]
        assert same(split.whole, whole)
        assert split.held.rows == 64 * 5  # chunk 3 of 0..4, five samples of 64 pixels


def test_collect_takes_a_fixed_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=pictures(24))
    free, fixed = (
        collect(model, open_feed(str(tmp_path / "x.npz"), model), probes(model, 999), workers=2, chunk=4)
        for model in (network(), network("4"))
    )
    assert bits(free) == bits(fixed)


def test_collect_observes_inputs_beside_inner_tensors() -> None:
    model = network()
    probe = Probe(
        "means", ("x", "a"), lambda values, chunk: Moments.of(values["x"], 1).merge(Moments.of(values["a"][:, :3], 1))
    )
    x = pictures(20)
    (a,) = run(model, {"x": x}, ["a"])
    found = collect(model, feed_of(model, {"x": x}), [probe], workers=1, chunk=8)
    assert np.allclose(found["means"].mean, (x.mean((0, 2, 3)) + a[:, :3].mean((0, 2, 3))) / 2, atol=1e-6)


def test_outputs_come_in_order_with_their_chunks() -> None:
    model = network()
    x = pictures(30)
    (wanted,) = run(model, {"x": x})
    for workers in (1, 3):
        parts = list(outputs(model, feed_of(model, {"x": x}), workers=workers, chunk=7))
        assert np.concatenate([part.samples for part, _ in parts]).tolist() == list(range(30))
        assert np.allclose(np.concatenate([found for _, (found,) in parts]), wanted, atol=1e-5)


# --- the map ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_map_keeps_order_and_bounds_what_is_in_flight(workers: int) -> None:
    started: list[int] = []

    def square(item: int) -> int:
        started.append(item)
        return item * item

    taken = 0
    for taken, value in enumerate(ordered_map(square, range(20), workers=workers)):
        assert value == taken**2
        assert len(started) <= taken + workers + 1
    assert taken == 19


@pytest.mark.parametrize("workers", [1, 3])
def test_map_raises_what_an_item_raises(workers: int) -> None:
    def broken(item: int) -> int:
        if item == 4:
            raise KeyError(item)
        return item

    mapped = ordered_map(broken, range(9), workers=workers)
    assert [next(mapped) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        next(mapped)


def blas_threads() -> list[int]:
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


def test_blas_threads_come_back_even_when_two_maps_are_read_side_by_side() -> None:
    before = blas_threads()
    model = network()
    feed = feed_of(model, {"x": pictures(20)})
    pairs = zip(outputs(model, feed, workers=2, chunk=4), outputs(model, feed, workers=2, chunk=4), strict=True)
    assert sum(1 for _ in pairs) == 5
    collect(model, feed, probes(model), workers=2)
    assert blas_threads() == before
    with one_blas_thread():
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


# --- memory ----------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from numeric_tools import feed_of
from test_statistics import network, probes
from edgepress.calibrate import open_feed
from edgepress.calibrate.run import collect, outputs
model = network()
feed = open_feed(sys.argv[1], model)
collect(model, feed, probes(model), workers=2)
for _ in outputs(model, feed, workers=2):
    pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_kilobytes(folder: Path, count: int) -> int:
    path = folder / f"{count}.npz"
    np.savez(path, x=pictures(count))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_is_flat_in_the_number_of_samples(tmp_path: Path) -> None:
    few_samples, many = peak_kilobytes(tmp_path, 256), peak_kilobytes(tmp_path, 4096)
    activations = 4 * (4096 - 256) * 20 * 64 // 1024  # of all samples at once, in kilobytes
    assert many - few_samples < activations / 4


def test_the_split_of_chunks_is_one_in_four() -> None:
    assert HELD_OUT == 4
    assert chunks(pictures(5), 2)[2]["x"].shape[0] == 1
    assert split_of(np.ones((4, 1)), np.ones((4, 1)), 1).whole.rows == 4
