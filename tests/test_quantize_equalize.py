"""Equalization: the same outputs in onnxruntime, ranges that are more even, and hands off what is not homogeneous."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_tools import CONV, answers, kernel, parse, samples

from edgepress.model import Model
from edgepress.quantize.weights.equalize import LIMITS, equalize

DEPTHWISE = "Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>"
GROUPED = "Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>"
POINT = "Conv<kernel_shape=[1,1]>"
AVERAGE = "AveragePool<kernel_shape=[2,2], strides=[2,2]>"
SMOOTH = "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>"
PAIR = f"a = {CONV}(x, w1, b1)", f"y = {CONV}(h, w2, b2)"
FULL, ONE, SINGLE, QUARTER = (16, 16, 3, 3), (16, 16, 1, 1), (16, 1, 3, 3), (16, 4, 3, 3)
SCORES = "float[N,K] y"


def uneven(*shape: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    """Weights whose outputs and inputs differ in size by some powers of ten."""
    random = np.random.default_rng([7, seed])
    rest = (1,) * (len(shape) - 2)
    rows = 10 ** random.uniform(-spread / 2, spread / 2, (shape[0], 1, *rest))
    columns = 10 ** random.uniform(-spread / 2, spread / 2, (1, shape[1], *rest))
    return np.asarray(kernel(*shape, seed=seed) * rows * columns, np.float32)


def made(body: str, *shapes: tuple[int, ...], outputs: str = "float[N,C,H,W] y", rows: Sequence[int] = ()) -> Model:
    """A net with uneven weights w1, w2, ... of these shapes and biases of ``rows`` (their first sizes)."""
    arrays = {f"w{place}": uneven(*shape, seed=place) for place, shape in enumerate(shapes, 1)}
    sizes = rows or [shape[0] for shape in shapes]
    arrays |= {f"b{place}": kernel(size, seed=place) for place, size in enumerate(sizes, 1)}
    return parse(body, outputs=outputs, arrays={name: item for name, item in arrays.items() if name in body})


def ranges_of(model: Model, first: str, second: str, *, depthwise: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Largest weight that makes, and that reads, every channel between two dense (or a second depthwise) layers."""
    made_by, read_by = (np.abs(model.constants[name].astype(np.float64)) for name in (first, second))
    rows = made_by.reshape(len(made_by), -1).max(axis=1)
    axes = (1, 2, 3) if depthwise else (0, 2, 3)
    return rows, read_by.max(axis=axes)


def spread(model: Model, links: Sequence[tuple[str, str, bool]]) -> float:
    sides = [side for a, b, thin in links for side in ranges_of(model, a, b, depthwise=thin)]
    return float(sum(np.log(side.max() / side).sum() for side in sides))


NETS = {
    "plain": (f"{PAIR[0]} h = Relu(a) {PAIR[1]}", (FULL, FULL), [("w1", "w2", False)]),
    "linear": (f"h = {CONV}(x, w1, b1) {PAIR[1]}", (FULL, FULL), [("w1", "w2", False)]),
    "leaky, pooled": (
        f"{PAIR[0]} r = LeakyRelu<alpha=0.1>(a) h = MaxPool<kernel_shape=[2,2]>(r) {PAIR[1]}",
        (FULL, FULL),
        [("w1", "w2", False)],
    ),
    "averaged": (f"{PAIR[0]} r = Relu(a) h = {AVERAGE}(r) {PAIR[1]}", (FULL, FULL), [("w1", "w2", False)]),
    "PRelu": (f"{PAIR[0]} h = PRelu(a, b3) {PAIR[1]}", (FULL, FULL), [("w1", "w2", False)]),
    "no bias": (f"a = {CONV}(x, w1) h = Relu(a) y = {CONV}(h, w2)", (FULL, FULL), [("w1", "w2", False)]),
    "depthwise": (
        f"a = {POINT}(x, w1, b1) h = Relu(a) c = {DEPTHWISE}(h, w2, b2) d = Relu(c) y = {POINT}(d, w3, b3)",
        (ONE, SINGLE, ONE),
        [("w1", "w2", True), ("w2", "w3", False)],
    ),
    "long depthwise": (
        f"a = {DEPTHWISE}(x, w1, b1) h = Relu(a) c = {POINT}(h, w2, b2) d = Relu(c) e = {DEPTHWISE}(d, w3, b3)"
        f" f = Relu(e) g = {DEPTHWISE}(f, w4, b4) i = LeakyRelu<alpha=0.2>(g) y = {POINT}(i, w5, b5)",
        (SINGLE, ONE, SINGLE, SINGLE, ONE),
        [("w1", "w2", False), ("w2", "w3", True), ("w3", "w4", True), ("w4", "w5", False)],
    ),
}


