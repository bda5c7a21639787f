"""Code lengths: what an array takes, and roundings that weigh error against length."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgepress import codec
from edgepress.codec import lengths

EXAMPLES = settings(max_examples=150, deadline=None)

integers = st.lists(st.integers(-40, 40), max_size=60)
weights = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40)
rates = st.floats(0, 6)
steps = st.sampled_from([0.25, 0.7, 1.0, 3.0])


def objective(values: np.ndarray, step: float, rate: float, rounded: np.ndarray) -> float:
    """What rounding minimizes, by its definition."""
    return float(((values / step - rounded) ** 2).sum() + rate * codec.empirical_bits(rounded).sum())


def drawn(name: str, count: int = 4000) -> np.ndarray:
    """Samples of a distribution."""
    random = np.random.default_rng(3)
    if name == "laplace":
        return 2 * random.laplace(size=count)
    if name == "heavy":
        return 2 * random.standard_t(3, count)
    values = 2 * random.standard_normal(count)
    return values * (random.random(count) < 0.1) if name == "sparse" else values


# --- lengths ---------------------------------------------------------------------------------------------


@EXAMPLES
@given(integers)
def test_the_length_of_a_number_is_that_of_its_frequency(values: list[int]) -> None:
    counts = Counter(values)
    wanted = [-log2(counts[value] / len(values)) for value in values]
    found = codec.empirical_bits(np.array(values, np.int64))
    assert found.dtype == np.float64 and found.tolist() == pytest.approx(wanted)


@EXAMPLES
@given(integers)
def test_the_entropy_times_the_count_is_the_sum_of_lengths(values: list[int]) -> None:
    shares = [count / len(values) for count in Counter(values).values()]
    entropy = -sum(share * log2(share) for share in shares)
    array = np.array(values, np.int64)
    assert codec.coded_bits(array) == pytest.approx(len(values) * entropy)
    assert codec.coded_bits(array) == pytest.approx(codec.empirical_bits(array).sum())


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 4), (0,), (3, 0)])
def test_a_constant_array_takes_no_bits_in_any_shape(shape: tuple[int, ...]) -> None:
    found = codec.empirical_bits(np.full(shape, -3))
    assert found.shape == shape and not found.any()
    assert codec.coded_bits(np.full(shape, -3)) == 0


def gamma(number: int) -> str:
    """The Elias gamma code."""
    digits = f"{number:b}"
    return "0" * (len(digits) - 1) + digits


class Reader:
    """Reads Elias gamma codes."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def number(self) -> int:
        zeros = self.text.index("1", self.place) - self.place
        start, self.place = self.place + zeros, self.place + 2 * zeros + 1
        return int(self.text[start : self.place], 2)


@EXAMPLES
@given(st.lists(st.one_of(st.integers(-3, 3), st.integers(-70000, 70000)), max_size=50))
@example([])
def test_a_histogram_of_that_many_bits_can_be_written_and_read(values: list[int]) -> None:
    counts = sorted(Counter(values).items())
    levels = [level for level, _ in counts]
    first = [2 * level + 1 if level >= 0 else -2 * level for level in levels[:1]]
    gaps = [b - a for a, b in pairwise(levels)]
    text = "".join(map(gamma, [len(counts) + 1, *first, *gaps, *(count for _, count in counts)]))
    array = np.array(values, np.int64)
    assert codec.histogram_bits(array) == len(text)

    reader = Reader(text)
    found: list[int] = []
    for place in range(reader.number() - 1):
        number = reader.number()
        found.append(found[-1] + number if place else (number - 1) // 2 if number % 2 else -number // 2)
    assert [(level, reader.number()) for level in found] == counts and reader.place == len(text)
    assert codec.description_bits(array) == codec.coded_bits(array) + len(text) + 32


# --- rounding --------------------------------------------------------------------------------------------


@EXAMPLES
@given(weights, steps)
@example([0.5, 1.5, 2.5, -0.5], 1.0)
def test_rate_zero_is_nearest_rounding(values: list[float], step: float) -> None:
    array = np.array(values)
    assert np.array_equal(codec.rate_rounded(array, step, 0.0), np.rint(array / step))


@EXAMPLES
@given(weights, steps, rates, rates)
def test_bits_never_rise_with_the_rate(values: list[float], step: float, one: float, other: float) -> None:
    array = np.array(values)
    low, high = sorted([one, other])
    few, many = (codec.coded_bits(codec.rate_rounded(array, step, rate)) for rate in (high, low))
    assert few <= many + 1e-9
    assert many <= codec.coded_bits(np.rint(array / step)) + 1e-9


@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "sparse"])
def test_bits_fall_and_errors_rise_along_the_rates(name: str) -> None:
    values = drawn(name)
    found = [codec.rate_rounded(values, 1.0, rate) for rate in [*np.linspace(0, 4, 41), 1e6]]
    bits = [codec.coded_bits(each) for each in found]
    errors = [((values - each) ** 2).sum() for each in found]
    assert (np.diff(bits) <= 1e-6).all() and (np.diff(errors) >= -1e-6).all()
    assert len(set(bits)) > 15 and bits[-1] == 0


