"""Redundancy: a removal costs what removing and refitting costs; exactly the unneeded channels are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numeric_tools import feed_of, matrix_of, relative, run
from planted import KINDS, SIZE, Planted, cnn, mlp
from quantize_tools import CONV, kernel, parse

from edgepress.calibrate.fits import Fit
from edgepress.calibrate.run import collect
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.scores import Ranking, Redundancy, elimination
from edgepress.scores.base import consumers

HEAD = "a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)"
B = kernel(99, 1).ravel()


@dataclass(frozen=True)
class Case:
    """A model, its first prunable group and samples."""

    model: Model
    x: np.ndarray

    @property
    def group(self) -> Group:
        return find_groups(self.model).prunable[0]

    @property
    def views(self) -> list[tuple[Fit, np.ndarray]]:
        return list(consumers(self.model, self.group))

    def statistics(self) -> dict[str, Any]:
        probes = Redundancy(positions=1000).needs(self.model, self.group)
        return collect(self.model, feed_of(self.model, {"x": self.x}), probes, workers=1)

    def rank(self) -> Ranking:
        return Redundancy(positions=1000).rank(self.model, self.group, self.statistics())


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


DENSE: Any = {"w1": kernel(6, 8), "b1": B[:6]}
CASES = {
    "gemm": Case(
        parse(f"{HEAD}  y = Gemm<transB=1>(r, w2, b2)", x="N,8", outputs="float[N,3] y", w2=kernel(3, 6), b2=B[:3],
              **DENSE), draw(80, 8)),
    "no bias": Case(
        parse(f"{HEAD}  y = MatMul(r, w2)", x="N,8", outputs="float[N,3] y", w2=kernel(6, 3), **DENSE), draw(80, 8)),
    "padded conv": Case(
        parse(f"a = {CONV}(x, w1, b1)  r = Relu(a)  y = {CONV}(r, w2, b2)", x="N,2,5,5",
              w1=kernel(6, 2, 3, 3), b1=B[:6], w2=kernel(3, 6, 3, 3), b2=B[:3]), draw(40, 2, 5, 5)),
    "flattened": Case(
        parse("a = Conv<kernel_shape=[3,3]>(x, w1, b1)  r = Relu(a)  f = Flatten(r)  y = Gemm(f, w2, b2)",
              x="N,2,4,4", outputs="float[N,3] y", w1=kernel(5, 2, 3, 3), b1=B[:5], w2=kernel(20, 3), b2=B[:3]),
        draw(200, 2, 4, 4)),
    "two consumers": Case(
        parse(f"{HEAD}  y = Gemm<transB=1>(r, w2, b2)  z = Gemm(r, w3)", x="N,8",
              outputs="float[N,3] y, float[N,4] z", w2=kernel(3, 6), b2=B[:3], w3=10 * kernel(6, 4), **DENSE),
        draw(80, 8)),
    "concatenated": Case(
        parse(f"{HEAD}  c = Gemm<transB=1>(x, w3, b3)  s = Relu(c)  j = Concat<axis=1>(r, s)  y = Gemm(j, w2, b2)",
              x="N,8", outputs="float[N,3] y", w2=kernel(11, 3), b2=B[:3], w3=kernel(5, 8), b3=B[:5], **DENSE),
        draw(80, 8)),
}  # fmt: skip


class Oracle:
    """The ridge objective of one case, minimized by numpy over the columns that are left, for every consumer."""

    def __init__(self, case: Case) -> None:
        self.problems = []
        for fit, blocks in case.views:
            (view,) = fit.parts
            names = list(view.geometry.tensors)
            values = dict(zip(names, run(case.model, {"x": case.x}, names), strict=True))
            rows, targets = view.rows(values, None), view.targets(values, None)
            given = matrix_of(case.model, view)
            pull = np.full(view.columns + 1, elimination.RIDGE * (rows[:, :-1] ** 2).mean())
            pull[-1] = 1e-9
            if not view.bias:
                rows, given, pull = rows[:, :-1], given[:, :-1], pull[:-1]
            self.problems.append((rows, targets, given, pull, blocks, targets.var(0).sum()))

    def objective(self, removed: Sequence[int]) -> float:
        """Sum over consumers, each relative to the variance of its outputs."""
        return sum(self._one(*problem, removed=removed) for problem in self.problems)

    def _one(
        self, rows: np.ndarray, targets: np.ndarray, given: np.ndarray, pull: np.ndarray, blocks: np.ndarray,
        energy: float, removed: Sequence[int],
    ) -> float:  # fmt: skip
        gone = blocks[list(removed)].ravel()
        keep = np.setdiff1d(np.arange(rows.shape[1]), gone)
        weight = np.sqrt(len(rows) * pull[keep])
        x = np.concatenate([rows[:, keep], np.diag(weight)])
        y = np.concatenate([targets, (given[:, keep] * weight).T])
        fitted = np.linalg.lstsq(x, y, rcond=None)[0]
        lost = float((pull[gone] * given[:, gone] ** 2).sum())
        return float((((y - x @ fitted) ** 2).sum() / len(rows) + lost) / energy)


def parts(case: Case) -> list[elimination.Linear]:
    return elimination.linear_consumers(case.model, case.group, case.statistics())


@pytest.mark.parametrize("name", CASES)
def test_the_cost_of_every_channel_is_that_of_removing_it(name: str) -> None:
    case = CASES[name]
    oracle = Oracle(case)
    states = [part.regularized(elimination.RIDGE) for part in parts(case)]
    every = list(range(case.group.size))
    found = sum((state.costs(every) for state in states), np.zeros(len(every)))
    wanted = [oracle.objective([channel]) - oracle.objective([]) for channel in every]
    assert relative(found, np.array(wanted)) < 1e-4


@pytest.mark.parametrize("pending", [1, 5, 96])
@pytest.mark.parametrize("name", CASES)
def test_the_cost_of_sequences_is_that_of_removing_them_and_each_step_is_the_cheapest(
    name: str, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elimination.Consumer, "PENDING", pending)
    case = CASES[name]
    oracle, ranking = Oracle(case), case.rank()
    order = ranking.order.tolist()
    assert sorted(order) == list(range(case.group.size))
    assert ranking.free == 0
    start = oracle.objective([])
    for count in range(case.group.size + 1):
        wanted = oracle.objective(order[:count]) - start
        assert ranking.cost[count] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    for count in range(case.group.size):
        others = [oracle.objective([*order[:count], channel]) for channel in order[count:]]
        assert others[0] <= min(others) * (1 + 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_ranking_is_well_formed(name: str) -> None:
    case = CASES[name]
    ranking = case.rank()
    assert ranking.cost.shape == (case.group.size + 1,)
    assert ranking.cost[0] == 0
    assert (np.diff(ranking.cost) >= 0).all()
    assert ranking.energy == len(case.views)
    scores = Redundancy(positions=1000).score(case.model, case.group, case.statistics())
    assert np.allclose(scores[ranking.order], np.diff(ranking.cost))
    again = case.rank()
    assert np.array_equal(again.order, ranking.order) and np.array_equal(again.cost, ranking.cost)


def test_consumers_add_up_each_relative_to_its_outputs() -> None:
    both, (first, second) = CASES["two consumers"], parts(CASES["two consumers"])
    every = list(range(both.group.size))
    alone = first.regularized(1e-3).costs(every) + second.regularized(1e-3).costs(every)
    louder = both.model.with_constants({"w3": 100 * both.model.constants["w3"]})
    for model in (both.model, louder):
        found = Case(model, both.x)
        total = sum((part.regularized(1e-3).costs(every) for part in parts(found)), np.zeros(len(every)))
        assert relative(total, alone) < 1e-4


def test_a_needed_channel_goes_after_its_understudies() -> None:
    """Two nearly equal channels: the first of them is cheap, the second then costs what both were worth."""
    planted = mlp("nearly")
    ranking = Case(planted.model, planted.samples(400)).rank()
    assert ranking.order[0] in (0, SIZE - 1)
    other = {0: SIZE - 1, SIZE - 1: 0}[int(ranking.order[0])]
    turn = ranking.order.tolist().index(other)
    steps = np.diff(ranking.cost)
    assert 0 < steps[0] < 1e-3 * steps[turn]


# --- lossless --------------------------------------------------------------------------------------------


def check_free(planted: Planted, count: int = 400) -> None:
    case = Case(planted.model, planted.samples(count))
    ranking = case.rank()
    gone = set(ranking.order[: ranking.free].tolist())
    assert len(gone) == planted.free, gone
    assert gone <= set().union(*planted.families), gone
    for family, expected in planted.families.items():
        assert len(gone & family) == expected, (gone, family)
    assert not ranking.cost[: ranking.free + 1].any()
    assert ranking.cost[ranking.free + 1] > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_planted_channels_of_an_mlp_are_free(kind: str) -> None:
    check_free(mlp(kind))


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_planted_channels_of_a_cnn_are_free(kind: str, pads: int) -> None:
    check_free(cnn(kind, pads), count=60)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_bias_nothing_takes_over_what_is_constant(kind: str) -> None:
    check_free(cnn(kind, bias=False), count=60)


@pytest.mark.parametrize("kind", ["sum", "nothing"])
def test_without_an_activation(kind: str) -> None:
    planted = mlp(kind)
    linear_ = parse("a = Gemm<transB=1>(x, w1, b1)  r = Neg(a)  y = Gemm<transB=1>(r, w2, b2)", x="N,16",
                    outputs="float[N,4] y", arrays=planted.model.constants)  # fmt: skip
    check_free(Planted(linear_, planted.free, planted.families, planted.shape))


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_a_copy_with_noise_is_not_free(build: Any, noise: float) -> None:
    planted = build("duplicate")
    w1 = planted.model.constants["w1"].copy()
    w1[-1] += noise * draw(*w1[0].shape, seed=3)
    noisy = planted.model.with_constants({"w1": w1})
    check_free(Planted(noisy, 0, {frozenset(range(SIZE)): 0}, planted.shape), count=200)


def test_too_few_samples_prove_no_dependency() -> None:
    """Ten rows span ten dimensions only: all other channels look dependent, and are not."""
    for kind, free in (("nothing", 0), ("duplicate", 0), ("dead", 1), ("unread", 1), ("constant", 1)):
        planted = mlp(kind)
        ranking = Case(planted.model, planted.samples(10)).rank()
        assert ranking.order[: ranking.free].tolist() == [SIZE - 1][:free], kind


def test_one_channel_stays_when_none_is_needed() -> None:
    planted = mlp("nothing")
    for name in ("w1", "w2"):
        idle = planted.model.with_constants({name: np.zeros_like(planted.model.constants[name])})
        ranking = Case(idle, planted.samples(100)).rank()
        assert ranking.free == SIZE - 1


@pytest.mark.parametrize("kind", ["duplicate", "constant"])
def test_a_channel_is_free_only_if_all_consumers_can_do_without(kind: str) -> None:
    """The second consumer has no bias: what is constant is free for the first one only."""
    planted = mlp(kind)
    weights: Mapping[str, np.ndarray] = {**planted.model.constants, "w3": kernel(SIZE, 3)}
    body = "a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  y = Gemm<transB=1>(r, w2, b2)  z = MatMul(r, w3)"
    model = parse(body, x="N,16", outputs="float[N,4] y, float[N,3] z", arrays=weights)
    assert Case(model, planted.samples(400)).rank().free == (1 if kind == "duplicate" else 0)


def test_a_channel_may_lean_on_channels_of_another_group() -> None:
    """Concat: the second branch has a copy of a channel of the first one, which is then not needed."""
    planted = mlp("nothing")
    constants = planted.model.constants
    w3, b3 = kernel(5, 16), B[:5].copy()
    w3[2], b3[2] = constants["w1"][4], constants["b1"][4]
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  c = Gemm<transB=1>(x, w3, b3)  s = Relu(c)
        j = Concat<axis=1>(r, s)  y = Gemm(j, w2, b2)"""
    model = parse(body, x="N,16", outputs="float[N,4] y", w1=constants["w1"], b1=constants["b1"], w3=w3, b3=b3,
                  w2=kernel(SIZE + 5, 4), b2=constants["b2"])  # fmt: skip
    ranking = Case(model, planted.samples(400)).rank()
    assert ranking.order[: ranking.free].tolist() == [4]