def biases(body: str, shapes: tuple[tuple[int, ...], ...]) -> list[int]:
    return [shape[0] for shape in shapes] + [16] * ("PRelu" in body)


def built(name: str) -> Model:
    body, shapes, _ = NETS[name]
    model = made(body, *shapes, rows=biases(body, shapes))
    return model.with_constants({"b3": model.constants["b3"].reshape(16, 1, 1)}) if name == "PRelu" else model


def assert_same_function(model: Model, other: Model, tolerance: float = 2e-5) -> None:
    feed = samples(16, 14, 14, count=4)
    for wanted, found in zip(answers(model, feed), answers(other, feed), strict=True):
        size = np.abs(wanted).max()
        assert size > 0
        assert np.abs(wanted - found).max() <= tolerance * size


@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_and_ranges_become_more_even(name: str) -> None:
    model = built(name)
    even = equalize(model)
    assert_same_function(model, even)
    before, after = (spread(one, NETS[name][2]) for one in (model, even))
    assert after < 0.8 * before
    assert [node.inputs for node in even.nodes] == [node.inputs for node in model.nodes]


def test_a_pair_gets_the_same_range_on_either_side() -> None:
    even = equalize(built("plain"))
    made_by, read_by = ranges_of(even, "w1", "w2")
    assert np.allclose(made_by, read_by, rtol=1e-5)
    again = equalize(even)
    assert np.allclose(again.constants["w1"], even.constants["w1"], rtol=1e-5)


def test_grouped_convolutions_follow_their_groups() -> None:
    body = f"a = {GROUPED}(x, w1, b1) h = Relu(a) c = {GROUPED}(h, w2, b2) d = Relu(c) y = {CONV}(d, w3, b3)"
    model = made(body, QUARTER, QUARTER, FULL)
    even = equalize(model)
    assert_same_function(model, even)
    assert not np.allclose(even.constants["w2"], model.constants["w2"], rtol=0.1)
    made_by, read_by = (np.abs(even.constants[name]) for name in ("w2", "w3"))
    assert np.allclose(made_by.max(axis=(1, 2, 3)), read_by.max(axis=(0, 2, 3)), rtol=0.05)


