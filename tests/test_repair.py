"""Repair: every weighted output of the rounded network keeps its float mean and deviation, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numeric_tools import chunks, run
from quantize_tools import CONV, kernel, parse
from test_sweep import draw, residual

from edgepress.executor.sweep import affordable
from edgepress.model import Model
from edgepress.quantize.weights.nearest import Rounded, round_weights
from edgepress.quantize.weights.repair import LIMITS, repair

B = kernel(99, 1).ravel()


def rounded(model: Model, limit: int = 7) -> dict[str, Rounded]:
    """Weights rounded to very few levels, so that there is something to repair."""
    found = {}
    for node in model.nodes:
        if node.op in ("Conv", "Gemm", "MatMul"):
            axis = 0 if node.op == "Conv" or node.attributes.get("transB", 0) else 1
            found[node.name] = round_weights(model.constants[node.inputs[1]], axis, limit)
    return found


def in_place(model: Model, items: Mapping[str, Rounded]) -> Model:
    """The model with these weights and biases."""
    arrays = {}
    for name, item in items.items():
        node = model.node(name)
        arrays[node.inputs[1]] = item.weight
        if item.bias is not None:
            arrays[node.inputs[2]] = item.bias.reshape(model.constants[node.inputs[2]].shape)
    return model.with_constants(arrays)


def statistics(model: Model, x: np.ndarray, tensors: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation per channel of some tensors."""
    found = []
    for array in run(model, {"x": x}, tensors):
        flat = np.moveaxis(array.astype(np.float64), 1, 0).reshape(array.shape[1], -1)
        found.append((flat.mean(1), flat.std(1)))
    return found


def mixed() -> Model:
    """Conv, depthwise Conv, grouped Conv with strides, Flatten, Gemm both ways round."""
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  d = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=8>(r, w1, b1)
        e = Relu(d)  g = Conv<kernel_shape=[3,3],strides=[2,2],group=2>(e, w2, b2)  h = Relu(g)  f = Flatten(h)
        i = Gemm(f, w3, b3)  j = Relu(i)  y = Gemm<transB=1>(j, w4, b4)"""
    arrays = {"w0": kernel(8, 3, 3, 3), "w1": kernel(8, 1, 3, 3), "w2": kernel(6, 4, 3, 3), "w3": kernel(54, 10)}
    biases = {f"b{number}": B[number : number + size] for number, size in enumerate((8, 8, 6, 10, 4))}
    return parse(body, x="N,3,8,8", outputs="float[N,4] y", arrays=arrays | biases | {"w4": kernel(4, 10)})


MODELS = {"mixed": (mixed(), ["a", "d", "g", "i", "y"]), "residual": (residual(), ["a", "i", "j", "k", "l", "y"])}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("limit", [7, 127])
def test_means_and_deviations_are_the_float_ones_on_the_samples_of_the_repair(name: str, limit: int) -> None:
    model, tensors = MODELS[name]
    x = draw(96, 3, 8, 8)
    items = rounded(model, limit)
    fixed = in_place(model, repair(model, items, chunks(x, 32), workers=2))
    wanted, found = statistics(model, x, tensors), statistics(fixed, x, tensors)
    before = statistics(in_place(model, items), x, tensors)
    for tensor, (mean, deviation), (now, spread) in zip(tensors, wanted, found, strict=True):
        largest = float(deviation.max())
        if tensor in ("j", "l"):  # corrected by the other branch: their sum is what must fit
            continue
        assert np.abs(now - mean).max() < 1e-3 * largest, tensor
        assert np.abs(spread / deviation - 1).max() < 1e-3, tensor
    if limit == 7:
        assert any(np.abs(old[0] - mean[0]).max() > 1e-2 for old, mean in zip(before, wanted, strict=True))


def test_the_sum_of_branches_keeps_its_statistics() -> None:
    model = residual()
    x = draw(96, 3, 8, 8)
    fixed = in_place(model, repair(model, rounded(model), chunks(x, 32), workers=1))
    plain = in_place(model, rounded(model))
    wanted, found, before = (statistics(item, x, ["s", "u"]) for item in (model, fixed, plain))
    for (mean, _), (now, _), (old, _) in zip(wanted, found, before, strict=True):
        assert np.abs(now - mean).max() < 1e-3
        assert np.abs(now - mean).max() < 0.1 * np.abs(old - mean).max()


def test_repair_brings_the_outputs_nearer() -> None:
    fresh = draw(200, 3, 8, 8, seed=9)
    for model, _ in MODELS.values():
        items = rounded(model)
        fixed = in_place(model, repair(model, items, chunks(draw(96, 3, 8, 8), 32), workers=1))
        (wanted,), (plain,), (better,) = (run(m, {"x": fresh}) for m in (model, in_place(model, items), fixed))
        assert ((better - wanted) ** 2).mean() < 0.8 * ((plain - wanted) ** 2).mean()


def test_integers_stay_and_scales_move_within_limits() -> None:
    model = mixed()
    items = rounded(model, 2)
    found = repair(model, items, chunks(draw(64, 3, 8, 8), 32), workers=1)
    assert found.keys() == items.keys()
    for name, item in found.items():
        assert np.array_equal(item.values, items[name].values)
        assert item.scale.dtype == np.float32
        assert item.axis == items[name].axis
        gain = item.scale / items[name].scale
        assert LIMITS[0] - 1e-6 <= gain.min() and gain.max() <= LIMITS[1] + 1e-6
        assert item.bias is not None and item.bias.dtype == np.float32
    assert any((item.scale != items[name].scale).any() for name, item in found.items())


def test_nodes_that_stay_float_or_have_no_bias_are_left_alone() -> None:
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  c = {CONV}(r, w1)  s = Relu(c)  p = GlobalAveragePool(s)
        f = Flatten(p)  i = Gemm(f, w2, one)  j = Relu(i)  k = Gemm<beta=0.5>(j, w3, b3)  y = MatMul(k, w4)"""
    model = parse(body, x="N,3,8,8", outputs="float[N,4] y", w0=kernel(8, 3, 3, 3), b0=B[:8], w1=kernel(8, 8, 3, 3),
                  w2=kernel(8, 6), one=B[:1], w3=kernel(6, 5), b3=B[:5], w4=kernel(5, 4))  # fmt: skip
    items = rounded(model)
    first = next(iter(items))
    found = repair(model, items, chunks(draw(64, 3, 8, 8), 32), workers=1)
    assert found[first].bias is not None
    assert all(found[name] is items[name] for name in items if name != first)
    without = {name: item for name, item in items.items() if name != first}
    assert repair(model, without, chunks(draw(64, 3, 8, 8), 32), workers=1) == without
    assert repair(model, {}, chunks(draw(8, 3, 8, 8)), workers=1) == {}