@EXAMPLES
@given(weights, steps, rates)
def test_the_objective_is_no_worse_than_that_of_nearest_rounding_or_of_one_level(
    values: list[float], step: float, rate: float
) -> None:
    array = np.array(values)
    found = objective(array, step, rate, codec.rate_rounded(array, step, rate))
    for other in (np.rint(array / step), np.full(len(array), np.rint((array / step).mean()))):
        assert found <= objective(array, step, rate, other) + 1e-6


@EXAMPLES
@given(weights, st.lists(st.floats(0, 4), min_size=1, max_size=6))
def test_every_round_is_the_best_assignment_and_the_objective_never_rises(
    values: list[float], along: list[float]
) -> None:
    steps_ = np.sort(np.array(values))
    line = lengths._Line.of(steps_)
    runs = line.nearest()
    for rate in along:
        before = np.repeat(runs.levels, np.diff(runs.ends))
        cost = dict(zip(before.tolist(), codec.empirical_bits(before).tolist(), strict=True))
        runs = line.improved(runs, rate)
        after = np.repeat(runs.levels, np.diff(runs.ends))
        best = [min((step - level) ** 2 + rate * bits for level, bits in cost.items()) for step in steps_]
        chosen = [(step - level) ** 2 + rate * cost[level] for step, level in zip(steps_, after, strict=True)]
        assert chosen == pytest.approx(best, abs=1e-9)
        assert objective(steps_, 1.0, rate, after) <= objective(steps_, 1.0, rate, before) + 1e-6
        bits, error = line.measured(runs)
        assert bits + error == pytest.approx(objective(steps_, 1.0, 1.0, after), abs=1e-6)


@EXAMPLES
@given(weights, rates)
def test_places_do_not_matter(values: list[float], rate: float) -> None:
    array = np.array(values, np.float32)
    order = np.random.default_rng(len(values)).permutation(len(values))
    found = codec.rate_rounded(array, 1.0, rate)
    assert found.dtype == np.int64 and set(found) <= {*np.rint(array), np.rint(array.mean(dtype=np.float64))}
    assert np.array_equal(codec.rate_rounded(array[order], 1.0, rate), found[order])
    twice = np.stack([array, array])[:, :, None]
    assert (np.diff(codec.rate_rounded(twice, 1.0, rate), axis=0) == 0).all()


def alternated(values: np.ndarray, rate: float) -> np.ndarray:
    """From nearest rounding, all weights and levels compared in every round, at one rate only."""
    rounded = np.rint(values)
    while True:
        levels, counts = np.unique(rounded, return_counts=True)
        cost = (values[:, None] - levels) ** 2 + rate * np.log2(len(values) / counts)
        found = np.asarray(levels[cost.argmin(1)])
        if np.array_equal(found, rounded):
            return found
        rounded = found


@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "sparse"])
@pytest.mark.parametrize("rate", [0.05, codec.SLOPE, 0.3, 0.7, 1.5, 3.0])
def test_about_as_good_as_alternation_at_the_rate_itself(name: str, rate: float) -> None:
    values = drawn(name)
    wanted = objective(values, 1.0, rate, alternated(values, rate))
    assert objective(values, 1.0, rate, codec.rate_rounded(values, 1.0, rate)) <= 1.02 * wanted


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3), (2, 3, 1, 4)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    for rate in (0.0, 0.5):
        assert codec.rate_rounded(np.ones(shape, np.float32).T, 0.5, rate).shape == shape[::-1]
        assert (codec.rate_rounded(np.ones(shape, np.float32), 0.5, rate) == 2).all()


# --- the step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "sparse"])
def test_layers_lose_about_as_much_whatever_their_distribution(name: str) -> None:
    values = drawn(name, 50000)
    step = codec.uniform_step(values)
    assert step == pytest.approx(np.sqrt((values**2).mean()) / 2)
    assert codec.uniform_step(1e-4 * values.astype(np.float32)) == pytest.approx(1e-4 * step)
    error = values - step * codec.rate_rounded(values, step, codec.SLOPE)
    share = (error**2).mean() / (values**2).mean()
    assert 1 / 48 * (0.1 if name == "sparse" else 0.8) < share < 1 / 48 * 1.25


def test_layers_without_weights_have_a_step() -> None:
    assert codec.uniform_step(np.zeros((3, 2), np.float32)) == 1
    assert codec.uniform_step(np.zeros((0, 2), np.float32)) == 1
    assert codec.uniform_step(np.full((3, 2), -4, np.float16)) == 2


def test_the_slope_is_what_a_finer_step_pays_for_a_bit() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)

    def tried(step: float) -> tuple[float, float]:
        rounded = np.rint(values / step)
        return float(((values - step * rounded) ** 2).mean()), codec.coded_bits(rounded) / len(values)

    step = 0.5
    (error, bits), (less, more) = tried(step * 1.05), tried(step / 1.05)
    assert (error - less) / (more - bits) / step**2 == pytest.approx(codec.SLOPE, rel=0.1)
