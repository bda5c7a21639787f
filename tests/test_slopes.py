"""Gradient statistics are those of slow loops: weights sample by sample, gates by finite differences, Adam by torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of, relative, view_of
from quantize_tools import kernel, parse
from redistribution_models import KINDS
from sequence_models import exported
from zoo import LEGACY

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import SLOPE_CHUNK, collect
from edgepress.calibrate.slopes import BETA, SAMPLES, Gates, Outer, Reader, Slopes, gates_probe, outer_probe
from edgepress.calibrate.statistics import Probe, slope
from edgepress.calibrate.views import Part
from edgepress.executor import Executor, gradients, per_sample_gradients
from edgepress.executor.slopes import SlopeRunner
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.scores.readers import gates_of, readers_of

B = 0.3 * np.sin(np.arange(99, dtype=np.float32))
RECURRENT = ("LSTM", "GRU", "RNN")

# --- networks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """A model with one output y, samples along its first axis, and the shape of a sample of x."""

    model: Model
    shape: tuple[int, ...]

    def feed(self, count: int, seed: int = 0) -> Feed:
        x = np.random.default_rng(seed).standard_normal((count, *self.shape)).astype(np.float32)
        return feed_of(self.model, {"x": x, "label": np.arange(count) % 3})

    @property
    def groups(self) -> tuple[Group, ...]:
        return find_groups(self.model).prunable


def of_kind(name: str) -> Net:
    return Net(KINDS[name].build(), KINDS[name].x[1:])


def recurrent(op: str, attributes: str = "", behind: str = "flat") -> Net:
    """An LSTM whose hidden units another recurrent operator reads, steps first."""
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if "bidirectional" in attributes else 1
    body = f"""t = Transpose<perm=[1,0,2]>(x)  h = LSTM<hidden_size=6>(t, w, r, b)  s = Squeeze(h, one)
        k = {op}<hidden_size=4{attributes}>(s, w2, r2, b2)  j = Transpose<perm=[2,0,1,3]>(k)"""
    arrays = {
        "w": 2 * kernel(1, 24, 5), "r": 2 * kernel(1, 24, 6), "b": kernel(1, 48), "one": np.array([1]),
        "w2": 2 * kernel(ways, gates * 4, 6), "r2": 2 * kernel(ways, gates * 4, 4), "b2": kernel(ways, gates * 8),
    }  # fmt: skip
    if behind == "flat":
        body += "  f = Reshape(j, flat)  y = MatMul(f, w3)"
        arrays |= {"flat": np.array([0, 28 * ways]), "w3": kernel(28 * ways, 3)}
    elif behind == "steps first":
        body += "  q = Squeeze(k, one)  m = MatMul(q, w3)  y = Transpose<perm=[1,0,2]>(m)"
        arrays |= {"w3": kernel(4, 3)}
    else:  # a product reads the units as well
        body += """  f = Reshape(j, flat)  p = MatMul(f, w3)  m = MatMul(s, w4)  n = Transpose<perm=[1,0,2]>(m)
            g = Reshape(n, other)  y = Concat<axis=1>(p, g)"""
        arrays |= {"flat": np.array([0, 28 * ways]), "w3": kernel(28 * ways, 3), "w4": kernel(6, 2)}
        arrays |= {"other": np.array([0, 14])}
    return Net(parse(body, x="N,7,5", outputs="float y", arrays=arrays), (7, 5))


def tokens() -> Net:
    """Samples and tokens in one axis."""
    body = """f = Reshape(x, flat)  a = Gemm<transB=1>(f, w1, b1)  r = Relu(a)  c = Gemm(r, w2, b2)
        y = Reshape(c, back)"""
    arrays = {"w1": 2 * kernel(8, 10), "b1": B[:8], "w2": kernel(8, 3), "b2": B[:3]}
    arrays |= {"flat": np.array([-1, 10]), "back": np.array([-1, 5, 3])}
    return Net(parse(body, x="N,5,10", outputs="float y", arrays=arrays), (5, 10))


def strided() -> Net:
    """Strides, dilations and padding; then a Gemm behind a Flatten."""
    body = """a = Conv<kernel_shape=[3,3],pads=[1,0,2,1],strides=[2,1],dilations=[1,2]>(x, w1, b1)  r = Relu(a)
        c = Conv<kernel_shape=[2,3],pads=[1,1,0,1],strides=[2,2],group=2>(r, w2, b2)  s = Tanh(c)
        f = Flatten(s)  y = Gemm<transB=1,alpha=2.0,beta=0.5>(f, w3, b3)"""
    arrays = {"w1": 2 * kernel(8, 3, 3, 3), "b1": B[:8], "w2": 2 * kernel(6, 4, 2, 3), "b2": B[:6]}
    arrays |= {"w3": kernel(3, 54), "b3": B[:3]}
    return Net(parse(body, x="N,3,8,8", outputs="float[N,3] y", arrays=arrays), (3, 8, 8))


FREE = [name for name, kind in KINDS.items() if not kind.fixed]
WEIGHTED: Mapping[str, Any] = {
    **{name: (lambda name=name: of_kind(name)) for name in FREE},
    "tokens in one axis": tokens,
    "strided": strided,
}
STEPS: Mapping[str, Any] = {
    "lstm": lambda: recurrent("LSTM"),
    "lstm, backwards": lambda: recurrent("LSTM", ',direction="reverse"'),
    "lstm, both ways": lambda: recurrent("LSTM", ',direction="bidirectional"'),
    "gru": lambda: recurrent("GRU"),
    "gru, reset behind": lambda: recurrent("GRU", ",linear_before_reset=1"),
    "rnn": lambda: recurrent("RNN"),
    "steps first": lambda: recurrent("RNN", behind="steps first"),
    "read by a product too": lambda: recurrent("GRU", ',direction="bidirectional"', behind="both"),
}
NETS = {**WEIGHTED, **STEPS}


@cache
def net(name: str) -> Net:
    found: Net = NETS[name]()
    assert found.groups
    return found


# --- the slow way ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """What was run: inputs and the loss as one number for every output, sum(loss * y), chunk by chunk."""

    inputs: list[np.ndarray]
    loss: list[torch.Tensor]


def runner_of(model: Model, loss: str = "outputs", classifies: bool = False, seed: int = 5) -> SlopeRunner:
    return SlopeRunner(Executor(model), loss, classifies, seed, mark=slope(""))


def drawn(feed: Feed, runner: SlopeRunner) -> Drawn:
    """The gradient at the output says what was drawn."""
    chunks, (output,) = list(enumerate(feed.chunks(SLOPE_CHUNK))), runner.executor.model.outputs
    slopes = [runner(number, chunk, [], [output])[slope(output)].astype(np.float64) for number, chunk in chunks]
    return Drawn([chunk.inputs["x"].astype(np.float64) for _, chunk in chunks], [torch.tensor(one) for one in slopes])


def total_loss(outputs: Mapping[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    (found,) = outputs.values()
    return (found * weights).sum()


def weight_gradients(model: Model, seen: Drawn, names: list[str]) -> list[dict[str, np.ndarray]]:
    """Gradients of initializers, sample by sample in a loop, chunk by chunk: [samples, ...]."""
    executor = Executor(model, dtype=torch.float64)
    return [
        {
            name: found.numpy()
            for name, found in per_sample_gradients(
                executor, {"x": x}, total_loss, parameters=names, targets=weights, method="loop"
            ).items()
        }
        for x, weights in zip(seen.inputs, seen.loss, strict=True)
    ]


def matrix_gradients(part: Part, own: Mapping[str, np.ndarray]) -> np.ndarray:
    """Gradients of a part's matrix without its bias: [samples, outputs, columns]."""
    (source,) = part.weights
    return np.array([source.read(one) / source.scale**2 for one in own[source.tensor]])