HEADS = {
    "Flatten": "h = Flatten(p)",
    "Reshape": "h = Reshape(p, to)",
    "average": "g = GlobalAveragePool(p) h = Flatten(g)",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_channel_reaches_all_its_inputs_behind_a_flatten(head: str, transposed: int) -> None:
    width = 16 if head == "average" else 16 * 49
    gemm = f"Gemm<transB={transposed}, alpha=0.5, beta=2.0>"
    body = (
        f"a = {CONV}(x, w1, b1) r = Relu(a) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) {HEADS[head]} "
        f"c = {gemm}(h, w2, b2) d = Relu(c) y = {gemm}(d, w3, b3)"
    )
    first, second = ((12, width), (5, 12)) if transposed else ((width, 12), (12, 5))
    weights = {"w1": uneven(*FULL), "w2": uneven(*first, seed=2), "w3": uneven(*second, seed=3)}
    biases = {"b1": kernel(16), "b2": kernel(1, 12), "b3": kernel(5), "to": np.array([-1, width])}
    model = parse(body, outputs=SCORES, arrays={k: v for k, v in {**weights, **biases}.items() if k in body})
    even = equalize(model)
    assert_same_function(model, even)
    for name in weights:
        assert np.abs(even.constants[name] / model.constants[name] - 1).max() > 0.1


LEFT = {
    "a Clip": f"{PAIR[0]} h = Clip(a, zero, six) {PAIR[1]}",
    "a Sigmoid": f"{PAIR[0]} h = Sigmoid(a) {PAIR[1]}",
    "two readers": f"{PAIR[0]} h = Relu(a) b = {CONV}(h, w2, b2) y = Add(b, h)",
    "an Add": f"{PAIR[0]} h = Add(a, x) {PAIR[1]}",
    "a shared weight": f"{PAIR[0]} h = Relu(a) y = {CONV}(h, w1, b2)",
    "a shared bias": f"{PAIR[0]} h = Relu(a) c = {CONV}(h, w2, b2) s = Unsqueeze(b1, axes) y = Add(c, s)",
    "a graph output": f"{PAIR[0]} h = Relu(a) {PAIR[1]}",
    "a computed slope": f"{PAIR[0]} s = ReduceMax<keepdims=1>(x) h = PRelu(a, s) {PAIR[1]}",
    "computed weights": f"{PAIR[0]} h = Relu(a) v = Neg(w2) y = {CONV}(h, v, b2)",
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_is_no_pair_is_left_alone(reason: str) -> None:
    body = LEFT[reason]
    outputs = "float[N,C,H,W] y" + ", float[N,C,H,W] h" * (reason == "a graph output")
    arrays = {"w1": uneven(*FULL), "w2": uneven(*FULL, seed=2), "b1": kernel(16), "b2": kernel(16, seed=2)}
    arrays |= {"zero": np.array(0.0), "six": np.array(6.0), "axes": np.array([1, 2])}
    model = parse(body, outputs=outputs, arrays={name: item for name, item in arrays.items() if name in body})
    assert equalize(model) is model


@pytest.mark.parametrize("held", ["h", "w1", "b1"])
def test_bodies_of_control_flow_read_too(held: str) -> None:
    branches = f"<then_branch = g () => (float t) {{ t = Neg({held}) }}, else_branch = k () => (float e)"
    body = (
        f"{PAIR[0]} h = Relu(a) {PAIR[1]} n = Size(x) few = Less(n, many) z = If(few) {branches} {{ e = Abs({held}) }}>"
    )
    arrays = {"w1": uneven(*FULL), "w2": uneven(*FULL, seed=2), "b1": kernel(16), "b2": kernel(16)}
    model = parse(body, outputs="float[N,C,H,W] y, float z", arrays={**arrays, "many": np.array(3)})
    assert equalize(model) is model


def test_dead_channels_and_extremes_stay_finite_and_bounded() -> None:
    model = built("plain")
    first, second = (np.array(model.constants[name]) for name in ("w1", "w2"))
    first[0], second[:, 1], first[2], second[:, 3] = 0, 0, first[2] * 1e-30, second[:, 3] * 1e-30
    dead = model.with_constants({"w1": first, "w2": second})
    even = equalize(dead)
    assert_same_function(dead, even)
    assert np.array_equal(even.constants["w2"][:, 0], second[:, 0])
    assert np.array_equal(even.constants["w1"][1], first[1])
    factors = dead.constants["b1"] / even.constants["b1"]
    assert np.all((factors >= LIMITS[0] * 0.999) & (factors <= LIMITS[1] * 1.001))
    assert factors[2] == pytest.approx(LIMITS[0], rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(["dense", "point", "depthwise"]), min_size=2, max_size=5),
    st.lists(st.sampled_from(["Relu", "LeakyRelu<alpha=0.3>", "Identity", SMOOTH]), min_size=5, max_size=5),
    st.integers(0, 1000),
    st.floats(0, 4),
)
def test_no_chain_becomes_less_even(kinds: list[str], between: list[str], seed: int, wild: float) -> None:
    operators = {"dense": CONV, "point": POINT, "depthwise": DEPTHWISE}
    shapes = {"dense": FULL, "point": ONE, "depthwise": SINGLE}
    body, tensor, arrays = "", "x", {}
    for place, kind in enumerate(kinds):
        last = place == len(kinds) - 1
        body += f"c{place} = {operators[kind]}({tensor}, w{place}) "
        body += f"y = Relu(c{place}) " if last else f"t{place} = {between[place]}(c{place}) "
        tensor = f"t{place}"
        arrays[f"w{place}"] = uneven(*shapes[kind], seed=seed + place, spread=wild)
    model = parse(body, arrays=arrays)
    even = equalize(model)
    assert_same_function(model, even, 1e-4)
    links = [(f"w{a}", f"w{a + 1}", kinds[a + 1] == "depthwise") for a in range(len(kinds) - 1)]
    assert spread(even, links) <= spread(model, links) + 1e-3


def test_where_sweeping_a_chain_makes_it_less_even_a_better_sweep_is_taken() -> None:
    """Of 150 small wild chains of one or many weights a channel, some end worse than they began."""
    for seed in range(150):
        random = np.random.default_rng(seed)
        count, channels = random.integers(3, 6), int(random.integers(2, 6))
        thin = random.random(count) < 0.5
        shapes = [(channels, 1 if each else channels, 1, 1) for each in thin]
        arrays = {f"w{i}": 10 ** random.normal(0, random.choice([0.3, 1, 2]), each) for i, each in enumerate(shapes)}
        groups = [f"Conv<kernel_shape=[1,1], group={channels if each else 1}>" for each in thin]
        tensors = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
        body = " ".join(f"{tensors[i + 1]} = {groups[i]}({tensors[i]}, w{i})" for i in range(count))
        model = parse(body, x=f"N,{channels},2,2", arrays=arrays)
        links = [(f"w{i}", f"w{i + 1}", bool(thin[i + 1])) for i in range(count - 1)]
        assert spread(equalize(model), links) <= spread(model, links) + 1e-4, seed
