"""Clipping: the least error is found and is what samples show; divergences are Migacz's; readers are known."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_tools import CONV, LIMIT, Arrays, answers, kernel, parse, samples, to_int8, worst_sqnr

from edgepress.plan import Quantization
from edgepress.quantize import Histogram, Observations, Range, activations_to_observe, observe, ranges
from edgepress.quantize.activations.clipping import Sums, errors, least_error
from edgepress.quantize.activations.curves import Curve, curves
from edgepress.quantize.activations.entropy import MOST_CLIPPED, divergences, least_divergence
from edgepress.quantize.graph.regions import typed

BINS = 2048
LEAKY, RELU6 = Curve("LeakyRelu", (0.125, 0.0)), Curve("Clip", (0.0, 6.0))
SIGMOID, HARD_SWISH = Curve("Sigmoid"), Curve("HardSigmoid", (1 / 6, 0.5), gated=True)
READERS = {
    "nothing": (),
    "LeakyRelu": (LEAKY,),
    "Clip": (RELU6,),
    "Sigmoid": (SIGMOID,),
    "HardSwish": (HARD_SWISH,),
    "two": (LEAKY, SIGMOID),
}


def draw(kind: str, count: int = 3000) -> np.ndarray:
    random = np.random.default_rng(5)
    normal = random.standard_normal(count)
    values = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "laplace": random.laplace(size=count) * 2,
        "outlier": np.append(normal, 60.0),
        "heavy": random.standard_t(3, count) - 1,
        "beside zero": 20 + random.random(count),
        "negative": -np.abs(normal) - 0.5,
    }
    return values[kind].astype(np.float32).astype(np.float64)


KINDS = ("normal", "relu", "laplace", "outlier", "heavy", "beside zero", "negative")


def counted(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    found = Histogram.of(values.astype(np.float32), float(values.min()), float(values.max()), BINS)
    return found.low, found.high, found.counts


def measured(values: np.ndarray, low: float, high: float, readers: tuple[Curve, ...]) -> float:
    """Squared error behind the readers of rounding every sample to the grid of a range."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    if step <= 0:
        return np.inf
    zero = np.rint(-low / step)
    rounded = (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step
    pairs = [(f(rounded), f(values)) for f in readers] if readers else [(rounded, values)]
    return float(sum(((found - wanted) ** 2).sum() for found, wanted in pairs))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_range_of_a_grid_of_them_is_much_better_than_the_one_found(kind: str, reader: str) -> None:
    values, readers = draw(kind), READERS[reader]
    low, high, counts = counted(values)
    shares = np.append(np.geomspace(1, 1 / 100, 25), 0)
    ends = [(a, b) for a in (low * shares if low < 0 else [0]) for b in (high * shares if high > 0 else [0])]
    best = min(measured(values, a, b, readers) for a, b in ends)
    # of few samples some range is lucky; what is near nothing is so by luck
    slack = 1e-5 * len(values) * ((high - low) / 255) ** 2
    assert measured(values, *least_error(low, high, counts, readers), readers) <= 1.12 * best + slack


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["normal", "relu", "laplace", "heavy"]), st.sampled_from(sorted(READERS)), st.data())
def test_expected_errors_are_those_of_samples(kind: str, reader: str, data: st.DataObject) -> None:
    values, readers = draw(kind, 20000), READERS[reader]
    low, high, counts = counted(values)
    first = low * data.draw(st.floats(0.1, 1))
    last = high * data.draw(st.floats(0.1, 1))
    sums = Sums.of(low, high, counts, readers)
    expected = float(errors(sums, np.array(first), np.array(last)))
    assert expected == pytest.approx(measured(values, first, last, readers), rel=0.12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50).filter(lambda v: max(v) - min(v) > 1e-3),
    st.sampled_from(sorted(READERS)),
    st.sampled_from(["mse", "entropy"]),
)
def test_clipped_ranges_lie_inside_keep_zero_and_are_no_worse_than_the_whole(
    drawn: list[float], reader: str, method: str
) -> None:
    low, high, counts = counted(np.array(drawn))
    least = least_error if method == "mse" else least_divergence
    first, last = least(low, high, counts, READERS[reader])
    assert low <= first <= last <= high or (low > 0 and first == min(low, last)) or (high < 0 and last >= high)
    assert min(first, 0) >= min(low, 0)
    assert max(last, 0) <= max(high, 0)
    if low == 0:
        assert first == 0
    if high == 0:
        assert last == 0
    if method == "mse":
        lows, highs = np.array([min(low, 0), min(first, 0)]), np.array([max(high, 0), max(last, 0)])
        whole, found = errors(Sums.of(low, high, counts, READERS[reader]), lows, highs)
        assert found <= whole * (1 + 1e-9)