def collected(net: Net, feed: Feed, probes: list[Probe], loss: str = "outputs", **settings: Any) -> dict[str, Any]:
    return collect(net.model, feed, probes, workers=1, runners={loss: runner_of(net.model, loss, **settings)})


def felt(model: Model, group: Group, seen: Drawn, step: float = 1e-6) -> np.ndarray:
    """u by finite differences: the loss of every sample when a channel is scaled where it is read."""
    executor = Executor(model, dtype=torch.float64)
    places = {
        (site.tensor, site.axis): site.index
        for site in group.sites
        if site.role == "in"
        and not (model.node(site.node).op in RECURRENT and site.tensor == model.node(site.node).inputs[2])
    }

    def losses(channel: int, factor: float) -> np.ndarray:
        weights = {name: model.constants[name].astype(np.float64) for name, _ in places}
        for (name, axis), index in places.items():
            np.moveaxis(weights[name], axis, 0)[index[channel]] *= factor
        scaled = {name: torch.from_numpy(array) for name, array in weights.items()}
        rows = []
        for x, loss in zip(seen.inputs, seen.loss, strict=True):
            (found,) = executor.run({"x": x}, parameters=scaled).values()
            own = found * loss
            rows.append((own if len(own) == len(x) else own.movedim(1, 0)).flatten(1).sum(1))  # or steps first
        return torch.cat(rows).numpy()

    columns = [(losses(c, 1 + step) - losses(c, 1 - step)) / (2 * step) for c in range(group.size)]
    return np.array(columns).T


