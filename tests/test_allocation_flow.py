"""Budgets through every allocation, on the embedded digits network: reached, foreseen, and shown."""

from __future__ import annotations

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgepress.errors import BudgetMissed
from edgepress.pipeline import compress
from edgepress.pipeline.analysis import Analysis, analyze
from edgepress.pipeline.budgets import search_of
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.context import Context
from edgepress.pipeline.integers import integers
from edgepress.pipeline.narrowing import Narrower, narrower
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.planner import ALLOCATIONS, count_macs
from edgepress.report import Report, numbers
from edgepress.report.terminal import render
from edgepress.request import ALLOCATIONS as NAMES
from edgepress.request import Request


@dataclasses.dataclass(frozen=True)
class Digits:
    """The embedded network, analyzed."""

    request: Request
    context: Context
    analysis: Analysis
    judged: Judge

    def narrower(self, **changes: Any) -> list[Candidate]:
        """Acceptable candidates of a request."""
        request = dataclasses.replace(self.request, **changes)
        search = search_of(request, self.context, self.analysis, self.judged.original_bytes)
        return narrower(self.context, self.analysis, self.judged, search)


@pytest.fixture(scope="module")
def digits(digits_model: Path, digits_part: Path) -> Digits:
    request = Request(digits_model, None, str(digits_part), dry_run=True, threads=1, max_drop=10, quantize=False)
    opened = read(request)
    assert opened.feed is not None
    context, _ = context_of(request, clean(opened).model, opened.feed)
    limit = limit_of(request, context.model, opened.feed)
    return Digits(request, context, analyze(context, request.score), Judge(context, limit, opened.model.size))


@pytest.mark.parametrize("name", NAMES)
def test_every_allocation_reaches_multiply_adds(name: str, digits: Digits) -> None:
    found = digits.narrower(mac_ratio=0.5, allocation=name)[-1]
    whole = sum(count_macs(digits.context.model).values())
    assert 0.3 * whole < found.macs <= 0.5 * whole  # the mildest, not the least there is
    pruning = found.pruning
    assert pruning is not None and pruning.measured_error is not None
    assert 0.2 < pruning.measured_error / pruning.error < 2
    assert pruning.file_bytes == pytest.approx(found.size, rel=0.001)
    assert pruning.latency_by == "analytic" and pruning.latency is not None and 0 < pruning.latency < 1


@pytest.mark.parametrize("name", ["curve", "dynamic"])
def test_allocations_reach_the_bytes_of_the_float_file(name: str, digits: Digits) -> None:
    found = digits.narrower(size_ratio=0.5, allocation=name)[-1]
    assert 0.35 * digits.judged.original_bytes < found.size <= 0.5 * digits.judged.original_bytes


@pytest.mark.parametrize("name", ["uniform", "dynamic"])  # the default is tried by other files
def test_without_a_budget_as_much_goes_as_quality_allows(name: str, digits: Digits) -> None:
    found = digits.narrower(allocation=name)
    assert all(item.verdict.acceptable for item in found)
    costs = [item.cost for item in found]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.35


def test_a_budget_that_costs_too_much_leaves_the_best_there_is(digits: Digits) -> None:
    strict = dataclasses.replace(digits, judged=digits.judged.at(0.02))
    found = strict.narrower(mac_ratio=0.17)
    macs = sum(count_macs(digits.context.model).values())
    assert found and 0.17 < found[-1].macs / macs < 0.5


def test_a_budget_that_is_kept_already_asks_for_nothing(digits: Digits) -> None:
    free, kept = digits.narrower(), digits.narrower(mac_ratio=1.0)
    assert [item.name for item in free] == [item.name for item in kept]


@pytest.mark.parametrize("bits", ["8", "4"])
def test_bytes_of_the_integer_file_are_foreseen(bits: str, digits: Digits) -> None:
    request = dataclasses.replace(digits.request, quantize=True, bits=bits, size_ratio=0.1)
    (budget,) = search_of(request, digits.context, digits.analysis, digits.judged.original_bytes).budgets
    widths = ALLOCATIONS["uniform"].path(digits.analysis.ladder, digits.analysis.ladder.costs.macs)[-1]
    source = Narrower(digits.context, digits.analysis, digits.judged)(widths)
    made = integers(digits.context, source, digits.judged, dataclasses.replace(request, activations="float"))
    assert budget.cost(widths.removed) == pytest.approx(made[0].model.size, rel=0.1)


@pytest.fixture
def asked(digits: Digits, tmp_path: Path, quick: None) -> Request:
    return dataclasses.replace(digits.request, output=tmp_path / "out.onnx")


def pruned(request: Request, **changes: Any) -> Report:
    """The report, of the best found if need be: what is fast is not the same on all machines."""
    try:
        return compress(dataclasses.replace(request, **changes))
    except BudgetMissed as missed:
        assert isinstance(missed.report, Report)
        return missed.report


def test_a_size_is_reached_by_bytes_of_the_integer_file(asked: Request) -> None:
    goal = 0.15
    report = pruned(asked, size_ratio=goal, bits="8", quantize=True)
    assert 0.7 * goal <= report.taken.file_bytes / report.original.file_bytes <= goal
    pruning = report.taken.pruning
    assert pruning is not None and (pruning.file_bytes, pruning.measured_error) == (None, None)
    assert pruning.latency_by == "analytic" and pruning.latency is not None and 0 < pruning.latency < 0.5


def test_a_speed_up_follows_the_table_of_this_machine(asked: Request) -> None:
    report = pruned(asked, speedup=1.4)
    narrow = [item for item in report.variants if item.pruning is not None]
    assert narrow
    for item in narrow:
        assert item.pruning is not None and item.pruning.latency_by == "measured"
        assert item.pruning.latency is not None and 0 < item.pruning.latency < 1
        assert item.ratio[1].median == pytest.approx(item.pruning.latency, rel=0.6)


def test_the_page_shows_what_was_predicted_beside_what_was_measured(asked: Request) -> None:
    report = pruned(asked, mac_ratio=0.6)
    stream = StringIO()
    render(report, Console(file=stream, width=79, highlight=False), verbose=True)
    (row,) = (line for line in stream.getvalue().splitlines() if line.startswith(report.chosen) and "kB" in line[20:]
              and "written" not in line)  # fmt: skip
    pruning = report.taken.pruning
    assert pruning is not None and pruning.latency is not None
    assert numbers.short(pruning.error) in row and numbers.fixed(pruning.latency) in row
    assert Report.from_json(report.to_json()) == report
