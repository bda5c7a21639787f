"""The search along an allocation: what is built, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from test_allocation import ladder

from edgepress.pipeline import narrowing
from edgepress.pipeline.narrowing import CLOSE_COST, CORRECTIONS, Search, bisect
from edgepress.planner import Budget, Widths


@pytest.mark.parametrize("count", [1, 2, 7, 40, 200])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.77, 1.0])
def test_bisection_ends_next_to_the_last_acceptable_state(count: int, share: float) -> None:
    depths = np.cumsum(np.random.default_rng(count).exponential(0.05, count))
    last = int(share * count) - 1  # the last acceptable position; -1: none is
    tried: list[int] = []

    def acceptable(position: int) -> bool:
        tried.append(position)
        return position <= last

    bisect(acceptable, depths)
    best = max((position for position in tried if position <= last), default=-1)
    assert len(tried) == len(set(tried)) <= 2 + np.ceil(np.log2(count + 1)) + np.log2(1 + depths[-1] / CLOSE_COST)
    assert (best >= 0) == (last >= 0)  # something acceptable is found if there is anything
    if last >= 0:
        assert depths[last] - depths[best] <= CLOSE_COST


def test_nothing_to_try() -> None:
    def acceptable(position: int) -> bool:
        raise AssertionError(f"position {position} does not exist")

    bisect(acceptable, np.empty(0))


# --- budgets ---------------------------------------------------------------------------------------------------------


class Stub:
    """Stands for building and judging: models are numbers, what a state was predicted to cost."""

    def __init__(self, most: float) -> None:
        """Accepts predicted errors up to ``most``."""
        self.most = most
        self.built: list[Widths] = []

    def __call__(self, widths: Widths) -> Any:
        """The candidate of a state."""
        self.built.append(widths)
        cost = chain(widths.removed)
        return SimpleNamespace(
            model=cost, cost=cost, widths=widths, verdict=SimpleNamespace(acceptable=widths.predicted <= self.most)
        )


def chain(removed: Mapping[str, int]) -> float:
    """Three layers around two groups of 64."""
    a, b = 64 - removed.get("a", 0), 64 - removed.get("b", 0)
    return float(3 * a + a * b + 10 * b)


def searched(monkeypatch: pytest.MonkeyPatch, most: float, *budgets: Budget, allocation: str = "hybrid") -> Stub:
    """What is built in a search; the candidates found are those built that were acceptable, mildest first."""
    of = ladder({"a": 64, "b": 64}, 4)
    stub = Stub(most)
    monkeypatch.setattr(narrowing, "Narrower", lambda *arguments: stub)
    costs: Any = SimpleNamespace(blend=chain)
    analysis: Any = SimpleNamespace(ladder=dataclasses.replace(of, costs=costs))
    found: list[Any] = narrowing.narrower(cast(Any, None), analysis, cast(Any, None), Search(allocation, budgets))
    acceptable = [widths for widths in stub.built if widths.predicted <= most]
    assert [item.widths for item in found] == sorted(acceptable, key=lambda widths: -chain(widths.removed))
    return stub


def test_a_budget_takes_one_model_if_it_is_acceptable(monkeypatch: pytest.MonkeyPatch) -> None:
    (widths,) = searched(monkeypatch, 1e9, Budget("--mac-ratio", chain, 0.5 * chain({}))).built
    assert 0.4 * chain({}) < chain(widths.removed) <= 0.5 * chain({})


def test_a_budget_that_was_foreseen_wrong_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = 0.5 * chain({})
    built = searched(monkeypatch, 1e9, Budget("--speedup", chain, goal, lambda model: 1.2 * cast(float, model))).built
    costs = [chain(widths.removed) for widths in built]
    assert len(costs) == 2 and 1.2 * costs[1] <= goal < 1.2 * costs[0]


def test_corrections_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = Budget("--speedup", chain, 0.9 * chain({}), lambda model: 0.91 * chain({}))
    assert len(searched(monkeypatch, 1e9, stubborn).built) <= CORRECTIONS


def test_what_costs_too_much_is_searched_for_the_best_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, *others = searched(monkeypatch, 0.05, Budget("--mac-ratio", chain, 0.2 * chain({}))).built
    assert refused.predicted > 0.05 and chain(refused.removed) <= 0.2 * chain({})
    assert others and all(chain(widths.removed) > chain(refused.removed) for widths in others)
    assert any(widths.predicted <= 0.05 for widths in others)


def test_a_budget_out_of_reach_is_approached(monkeypatch: pytest.MonkeyPatch) -> None:
    built = searched(monkeypatch, 1e9, Budget("--mac-ratio", chain, 1.0)).built
    assert min(chain(widths.removed) for widths in built) < 0.05 * chain({})


def test_annealing_goes_step_by_step_to_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = 0.3 * chain({})
    built = searched(monkeypatch, 1e9, Budget("--mac-ratio", chain, goal), allocation="anneal").built
    costs = [chain(widths.removed) for widths in built]
    assert len(costs) > 3 and costs == sorted(costs, reverse=True) and costs[-1] <= goal < costs[-2]
