"""Ranges: histograms merge, percentiles clip, zero bounds stay, memory is flat, means are right."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from quantize_tools import CONV, Arrays, Chunk, answers, kernel, parse, samples, to_int8, worst_sqnr

from edgepress.errors import DataError, InvariantError
from edgepress.model import Model
from edgepress.plan import Quantization
from edgepress.quantize import Histogram, Observations, Range, activations_to_observe, observe, ranges
from edgepress.quantize.activations.grids import grid_of
from edgepress.quantize.activations.ranges import _slices
from edgepress.quantize.graph.regions import typed

VALUES = arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32))


@settings(deadline=None, max_examples=50)
@given(VALUES, st.lists(st.integers(1, 199), max_size=4), st.randoms(use_true_random=False))
def test_histograms_do_not_depend_on_how_samples_are_cut(
    values: np.ndarray, cuts: list[int], shuffler: random.Random
) -> None:
    low, high = float(values.min()), float(values.max())
    whole = Histogram.of(values, low, high, 64)
    parts = [part for part in np.split(values, sorted(c for c in cuts if c < values.size)) if part.size]
    shuffler.shuffle(parts)
    merged = Histogram.of(parts[0], low, high, 64)
    for part in parts[1:]:
        merged = merged.merge(Histogram.of(part, low, high, 64))
    assert np.array_equal(whole.counts, merged.counts)
    assert merged.counts.sum() == values.size


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0, 100))
def test_percentiles_of_a_histogram_are_within_a_bin_of_the_exact_ones(values: np.ndarray, percent: float) -> None:
    low, high = float(values.min()), float(values.max())
    found = Histogram.of(values, low, high, 256).percentile(percent)
    exact = np.percentile(values, percent, method="inverted_cdf"), np.percentile(values, percent, method="higher")
    width = (high - low) / 256 + 1e-4
    assert low <= found <= high
    assert min(exact) - width <= found <= max(exact) + width


def test_histograms_with_other_edges_do_not_merge() -> None:
    one = Histogram.of(np.ones(3, np.float32), 0, 1, 8)
    with pytest.raises(InvariantError, match="edges"):
        one.merge(Histogram.of(np.ones(3, np.float32), 0, 2, 8))


def net() -> tuple[Model, Arrays]:
    body = f"h = {CONV}(x, w1, b1) a = Relu(h) d = {CONV}(a, w2, b2) y = LeakyRelu<alpha=0.1>(d)"
    first, second = kernel(16, 16, 3, 3), kernel(16, 16, 3, 3, seed=2)
    return parse(body, w1=first, b1=kernel(16), w2=second, b2=kernel(16)), samples(16, 14, 14, count=23)


def test_only_tensors_behind_the_fused_relu_are_observed() -> None:
    model, _ = net()
    assert activations_to_observe(model) == ("x", "a", "d", "y")


@pytest.mark.parametrize("most", [1, 5, 23])
def test_observations_do_not_depend_on_chunks(most: int) -> None:
    model, feed = net()
    tensors = activations_to_observe(model)
    cut = observe(model, Arrays(feed.inputs, most), tensors)
    whole = observe(model, feed, tensors)
    for name in tensors:
        assert cut.bounds[name].low == pytest.approx(whole.bounds[name].low, rel=1e-5, abs=1e-6)
        assert cut.bounds[name].high == pytest.approx(whole.bounds[name].high, rel=1e-5)
        assert cut.histograms[name].counts.sum() == whole.histograms[name].counts.sum() == 23 * 16 * 14 * 14
    exact = answers(model, feed)[0]
    assert (whole.bounds["y"].low, whole.bounds["y"].high) == pytest.approx((exact.min(), exact.max()))
    assert np.allclose(whole.means["/net/Conv.0"], feed.inputs["x"].mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(cut.means["/net/Conv.2"], whole.means["/net/Conv.2"], rtol=1e-4)


def test_tensors_are_observed_in_slices_that_fit() -> None:
    model, each = typed(net()[0]), 16 * 14 * 14
    assert _slices(model, ["x", "a", "d"], 2 * each) == [["x", "a"], ["d"]]
    assert _slices(model, ["x", "a", "d"], each - 1) == [["x"], ["a"], ["d"]]


def test_percentile_clips_outliers_but_not_the_zero_of_a_relu() -> None:
    values = np.concatenate([np.zeros(5000), np.linspace(0, 1, 5000), [50.0]]).astype(np.float32)
    signed = np.concatenate([values, -values])
    histograms = {"relu": Histogram.of(values, 0, 50, 2048), "signed": Histogram.of(signed, -50, 50, 2048)}
    seen = Observations({name: Range(h.low, h.high) for name, h in histograms.items()}, histograms)
    minmax = ranges(seen, Quantization(ranges="minmax"))
    clipped = ranges(seen, Quantization(ranges="percentile", percentile=99.9))
    assert minmax["relu"] == Range(0, 50)
    assert clipped["relu"].low == 0
    assert clipped["relu"].high == pytest.approx(1, abs=0.06)
    assert clipped["signed"].low == pytest.approx(-1, abs=0.06)


def test_percentile_ranges_win_where_there_are_outliers() -> None:
    model, feed = net()
    spiked = {"x": feed.inputs["x"].copy()}
    spiked["x"][0, 0, 0, 0] = 400
    minmax = to_int8(model, Arrays(spiked), Quantization())
    clipped = to_int8(model, Arrays(spiked), Quantization(ranges="percentile"))
    assert worst_sqnr(model, clipped, feed) > worst_sqnr(model, minmax, feed) + 10


def test_percentiles_without_histograms_and_samples_without_sense_are_errors() -> None:
    model, feed = net()
    seen = observe(model, feed, ("x", "a"), bins=0)
    assert not seen.histograms
    with pytest.raises(InvariantError, match="histograms"):
        ranges(seen, Quantization(ranges="percentile"))
    with pytest.raises(DataError, match="not a number"):
        observe(model, Arrays({"x": np.full((1, 16, 14, 14), np.nan, np.float32)}), ("x",))

    class Nothing:
        def chunks(self, size: int, /) -> list[Chunk]:
            return []

    with pytest.raises(DataError, match="no samples"):
        observe(model, Nothing(), ("x",))


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(0, 1e3), st.sampled_from([None, (0.0, 6.0), (-1.0, 1.0), (-0.3, 2.0)]))
def test_grids_hold_zero_and_respect_a_clip(low: float, width: float, bounds: tuple[float, float] | None) -> None:
    high = low + width
    if bounds:
        low, high = np.clip([low, high], *bounds)
    grid = grid_of(Range(low, high), bounds)
    reach = np.float32(grid.scale) * np.array([-grid.zero, 255 - grid.zero], np.float32)
    assert grid.scale > 0
    assert reach[0] <= 0 <= reach[1]
    if low >= 0:
        assert grid.zero == 0
    if bounds:
        assert bounds[0] <= reach[0]
        assert reach[1] <= bounds[1]
    elif width > 1e-3:
        assert reach[0] <= min(low, 0) + grid.scale
        assert reach[1] >= max(high, 0) - grid.scale