def test_what_rounds_to_zero_costs_its_square_and_no_range_costs_nothing() -> None:
    values = np.append(np.random.default_rng(3).uniform(-0.3, 0.3, 5000), [-100.0, 100.0]).astype(np.float32)
    low, high, counts = counted(values)
    sums = Sums.of(low, high, counts, ())
    squares = float((values[:-2].astype(np.float64) ** 2).sum())
    assert float(errors(sums, np.array(low), np.array(high))) == pytest.approx(squares, rel=0.1)
    assert np.isinf(errors(sums, np.array(0.0), np.array(0.0)))


@pytest.mark.parametrize("least", [least_error, least_divergence])
def test_an_end_on_this_side_of_zero_stays(least: Callable[..., tuple[float, float]]) -> None:
    low, high, counts = counted(draw("beside zero"))
    assert least(low, high, counts)[0] == low > 0
    low, high, counts = counted(draw("negative"))
    assert least(low, high, counts)[1] == high < 0


@pytest.mark.parametrize("kind", ["laplace", "negative", "outlier"])
def test_no_single_end_diverges_much_less_than_the_one_found(kind: str) -> None:
    low, high, counts = counted(np.abs(draw(kind)) + 1e-3)
    edges = np.append(low + np.arange(BINS) * ((high - low) / BINS), high)
    found = least_divergence(low, high, counts)[1]
    stops = np.arange(1, BINS + 1)
    every = divergences(edges, counts, np.zeros(BINS, np.int64), stops)
    assert np.interp(found, edges[1:], every) <= 1.1 * every.min() + 1e-6


def test_the_tail_that_a_leaky_relu_shrinks_is_clipped_first() -> None:
    low, high, counts = counted(draw("laplace", 20000))
    alone, behind = least_error(low, high, counts), least_error(low, high, counts, (LEAKY,))
    assert behind[0] > 0.8 * alone[0]
    assert behind[1] > 0.9 * alone[1]


@pytest.mark.parametrize("least", [least_error, least_divergence])
def test_what_a_clip_cuts_off_is_not_kept(least: Callable[..., tuple[float, float]]) -> None:
    low, high, counts = counted(draw("outlier", 20000) * 5)
    first, last = least(low, high, counts, (RELU6,))
    assert -0.5 < first <= 0
    assert 5.5 < last < 6.5
    assert least(low, high, counts)[0] < -10


def plain_divergence(edges: np.ndarray, counts: np.ndarray, first: int, last: int) -> float:
    """P and Q written out bin by bin, as the source has them."""
    low, high = min(edges[first], 0.0), max(edges[last], 0.0)
    step = (high - low) / 255
    zero = np.rint(-low / step)
    centers = (edges[1:] + edges[:-1]) / 2
    levels = np.clip(np.floor(centers / step + 0.5) + zero, 0, 255)[first:last]
    inside = counts[first:last].astype(np.float64)
    wanted = inside.copy()
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last:].sum()
    found = np.zeros_like(inside)
    for level in np.unique(levels):
        held = (levels == level) & (inside > 0)
        found[held] = inside[levels == level].sum() / max(held.sum(), 1)
    wanted, found = wanted / wanted.sum(), found / found.sum()
    some = wanted > 0
    with np.errstate(divide="ignore"):
        return float((wanted[some] * np.log(wanted[some] / found[some])).sum())


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.integers(0, 40), st.integers(0, 40))
def test_divergences_are_those_of_the_source(kind: str, cut: int, other: int) -> None:
    low, high, counts = counted(draw(kind))
    edges = low + np.arange(BINS + 1) * ((high - low) / BINS)
    zero = int(np.clip(np.searchsorted(edges, 0, side="right") - 1, 0, BINS - 1))
    first, last = zero * cut // 41, BINS - (BINS - 1 - zero) * other // 41
    found = float(divergences(edges, counts, np.array(first), np.array(last)))  # a bin on a border may go either way
    clipped = 1 - counts[first:last].sum() / counts.sum()
    assert np.isinf(found) or clipped <= MOST_CLIPPED
    if clipped <= MOST_CLIPPED:
        assert found == pytest.approx(plain_divergence(edges, counts, first, last), rel=1e-3, abs=1e-6)