# --- squared gradients of weights ------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTED)
def test_squared_gradients_are_those_of_a_loop_over_samples(name: str) -> None:
    this, count = net(name), 12
    feed = this.feed(count)
    seen = drawn(feed, runner_of(this.model))
    checked = 0
    for group in this.groups:
        readers = readers_of(this.model, group)
        probe = gates_of(this.model, group, "outputs")
        found: Gates = collected(this, feed, [probe])[probe.name]
        assert found.parts.keys() <= {reader.part.name for reader in readers}
        names = list(dict.fromkeys(source.tensor for reader in readers for source in reader.part.weights))
        loops = weight_gradients(this.model, seen, names) if names else []
        by_part = {reader.part.name: reader.part for reader in readers}
        for part, slopes in ((by_part[key], slopes) for key, slopes in found.parts.items()):
            wanted = np.concatenate([matrix_gradients(part, own) for own in loops])
            assert slopes.samples == count and slopes.steps == 2
            assert slopes.fisher.shape == (part.outputs, part.columns + 1)
            assert relative(slopes.fisher[:, :-1], np.square(wanted).sum(0)) < 1e-4
            assert relative(slopes.mean, slopes.fisher / count) == 0
            checked += 1
    assert checked or name == "merged with the batch"


@pytest.mark.parametrize("name", ["gemm", "conv", "flattened", "strided", "tokens in one axis"])
def test_the_last_column_is_that_of_the_bias(name: str) -> None:
    this = net(name)
    feed = this.feed(10)
    seen = drawn(feed, runner_of(this.model))
    group = this.groups[-1]
    (reader,) = readers_of(this.model, group)
    (bias,) = reader.part.bias
    probe = gates_of(this.model, group, "outputs")
    found = collected(this, feed, [probe])[probe.name].parts[reader.part.name]
    loops = np.concatenate([own[bias.tensor] for own in weight_gradients(this.model, seen, [bias.tensor])])
    wanted = np.array([bias.read(one)[:, 0] / bias.scale**2 for one in loops])
    assert relative(found.fisher[:, -1], np.square(wanted).sum(0)) < 1e-4


def test_parts_that_share_weights_share_a_gradient() -> None:
    """The square of a sum is no sum of squares."""
    this = net("shared weights")
    group = this.groups[0]
    first, second = readers_of(this.model, group)
    probe = gates_of(this.model, group, "outputs")
    feed = this.feed(12)
    found = collected(this, feed, [probe])[probe.name]
    assert list(found.parts) == [first.part.name]
    alone = [gates_probe("alone", group.size, [reader], "outputs") for reader in (first, second)]
    apart = [collected(this, feed, [one])["alone@outputs/gates"].parts for one in alone]
    squares = sum(parts[reader.part.name].fisher for parts, reader in zip(apart, (first, second), strict=True))
    assert relative(found.parts[first.part.name].fisher, np.asarray(squares)) > 0.05


