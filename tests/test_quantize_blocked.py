"""Blocked 4-bit weights: the packed layout against onnxruntime and numpy, rounding, which nodes qualify."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_models import (
    EXPORTERS,
    RECURRENT,
    TRANSFORMERS,
    exported,
    fused,
    language,
    noise,
    normal,
    outputs,
    products,
    same_interface,
    text,
)

from edgepress.errors import InputError, ModelError
from edgepress.quantize.forms.blocked import blocked, blocked_candidates
from edgepress.quantize.forms.blocks import MIDDLE, round_blocks
from edgepress.quantize.forms.draft import packed

MATMUL = "(float[M,{k}] x) => (float[M,{n}] y) {{ y = MatMul(x, w) }}"


@pytest.mark.parametrize("level", [0, 1, 4])
@pytest.mark.parametrize("shift", [0.0, 0.2, -3.0], ids=["even", "uneven", "negative"])
@pytest.mark.parametrize(
    ("depth", "width", "block"), [(256, 33, 128), (300, 40, 128), (257, 1, 64), (96, 7, 16), (20, 5, 32), (640, 9, 256)]
)
def test_onnxruntime_reads_the_blocks_we_write(depth: int, width: int, block: int, shift: float, level: int) -> None:
    weight, x = normal(depth, width, scale=0.1) + np.float32(shift / 10), normal(3, depth, seed=4)
    model = text(MATMUL.format(k=depth, n=width), w=weight)
    made = blocked(model, ["MatMul.0"], block, level)
    assert same_interface(model, made)
    assert fused(made, "MatMulNBits") == fused(made) == 1
    exact = x.astype(np.float64) @ round_blocks(weight, block).weight
    lost = np.abs(outputs(made, {"x": x})[0] - exact).max()
    coarse = np.abs(x).max() / 127 * np.sqrt(depth) * np.abs(weight).max()  # x in int8, errors at random
    assert lost < (coarse if level == 4 else 1e-5 * np.abs(exact).max() + 1e-6)


@pytest.mark.parametrize("form", ["Gemm(x, w)", "Gemm(x, w, b)", "Gemm<transB=1>(x, v, b)", "Gemm(x, w, c)"])
def test_a_gemm_takes_its_bias_along(form: str) -> None:
    w = normal(64, 12)
    constants = {"w": w, "v": w.T.copy(), "b": normal(12), "c": normal(5, 1)}
    read = {name: values for name, values in constants.items() if f"{name})" in form or f"{name}," in form}
    model = text(f"(float[M,64] x) => (float[M,12] y) {{ y = {form} }}", arrays=read)
    made = blocked(model, ["Gemm.0"], 32, 1)
    x = normal(5, 64, seed=1)
    extra = constants["c"] if "c" in read else read.get("b", np.zeros(1))
    assert np.allclose(outputs(made, {"x": x})[0], x @ round_blocks(w, 32).weight + extra, atol=1e-4)
    assert fused(made, "MatMulNBits") == 1
    assert fused(made, "Add") == ("c" in read)


@pytest.mark.parametrize("call", ["Add(h, c)", "Add(c, h)"])
@pytest.mark.parametrize(
    ("shape", "constant", "merged"),
    [("M,64", (12,), 1), ("M,64", (1, 12), 1), ("M,64", (1, 1, 12), 0), ("M,64", (5, 1), 0), ("B,M,64", (1, 12), 1)],
)
def test_an_add_behind_becomes_the_bias_if_it_is_one(
    shape: str, constant: tuple[int, ...], merged: int, call: str
) -> None:
    axes = "P,Q,R" if shape.startswith("B") or len(constant) == 3 else "P,Q"
    constants = {"w": normal(64, 12), "c": normal(*constant)}
    model = text(f"(float[{shape}] x) => (float[{axes}] y) {{ h = MatMul(x, w) y = {call} }}", arrays=constants)
    made, x = blocked(model, ["MatMul.0"], 32, 1), normal(*([2] if shape.startswith("B") else []), 5, 64, seed=1)
    assert same_interface(model, made)
    assert [node.op for node in made.nodes] == ["MatMulNBits", *([] if merged else ["Add"])]
    exact = x @ round_blocks(constants["w"], 32).weight + constants["c"]
    found = outputs(made, {"x": x})[0]
    assert found.shape == exact.shape and np.allclose(found, exact, atol=1e-4)


def test_zero_points_are_stored_only_where_they_help() -> None:
    grid = np.random.default_rng(0).integers(-8, 8, (64, 6)).astype(np.float32)
    grid[0] = -8  # on the grid of the middle zero point, not on one from the least to the largest weight
    even, uneven = round_blocks(grid, 32), round_blocks(np.abs(normal(64, 6)), 32)
    assert even.zero is None and even.packed_zero is None
    assert uneven.zero is not None and (uneven.zero != MIDDLE).any()
    model = text(MATMUL.format(k=64, n=6), w=grid)
    assert len(blocked(model, ["MatMul.0"], 32).nodes[0].inputs) == 3


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 70),
    width=st.integers(1, 5),
    block=st.sampled_from([16, 32]),
    shift=st.floats(-2, 2),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_rounding_laws(depth: int, width: int, block: int, shift: float, scale: float, seed: int) -> None:
    weight = np.asarray((normal(depth, width, seed=seed) + shift) * scale, np.float32)
    found = round_blocks(weight, block)
    assert found.values.shape == (width, -(-depth // block), block) and found.values.max() <= 15
    assert found.weight.shape == weight.shape
    filled = found.values.reshape(width, -1)[:, depth:]
    last = MIDDLE if found.zero is None else found.zero[:, -1:]
    assert (filled == last).all()  # what is filled up stands for nothing
    reach = np.maximum(weight.max(0), 0) - np.minimum(weight.min(0), 0)
    plain = (((weight - found.weight) / reach.clip(1e-30)) ** 2).mean()
    assert plain <= (1 / 15) ** 2  # half a step of the coarser plain grid, and more, bounds the mean
    assert np.isclose(((weight - found.weight).astype(np.float64) ** 2).sum(), found.error, rtol=1e-2, atol=1e-30)


def test_channels_that_matter_more_lose_less() -> None:
    weight, importance = normal(64, 16), np.ones(64, np.float32)
    importance[:8] = 1000
    lost = [(weight - round_blocks(weight, 64, given).weight)[:8] for given in (None, importance)]
    assert (lost[1] ** 2).sum() < (lost[0] ** 2).sum()


@pytest.mark.parametrize("constant", [0.0, 0.7, -2.0])
def test_equal_weights_are_exact(constant: float) -> None:
    weight = np.full((40, 3), constant, np.float32)
    assert np.allclose(round_blocks(weight, 16).weight, weight, rtol=1e-6)


def test_two_values_to_a_byte_the_first_one_low() -> None:
    assert packed(np.array([1, -2, 7])).tolist() == [0xE1, 0x07]
    grid = np.tile(np.arange(-8, 8, dtype=np.float32), 2)[:, None]
    assert round_blocks(grid, 32).packed[0, 0, :4].tolist() == [0x10, 0x32, 0x54, 0x76]


@pytest.mark.parametrize(
    ("shape", "depth", "sizes", "reason"),
    [
        ("1,300", 300, {}, ""),
        ("M,300", 300, {}, ""),
        ("B,M,300", 300, {"B": 1, "M": 15}, ""),
        ("B,M,300", 300, {"M": 16}, "16 rows a call are faster in dynamic int8"),
        ("1,64", 64, {}, "64 input channels are faster in float"),
    ],
)
def test_candidates_have_few_rows_and_deep_weights(shape: str, depth: int, sizes: dict[str, int], reason: str) -> None:
    axes = ",".join("PQR"[: shape.count(",") + 1])
    model = text(f"(float[{shape}] x) => (float[{axes}] y) {{ y = MatMul(x, w) }}", w=normal(depth, 8))
    assert list(blocked_candidates(model, sizes).values()) == [reason]


def test_what_onnxruntime_does_not_have_is_an_error() -> None:
    model = text(MATMUL.format(k=64, n=6), w=normal(64, 6))
    for block in (8, 48):
        with pytest.raises(InputError, match=f"Blocks of {block} "):
            blocked(model, ["MatMul.0"], block)
    with pytest.raises(InputError, match="no accuracy level 2"):
        blocked(model, ["MatMul.0"], 32, 2)
    with pytest.raises(ModelError, match="'nobody' cannot be quantized: there is no such node"):
        blocked(model, ["nobody"])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", TRANSFORMERS + RECURRENT)
def test_networks_keep_their_answers(name: str, exporter: str) -> None:
    model, feed = exported(name, exporter)
    made = blocked(model, products(model), 16)
    assert same_interface(model, made)
    assert fused(made, "MatMulNBits") == len(products(model))
    assert noise(model, made, feed) > 10


def test_a_wide_transformer_is_an_eighth() -> None:
    model, feed = language(1)
    chosen = [name for name, reason in blocked_candidates(model).items() if not reason]
    made = blocked(model, chosen)
    assert len(chosen) == 7
    assert fused(made, "MatMulNBits") == 7
    assert noise(model, made, feed) > 13
    tables = 500 * 256 * 4
    assert (made.size - tables) < 0.17 * (model.size - tables)