def test_an_omitted_bias_is_none() -> None:
    proto = parse(f"a = {CONV}(x, w0)  y = Relu(a)", x="N,3,8,8", w0=kernel(8, 3, 3, 3)).edit()
    proto.graph.node[0].input.append("")
    model = Model.of(proto)
    items = rounded(model)
    assert repair(model, items, chunks(draw(8, 3, 8, 8)), workers=1) == items


def test_a_weight_of_several_nodes_is_matched_for_each_of_them() -> None:
    body = """a = Gemm(x, w, b0)  r = Relu(a)  n = Mul(r, three)  c = Gemm(n, w, b0)  y = Relu(c)"""
    model = parse(body, x="N,6", outputs="float[N,6] y", w=kernel(6, 6), b0=B[:6], three=np.float32(3) * np.ones(1))
    x = draw(200, 6)
    items = rounded(model)
    found = repair(model, items, chunks(x, 50), workers=1)
    wanted = statistics(model, x, ["a", "c"])
    first, second = found["/net/Gemm.0"], found["/net/Gemm.3"]
    assert first.bias is not None and second.bias is not None
    a = x @ first.weight + first.bias
    c = 3 * np.maximum(a, 0) @ second.weight + second.bias
    for (mean, deviation), now in zip(wanted, (a, c), strict=True):
        assert np.abs(now.mean(0) - mean).max() < 1e-3
        assert np.abs(now.std(0) / deviation - 1).max() < 1e-3


def test_silent_channels_keep_their_scale() -> None:
    model = mixed()
    w0, b0 = model.constants["w0"].copy(), model.constants["b0"].copy()
    w0[2] = 0  # constant: no deviation to match
    b0[2] = 1.5
    model = model.with_constants({"w0": w0, "b0": b0})
    items = rounded(model)
    found = repair(model, items, chunks(draw(64, 3, 8, 8), 32), workers=1)["/net/Conv.0"]
    assert np.isfinite(found.scale).all() and found.bias is not None
    assert found.scale[2] == items["/net/Conv.0"].scale[2]
    assert found.bias[2] == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_for_any_number_of_workers(workers: int) -> None:
    model, parts = mixed(), chunks(draw(90, 3, 8, 8), 16)
    first, second = (repair(model, rounded(model), parts, workers=count) for count in (1, workers))
    for name, item in first.items():
        other = second[name]
        assert item.bias is not None and other.bias is not None
        assert (item.scale.tobytes(), item.bias.tobytes()) == (other.scale.tobytes(), other.bias.tobytes())


def test_more_samples_are_never_fewer() -> None:
    model = mixed()
    counts = [affordable(model, samples) for samples in range(1, 400, 7)]
    assert counts == sorted(counts)
    assert all(1 <= count <= samples for count, samples in zip(counts, range(1, 400, 7), strict=True))
