"""Rounding for a coded file: the objective, what a rate buys, steps that the coder recognizes, lengths by classes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from coded_models import of, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgepress import codec
from edgepress.codec.classes import SHARE, class_bits, classes_of, table_of
from edgepress.codec.decoder import CLASSES, LAPLACE, MOST, WEIGHT, prior
from edgepress.model import Model
from edgepress.quantize.weights import rated as rated_module
from edgepress.quantize.weights.lattice import LARGEST, LARGEST_OF_MANY, MANY, on_grid, settled_vector
from edgepress.quantize.weights.obs import Factor, Grid, obs
from edgepress.quantize.weights.rated import REACH, rated

few = settings(deadline=None, max_examples=60, derandomize=True)
RATES = (0.03, 0.12, 0.5, 2.0)


def layer(seed: int, kind: str = "gauss", rows: int = 24, columns: int = 40) -> tuple[np.ndarray, Factor]:
    """A weight matrix of root mean square 1 and the factor of correlated inputs."""
    random = np.random.default_rng(seed)
    weight = {
        "gauss": lambda: random.standard_normal((rows, columns)),
        "laplace": lambda: random.laplace(size=(rows, columns)),
        "heavy": lambda: random.standard_t(2, (rows, columns)),
        "rows": lambda: random.standard_normal((rows, columns)) * np.exp(random.normal(size=(rows, 1))),
        "columns": lambda: random.standard_normal((rows, columns)) * np.exp(random.normal(size=columns)),
    }[kind]()
    mix = np.eye(columns) + 0.3 * random.standard_normal((columns, columns))
    x = random.standard_normal((8 * columns, columns)) @ mix
    return weight / np.sqrt(np.square(weight).mean()), Factor.of(x.T @ x / len(x), rows=len(x))


def plain(weight: np.ndarray, factor: Factor, step: float) -> np.ndarray:
    return obs(weight, factor, Grid.uniform(np.full(len(weight), step), -REACH, REACH))


def bits_of(rounded: np.ndarray) -> float:
    return class_bits(rounded.astype(np.int64))


def lost(weight: np.ndarray, rounded: np.ndarray, step: float, factor: Factor) -> float:
    """The error of the objective, by its definition, in squared steps."""
    wrong = weight / step - rounded
    return sum(float(row @ factor.gram @ row) for row in wrong)


# --- rounding that knows what numbers cost ---------------------------------------------------------------------

KINDS = ("gauss", "laplace", "heavy", "rows", "columns")
STEPS = (0.25, 0.7, 1.5, 4.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_rate_zero_is_plain_second_order_rounding(kind: str, step: float) -> None:
    weight, factor = layer(1, kind)
    assert np.array_equal(rated(weight, factor, step, 0.0), plain(weight, factor, step))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rate", RATES)
def test_the_objective_is_below_that_of_plain_rounding(kind: str, step: float, rate: float) -> None:
    """Bits are those of the classes and lengths that plain rounding has, which the first sweep goes by."""
    weight, factor = layer(2, kind)
    start = plain(weight, factor, step).astype(np.int64)
    classes = classes_of(start)
    lengths = rate * factor.left * table_of(start, classes)

    def objective(rounded: np.ndarray) -> float:
        places = np.clip(rounded.astype(np.int64), -MOST, MOST) + MOST
        return lost(weight, rounded, step, factor) + float(lengths[classes, places].sum())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rated_module, "SWEEPS", 1)
        once = rated(weight, factor, step, rate)
    assert objective(once) <= objective(start) * (1 + 1e-9)
    assert rate < 0.5 or objective(once) < 0.999 * objective(start)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_more_rate_takes_fewer_bits_and_loses_more(kind: str, step: float) -> None:
    weight, factor = layer(3, kind, rows=48)
    made = [rated(weight, factor, step, rate) for rate in (0.0, *RATES, 1e4)]
    bits, errors = [bits_of(each) for each in made], [lost(weight, each, step, factor) for each in made]
    assert all(after <= before * 1.005 for before, after in pairwise(bits))  # no guarantee: lengths are counted anew
    assert all(after >= before * 0.97 for before, after in pairwise(errors))  # further sweeps may find better ones
    assert bits[3] < 0.996 * bits[0] and bits[4] < 0.93 * bits[0] and errors[4] > 1.2 * errors[0]
    assert bits[5] < 0.03 * bits[0]


@pytest.mark.parametrize("step", [0.001, 0.03, 1.0])
@pytest.mark.parametrize("rate", [0.0, 0.12])
def test_numbers_are_within_reach(step: float, rate: float) -> None:
    weight, factor = layer(4, "heavy")
    made = rated(weight, factor, step, rate)
    assert made.dtype == np.int8 and made.shape == weight.shape
    assert np.abs(made.astype(int)).max() <= REACH
    assert step < 1 or np.abs(made).max() < REACH


def test_it_is_deterministic_and_changes_no_argument() -> None:
    weight, factor = layer(5)
    before = weight.copy(), factor.gram.copy()
    assert np.array_equal(rated(weight, factor, 0.8, 0.12), rated(weight, factor, 0.8, 0.12))
    assert np.array_equal(weight, before[0]) and np.array_equal(factor.gram, before[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 9)])
def test_zeros_stay_zeros(shape: tuple[int, int]) -> None:
    assert not rated(np.zeros(shape), Factor.of(np.eye(shape[1])), 0.3, 0.12).any()


def test_rows_that_hardly_count_die_out_first() -> None:
    """The coder knows rows: a bit of a small row costs less, but all of it goes once it is worth nothing."""
    weight, factor = layer(6, rows=40)
    weight[20:] *= 0.3
    alive = [np.abs(rated(weight, factor, 1.0, rate)[20:]).sum() for rate in (0.0, 0.12, 0.5)]
    assert alive[0] > alive[1] > alive[2]
    large = [np.abs(rated(weight, factor, 1.0, rate)[:20]).sum() for rate in (0.0, 0.5)]
    assert alive[2] / alive[0] < 0.7 * large[1] / large[0]


@pytest.mark.parametrize(("name", "position"), [("mnist_lenet300100", 1), ("mnist_lenet5caffe", 1)])
def test_real_layers_take_fewer_bits_with_more_rate(name: str, position: int, shared: Path) -> None:
    proto = onnx.load(shared / "models" / f"{name}.onnx")
    arrays = [numpy_helper.to_array(each) for each in proto.graph.initializer]
    matrices = [each.reshape(len(each), -1).astype(np.float64)[:40, :300] for each in arrays if each.ndim > 1]
    weight = matrices[position]
    x = np.random.default_rng(0).laplace(size=(900, weight.shape[1])) + 0.5
    factor = Factor.of(x.T @ x / len(x), rows=len(x))
    size = np.sqrt(np.square(weight).mean())
    for share, most in ((0.7, 0.995), (2.0, 0.9)):
        bits = [bits_of(rated(weight, factor, share * size, rate)) for rate in (0.0, 0.06, 0.12, 0.25)]
        assert all(after <= before * 1.001 for before, after in pairwise(bits))
        assert bits[2] < most * bits[0]


# --- steps and biases that the coder recognizes ----------------------------------------------------------------


@few
@given(st.lists(st.floats(1e-20, 1e20), min_size=1, max_size=20))
def test_steps_on_the_grid_are_near_and_stay(steps: list[float]) -> None:
    found = on_grid(np.array(steps))
    assert found.dtype == np.float32
    assert np.array_equal(on_grid(found), found)
    assert np.abs(np.log2(found.astype(np.float64)) - np.log2(steps)).max() <= 1 / 128 + 1e-6
    codes = 64 * np.log2(found.astype(np.float64))
    assert np.abs(codes - np.rint(codes)).max() < 1e-4


def test_steps_of_zero_and_below_have_a_place_too() -> None:
    found = on_grid(np.array([0.0, -1.0, 1e-40]))
    assert (found > 0).all() and (found < 1e-29).all()


VECTORS = st.lists(st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=70)


@few
@given(VECTORS)
def test_a_settled_vector_is_whole_numbers_times_one_step(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    found = settled_vector(vector)
    most = LARGEST_OF_MANY if len(vector) >= MANY else LARGEST
    step = float(np.abs(vector).max()) / most
    assert found.dtype == np.float32 and found.shape == vector.shape
    if not step:
        assert not found.any()
        return
    numbers = found / np.float32(step)
    assert np.array_equal(np.rint(numbers) * np.float32(step), found) and np.abs(np.rint(numbers)).max() == most
    assert np.abs(found.astype(float) - vector).max() <= step * (0.5 + 1e-4)
    assert np.allclose(settled_vector(found), found, rtol=2e-7, atol=0)


def test_many_numbers_have_fewer_levels() -> None:
    values = np.linspace(-1, 1, MANY, dtype=np.float32)
    assert len(np.unique(settled_vector(values))) <= 2 * LARGEST_OF_MANY + 1
    assert np.abs(settled_vector(values, many=False) - values).max() <= 0.501 / LARGEST
    assert np.array_equal(settled_vector(values[:1]), values[:1])
    spread = np.linspace(-1, 1, MANY - 1, dtype=np.float32)
    assert np.abs(settled_vector(spread) - spread).max() <= 0.501 / LARGEST


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_what_has_no_step_becomes_zeros(value: float) -> None:
    vector = np.full(5, value, np.float32)
    assert np.array_equal(settled_vector(vector), np.zeros(5, np.float32))
    assert settled_vector(np.zeros(0, np.float32)).shape == (0,)


def coded_size(**arrays: np.ndarray) -> int:
    data = of(**arrays)
    made = codec.encode(data)
    assert codec.decode(made) == data
    return len(made)


def test_steps_on_the_grid_take_a_byte_each_in_the_file() -> None:
    random = np.random.default_rng(0)
    steps = on_grid(0.01 * np.exp(random.normal(size=400) / 4))
    rows = whole(1, (400, 30)).astype(np.float32)
    free = (steps * np.exp(random.normal(size=400) / 200)).astype(np.float32)
    kept, other = (coded_size(w=rows * each[:, None]) for each in (steps, free))
    assert other - kept > 400 * 1.5  # of four bytes
    numbers = class_bits(rows.astype(np.int64)) / 8
    assert kept < 1.1 * numbers + 400 * 1.1 + 150


@pytest.mark.parametrize(("count", "bits"), [(20, 10.0), (400, 7.0)])
def test_settled_vectors_take_few_bits_in_the_file(count: int, bits: float) -> None:
    vector = np.random.default_rng(2).standard_normal(count).astype(np.float32)
    empty, found, before = coded_size(), coded_size(b=settled_vector(vector)), coded_size(b=vector)
    assert 8 * (found - empty) < bits * count + 8 * 30
    assert found < 0.75 * before


# --- lengths by classes ------------------------------------------------------------------------------------------

MATRICES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "sparse": lambda random: (random.random((200, 300)) < 0.05) * random.integers(-1, 2, (200, 300)),
    "thin": lambda random: np.rint(random.laplace(size=(100, 300)) * 0.6),
    "dense": lambda random: np.rint(random.laplace(size=(100, 300)) * 4),
    "gauss": lambda random: np.rint(random.normal(size=(100, 200)) * 2),
    "uniform": lambda random: random.integers(-MOST, MOST + 1, (100, 200)),
    "rows": lambda random: np.rint(random.laplace(size=(100, 300)) * np.exp(random.normal(size=(100, 1)))),
    "columns": lambda random: np.rint(random.laplace(size=(200, 150)) * np.exp(random.normal(size=150))),
    "dead rows": lambda random: np.rint(random.laplace(size=(200, 150)) * (random.random((200, 1)) < 0.3)),
    "few rows": lambda random: np.rint(random.normal(size=(10, 800))),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_lengths_by_classes_are_those_of_the_coder_within_a_few_percent(kind: str) -> None:
    numbers = MATRICES[kind](np.random.default_rng(0)).clip(-MOST, MOST).astype(np.int64)
    assert class_bits(numbers) == pytest.approx(codec.matrix_bits(numbers), rel=0.06)


def test_a_row_or_a_column_of_small_numbers_is_cheap_as_a_whole() -> None:
    random = np.random.default_rng(1)
    numbers = np.rint(random.laplace(size=(80, 120)) * 2).astype(np.int64)
    numbers[40:] //= 4
    mixed = random.permuted(numbers.ravel()).reshape(numbers.shape)
    assert class_bits(numbers) < 0.93 * class_bits(mixed)
    assert class_bits(np.ascontiguousarray(numbers.T)) < 0.95 * class_bits(mixed)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_table_has_probabilities(kind: str) -> None:
    numbers = MATRICES[kind](np.random.default_rng(3)).astype(np.int64)
    classes = classes_of(numbers)
    assert classes.shape == numbers.shape and classes.min() >= 0 and classes.max() < CLASSES
    table = table_of(numbers, classes)
    assert table.shape == (CLASSES, 2 * MOST + 1) and np.isfinite(table).all()
    assert np.exp2(-table.astype(np.float64)).sum(1) == pytest.approx(np.ones(CLASSES), abs=1e-4)
    assert np.allclose(table, table[:, ::-1])  # a number costs what its opposite does


def test_the_table_is_what_its_module_says() -> None:
    numbers = np.array([[1, 0, -1, 2], [0, 0, 5, 1]])
    classes = np.array([[0, 0, 0, 1], [1, 1, 1, 1]])
    before = SHARE * prior(LAPLACE) / WEIGHT
    counts = before[0] + np.bincount(np.array([0, 1, -1]) + MOST, minlength=2 * MOST + 1)
    assert 2.0 ** -table_of(numbers, classes)[0] == pytest.approx(counts / counts.sum(), rel=1e-5)
    ones = (before[1] + before[1][::-1])[MOST + 1] / 2 + 0.5  # one 1 and no -1
    assert 2.0 ** -table_of(numbers, classes)[1, MOST + 1] == pytest.approx(ones / (before[1].sum() + 5), rel=1e-5)
    assert 2.0 ** -table_of(numbers, classes)[2] == pytest.approx(before[2] / before[2].sum(), rel=1e-5)


def test_numbers_beyond_the_table_count_as_its_ends() -> None:
    numbers = np.array([[100, -200, 0, 1]])
    assert classes_of(numbers).shape == numbers.shape
    assert np.isfinite(class_bits(numbers))


def test_zeros_are_next_to_free() -> None:
    assert class_bits(np.zeros((50, 50), np.int64)) < 5


def test_a_rounded_layer_survives_the_coder_bit_by_bit() -> None:
    weight, factor = layer(7, rows=30)
    step = np.float32(on_grid(np.array(0.8)))
    made = rated(weight, factor, float(step), 0.12).astype(np.float32) * step
    data = of(w=made, b=settled_vector(weight[:, 0].astype(np.float32)))
    back = Model.of(onnx.load_from_string(codec.decode(codec.encode(data))))
    assert np.array_equal(back.constants["w"], made)