def test_exact_zeros_do_not_pull_the_range_down() -> None:
    values = np.abs(draw("normal", 20000))
    spiked = np.concatenate([values, np.zeros(100000)])
    assert least_divergence(*counted(spiked))[1] > 0.8 * least_divergence(*counted(values))[1] > 0
    assert least_error(*counted(spiked))[1] > 0.9 * least_error(*counted(values))[1] > 0


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_corners(method: str) -> None:
    huge = draw("normal") * 1e30
    histograms = {
        "constant": Histogram.of(np.full(9, 3, np.float32), 3, 3, BINS),
        "zero": Histogram.of(np.zeros(9, np.float32), 0, 0, BINS),
        "one": Histogram.of(np.array([-2.5], np.float32), -2.5, -2.5, BINS),
        "two": Histogram.of(np.array([-1, 4], np.float32), -1, 4, BINS),
        "huge": Histogram(*counted(huge)),
        "spike": Histogram(*counted(np.append(draw("normal"), 1e30))),
        "tiny": Histogram(*counted(draw("normal") * 1e-20)),
    }
    bounds = {name: Range(item.low, item.high) for name, item in histograms.items()}
    seen = Observations({**bounds, "mask": Range(-np.inf, 0)}, histograms)
    with np.errstate(all="raise", under="ignore"):
        found = ranges(seen, Quantization(ranges=method))  # type: ignore[arg-type]
    assert found.keys() == seen.bounds.keys()
    for name in ("constant", "zero", "one", "mask"):
        assert found[name] == seen.bounds[name]
    assert found["two"].low == pytest.approx(-1, rel=0.02)
    assert found["two"].high == pytest.approx(4, rel=0.02)
    for name in ("huge", "tiny"):
        assert 0.4 * bounds[name].high < found[name].high <= bounds[name].high
        assert bounds[name].low <= found[name].low < 0.4 * bounds[name].low
    assert np.isfinite([found["spike"].low, found["spike"].high]).all()


HARD = "HardSigmoid<alpha=0.25, beta=0.375>"
READ = {
    "y = LeakyRelu<alpha=0.25>(h)": (Curve("LeakyRelu", (0.25, 0.0)),),
    "r = Identity(h) y = Relu(r)": (Curve("Relu", (0.0, np.inf)),),
    "y = Sigmoid(h)": (Curve("Sigmoid", (0.0, np.inf)),),
    "y = HardSwish(h)": (HARD_SWISH,),
    f"y = {HARD}(h)": (Curve("HardSigmoid", (0.25, 0.375)),),
    f"g = {HARD}(h) y = Mul(h, g)": (Curve("HardSigmoid", (0.25, 0.375), gated=True),),
    "g = Sigmoid(h) y = Mul(g, h)": (Curve("Sigmoid", (0.0, np.inf), gated=True),),
    "y = Clip(h, zero, six)": (RELU6,),
    "y = Clip(h, , six)": (Curve("Clip", (-np.inf, 6.0)),),
    "y = Clip(h, mean, six)": None,
    "a = LeakyRelu<alpha=0.125>(h) b = Sigmoid(h) y = Add(a, b)": (LEAKY, Curve("Sigmoid", (0.0, np.inf))),
    "a = LeakyRelu<alpha=0.125>(h) y = Add(a, h)": None,
    "g = Sigmoid(h) m = Mul(g, h) y = Add(m, g)": None,
    "y = Mul(h, h)": None,
    "y = Tanh(h)": None,
    "m = MaxPool<kernel_shape=[2,2]>(h) y = LeakyRelu<alpha=0.125>(m)": (LEAKY,),
    "t = Transpose<perm=[0,2,3,1]>(h) y = LeakyRelu<alpha=0.125>(t)": (LEAKY,),
    "m = MaxPool<kernel_shape=[2,2]>(h) y = Tanh(m)": None,
}


