"""Allocations: legal and ever cheaper states, the best ones against all there are, budgets kept where they can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.groups import Group
from edgepress.model import Model
from edgepress.planner import ALLOCATIONS, Budget, Costs, Ladder, Sensitivity, Widths, joint
from edgepress.planner.allocations.greedy import STEPS, descend
from edgepress.planner.anneal import NAME, SHARE, anneal, cheapest_share
from edgepress.planner.knapsack import STEPS as UNITS
from edgepress.planner.knapsack import Options, choose
from edgepress.planner.widths import KEEP
from edgepress.request import ALLOCATIONS as NAMES
from edgepress.scores import Ranking
from edgepress.targets import Target

PLAIN = Target("plain", multiple=1, block=1, slope=1.0, weight_limit=127)
few = settings(deadline=None, max_examples=25, derandomize=True)
SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(2, 60), min_size=1, max_size=4)
every_allocation = pytest.mark.parametrize("name", sorted(ALLOCATIONS))


def ranking(size: int, seed: int, free: int) -> Ranking:
    random = np.random.default_rng([seed, size])
    steps = np.where(np.arange(size) < free, 0.0, np.sort(random.random(size)) ** 3)
    return Ranking(random.permutation(size), np.concatenate([[0.0], np.cumsum(steps)]), free, 1.0)


def ladder(sizes: Mapping[str, int], multiple: int = 1, free: int = 0, seed: int = 0) -> Ladder:
    """Groups with random curves and sensitivities; without costs of its own."""
    random = np.random.default_rng(seed)
    groups = tuple(Group(name, size, (), (name,), (f"after {name}",), None) for name, size in sizes.items())
    rankings = {name: ranking(size, seed + i, min(free, size - 1)) for i, (name, size) in enumerate(sizes.items())}
    halves = {name: rankings[name].free + (size - rankings[name].free) // 2 for name, size in sizes.items()}
    felt = {name: Sensitivity(name, half, float(random.random())) for name, half in halves.items()}
    return Ladder(groups, rankings, felt, Costs((), PLAIN), multiple)


class Sum:
    """A cost that is a sum over groups; one unit of group i is worth i + 1."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes

    def __call__(self, removed: Mapping[str, int]) -> float:
        return float(sum((i + 1) * (size - removed.get(n, 0)) for i, (n, size) in enumerate(self.sizes.items())))


