"""KFAC against explicit Kronecker products: costs, orders, compensating updates, spectral radii."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numeric_tools import relative, run
from quantize_tools import kernel, parse
from test_slopes import Net, net

from edgepress.calibrate.fits import Fit
from edgepress.calibrate.ridge import pulls
from edgepress.calibrate.run import SLOPE_CHUNK
from edgepress.calibrate.slopes import Outer
from edgepress.calibrate.statistics import slope
from edgepress.executor import Executor
from edgepress.executor.slopes import SlopeRunner
from edgepress.groups import Group
from edgepress.pipeline.observing import observe
from edgepress.scores import Redundancy
from edgepress.scores.base import consumers, order_of
from edgepress.scores.elimination import RIDGE
from edgepress.scores.kfac import DAMPING, FLATNESS, Kfac, compensated, damped
from edgepress.scores.readers import makers

B = kernel(99, 1).ravel()
SEED, COUNT, EVERY = 5, 20, 1000


def small(behind: str = "y = Gemm<transB=1>(r, w2, b2)", **weights: np.ndarray) -> Net:
    """Few channels, so that Kronecker products stay small."""
    arrays = {"w1": 2 * kernel(5, 6), "b1": B[:5], **(weights or {"w2": kernel(3, 5), "b2": B[:3]})}
    body = f"a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  {behind}"
    return Net(parse(body, x="N,6", outputs="float[N,K] y", arrays=arrays), (6,))


def pictures(second: str, w2: np.ndarray) -> Net:
    """A Conv behind a Conv."""
    arrays = {"w1": 2 * kernel(4, 2, 3, 3), "b1": B[:4], "w2": w2, "b2": B[:3]}
    body = f"a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)  y = {second}(r, w2, b2)"
    return Net(parse(body, x="N,2,4,4", outputs="float y", arrays=arrays), (2, 4, 4))


def deep() -> Net:
    """Gradients of the hidden layers have full rank."""
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  c = Gemm<transB=1>(r, w2, b2)  s = Tanh(c)
        y = Gemm<transB=1>(s, w3, b3)"""
    arrays = {"w1": 2 * kernel(5, 6), "b1": B[:5], "w2": 2 * kernel(4, 5), "b2": B[:4], "w3": kernel(6, 4)}
    return Net(parse(body, x="N,6", outputs="float[N,6] y", arrays=arrays, b3=B[:6]), (6,))


