"""The least predicted error within a budget, by dynamic programming over groups and widths.

    minimize  sum_g error_g(k_g)   with   cost(k) <= budget

A cost is a sum of products of widths (in x out), not a sum over groups. It becomes one by linearizing it around a state
``s``::

    cost(k) ~ cost(s) + sum_g (cost(s with k_g) - cost(s))

which is exact at ``s`` and in every single group. The knapsack (:mod:`edgepress.planner.knapsack`) of that is solved,
the cost linearized around its solution, and so on, as in Newton's method, until the state stays; where it comes back to
one that was passed, with the mean of the last two linearizations. A state that stays is within the budget; one that is
not is brought within by greedy steps. The best of them is kept, and what it leaves of the budget spent.

Guarantee: never above the budget; exact up to the units of the knapsack where the cost is a sum over groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.planner.allocations import greedy
from edgepress.planner.cost import Cost
from edgepress.planner.knapsack import Options, choose
from edgepress.planner.widths import Ladder, Widths

ROUNDS = 8
"""Linearizations for one budget."""

MOST = 24
"""Widths of one group that are weighed; of more, evenly spread ones."""

STEP = 0.04
"""Budgets of a path differ by this share of themselves."""


@dataclass(frozen=True, slots=True)
class Dynamic:
    """See the module."""

    name: str = "dynamic"

    def path(self, ladder: Ladder, cost: Cost) -> list[Widths]:
        """States at budgets that fall by ``STEP``; those that are no better than a cheaper one are left out."""
        start, table = ladder.lossless(), _Table.of(ladder)
        low, high = cost(table.narrowest().removed), cost(start.removed)
        if not table.names or not 0 < low < high:
            return []
        count = int(np.ceil(np.log(high / low) / -np.log(1 - STEP)))
        states, state = [], start
        for budget in np.geomspace(high, low, count + 1)[1:]:
            state = _solved(table, cost, max(float(budget), low), state)
            states.append(state)
        return _front(states, cost, high)

    def within(self, ladder: Ladder, cost: Cost, budget: float) -> Widths | None:
        """The state of this very budget."""
        start, table = ladder.lossless(), _Table.of(ladder)
        if cost(start.removed) <= budget:
            return start
        return _solved(table, cost, budget, start) if cost(table.narrowest().removed) <= budget else None


@dataclass(frozen=True, slots=True)
class _Table:
    """The widths that are weighed, and their errors (private)."""

    ladder: Ladder
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    errors: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, ladder: Ladder) -> _Table:
        counts = {group.name: _spread(ladder.choices(group)) for group in ladder.groups}
        counts = {name: row for name, row in counts.items() if len(row) > 1}
        errors = (np.array([ladder.error(name, count) for count in row]) for name, row in counts.items())
        return cls(ladder, tuple(counts), tuple(counts.values()), tuple(errors))

    def narrowest(self) -> Widths:
        return self.at([-1] * len(self.names))

    def at(self, picks: Sequence[int]) -> Widths:
        chosen = {name: row[pick] for name, row, pick in zip(self.names, self.counts, picks, strict=True)}
        return self.ladder.state({**self.ladder.lossless().removed, **chosen})

    def around(self, cost: Cost, state: Widths) -> _Linear:
        """The cost, linearized."""
        now = cost(state.removed)
        changes = tuple(
            np.array([cost({**state.removed, name: count}) for count in row]) - now
            for name, row in zip(self.names, self.counts, strict=True)
        )
        return _Linear(now, changes)


@dataclass(frozen=True, slots=True)
class _Linear:
    """A cost as a sum over groups: at one state, and what every choice of every group changes of it (private)."""

    now: float
    changes: tuple[np.ndarray, ...]

    def mean(self, other: _Linear) -> _Linear:
        pairs = zip(self.changes, other.changes, strict=True)
        return _Linear((self.now + other.now) / 2, tuple((mine + theirs) / 2 for mine, theirs in pairs))


def _spread(counts: Sequence[int]) -> tuple[int, ...]:
    places = np.unique(np.linspace(0, len(counts) - 1, min(MOST, len(counts))).round().astype(int))
    return tuple(counts[place] for place in places)


def _solved(table: _Table, cost: Cost, budget: float, start: Widths) -> Widths:
    """The best state found within a budget, which the narrowest state keeps."""
    best, state = table.narrowest(), start
    passed: list[Widths] = []
    last: _Linear | None = None
    for _ in range(ROUNDS):
        linear = table.around(cost, state)
        back = state in passed and last is not None
        found = _chosen(table, linear.mean(last) if back and last is not None else linear, budget)
        legal = _brought_within(table.ladder, cost, budget, found)
        best = min(best, legal or best, key=lambda item: item.predicted)
        if found == state:
            break
        passed.append(state)
        state, last = found, linear
    return _widened(table, cost, budget, best)


def _chosen(table: _Table, linear: _Linear, budget: float) -> Widths:
    rows = [Options(errors, sizes) for errors, sizes in zip(table.errors, linear.changes, strict=True)]
    picks = choose(rows, budget - linear.now)
    return table.narrowest() if picks is None else table.at(picks)


def _brought_within(ladder: Ladder, cost: Cost, budget: float, state: Widths) -> Widths | None:
    """The state, or the first one that the greedy reaches from it within the budget."""
    if cost(state.removed) <= budget:
        return state
    steps = greedy.descend(ladder, state.removed, cost, ladder.error)
    return next((step for step in steps if cost(step.removed) <= budget), None)


def _widened(table: _Table, cost: Cost, budget: float, state: Widths) -> Widths:
    """What is left of the budget, spent where it saves most error; one group after the other."""
    while True:
        linear = table.around(cost, state)
        best: tuple[float, Widths] | None = None
        for name, counts, changes in zip(table.names, table.counts, linear.changes, strict=True):
            for count, more in zip(counts, changes, strict=True):
                if count >= state.removed.get(name, 0) or linear.now + more > budget:
                    continue
                wider = table.ladder.state({**state.removed, name: count})
                gain = (state.predicted - wider.predicted) / max(more, 1e-300)
                if wider.predicted < state.predicted and (best is None or gain > best[0]):
                    best = gain, wider
        if best is None:
            return state
        state = best[1]


def _front(states: Sequence[Widths], cost: Cost, high: float) -> list[Widths]:
    """States that are cheaper than all before and better than all behind."""
    found: list[Widths] = []
    for state in reversed(states):
        if not found or state.predicted < found[-1].predicted:
            found.append(state)
    kept: list[Widths] = []
    last = high
    for state in reversed(found):
        if (now := cost(state.removed)) < last:
            kept.append(state)
            last = now
    return kept


DYNAMIC = Dynamic()