class Chain:
    """Layers between neighbouring groups: products of widths, as in a network."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes

    def __call__(self, removed: Mapping[str, int]) -> float:
        widths = [3, *(size - removed.get(name, 0) for name, size in self.sizes.items()), 10]
        return float(sum(a * b for a, b in itertools.pairwise(widths)))


COSTS: Sequence[Any] = (Sum, Chain)


def legal_states(of: Ladder) -> list[Widths]:
    """Every state there is."""
    names = [group.name for group in of.groups]
    rows = itertools.product(*(of.choices(group) for group in of.groups))
    return [of.state(dict(zip(names, row, strict=True))) for row in rows]


# --- laws of all --------------------------------------------------------------------------------------------------


@every_allocation
@pytest.mark.parametrize("kind", COSTS)
@few
@given(SIZES, st.sampled_from([1, 4, 8]), st.integers(0, 5), st.integers(0, 99))
def test_states_are_legal_cheaper_and_not_better(
    name: str, kind: Any, sizes: dict[str, int], multiple: int, free: int, seed: int
) -> None:
    found, cost = ladder(sizes, multiple, free, seed), kind(sizes)
    before = found.lossless()
    for state in ALLOCATIONS[name].path(found, cost):
        for group in found.groups:
            gone = state.removed.get(group.name, 0)
            assert gone in found.choices(group)
            width = group.size - gone
            assert gone == 0 or (width % multiple == 0 and width >= max(multiple, KEEP * group.size))
            assert gone >= found.lossless().removed.get(group.name, 0)
        assert cost(state.removed) < cost(before.removed)
        assert state.predicted >= before.predicted
        assert state == found.state(state.removed)
        before = state


@every_allocation
@pytest.mark.parametrize("kind", COSTS)
@few
@given(SIZES, st.sampled_from([1, 4]), st.integers(0, 99), st.floats(0, 1.2))
def test_a_budget_is_kept_wherever_it_can_be(
    name: str, kind: Any, sizes: dict[str, int], multiple: int, seed: int, place: float
) -> None:
    found, cost = ladder(sizes, multiple, 2, seed), kind(sizes)
    low, high = cost({g.name: found.choices(g)[-1] for g in found.groups}), cost(found.lossless().removed)
    budget = low + place * (high - low)
    state = ALLOCATIONS[name].within(found, cost, budget)
    assert state is not None and cost(state.removed) <= budget
    if budget >= high:
        assert state == found.lossless()
    assert ALLOCATIONS[name].within(found, cost, low * 0.999) is None


@every_allocation
def test_the_path_reaches_the_narrowest_widths(name: str) -> None:
    sizes = {"a": 40, "b": 24, "c": 16}
    found = ladder(sizes, 4)
    last = ALLOCATIONS[name].path(found, Chain(sizes))[-1]
    assert last.removed == {group.name: found.choices(group)[-1] for group in found.groups}


@every_allocation
def test_nothing_to_remove(name: str) -> None:
    narrow = {"a": 8, "b": 7}
    assert ALLOCATIONS[name].path(ladder(narrow, 8), Chain(narrow)) == []
    assert ALLOCATIONS[name].path(ladder({}, 8), Chain({})) == []


@every_allocation
def test_a_cost_that_stays_is_no_reason_to_remove(name: str) -> None:
    sizes = {"a": 32, "b": 32}
    states = ALLOCATIONS[name].path(ladder(sizes, 8), lambda removed: 32.0 - removed.get("a", 0))
    assert states and all(set(state.removed) <= {"a"} or name == "uniform" for state in states)
    assert ALLOCATIONS[name].path(ladder(sizes, 8), lambda removed: 1.0) == []


def test_names_are_those_of_the_request() -> None:
    assert (*ALLOCATIONS, NAME) == NAMES


# --- each of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("seed", range(4))
def test_hybrid_takes_the_least_error_per_cost_at_every_step(kind: Any, seed: int) -> None:
    sizes = {"a": 20, "b": 12, "c": 30}
    found, cost = ladder(sizes, 2, seed=seed), kind(sizes)
    before: Mapping[str, int] = {}
    for state in ALLOCATIONS["hybrid"].path(found, cost):
        rates = []
        for group, step in itertools.product(found.groups, STEPS):
            gone = before.get(group.name, 0)
            if gone + 2 * step in found.choices(group):
                other = {**before, group.name: gone + 2 * step}
                rise = found.error(group.name, gone + 2 * step) - found.error(group.name, gone)
                rates.append(rise / (cost(before) - cost(other)))
        rise = state.predicted - found.state(before).predicted
        assert rise / (cost(before) - cost(state.removed)) == pytest.approx(min(rates), abs=1e-12)
        before = state.removed


def test_curve_does_not_ask_what_the_answer_feels() -> None:
    sizes = {"a": 32, "b": 32}
    base = ladder(sizes, 4)
    first: dict[str, list[Widths]] = {"curve": [], "hybrid": []}
    for felt_by_a in (1e-6, 1e6):
        felt = {"a": Sensitivity("a", 16, felt_by_a), "b": Sensitivity("b", 16, 1.0)}
        found = Ladder(base.groups, base.rankings, felt, base.costs, 4)
        for name, states in first.items():
            states.append(ALLOCATIONS[name].path(found, Sum(sizes))[0])
    deaf, hearing = ([set(state.removed) for state in first[name]] for name in ("curve", "hybrid"))
    assert deaf[0] == deaf[1]
    assert hearing == [{"a"}, {"b"}]


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_uniform_leaves_every_group_the_same_share(multiple: int) -> None:
    sizes = {"a": 64, "b": 30, "c": 48}
    found = ladder(sizes, multiple)
    wanted: list[dict[str, int]] = []
    for share in np.linspace(1, 0, 3841):  # slowly, in steps finer than one channel
        widths = {group.name: multiple * math.ceil(share * group.size / multiple - 1e-9) for group in found.groups}
        gone = {g.name: min(max(0, g.size - widths[g.name]), found.choices(g)[-1]) for g in found.groups}
        if not wanted or gone != wanted[-1]:
            wanted.append(gone)
    states = ALLOCATIONS["uniform"].path(found, Chain(sizes))
    assert [state.removed for state in states] == [{n: c for n, c in gone.items() if c} for gone in wanted[1:]]


# --- dynamic programming ------------------------------------------------------------------------------------------


@few
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 30)), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(0, 120),
)
def test_the_knapsack_is_the_best_of_all(rows: list[list[tuple[float, int]]], budget: int) -> None:
    picks = choose([Options.of([(e, float(s)) for e, s in row]) for row in rows], budget)
    fitting = [
        sum(error for error, _ in combination)
        for combination in itertools.product(*rows)
        if sum(size for _, size in combination) <= budget
    ]
    if picks is None:
        assert not fitting
    else:
        chosen = [row[pick] for row, pick in zip(rows, picks, strict=True)]
        assert sum(size for _, size in chosen) <= budget
        assert sum(error for error, _ in chosen) == pytest.approx(min(fitting))


@pytest.mark.parametrize("seed", range(10))
def test_the_knapsack_keeps_budgets_that_are_no_whole_numbers(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [Options(random.random(4), random.random(4) * 1e-3) for _ in range(5)]
    budget = float(sum(row.sizes.mean() for row in rows))
    picks = choose(rows, budget)
    assert picks is not None
    size = sum(row.sizes[pick] for row, pick in zip(rows, picks, strict=True))
    error = sum(row.errors[pick] for row, pick in zip(rows, picks, strict=True))
    units = len(rows) * budget / UNITS
    combinations = list(itertools.product(range(4), repeat=5))
    sizes = np.array([[row.sizes[i] for row, i in zip(rows, item, strict=True)] for item in combinations]).sum(1)
    errors = np.array([[row.errors[i] for row, i in zip(rows, item, strict=True)] for item in combinations]).sum(1)
    assert size <= budget * (1 + 1e-9)
    assert errors[sizes <= budget].min() <= error + 1e-12 <= errors[sizes <= budget - units].min() + 2e-12


def test_the_knapsack_without_room_takes_the_smallest() -> None:
    rows = [Options.of([(0.0, 5.0), (1.0, 2.0), (2.0, 2.0)]), Options.of([(0.0, 7.5), (3.0, 7.0)])]
    assert choose(rows, 9.0) == [1, 1]
    assert choose(rows, 8.9) is None
    assert choose([], 0.0) == []


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_dynamic_is_the_best_of_all_where_costs_add_up(seed: int, share: float) -> None:
    sizes = {"a": 12, "b": 16, "c": 8}
    found, cost = ladder(sizes, 2, seed=seed), Sum(sizes)
    budget = share * cost({})
    state = ALLOCATIONS["dynamic"].within(found, cost, budget)
    best = min(item.predicted for item in legal_states(found) if cost(item.removed) <= budget)
    assert state is not None and state.predicted == pytest.approx(best)


@pytest.mark.parametrize("seed", range(12))
def test_dynamic_is_near_the_best_of_all_where_costs_are_products(seed: int) -> None:
    sizes = {"a": 12, "b": 16, "c": 8, "d": 20}
    found, cost = ladder(sizes, 2, seed=seed), Chain(sizes)
    every = [(cost(item.removed), item.predicted) for item in legal_states(found)]
    for share in (0.9, 0.7, 0.5, 0.3):
        budget = share * cost({})
        state = ALLOCATIONS["dynamic"].within(found, cost, budget)
        best = min(error for price, error in every if price <= budget)
        assert state is not None and state.predicted <= 1.1 * best + 1e-9


def test_dynamic_is_better_than_greedy_on_the_whole() -> None:
    sizes = {"a": 24, "b": 32, "c": 16, "d": 40}
    ratios = []
    for seed in range(20):
        found, cost = ladder(sizes, 4, seed=seed), Chain(sizes)
        for share in (0.8, 0.6, 0.4):
            dynamic, hybrid = (
                ALLOCATIONS[name].within(found, cost, share * cost({})) for name in ("dynamic", "hybrid")
            )
            assert dynamic is not None and hybrid is not None
            ratios.append(dynamic.predicted / hybrid.predicted)
    assert max(ratios) <= 1.1
    assert np.exp(np.mean(np.log(ratios))) < 0.95


# --- budgets ------------------------------------------------------------------------------------------------------


def test_several_budgets_are_kept_at_once() -> None:
    sizes = {"a": 40, "b": 40}
    found, first, second = ladder(sizes, 4), Chain(sizes), Sum(sizes)
    budgets = [Budget("--one", first, 0.5 * first({})), Budget("--two", second, 0.6 * second({}))]
    for name, allocation in ALLOCATIONS.items():
        state = allocation.within(found, joint(budgets), 1.0)
        assert state is not None, name
        assert all(budget.cost(state.removed) <= budget.goal for budget in budgets)


def test_a_goal_is_corrected_by_what_was_predicted_wrong() -> None:
    nothing = Model.of  # a stand-in: only its cost is looked at
    budget = Budget("--speedup", lambda removed: 10.0 - removed["a"], 5.0, lambda model: 6.0)
    corrected = budget.corrected({"a": 5}, nothing)  # type: ignore[arg-type]
    assert corrected is not None and corrected.goal == 5 and corrected.aim is not None
    assert 0.95 * 5 * 5 / 6 < corrected.aim < 5 * 5 / 6
    assert joint([corrected])({"a": 6}) == pytest.approx(4 / corrected.aim)
    assert Budget("", budget.cost, 5.0, lambda model: 5.0).corrected({"a": 5}, nothing) is None  # type: ignore[arg-type]
    assert Budget("", budget.cost, 5.0).corrected({"a": 5}, nothing) is None  # type: ignore[arg-type]


# --- annealing ----------------------------------------------------------------------------------------------------


class Oracle:
    """Accepts up to a limit, and notes what it was asked."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.asked: list[Widths] = []

    def __call__(self, state: Widths) -> bool:
        self.asked.append(state)
        return state.predicted <= self.limit