NETS: Mapping[str, Any] = {
    "gemm": small,
    "no bias": lambda: small("y = MatMul(r, w2)", w2=kernel(5, 3)),
    "two consumers": lambda: small(
        "p = Gemm<transB=1>(r, w2, b2)  q = MatMul(r, w3)  y = Concat<axis=1>(p, q)", w2=kernel(3, 5), b2=B[:3],
        w3=kernel(5, 2)),
    "shared weights": lambda: small(
        "t = Sigmoid(a)  p = Gemm<transB=1>(r, w2, b2)  q = Gemm<transB=1>(t, w2, b3)  y = Concat<axis=1>(p, q)",
        w2=kernel(3, 5), b2=B[:3], b3=B[3:6]),
    "deep": deep,
    "conv": lambda: pictures("Conv<kernel_shape=[2,2],pads=[0,0,1,1]>", kernel(3, 4, 2, 2)),
    "conv transpose": lambda: pictures("ConvTranspose<kernel_shape=[2,2],strides=[2,2]>", kernel(4, 3, 2, 2)),
    "overlapping conv transpose": lambda: pictures("ConvTranspose<kernel_shape=[3,3],strides=[2,2]>",
                                                   kernel(4, 3, 3, 3)),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network and everything that was observed on it."""

    net: Net
    statistics: Mapping[str, Any]
    values: Mapping[str, np.ndarray]

    def score(self, method: Any = "obs", flatness: float = 0.0) -> Kfac:
        return Kfac(EVERY, "outputs", SEED, method, flatness)

    def factors(self, fit: Fit) -> tuple[np.ndarray, np.ndarray, float]:
        """A, G and the positions of a sample, of all rows put below each other."""
        rows, felt = [], []
        for part in fit.parts:
            place, own = fit.place(part), part.rows(self.values, None)
            wide = np.zeros((len(own), fit.width))
            wide[:, place] = own[:, : len(place)]
            rows.append(wide)
            assert part.geometry.answer is not None
            felt.append(part.geometry.outputs(self.values[slope(part.geometry.answer)], None).astype(np.float64))
        x, g = np.concatenate(rows), np.concatenate(felt)
        return x.T @ x / len(x), g.T @ g / len(g), len(x) / COUNT


@cache
def case(name: str) -> Case:
    this: Net = NETS[name]()
    feed, model = this.feed(COUNT), this.model
    probes = [
        probe
        for group in this.groups
        for method in ("obs", "obd", "rows")
        for probe in Kfac(EVERY, "outputs", SEED, method).needs(model, group)
    ]
    found = observe(model, feed, probes, classifies=False, workers=1, seed=SEED)
    tensors = [output for node in model.nodes for output in node.outputs]
    runner = SlopeRunner(Executor(model), "outputs", False, SEED, mark=slope(""))
    parts = [runner(number, chunk, [], tensors) for number, chunk in enumerate(feed.chunks(SLOPE_CHUNK))]
    values = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    x = np.concatenate([chunk.inputs["x"] for chunk in feed.chunks(SLOPE_CHUNK)])
    values |= dict(zip(tensors, run(model, {"x": x}, tensors), strict=True)) | {"x": x}
    return Case(this, found, values)


def groups() -> list[tuple[str, int]]:
    return [(name, number) for name in NETS for number in range(2 if name == "deep" else 1)]


each = pytest.mark.parametrize(("name", "number"), groups())


def quadratic(curvature: np.ndarray, given: np.ndarray, gone: np.ndarray) -> tuple[float, np.ndarray]:
    """The least 1/2 d^T F d of all changes d with d = -w at the removed weights, and that change."""
    kept = ~gone
    change = np.zeros(len(given))
    change[gone] = -given[gone]
    change[kept] = np.linalg.lstsq(curvature[np.ix_(kept, kept)], curvature[np.ix_(kept, gone)] @ given[gone],
                                   rcond=1e-12)[0]  # fmt: skip
    return float(0.5 * change @ curvature @ change), change


def columns(fit: Fit, blocks: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Which entries of the flattened matrix read some channels."""
    mask = np.zeros((fit.outputs, fit.width), bool)
    mask[:, blocks[list(channels)].ravel()] = True
    return mask.ravel()


def surgeon(this: Case, group: Group, channels: Sequence[int]) -> float:
    """Optimal Brain Surgeon on vec(W) of every consumer, under the ridge of the ranking."""
    total = 0.0
    for fit, blocks in consumers(this.net.model, group):
        a, g, positions = this.factors(fit)
        curvature = positions * np.kron(g, a + np.diag(pulls(a, RIDGE, fit.biases)))
        total += quadratic(curvature, fit.matrix(this.net.model.constants).ravel(), columns(fit, blocks, channels))[0]
    return total


# --- costs -----------------------------------------------------------------------------------------------


@each
def test_damage_is_the_quadratic_form_of_the_removed_weights(name: str, number: int) -> None:
    this = case(name)
    group = this.net.groups[number]
    wanted = np.zeros(group.size)
    for fit, blocks in consumers(this.net.model, group):
        a, g, positions = this.factors(fit)
        curvature = positions * np.kron(g, a)
        matrix = fit.matrix(this.net.model.constants).ravel()
        for channel in range(group.size):
            removed = np.where(columns(fit, blocks, [channel]), matrix, 0)
            wanted[channel] += 0.5 * removed @ curvature @ removed
    found = this.score("obd").score(this.net.model, group, this.statistics)
    assert found.dtype == np.float64 and relative(found, wanted) < 1e-4
    assert order_of(this.score("obd"), this.net.model, group, this.statistics).tolist() == np.argsort(found).tolist()


@each
def test_surgery_is_the_constrained_least_of_the_quadratic_form_step_by_step(name: str, number: int) -> None:
    this = case(name)
    group = this.net.groups[number]
    order = order_of(this.score(), this.net.model, group, this.statistics).tolist()
    costs = [surgeon(this, group, order[:count]) for count in range(group.size + 1)]
    found = this.score().score(this.net.model, group, this.statistics)
    assert found[order] == pytest.approx(np.diff(costs), rel=1e-3, abs=1e-4 * costs[-1])
    for count in range(group.size):
        others = [surgeon(this, group, [*order[:count], channel]) for channel in order[count:]]
        assert others[0] <= min(others) + 1e-4 * costs[-1]


@each
def test_surgery_never_costs_more_than_damage(name: str, number: int) -> None:
    """Of the first channel; but for the ridge."""
    this = case(name)
    group = this.net.groups[number]
    first = int(order_of(this.score(), this.net.model, group, this.statistics)[0])
    surgery = this.score().score(this.net.model, group, this.statistics)[first]
    assert surgery <= 1.1 * this.score("obd").score(this.net.model, group, this.statistics)[first]


@each
def test_rows_are_removed_with_their_siblings_making_up_for_them(name: str, number: int) -> None:
    this = case(name)
    group = this.net.groups[number]
    wanted = np.zeros(group.size)
    for fit, owner in makers(this.net.model, group):
        a, g, positions = this.factors(fit)
        g = g + DAMPING * np.trace(g) / len(g) * np.eye(len(g))
        matrix = fit.matrix(this.net.model.constants)
        for row, channel in enumerate(owner):
            gone = np.zeros(matrix.shape, bool)
            gone[row] = True
            cost, change = quadratic(positions * np.kron(g, a), matrix.ravel(), gone.ravel())
            wanted[channel] += cost
            mended = matrix + change.reshape(matrix.shape)
            # where A lacks a direction the change along it is free: compare what the layer does
            assert relative(compensated(matrix, this.factors(fit)[1], row) @ a, mended @ a) < 1e-5
            assert np.abs(compensated(matrix, g, row)[row]).max() < 1e-12
    found = this.score("rows").score(this.net.model, group, this.statistics)
    assert relative(found, wanted) < 1e-3


def test_damping_makes_any_factor_invertible() -> None:
    assert np.linalg.inv(damped(np.zeros((3, 3)))).shape == (3, 3)
    assert damped(np.diag([2.0, 0.0])) == pytest.approx(np.diag([2.0, 0.0]) + DAMPING * np.eye(2))


@pytest.mark.parametrize("name", ["gemm", "no bias", "shared weights", "conv", "overlapping conv transpose"])
def test_without_a_metric_surgery_is_redundancy(name: str) -> None:
    """G = identity: the same order, and the same costs but for the unit they are measured in."""
    this = case(name)
    group, model = this.net.groups[0], this.net.model
    plain = {
        key: dataclasses.replace(one, total=one.rows * np.eye(len(one.total))) if isinstance(one, Outer) else one
        for key, one in this.statistics.items()
    }
    ranking = Redundancy(EVERY, SEED).rank(model, group, this.statistics)
    assert ranking.free == 0
    assert order_of(this.score(), model, group, plain).tolist() == ranking.order.tolist()
    ratio = this.score().score(model, group, plain) / ranking.added
    assert ratio == pytest.approx(np.full(group.size, ratio[0]), rel=1e-3)


def test_a_metric_that_feels_one_output_only_takes_what_others_need() -> None:
    """The Gauss-Newton metric is what makes the difference to redundancy."""
    this = case("gemm")
    group, model = this.net.groups[0], this.net.model
    w2 = model.constants["w2"]
    deaf = {
        key: dataclasses.replace(one, total=one.rows * np.diag([0.0, 0.0, 1.0]))
        if isinstance(one, Outer) and len(one.total) == 3
        else one
        for key, one in this.statistics.items()
    }
    idle = int(np.abs(w2[2]).argmin())
    found = this.score("obd").score(model, group, deaf)
    squares = np.diag(this.factors(consumers(model, group)[0][0])[0])[: group.size]
    assert found == pytest.approx(0.5 * squares * w2[2] ** 2, rel=1e-4)
    assert found[idle] < found.max() / 10


# --- flatness --------------------------------------------------------------------------------------------


def without(matrix: np.ndarray, rows: np.ndarray) -> float:
    kept = np.setdiff1d(np.arange(len(matrix)), rows)
    return float(np.linalg.eigvalsh(matrix[np.ix_(kept, kept)])[-1]) if kept.size else 0.0


def falls(this: Case, group: Group) -> np.ndarray:
    """The largest share of a layer's spectral radius that goes with every channel, rows deleted one by one."""
    found = []
    for fit, blocks in consumers(this.net.model, group):
        a = this.factors(fit)[0]
        found.append([1 - without(a, rows) / without(a, np.array([], int)) for rows in blocks])
    for fit, owner in makers(this.net.model, group):
        g = this.factors(fit)[1]
        rows_of = [np.flatnonzero(owner == channel) for channel in range(group.size)]
        found.append([1 - without(g, rows) / without(g, np.array([], int)) for rows in rows_of])
    return np.asarray(np.max(found, axis=0))


@each
def test_the_fall_of_the_radius_is_that_of_rows_deleted(name: str, number: int) -> None:
    this = case(name)
    group = this.net.groups[number]
    found = this.score().fall(this.net.model, group, this.statistics)
    assert np.abs(found - falls(this, group)).max() < 1e-4
    assert ((found >= 0) & (found <= 1)).all() and found.max() > 0.01


@each
def test_the_radius_is_that_of_the_kronecker_product(name: str, number: int) -> None:
    this = case(name)
    group = this.net.groups[number]
    found = this.score().radius(this.net.model, group, this.statistics)
    fits = [fit for fit, _ in consumers(this.net.model, group)]
    assert found.keys() == {fit.name for fit in fits}
    for fit in fits:
        a, g, _ = this.factors(fit)
        assert found[fit.name] == pytest.approx(np.linalg.eigvalsh(np.kron(g, a))[-1], rel=1e-4)


@each
@pytest.mark.parametrize("method", ["obd", "rows"])
def test_flatness_lowers_costs_by_its_share_at_most(name: str, number: int, method: str) -> None:
    this = case(name)
    group, model = this.net.groups[number], this.net.model
    plain = this.score(method).score(model, group, this.statistics)
    flat = Kfac(EVERY, "outputs", SEED, method).score(model, group, this.statistics)  # type: ignore[arg-type]
    fall = falls(this, group)
    assert flat == pytest.approx(plain * (1 - FLATNESS * fall / fall.max()), rel=1e-4)
    assert (flat <= plain).all() and (flat >= (1 - FLATNESS - 1e-9) * plain).all()


@each
@pytest.mark.parametrize("flatness", [FLATNESS, 0.95])
def test_flatness_weighs_in_at_every_step_of_surgery(name: str, number: int, flatness: float) -> None:
    this = case(name)
    group, model = this.net.groups[number], this.net.model
    score = this.score(flatness=flatness)
    fall = falls(this, group)
    forgiven = 1 - flatness * fall / fall.max()
    order = order_of(score, model, group, this.statistics).tolist()
    costs = np.array([surgeon(this, group, order[:count]) for count in range(group.size + 1)])
    found = score.score(model, group, this.statistics)
    assert found[order] == pytest.approx(np.diff(costs) * forgiven[order], rel=1e-3, abs=1e-4 * costs[-1])
    for count in range(group.size):
        steps = [
            (surgeon(this, group, [*order[:count], channel]) - costs[count]) * forgiven[channel]
            for channel in order[count:]
        ]
        assert steps[0] <= min(steps) + 1e-4 * costs[-1]


def test_of_equals_the_one_that_makes_the_net_flatter_goes_first() -> None:
    """Two channels of the same cost: the louder one with the smaller weight takes the radius along."""
    this = net("gemm")
    w1, b1, w2 = (this.model.constants[name].copy() for name in ("w1", "b1", "w2"))
    w1[3], b1[3], w2[3] = 3 * w1[2], 3 * b1[2], w2[2] / 3
    twins = Net(this.model.with_constants({"w1": w1, "b1": b1, "w2": w2}), this.shape)
    (group,) = twins.groups
    score = Kfac(EVERY, "outputs", SEED, "obd")
    found = observe(twins.model, twins.feed(40), score.needs(twins.model, group), classifies=False, workers=1, seed=0)
    plain = dataclasses.replace(score, flatness=0.0).score(twins.model, group, found)
    assert plain[3] == pytest.approx(plain[2], rel=1e-4)
    order = order_of(score, twins.model, group, found).tolist()
    assert order.index(3) < order.index(2)


def test_a_layer_of_zeros_has_no_radius_that_could_fall() -> None:
    this = small()
    dead = {"w1": np.zeros((5, 6), np.float32), "b1": -np.ones(5, np.float32), "w2": np.zeros((3, 5), np.float32)}
    idle = Net(this.model.with_constants(dead), this.shape)
    (group,) = idle.groups
    for method in ("obs", "obd", "rows"):
        score = Kfac(EVERY, "outputs", SEED, method)
        found = observe(idle.model, idle.feed(9), score.needs(idle.model, group), classifies=False, workers=1, seed=0)
        assert not score.fall(idle.model, group, found).any()
        own = score.score(idle.model, group, found)
        assert (own >= 0).all() and own.max() < 1e-25


# --- what is observed ------------------------------------------------------------------------------------


def test_positions_are_those_of_a_sample_also_where_samples_and_positions_share_an_axis() -> None:
    """The same layer over [samples, tokens] and [samples * tokens]: the same costs."""
    weights = {"w1": 2 * kernel(10, 8), "w2": kernel(8, 3)}
    apart = parse("a = MatMul(x, w1)  r = Relu(a)  y = MatMul(r, w2)", x="N,5,10", outputs="float y", arrays=weights)
    together = parse(
        "f = Reshape(x, flat)  a = MatMul(f, w1)  r = Relu(a)  c = MatMul(r, w2)  y = Reshape(c, back)", x="N,5,10",
        outputs="float y", arrays={**weights, "flat": np.array([-1, 10]), "back": np.array([-1, 5, 3])},
    )  # fmt: skip
    scores = []
    for model in (apart, together):
        this = Net(model, (5, 10))
        (group,) = this.groups
        for method in ("obs", "obd", "rows"):
            score = Kfac(EVERY, "outputs", SEED, method)
            found = observe(model, this.feed(20), score.needs(model, group), classifies=False, workers=1, seed=0)
            scores.append(score.score(model, group, found))
    for first, second in zip(scores[:3], scores[3:], strict=True):
        assert first == pytest.approx(second, rel=1e-4)


def test_the_producers_are_observed_only_where_they_are_needed() -> None:
    this = small()
    (group,) = this.groups
    names = {
        (method, flatness): [probe.name for probe in Kfac(9, "outputs", 0, method, flatness).needs(this.model, group)]
        for method in ("obs", "rows")
        for flatness in (0.0, 0.1)
    }
    made = "/net/Gemm.0"
    assert [any(made in name for name in names["obs", flatness]) for flatness in (0.0, 0.1)] == [False, True]
    assert made in names["rows", 0.0] and f"{made}@outputs/outer" in names["rows", 0.0]


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm, both ways"])
def test_gates_of_recurrent_operators_have_no_metric(name: str) -> None:
    this = net(name)
    for group in this.groups:
        for method in ("obs", "obd", "rows"):
            score = Kfac(9, "outputs", SEED, method)
            found = observe(this.model, this.feed(20), score.needs(this.model, group), classifies=False, workers=1,
                            seed=0)  # fmt: skip
            own = score.score(this.model, group, found)
            assert own.shape == (group.size,) and np.isfinite(own).all() and (own >= 0).all()
            read = {fit.name for fit, _ in consumers(this.model, group) if fit.parts[0].geometry.answer is not None}
            assert score.radius(this.model, group, found).keys() == read
