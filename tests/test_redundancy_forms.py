"""Scalar and pivoted-QR redundancy, other scores' orders, savings: each against least squares done the long way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from planted import SIZE, cnn, mlp
from scipy.linalg import qr  # type: ignore[import-untyped]
from test_redundancy import CASES, Case, Oracle

from edgepress.calibrate.ridge import pulls
from edgepress.scores import Ranking, Redundancy
from edgepress.scores.elimination import RIDGE, Linear, linear_consumers

EVERY = 1000
NAMES = tuple(CASES)


def redundancy(method: str = "block") -> Redundancy:
    return Redundancy(EVERY, method=method)  # type: ignore[arg-type]


def rank(case: Case, method: str) -> Ranking:
    return redundancy(method).rank(case.model, case.group, case.statistics())


def check_costs(case: Case, ranking: Ranking, oracle: Oracle) -> None:
    """Whatever made the order: its costs are those of removing channels and refitting all the others."""
    order = ranking.order.tolist()
    assert sorted(order) == list(range(case.group.size))
    start = oracle.objective([])
    wanted = np.array([oracle.objective(order[:count]) - start for count in range(case.group.size + 1)])
    assert ranking.cost == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert ranking.energy == len(case.views)


# --- scalar ----------------------------------------------------------------------------------------------


class Pooled:
    """Least squares with one coefficient for every pair of channels, the same for all taps and outputs."""

    def __init__(self, case: Case) -> None:
        self.problems: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
        for rows, _, given, _, blocks, energy in Oracle(case).problems:
            biases = rows.shape[1] - case.views[len(self.problems)][0].columns
            ones = rows[:, rows.shape[1] - biases :]
            taps = range(blocks.shape[1])
            pooled = np.concatenate([np.column_stack([rows[:, blocks[:, tap]], ones]) for tap in taps])
            weights = np.concatenate([given[:, blocks[:, tap]] for tap in taps])
            pull = pulls(pooled.T @ pooled / len(pooled), RIDGE, biases)
            self.problems.append((pooled, weights, pull, energy))

    def cost(self, removed: Sequence[int]) -> float:
        gone = list(removed)
        total = 0.0
        for pooled, weights, pull, energy in self.problems:
            kept = np.setdiff1d(np.arange(pooled.shape[1]), gone)
            whole = np.concatenate([pooled, np.diag(np.sqrt(len(pooled) * pull))])
            fitted = np.linalg.lstsq(whole[:, kept], whole[:, gone], rcond=None)[0]
            left = whole[:, gone] - whole[:, kept] @ fitted
            total += float(((weights[:, gone] @ (left.T @ left / len(pooled))) * weights[:, gone]).sum()) / energy
        return total


@pytest.mark.parametrize("name", NAMES)
def test_scalar_takes_the_channel_that_one_coefficient_each_replaces_best(name: str) -> None:
    case = CASES[name]
    pooled, order = Pooled(case), rank(case, "scalar").order.tolist()
    for count in range(case.group.size):
        costs = [pooled.cost([*order[:count], channel]) for channel in order[count:]]
        assert costs[0] <= min(costs) * (1 + 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_scalar_costs_what_a_full_refit_leaves(name: str) -> None:
    case = CASES[name]
    check_costs(case, rank(case, "scalar"), Oracle(case))


@pytest.mark.parametrize("name", ["gemm", "no bias", "two consumers"])
def test_with_one_column_per_channel_scalar_is_block(name: str) -> None:
    case = CASES[name]
    assert rank(case, "scalar").order.tolist() == rank(case, "block").order.tolist()


def test_scalar_and_block_differ_where_taps_differ() -> None:
    orders = [[rank(CASES[name], method).order.tolist() for name in NAMES] for method in ("scalar", "block", "qr")]
    assert orders[0] != orders[1] != orders[2] != orders[0]


# --- pivoted QR ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemm", "no bias"])
def test_qr_is_that_of_scipy_read_backwards(name: str) -> None:
    """On activations times the norm of their outgoing weights; a bias takes their mean out."""
    case = CASES[name]
    ((rows, _, given, _, blocks, _),) = Oracle(case).problems
    activations = rows[:, blocks[:, 0]]
    if name == "gemm":
        activations = activations - activations.mean(0)
    scaled = activations * np.linalg.norm(given[:, blocks[:, 0]], axis=0)
    pivots = qr(scaled, mode="r", pivoting=True)[1]
    assert rank(case, "qr").order.tolist() == pivots[::-1].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_qr_keeps_the_channel_with_the_largest_residual_again_and_again(name: str) -> None:
    """Blocks of columns, several consumers: what the kept ones leave of each channel, as the outputs feel it."""
    case = CASES[name]
    problems, kept = Oracle(case).problems, rank(case, "qr").order[::-1].tolist()

    def residual(channel: int, before: Sequence[int]) -> float:
        total = 0.0
        for rows, _, given, _, blocks, energy in problems:
            own = blocks[channel]
            basis = rows[:, np.setdiff1d(np.arange(rows.shape[1]), np.setdiff1d(blocks, blocks[list(before)]))]
            left = rows[:, own] - basis @ np.linalg.lstsq(basis, rows[:, own], rcond=None)[0]
            total += float(np.square(left @ given[:, own].T).sum()) / len(rows) / energy
        return total

    for count, channel in enumerate(kept):
        found = [residual(other, kept[:count]) for other in kept[count:]]
        assert residual(channel, kept[:count]) >= max(found) * (1 - 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_qr_costs_what_a_full_refit_leaves(name: str) -> None:
    case = CASES[name]
    check_costs(case, rank(case, "qr"), Oracle(case))


@pytest.mark.parametrize("method", ["scalar", "qr"])
@pytest.mark.parametrize("kind", ["duplicate", "three alike", "dead", "two constants", "sum", "nothing"])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_lossless_channels_go_first_in_every_form(build: Callable[[str], object], kind: str, method: str) -> None:
    planted = mlp(kind) if build is mlp else cnn(kind)
    case = Case(planted.model, planted.samples(400 if build is mlp else 60))
    block, other = rank(case, "block"), rank(case, method)
    assert other.free == block.free == planted.free
    assert set(other.order[: other.free].tolist()) == set(block.order[: block.free].tolist())
    assert not other.cost[: other.free + 1].any() and (np.diff(other.cost) >= 0).all()
    assert sorted(other.order.tolist()) == list(range(SIZE))


@pytest.mark.parametrize("method", ["scalar", "qr"])
@pytest.mark.parametrize("name", NAMES)
def test_no_form_beats_block_at_the_first_step(name: str, method: str) -> None:
    case = CASES[name]
    assert rank(case, "block").cost[1] <= rank(case, method).cost[1] * (1 + 1e-9)


# --- orders of others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_an_order_costs_what_removing_and_refitting_costs(name: str, seed: int) -> None:
    case = CASES[name]
    order = np.random.default_rng(seed).permutation(case.group.size)
    ranking = redundancy().along(case.model, case.group, case.statistics(), order)
    assert ranking.order.tolist() == order.tolist() and ranking.free == 0
    check_costs(case, ranking, Oracle(case))


@pytest.mark.parametrize("kind", ["duplicate", "three alike", "two constants", "unread", "nothing"])
def test_lossless_channels_go_before_the_order_of_another_score(kind: str) -> None:
    planted = mlp(kind)
    case = Case(planted.model, planted.samples(400))
    statistics, order = case.statistics(), np.random.default_rng(1).permutation(SIZE)
    free = rank(case, "block").order[: planted.free].tolist()
    first = redundancy().along(case.model, case.group, statistics, order, free_first=True)
    rest = [channel for channel in order.tolist() if channel not in free]
    assert first.free == planted.free and not first.cost[: first.free + 1].any()
    assert set(first.order[: first.free].tolist()) == set(free) and first.order[first.free :].tolist() == rest
    plain = redundancy().along(case.model, case.group, statistics, order)
    assert plain.free == 0 and plain.order.tolist() == order.tolist()
    assert first.cost[-1] == pytest.approx(plain.cost[-1], rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_elimination_costs_what_elimination_says(name: str) -> None:
    case = CASES[name]
    ranking = rank(case, "block")
    again = redundancy().along(case.model, case.group, case.statistics(), ranking.order)
    assert again.cost == pytest.approx(ranking.cost, rel=1e-9)


# --- savings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_least_error_for_what_is_saved_goes_first(name: str) -> None:
    case = CASES[name]
    saved = np.random.default_rng(2).random(case.group.size) + 0.05
    ranking = redundancy().rank_by(case.model, case.group, case.statistics(), saved)
    oracle = Oracle(case)
    check_costs(case, ranking, oracle)
    order = ranking.order.tolist()
    for count in range(case.group.size):
        before = oracle.objective(order[:count])
        found = [(oracle.objective([*order[:count], c]) - before) / saved[c] for c in order[count:]]
        assert found[0] <= min(found) * (1 + 1e-4) + 1e-7


@pytest.mark.parametrize("method", ["block", "scalar"])
def test_equal_savings_change_nothing(method: str) -> None:
    case = CASES["padded conv"]
    ranking, statistics = rank(case, method), case.statistics()
    for saved in (None, np.ones(case.group.size), np.full(case.group.size, 7.5)):
        again = redundancy(method).rank_by(case.model, case.group, statistics, saved)
        assert again.order.tolist() == ranking.order.tolist() and np.array_equal(again.cost, ranking.cost)


@pytest.mark.parametrize("method", ["block", "scalar"])
def test_what_saves_nothing_goes_last(method: str) -> None:
    case = CASES["gemm"]
    saved = np.ones(case.group.size)
    first = int(rank(case, method).order[0])
    saved[first] = 0
    ranking = redundancy(method).rank_by(case.model, case.group, case.statistics(), saved)
    assert ranking.order[-1] == first


def test_pooling_averages_the_gram_over_taps() -> None:
    case = CASES["padded conv"]
    (part,) = linear_consumers(case.model, case.group, case.statistics())
    found: Linear = part.pooled()
    ((rows, _, given, _, blocks, _),) = Oracle(case).problems
    taps = [np.column_stack([rows[:, blocks[:, tap]], np.ones(len(rows))]) for tap in range(9)]
    assert found.inner == pytest.approx(sum(tap.T @ tap for tap in taps) / len(rows) / 9, rel=1e-6)
    assert found.weights[:3, :6] == pytest.approx(given[:, blocks[:, 0]]) and not found.weights[:, 6:].any()
    assert found.blocks.tolist() == [[channel] for channel in range(6)]
