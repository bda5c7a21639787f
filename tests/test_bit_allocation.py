"""Bits under a budget: never above it, as good as brute force but for one step of the hull, better with more bytes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.planner.levels import Table, Width, allocate, predicted, total

FEW = settings(max_examples=150, deadline=None)
COUNTS = (3, 5, 7, 16, 255)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Up to five layers of up to five widths: errors usually fall with the bytes, and not always."""
    found: dict[str, dict[int, Width]] = {}
    for number in range(draw(st.integers(1, 5))):
        counts = COUNTS[: draw(st.integers(1, 5))]
        sizes = sorted(draw(st.lists(st.integers(1, 500), min_size=len(counts), max_size=len(counts))))
        errors = draw(st.lists(st.floats(0, 10), min_size=len(counts), max_size=len(counts)))
        errors = sorted(errors, reverse=True) if draw(st.booleans()) else errors
        found[f"layer{number}"] = {
            count: Width(error, size) for count, error, size in zip(counts, errors, sizes, strict=True)
        }
    return found


def every(table: Table) -> list[dict[str, int]]:
    return [dict(zip(table, counts, strict=True)) for counts in itertools.product(*(table[name] for name in table))]


def best(table: Table, budget: int) -> float:
    """Brute force; infinite where nothing fits."""
    return min((predicted(table, item) for item in every(table) if total(table, item) <= budget), default=float("inf"))


def smallest(table: Table) -> int:
    return sum(min(width.size for width in widths.values()) for widths in table.values())


def largest_step(table: Table) -> float:
    """The largest error that one step along a layer's lower hull removes."""
    return max(_step(list(widths.values())) for widths in table.values())


def _step(widths: list[Width]) -> float:
    hull: list[Width] = []
    for width in sorted(widths, key=lambda item: (item.size, item.error)):
        if hull and width.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], width):
            hull.pop()
        if hull and hull[-1].size == width.size:
            hull.pop()
        hull.append(width)
    return max((a.error - b.error for a, b in itertools.pairwise(hull)), default=0.0)


def _slope(a: Width, b: Width) -> float:
    return (a.error - b.error) / max(b.size - a.size, 1e-9)


@FEW
@given(tables(), st.integers(-500, 2500))
def test_every_layer_gets_one_of_its_widths_and_the_budget_holds(table: Table, budget: int) -> None:
    found = allocate(table, budget)
    assert found.keys() == table.keys()
    assert all(found[name] in table[name] for name in table)
    if budget >= smallest(table):
        assert total(table, found) <= budget
    else:
        assert total(table, found) == smallest(table)


@FEW
@given(tables(), st.integers(0, 2500))
def test_against_brute_force(table: Table, budget: int) -> None:
    if budget < smallest(table):
        return
    wanted, found = best(table, budget), predicted(table, allocate(table, budget))
    assert wanted - 1e-9 <= found
    assert found <= wanted + largest_step(table) + 1e-6


@FEW
@given(tables(), st.integers(0, 2500), st.integers(0, 400))
def test_more_bytes_never_make_it_worse(table: Table, budget: int, more: int) -> None:
    if budget < smallest(table):
        return
    before, after = (predicted(table, allocate(table, size)) for size in (budget, budget + more))
    assert after <= before + 1e-6


@FEW
@given(tables())
def test_with_bytes_for_all_every_layer_has_its_least_error(table: Table) -> None:
    found = predicted(table, allocate(table, 10**6))
    assert found == pytest.approx(sum(min(width.error for width in widths.values()) for widths in table.values()))


@FEW
@given(tables(), st.integers(0, 2500))
def test_nothing_that_fits_is_left_undone(table: Table, budget: int) -> None:
    """No single layer can be made better with the bytes that are left."""
    found = allocate(table, budget)
    room = budget - total(table, found)
    for name, count in found.items():
        now = table[name][count]
        for other in table[name].values():
            assert other.error >= now.error or other.size - now.size > room


def test_bytes_go_where_they_count() -> None:
    """Two layers of one size: the one that matters a hundred times as much gets more levels."""
    table = {
        name: {levels: Width(weight / levels**2, levels * 10) for levels in (3, 5, 7, 9, 11, 16)}
        for name, weight in (("matters", 100.0), ("hardly", 1.0))
    }
    found = allocate(table, 190)
    assert found["matters"] > found["hardly"]
    assert predicted(table, found) == pytest.approx(best(table, 190), rel=0.2)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_the_unit_of_the_error_does_not_matter(scale: float) -> None:
    def scaled(factor: float) -> Mapping[str, Mapping[int, Width]]:
        return {
            f"layer{number}": {
                levels: Width(factor * (number + 1) / levels**2, levels * (40 - number)) for levels in COUNTS
            }
            for number in range(8)
        }

    for budget in (1000, 3000, 9000, 40000):
        assert allocate(scaled(scale), budget) == allocate(scaled(1.0), budget)


def test_large_tables_are_within_a_hair_of_the_bound() -> None:
    """Fifty layers: the duality gap is one step of one of them."""
    table = {
        f"layer{number}": {
            levels: Width(2.0 ** (number % 7) / levels**2, levels * (1 + number % 5)) for levels in range(3, 17)
        }
        for number in range(50)
    }
    for budget in (800, 1000, 1500):
        found = allocate(table, budget)
        bound = max(_dual(table, budget, 10**power) for power in (-n / 40 for n in range(240)))
        assert total(table, found) <= budget
        assert predicted(table, found) <= 1.01 * bound


def _dual(table: Table, budget: int, price: float) -> float:
    """What no allocation within the budget can beat (Lagrange)."""
    return sum(min(w.error + price * w.size for w in widths.values()) for widths in table.values()) - price * budget
