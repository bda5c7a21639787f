"""Coding gives back every byte: models of every kind, matrices of every shape and type; and how few bits it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from coded_models import MODELS, coded, holding, of, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from zoo.light import light

from edgepress.codec import (
    coded_size,
    coder,
    decode,
    decoder,
    encode,
    encoded,
    grid_steps,
    grids,
    matrices,
    matrix_bits,
    squeezed,
    wire,
)
from edgepress.codec.coder import Coder
from edgepress.codec.contexts import Contexts
from edgepress.codec.room import Pages
from edgepress.codec.symbols import Matrix
from edgepress.model import Model
from edgepress.quantize import slim

DIGITS = Path(__file__).parents[1] / "calibration/digits_cnn.onnx"
SHARED = Path(__file__).parents[2] / "shared/models"


@pytest.mark.parametrize("name", MODELS)
def test_every_byte_comes_back(name: str) -> None:
    assert decode(coded(name).data) == MODELS[name]()


def test_a_real_model_comes_back_and_is_smaller() -> None:
    model = slim(Model.load(DIGITS)).edit().SerializeToString()
    made = encode(model)
    assert decode(made) == model
    assert len(made) < 0.83 * len(model)


@pytest.mark.parametrize("name", ["mnist8_opset8", "cifar10_resnet8_mlperf"])
def test_models_of_other_tools_come_back(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("no folder of models beside the checkout")
    made = encoded(path.read_bytes())
    assert decode(made.data) == path.read_bytes()
    assert not any(each.original == len(path.read_bytes()) for each in made.tensors)  # taken apart, not kept whole


def test_the_same_model_gives_the_same_file() -> None:
    model = MODELS["steps"]()
    assert encode(model) == coded("steps").data
    assert coded_size(model) == len(coded("steps").data)


def test_a_model_without_weights() -> None:
    model = of()
    assert decode(encode(model)) == model
    assert decode(encode(b"")) == b""


def test_weights_in_bodies_and_attributes_are_coded() -> None:
    values = numpy_helper.from_array(whole(1, (40, 40)).astype(np.int8), "")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=values), helper.make_node("Identity", ["c"], ["d"])],
        "inner", [], [helper.make_tensor_value_info("d", TensorProto.INT8, [40, 40])],
    )  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.BOOL, [])],
                              [helper.make_tensor_value_info("y", TensorProto.INT8, [40, 40])])  # fmt: skip
    model = helper.make_model(graph).SerializeToString()
    made = encoded(model)
    assert [each.method for each in made.tensors] == ["integers"] * 2
    assert decode(made.data) == model


def test_float_data_is_taken_apart_like_raw_bytes() -> None:
    values = whole(1, (30, 20)).astype(np.float32) * np.float32(0.3)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel())
    assert tensor.float_data
    made = encoded(holding([tensor]))
    assert [each.method for each in made.tensors] == ["steps"]
    assert decode(made.data) == holding([tensor])


def test_what_no_protocol_buffer_is_is_refused() -> None:
    with pytest.raises(decoder.CodedFileError):
        wire.taken_apart(b"\x0f\xff\xff")


def test_the_parts_of_the_account_add_up() -> None:
    made = coded("steps")
    assert made.graph + sum(each.bits for each in made.tensors) / 8 == pytest.approx(len(made.data), abs=1)
    assert 0 < made.graph < 600
    assert {each.method for each in made.tensors} == {"steps"}


def test_floats_as_training_leaves_them_hardly_compress() -> None:
    weights = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    made = encoded(of(w=weights))
    assert 1.1 < made.original / len(made.data) < 1.3


# --- whole numbers ---------------------------------------------------------------------------------------------------


def through(values: np.ndarray, shape: tuple[int, ...], lanes: int = 1) -> tuple[np.ndarray, float, int]:
    """A matrix coded and decoded; ideal bits, bytes of the codes."""
    made = Coder(lanes)
    side = Pages()
    matrix = Matrix.of(values, shape, made.learned.precision)
    _, way = matrices.best(matrix, made.learned, lanes)
    recipe = matrices.write(matrix, way, made, side)
    ideal, section = made.ideal, made.finish()
    codes, rest = decoder.Codes(bytes(section)), decoder.Bytes(bytes(side))
    back = decoder.matrix(decoder.Bytes(recipe), codes, rest, values.size, shape)
    codes.finish()
    rest.finish()
    return back, ideal, len(section)


KINDS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=12)


@settings(max_examples=40, deadline=None)
@given(st.data(), SHAPES, st.sampled_from(KINDS))
def test_any_matrix_comes_back(data: st.DataObject, shape: tuple[int, ...], kind: str) -> None:
    values = data.draw(hnp.arrays(kind, shape))
    back, _, _ = through(values, shape)
    assert np.array_equal(back.astype(kind), values.ravel())


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.floats(0.01, 1e6), st.sampled_from([1, 7]))
def test_matrices_of_any_spread_come_back(shape: tuple[int, ...], seed: int, spread: float, lanes: int) -> None:
    values = np.rint(np.random.default_rng(seed).standard_t(2, shape) * spread).clip(-(2**39), 2**39).astype(np.int64)
    back, _, _ = through(values, shape, lanes)
    assert np.array_equal(back, values.ravel())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 1, 2000), (2, 3, 1, 1), (1, 1, 30, 30)])
@pytest.mark.parametrize("value", [0, 1, -127, 10**9])
def test_matrices_of_one_value(shape: tuple[int, ...], value: int) -> None:
    values = np.full(shape, value, np.int64)
    back, ideal, _ = through(values, shape)
    assert np.array_equal(back, values.ravel())
    assert ideal < 30 + values.size / 100


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_values_of_any_type_come_back_in_a_model(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*KINDS, "int64", "float16", "float32", "float64"]))
    values = data.draw(hnp.arrays(kind, data.draw(SHAPES)))
    model = of(w=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squeezed, "FEW_GUESSED", 0)  # guessing takes a moment, and is not what this is about
        assert decode(encode(model)) == model


def test_the_range_coder_is_within_two_percent_of_the_ideal_length() -> None:
    for values in (whole(1, (64, 32, 3, 3)), whole(2, (100, 784), 0.1), whole(3, (16, 3, 3, 3)), whole(4, (10, 64))):
        _, ideal, size = through(values, values.shape)
        assert 8 * size <= 1.02 * ideal + 16


def test_many_lanes_are_within_two_percent_of_the_ideal_length() -> None:
    values = whole(5, (1024, 1024))
    back, ideal, size = through(values, values.shape, coder.lanes_for(values.size + coder.FEW_SYMBOLS, 1024))
    assert np.array_equal(back, values.ravel())
    assert 8 * size <= 1.02 * ideal


def test_chunks_empty_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (coder, decoder):
        monkeypatch.setattr(module, "CHUNK", 5000)
    values = whole(6, (300, 100))
    back, _, _ = through(values, values.shape, 16)
    assert np.array_equal(back, values.ravel())


@pytest.mark.parametrize("lanes", [1, 4])
def test_symbols_that_wait_in_many_arrays_come_back(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """A class for each row keeps symbols in a byte, a class for each number in two: both, beyond the first array."""
    plain, _, _ = through(whole(6, (300, 101)), (300, 101), lanes)
    monkeypatch.setattr(coder, "MORE", 100)
    monkeypatch.setattr(coder, "CHUNK", 3000)  # of the room that is made
    monkeypatch.setattr(decoder, "CHUNK", 3000)
    back, _, _ = through(whole(6, (300, 101)), (300, 101), lanes)
    assert np.array_equal(back, plain)
    assert np.array_equal(back, whole(6, (300, 101)).ravel())


def test_classes_of_rows_and_columns_are_worth_their_bytes() -> None:
    """Rows and columns of unequal size take fewer bits than the same numbers shuffled."""
    random = np.random.default_rng(1)
    sizes = np.exp(random.normal(size=(200, 1))) * np.exp(random.normal(size=(1, 300)))
    values = np.rint(random.laplace(size=(200, 300)) * sizes / 4).astype(np.int64)
    mixed = random.permutation(values.ravel()).reshape(values.shape)
    assert matrix_bits(values) < 0.85 * matrix_bits(mixed)


def test_neighbours_in_a_kernel_are_worth_their_bytes() -> None:
    random = np.random.default_rng(2)
    kernels = random.normal(size=(32, 16, 1, 1)) + random.normal(size=(32, 16, 3, 3)) / 2
    values = np.rint(kernels).astype(np.int64)
    mixed = random.permuted(values.reshape(32, -1), axis=1).reshape(values.shape)
    assert matrix_bits(values) < 0.9 * matrix_bits(mixed)


# --- what the coder charges ------------------------------------------------------------------------------------------


def test_contexts_charge_about_what_coding_takes() -> None:
    for values in (whole(1, (64, 288)), whole(2, (90, 200), 0.2), whole(3, (40, 40), 30.0)):
        contexts = Contexts.of(values)
        assert contexts.classes.shape == values.shape
        assert contexts.classes.max() < decoder.CLASSES
        charged = contexts.lengths(contexts.classes, values).sum()
        assert charged == pytest.approx(matrix_bits(values), rel=0.08)  # the tables have to be learned


def test_contexts_charge_more_for_larger_numbers() -> None:
    contexts = Contexts.of(whole(1, (64, 288)))
    classes = np.full(61, 4, np.uint8)
    lengths = contexts.lengths(classes, np.arange(61))
    assert np.isfinite(lengths).all()
    assert lengths[40] > lengths[31] > lengths[3] > lengths[0]


def test_probabilities_of_a_class_sum_to_one() -> None:
    contexts = Contexts.of(whole(1, (64, 288)))
    assert np.exp2(-contexts.bits).sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("precision", [decoder.FINE, decoder.COARSE])
def test_frequencies_fill_the_whole_and_leave_nothing_out(precision: int) -> None:
    tables = decoder.Tables(precision, decoder.LEANINGS)
    for limit, prior in ((0, None), (1, decoder.GAUSS), (31, decoder.LAPLACE)):
        tables.begin(limit, prior)
        tables.learn(3, np.full(5000, limit, np.int64))
        assert (tables.frequencies.sum(1) == 1 << precision).all()
        assert (tables.frequencies > 0).all()


# --- steps -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.integers(1, 90), st.integers(1, 30))
def test_a_step_is_found(seed: int, step: float, largest: int, count: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(-largest, largest + 1, (count, 40)).astype(np.float32)
    values = numbers * np.float32(step)
    found = grids.one_step(values)
    assert found is not None
    assert np.array_equal(found.whole.astype(np.float32) * found.steps[:, None], values)


def test_floats_without_a_step_have_none() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    assert grids.one_step(values) is None
    assert grids.step_each(values) is None
    values[3, 3] = np.nan
    assert grids.step_each(values) is None


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-8, 1e8), st.lists(st.integers(-200, 200), min_size=2, max_size=40))
def test_steps_on_a_grid_are_found(base: float, codes: list[int]) -> None:
    steps = grid_steps(base, codes)
    found = grids.on_grid(steps)
    assert found is not None
    assert np.array_equal(grid_steps(*found), steps)


def test_other_steps_are_on_no_grid() -> None:
    assert grids.on_grid(np.random.default_rng(0).random(20, np.float32) + 1) is None
    assert grids.on_grid(np.array([1.0], np.float32)) is None
    assert grids.on_grid(np.array([1.0, 0.0], np.float32)) is None


def test_powers_of_the_grid_are_correctly_rounded() -> None:
    """Against whole numbers: (2^(k/64))^64 = 2^k, for the double and its two neighbours."""
    for place, value in enumerate(decoder.POWERS.tolist()):
        around = [np.nextafter(value, 0), value, np.nextafter(value, 3)]
        misses = [abs(int(each * 2**60) ** 64 - 2 ** (60 * 64 + place)) for each in around]
        assert misses[1] == min(misses)


def test_an_account_is_a_value() -> None:
    made = coded("steps")
    assert dataclasses.replace(made) == made
    assert onnx.load_from_string(decode(made.data)).producer_name == "made"


def test_networks_of_the_onnx_package_come_back() -> None:
    model = light("shufflenet").data
    made = encoded(model)
    assert decode(made.data) == model
    assert all(each.original < len(model) / 2 for each in made.tensors)  # taken apart, not kept whole