@pytest.mark.parametrize("tail", READ)
def test_readers_are_recognised_and_their_functions_are_those_of_onnxruntime(tail: str) -> None:
    arrays = {name: np.array(value) for name, value in (("zero", 0.0), ("six", 6.0))}
    model = parse(
        f"mean = ReduceMean<keepdims=0>(x) h = Conv(x, w) {tail}", arrays=arrays, w=3 * np.eye(16)[:, :, None, None]
    )
    expected = READ[tail]
    assert curves(typed(model)).get("h") == expected
    if expected is not None and len(expected) == 1 and "Pool" not in tail and "Transpose" not in tail:
        feed = samples(16, 14, 14, count=2)
        assert np.allclose(answers(model, feed)[0], expected[0](3 * feed.inputs["x"]), atol=2e-6)


def test_outputs_and_bodies_of_control_flow_read_everything() -> None:
    text = "h = Conv(x, w) y = LeakyRelu<alpha=0.125>(h)"
    identity = np.eye(16)[:, :, None, None]
    assert curves(typed(parse(text, w=identity)))["h"] == (LEAKY,)
    assert "h" not in curves(typed(parse(text, outputs="float[N,C,H,W] y, float[N,C,H,W] h", w=identity)))
    gated = "h = Conv(x, w) g = Sigmoid(h) y = Mul(h, g)"
    assert "h" in curves(typed(parse(gated, w=identity)))
    assert "h" not in curves(typed(parse(gated, outputs="float[N,C,H,W] y, float[N,C,H,W] g", w=identity)))
    branch = "then_branch = g () => (float[N,C,H,W] t) { t = Neg(h) }"
    other = "else_branch = g () => (float[N,C,H,W] e) { e = Abs(h) }"
    body = f"{text} some = Size(x) less = Less(some, many) z = If(less) <{branch}, {other}>"
    outputs = "float[N,C,H,W] y, float[N,C,H,W] z"
    assert "h" not in curves(typed(parse(body, outputs=outputs, w=identity, many=np.array(3))))


def test_observations_bring_the_readers_along() -> None:
    body = f"h = {CONV}(x, w, b) y = LeakyRelu<alpha=0.125>(h)"
    model, feed = parse(body, w=kernel(16, 16, 3, 3), b=kernel(16)), samples(16, 14, 14)
    seen = observe(model, feed, activations_to_observe(model))
    assert dict(seen.curves) == {"h": (LEAKY,)}
    found = ranges(seen, Quantization(ranges="mse"))["h"]
    item = seen.histograms["h"]
    assert found == Range(*least_error(item.low, item.high, item.counts, (LEAKY,)))
    assert found != Range(*least_error(item.low, item.high, item.counts))


def test_the_error_behind_the_function_makes_better_models() -> None:
    """A rare negative tail before a LeakyRelu, as in the small mobilenet: onnxruntime is the judge."""
    body = f"h = {CONV}(x, w1, b1) a = LeakyRelu<alpha=0.125>(h) y = {CONV}(a, w2, b2)"
    inputs = np.clip(samples(16, 14, 14).inputs["x"], -2, 2)
    inputs[:, 8:] = 0
    inputs[3, 8:, 4:7, 4:7] = 2  # on every grid that reaches to 2
    first = kernel(16, 16, 3, 3)
    first[:, 8:] = 0
    first[3, 8:] = -0.2
    model = parse(body, w1=first, b1=kernel(16), w2=kernel(16, 16, 3, 3, seed=2), b2=kernel(16))
    found = {
        method: worst_sqnr(model, to_int8(model, feed, Quantization(ranges=method, weight_limit=LIMIT)), feed)
        for feed in [Arrays({"x": inputs})]
        for method in ("minmax", "mse", "entropy")
    }
    assert found["mse"] > found["minmax"] + 1, found
    assert min(found.values()) > 15


def test_sixty_tensors_take_less_than_half_a_second() -> None:
    item = Histogram(*counted(draw("heavy", 20000)))
    names = [f"t{place}" for place in range(60)]
    readers = {name: list(READERS.values())[place % 5] for place, name in enumerate(names)}
    seen = Observations(dict.fromkeys(names, Range(item.low, item.high)), dict.fromkeys(names, item), {}, readers)
    taken = []
    for _ in range(4):
        begun = time.process_time()
        for method in ("minmax", "percentile", "mse", "entropy"):
            ranges(seen, Quantization(ranges=method))
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.5