@pytest.mark.parametrize("limit", [0.0, 0.001, 0.05, 0.3, 1e9])
@pytest.mark.parametrize("multiple", [1, 4])
def test_annealing_keeps_what_is_accepted_and_asks_nothing_twice(limit: float, multiple: int) -> None:
    sizes = {"a": 64, "b": 48, "c": 80}
    found, cost, oracle = ladder(sizes, multiple), Chain(sizes), Oracle(limit)
    kept = anneal(found.lossless(), cheapest_share(found, cost), oracle)
    assert kept == [state for state in oracle.asked if state.predicted <= limit]
    assert len({tuple(sorted(state.removed.items())) for state in oracle.asked}) == len(oracle.asked)
    costs = [cost(state.removed) for state in kept]
    assert costs == sorted(costs, reverse=True)
    if limit == 1e9:
        assert kept[-1].removed == {group.name: found.choices(group)[-1] for group in found.groups}
    else:  # what would follow is refused, even in the smallest share
        last = kept[-1] if kept else found.lossless()
        following = cheapest_share(found, cost)(last, SHARE / 4)
        assert following is not None and following.predicted > limit


def test_annealing_removes_a_tenth_then_halves() -> None:
    removed: list[float] = []

    def thinner(state: Widths, share: float) -> Widths:
        removed.append(share)
        return Widths({"a": len(removed)}, 0.0)

    answers = iter([True, True, False, True, False, False])
    assert len(anneal(Widths({}, 0.0), thinner, lambda state: next(answers, False))) == 3
    assert removed == [SHARE, SHARE, SHARE, SHARE / 2, SHARE / 2, SHARE / 4]


def test_a_share_counts_channels_of_all_groups() -> None:
    sizes = {"a": 100, "b": 100}
    found, cost = ladder(sizes), Chain(sizes)
    state = cheapest_share(found, cost)(found.lossless(), 0.1)
    assert state is not None and 20 <= sum(state.removed.values()) < 20 + max(STEPS)
    (step, *_) = descend(found, {}, cost, found.error)
    assert cheapest_share(found, cost)(found.lossless(), 1e-9) == step  # one step at the least


def test_annealing_stops_at_the_goal() -> None:
    sizes = {"a": 64, "b": 48}
    found, cost = ladder(sizes, 4), Chain(sizes)
    goal = 0.5 * cost({})
    kept = anneal(found.lossless(), cheapest_share(found, cost, goal), lambda state: True)
    assert cost(kept[-1].removed) <= goal < cost(kept[-2].removed)