@pytest.mark.parametrize("count", [5, 8, 150])
@pytest.mark.parametrize("name", ["gemm", "flattened", "matmul and add"])
def test_the_stream_is_the_second_moment_of_adam(name: str, count: int) -> None:
    this = net(name)
    feed = this.feed(count)
    seen = drawn(feed, runner_of(this.model))
    group = this.groups[0]
    (reader,) = readers_of(this.model, group)
    (source,) = reader.part.weights
    parameter = torch.zeros(source.shape, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], betas=(0.9, BETA))
    for own in weight_gradients(this.model, seen, [source.tensor]):
        parameter.grad = torch.from_numpy(own[source.tensor].mean(0))
        adam.step()
    probe = gates_of(this.model, group, "outputs")
    found = collected(this, feed, [probe])[probe.name].parts[reader.part.name]
    wanted = source.read(adam.state[parameter]["exp_avg_sq"].numpy()) / source.scale**3
    assert found.steps == -(-count // SLOPE_CHUNK)
    assert relative(found.stream[:, :-1], wanted) < 1e-4
    assert relative(found.adam, found.stream / (1 - BETA**found.steps)) < 1e-12
    if found.steps == 1:  # the bias-corrected moment of one step is the square itself
        assert relative(found.adam[:, :-1], wanted / (1 - BETA)) < 1e-4


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_streams_merge_in_any_grouping(sizes: list[int], data: st.DataObject) -> None:
    random = np.random.default_rng(len(sizes))
    chunks = [Slopes.of(random.random((2, 3)), random.standard_normal((2, 3)), size) for size in sizes]
    wanted = np.zeros((2, 3))
    for chunk in chunks:
        wanted = BETA * wanted + chunk.stream
    parts = list(chunks)
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [parts[at].merge(parts[at + 1])]
    assert relative(parts[0].stream, wanted) < 1e-12
    assert (parts[0].steps, parts[0].samples) == (len(sizes), sum(sizes))
    assert relative(parts[0].fisher, sum((chunk.fisher for chunk in chunks), np.zeros((2, 3)))) < 1e-12


# --- gates -----------------------------------------------------------------------------------------------


def check_gates(found: Gates, wanted: np.ndarray) -> None:
    assert found.samples == len(wanted)
    assert relative(found.total, wanted.sum(0)) < 1e-3
    assert relative(found.absolute, np.abs(wanted).sum(0)) < 1e-3
    assert relative(found.square, np.square(wanted).sum(0)) < 1e-3


@pytest.mark.parametrize("name", [name for name in NETS if name != "merged with the batch"])
def test_gates_are_finite_differences(name: str) -> None:
    """Chunks of 8 and 3 samples; 7 steps or 5 tokens."""
    this = net(name)
    feed = this.feed(11)
    seen = drawn(feed, runner_of(this.model))
    for group in this.groups:
        probe = gates_of(this.model, group, "outputs")
        found = collected(this, feed, [probe])[probe.name]
        wanted = felt(this.model, group, seen)
        assert np.abs(wanted).max() > 1e-4
        check_gates(found, wanted)


@pytest.mark.parametrize("name", ["crnn", "gru_denoiser", "vit"])
def test_gates_of_exported_networks(name: str) -> None:
    """As torch writes them: steps first and not, heads, bidirectional layers on top of each other."""
    network, samples = exported(name, LEGACY)
    model = normalize(network, [samples]).model
    this = Net(model, samples["x"].shape[1:])
    feed = this.feed(11)
    seen = drawn(feed, runner_of(model))
    for group in this.groups:
        probe = gates_of(model, group, "outputs")
        check_gates(collected(this, feed, [probe])[probe.name], felt(model, group, seen))


@pytest.mark.parametrize("loss", ["answer", "labels"])
@pytest.mark.parametrize("name", ["gemm", "flattened", "strided"])
def test_gates_of_a_classifier(name: str, loss: str) -> None:
    this = net(name)
    feed = this.feed(11)
    seen = drawn(feed, runner_of(this.model, loss, classifies=True))
    assert all(bool(((weights > 0).sum(1) == 1).all()) for weights in seen.loss)
    for group in this.groups:
        probe = gates_of(this.model, group, loss)
        found = collected(this, feed, [probe], loss, classifies=True)[probe.name]
        check_gates(found, felt(this.model, group, seen))


def test_a_group_that_nobody_can_be_refitted_behind_is_felt_by_nothing() -> None:
    model = parse("a = MatMul(x, w1)  b = Relu(a)  n = Neg(w2)  y = MatMul(b, n)", x="N,4", outputs="float[N,3] y",
                  w1=kernel(4, 5), w2=kernel(5, 3))  # fmt: skip
    probe = gates_probe("nobody", 5, (), "outputs")
    found = collected(Net(model, (4,)), Net(model, (4,)).feed(9), [probe])[probe.name]
    assert found.samples == 9 and not found.square.any() and found.total.shape == (5,) and not found.parts


def test_rows_that_no_axis_tells_apart_count_as_one_sample() -> None:
    """Three samples, four rows: nobody can say whose they are."""
    random = np.random.default_rng(0)
    model = parse("y = Gemm(x, w, b)", x="N,4", outputs="float[N,3] y", w=kernel(4, 3), b=B[:3])
    part = view_of(model)
    x, g = random.standard_normal((4, 4)).astype(np.float32), random.standard_normal((4, 3)).astype(np.float32)
    probe = gates_probe("g", 4, [Reader(part, np.arange(4), 4)], "outputs")
    found = probe.observe({"x": x, slope("y"): g, SAMPLES: np.array(3)}, 0)
    total = (g.T @ x) * part.matrix()[:, :-1]
    assert found.samples == 3
    assert relative(found.total, total.sum(0)) < 1e-5
    assert relative(found.square, np.square(total.sum(0))) < 1e-5
    assert relative(found.parts[part.name].fisher[:, :-1], np.square(g.T @ x)) < 1e-5


# --- Kronecker factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTED)
def test_outer_products_are_those_of_a_loop_over_positions(name: str) -> None:
    this, count = net(name), 11
    feed = this.feed(count)
    seen = drawn(feed, runner_of(this.model))
    executor = Executor(this.model, dtype=torch.float64)
    for reader in (reader for group in this.groups for reader in readers_of(this.model, group)):
        part, answer = reader.part, reader.part.geometry.answer
        assert answer is not None
        wanted, rows = np.zeros((part.outputs, part.outputs)), 0
        for x, weights in zip(seen.inputs, seen.loss, strict=True):
            found = gradients(executor, {"x": x}, total_loss, parameters=[], capture=[answer], targets=weights)
            for g in part.geometry.outputs(found.tensor_gradients[answer].numpy(), None):
                wanted += np.outer(g, g)
                rows += 1
        probe = outer_probe(part, "outputs")
        outer: Outer = collected(this, feed, [probe])[probe.name]
        assert (outer.rows, outer.samples) == (rows, count)
        assert relative(outer.total, wanted) < 1e-4
        assert relative(outer.mean, wanted / rows) < 1e-4


def test_the_gates_of_a_recurrent_operator_have_no_outer_products() -> None:
    this = net("lstm")
    part = next(r.part for r in readers_of(this.model, this.groups[0]) if r.part.geometry.answer is None)
    with pytest.raises(ValueError, match="no tensor"):
        outer_probe(part, "outputs")


def test_factors_are_exact_where_inputs_and_gradients_are_independent() -> None:
    """Every input with every gradient: the Fisher information of the matrix is G (x) A, entry by entry."""
    random = np.random.default_rng(1)
    model = parse("y = Gemm<transB=1>(x, w, b)", x="N,3", outputs="float[N,2] y", w=kernel(2, 3), b=B[:2])
    part = view_of(model)
    inputs, slopes = random.standard_normal((5, 3)), random.standard_normal((4, 2))
    x = np.repeat(inputs, 4, axis=0).astype(np.float32)
    g = np.tile(slopes, (5, 1)).astype(np.float32)
    values = {"x": x, slope("y"): g, SAMPLES: np.array(20)}
    full = np.zeros((8, 8))
    for row, way in zip(np.column_stack([x, np.ones(20)]), g, strict=True):
        full += np.outer(np.outer(way, row).ravel(), np.outer(way, row).ravel()) / 20
    rows = np.column_stack([x, np.ones(20)]).astype(np.float64)
    outer = outer_probe(part, "outputs").observe(values, 0)
    assert relative(np.kron(outer.mean, rows.T @ rows / 20), full) < 1e-6
    gates = gates_probe("g", 3, [Reader(part, np.arange(3), 3)], "outputs").observe(values, 0)
    assert relative(gates.parts[part.name].mean.ravel(), np.diag(full)) < 1e-6
