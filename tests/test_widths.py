"""Tables of widths: what is predicted is what rounding costs, layer by layer; bytes are those of the file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numeric_tools import feed_of, run
from quantize_tools import CONV, kernel, parse

from edgepress.calibrate.fits import fits_of
from edgepress.calibrate.run import collect, outputs
from edgepress.calibrate.statistics import gram_probe
from edgepress.executor.fisher import TEMPERATURE
from edgepress.groups import find_groups
from edgepress.levels import INT8, LADDER, within
from edgepress.model import Model
from edgepress.pipeline.context import Context
from edgepress.pipeline.prepare import clean, context_of, read
from edgepress.pipeline.widths import Table, width_table
from edgepress.quantize.graph.regions import has_float32_weight
from edgepress.quantize.storage.unpacking import stored_bytes
from edgepress.quantize.weights.joint import Wanted, round_matrix
from edgepress.request import Request
from edgepress.targets import TARGETS

ROOT = Path(__file__).parents[1] / "calibration"
B = kernel(99, 1).ravel()


@cache
def digits() -> Context:
    """The embedded network and the embedded samples."""
    request = Request(ROOT / "digits_cnn.onnx", None, str(ROOT / "digits.npz"), dry_run=True, workers=1)
    opened = read(request)
    assert opened.feed is not None
    return context_of(request, clean(opened).model, opened.feed)[0]


def context(model: Model, x: np.ndarray) -> Context:
    """A context around some samples."""
    feed = feed_of(model, {"x": x})
    return Context(model=model, grouping=find_groups(model), fit=feed, hold_out=feed, row_axes=(0,),
                   sweep_samples=len(x), target=TARGETS["x64-vnni"], multiple=1, seed=0, workers=1)  # fmt: skip


def names(model: Model) -> list[str]:
    return [node.name for node in model.nodes if has_float32_weight(model, node)]


def table_of(found: Context, *, classifies: bool = True, limit: int = 127, narrow: int = 8) -> Table:
    return width_table(found, found.model, names(found.model), classifies=classifies, narrow=narrow, limit=limit)


def alone(found: Context, name: str, levels: int, *, repair: bool = False) -> Model:
    """Only one layer rounded, all others as they are."""
    model = found.model
    (fit,) = (fit for fit in fits_of(model, [name])[0] if fit.node.name == name)
    probes = [gram_probe(part, positions=found.positions, seed=1) for part in fit.parts]
    seen = collect(model, found.fit, probes, workers=1)
    gram = fit.joined([seen[part.name] for part in fit.parts]).whole
    made = round_matrix(fit.matrix(model.constants), gram, Wanted(levels, repair=repair), biases=fit.biases)
    return model.with_constants(fit.written(made.matrix, model.constants))


def divergence(found: Context, other: Model, temperature: float) -> float:
    """Mean KL of the answers at a temperature."""
    pairs = [
        np.concatenate([made[0] for _, made in outputs(model, found.fit, workers=1)]) for model in (found.model, other)
    ]
    p, q = (_log_softmax(array.astype(np.float64) / temperature) for array in pairs)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    centred = [np.argsort(np.argsort(values)) - (len(values) - 1) / 2 for values in (first, second)]
    return float(centred[0] @ centred[1] / (centred[0] @ centred[0]))


# --- predicted and measured ---------------------------------------------------------------------------------


def test_predicted_errors_are_those_of_rounding_one_layer_at_a_time() -> None:
    """Half the Fisher-weighted squared error is the divergence at that temperature, times its square."""
    found = digits()
    table = table_of(found)
    assert len(table) >= 5
    cases = [(name, levels) for name in table for levels in (3, 5, 16)]
    predicted = np.array([table[name][levels].error for name, levels in cases])
    rounded = [alone(found, name, levels, repair=True) for name, levels in cases]
    measured = np.array([TEMPERATURE**2 * divergence(found, model, TEMPERATURE) for model in rounded])
    ratios = predicted / measured
    assert np.median(np.abs(np.log(ratios))) < np.log(1.6)
    assert ratios.min() > 1 / 4 and ratios.max() < 3  # with three levels the answers move too far for a quadratic
    assert rank_correlation(predicted, measured) > 0.95
    assert rank_correlation(predicted, np.array([divergence(found, model, 1.0) for model in rounded])) > 0.9
    for number in range(3):  # from layer to layer at one width, too
        assert rank_correlation(predicted[number::3], measured[number::3]) > 0.5


def test_without_classes_the_error_is_the_share_of_noise() -> None:
    model = parse(f"a = {CONV}(x, w0, b0)  r = Relu(a)  y = {CONV}(r, w1, b1)", x="N,4,6,6", outputs="float[N,6,6,6] y",
                  w0=kernel(12, 4, 3, 3), b0=B[:12], w1=kernel(6, 12, 3, 3), b1=B[:6])  # fmt: skip
    x = np.random.default_rng(0).standard_normal((96, 4, 6, 6)).astype(np.float32)
    found = context(model, x)
    table = table_of(found, classifies=False)
    (wanted,) = run(model, {"x": x})
    for name in names(model):
        for levels in (4, 16):
            (made,) = run(alone(found, name, levels), {"x": x})
            noise = 0.5 * np.square(made - wanted).sum() / np.square(wanted).sum()
            assert 0.5 < table[name][levels].error / noise < 2


# --- the table ----------------------------------------------------------------------------------------------


def test_more_levels_cost_less_error_and_more_bytes() -> None:
    for widths in table_of(digits()).values():
        assert list(widths) == list(LADDER)
        errors = [widths[levels].error for levels in (3, 5, 9, 16, *(count for count in LADDER if count > 16))]
        sizes = [widths[levels].size for levels in LADDER]
        assert errors == sorted(errors, reverse=True) and errors[0] > 20 * errors[-1] > 0
        assert sizes == sorted(sizes)


def test_under_a_limit_of_64_all_widths_still_hold() -> None:
    full, narrow = (table_of(digits(), limit=limit) for limit in (127, 64))
    for name, widths in narrow.items():
        assert all(within(levels, 64) == within(levels, 127) or levels == INT8 for levels in widths)
        assert {levels: widths[levels] for levels in (3, 16)} == {levels: full[name][levels] for levels in (3, 16)}


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("narrow", [8, 4])
def test_bytes_are_those_of_the_whole_weight(groups: int, narrow: int) -> None:
    """Groups of a convolution are stored as one; packing is paid for once."""
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  g = Conv<kernel_shape=[3,3],group={groups}>(r, w1, b1)  s = Relu(g)
        p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, w2, b2)"""
    model = parse(body, x="N,4,6,6", outputs="float[N,5] y", w0=kernel(32, 4, 3, 3), b0=B[:32],
                  w1=kernel(32, 32 // groups, 3, 3), b1=B[:32], w2=kernel(5, 32), b2=B[:5])  # fmt: skip
    x = np.random.default_rng(0).standard_normal((32, 4, 6, 6)).astype(np.float32)
    table = table_of(context(model, x), narrow=narrow)
    for name, tensor in zip(names(model), ("w0", "w1", "w2"), strict=True):
        count = model.constants[tensor].size
        assert {levels: width.size for levels, width in table[name].items()} == {
            levels: stored_bytes(count, levels, narrow) for levels in LADDER
        }
        assert all(width.error > 0 for width in table[name].values())


def test_errors_of_groups_add_up() -> None:
    """One convolution of two groups, or two convolutions beside each other."""
    w, b = kernel(8, 4, 3, 3), B[:8]
    head = {"w0": kernel(8, 3, 3, 3), "b0": B[:8], "v": kernel(5, 8), "c": B[:5]}
    front, end = (
        f"a = {CONV}(x, w0, b0)  r = Relu(a)",
        "p = GlobalAveragePool(g)  f = Flatten(p)  y = Gemm<transB=1>(f, v, c)",
    )
    one = parse(f"{front}  g = Conv<kernel_shape=[3,3],group=2>(r, w, b)  {end}", x="N,3,6,6", outputs="float[N,5] y",
                arrays={**head, "w": w, "b": b})  # fmt: skip
    body = f"""{front}  l, m = Split<axis=1>(r, s)  q = Conv<kernel_shape=[3,3]>(l, u, d)
        t = Conv<kernel_shape=[3,3]>(m, k, e)  g = Concat<axis=1>(q, t)  {end}"""
    two = parse(body, x="N,3,6,6", outputs="float[N,5] y",
                arrays={**head, "s": np.array([4, 4]), "u": w[:4], "d": b[:4], "k": w[4:], "e": b[4:]})  # fmt: skip
    x = np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)
    (whole,) = (table_of(context(one, x))[name] for name in names(one)[1:2])
    halves = [table_of(context(two, x))[name] for name in names(two)[1:3]]
    for levels in (3, 16, INT8):
        assert whole[levels].error == pytest.approx(sum(half[levels].error for half in halves), rel=1e-6)


def test_nodes_that_share_a_weight_have_one_row() -> None:
    body = """g = Gemm(x, w0, b0)  r = Relu(g)  z = Sigmoid(g)  h = Gemm(r, w1, b1)  i = MatMul(z, w1)  y = Sub(h, i)"""
    arrays = {"w0": kernel(12, 20), "b0": B[:20], "w1": kernel(20, 16), "b1": B[:16]}
    model = parse(body, x="N,12", outputs="float[N,16] y", arrays=arrays)
    x = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    table = table_of(context(model, x))
    assert list(table) == names(model)[:2]
    assert table[names(model)[1]][16].size == stored_bytes(320, 16, 8)


def test_layers_that_cannot_be_fitted_are_left_out() -> None:
    body = f"""a = {CONV}(x, w0, b0)  d = Conv<kernel_shape=[3,3],group=8>(a, w1, b1)  p = GlobalAveragePool(d)
        f = Flatten(p)  g = Gemm<alpha=0.3>(f, w2, b2)  y = MatMul(g, w3)"""
    model = parse(body, x="N,3,6,6", outputs="float[N,5] y", w0=kernel(8, 3, 3, 3), b0=B[:8], w1=kernel(8, 1, 3, 3),
                  b1=B[:8], w2=kernel(8, 6), b2=B[:6], w3=kernel(6, 5))  # fmt: skip
    x = np.random.default_rng(0).standard_normal((16, 3, 6, 6)).astype(np.float32)
    first, _, _, last = names(model)
    found = context(model, x)
    assert list(table_of(found)) == [first, last]
    assert table_of(replace(found, sweep_samples=0)) == {}
    assert width_table(found, model, [], classifies=True, narrow=8, limit=127) == {}


def test_the_same_for_any_number_of_workers_and_with_every_layer_in_a_pass_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = digits()
    first = table_of(found)
    assert table_of(replace(found, workers=3)) == first
    monkeypatch.setattr("edgepress.pipeline.passes.PASS_BYTES", 1)  # onnxruntime fuses other nodes then
    other = table_of(found)
    assert other.keys() == first.keys()
    for name, widths in other.items():
        assert widths[16].error == pytest.approx(first[name][16].error, rel=0.2)


def test_dead_and_constant_channels_cost_nothing() -> None:
    model = digits().model
    first = names(model)[0]
    weight, bias = (model.constants[name].copy() for name in model.node(first).inputs[1:3])
    weight[:], bias[:] = 0, 1.3  # every channel constant
    silent = replace(
        digits(), model=model.with_constants(dict(zip(model.node(first).inputs[1:3], (weight, bias), strict=True)))
    )
    table = width_table(silent, silent.model, names(model), classifies=True, narrow=8, limit=127)
    assert all(np.isfinite(width.error) for widths in table.values() for width in widths.values())
    assert table[first][3].error < 1e-9
