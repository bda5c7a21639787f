"""The shortest coded file: steps of every layer by Fisher information, as few bytes as the limits allow.

For a budget of bytes the knapsack gives the steps (``pipeline.steps``), one joint pass rounds to them, and the hold-out
samples judge. On the way sizes are foreseen from the classes of the numbers (``codec.classes``); of the smallest form
of each float model the bytes of its whole coded file are taken, and decide. A narrower model and its rounding both lose
quality: models that pruning has left more or less of the limit are all tried, each as long as it may still give a
smaller file, and rounding that pays for bits (``rate``) after plain rounding. With a file size to reach the budget
follows from that, and the model whose answers stay closest is kept.

Measured: a third of the limit for pruning is best on fully connected layers, which rounding at less than a bit thins
out anyway; thin residual networks want none of it, which is why the whole model is always among those tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgepress.codec.classes import class_bits
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.coding import Coded, coded, coded_size, tables_of
from edgepress.pipeline.context import Context
from edgepress.pipeline.integers import distance
from edgepress.pipeline.searching import first_accepted
from edgepress.pipeline.steps import Table, step_table, steps_of
from edgepress.plan import Coding
from edgepress.planner.levels import allocate, predicted
from edgepress.quality import KL_PER_POINT
from edgepress.quantize import has_float32_weight

ROUNDS = 9
"""Budgets tried for one float candidate."""

CLOSE = 1.03
"""Neighbouring budgets differ by this factor."""

STEP = 4
"""Budgets between the first and the second one that is tried."""

RATE = 0.12
"""What a bit is worth where rounding pays for bits: the slope that fits a step (``codec.lengths.SLOPE``)."""

MADE_UP = 12.0
"""Predicted error (at the temperature of the scores, nothing made up for) over what the joint pass leaves of it. Only
where the search starts depends on it: a wrong one costs steps, not quality."""

CORRECTIONS = 3
"""Budgets whose files are measured to keep a size, if what was foreseen of the first does not hold."""


def shortest(
    context: Context,
    sources: Sequence[Candidate],
    judged: Judge,
    *,
    kept: Sequence[str] = (),
    goal: int | None = None,
    bounded: bool = True,
) -> list[Candidate]:
    """Coded forms of float candidates, the smallest one that is acceptable last; the closest one if none is.

    Args:
        context: the compression; its network must be one that the executor runs.
        sources: float candidates, the most promising first.
        judged: the judge.
        kept: names of nodes that stay float.
        goal: bytes that the file may have; None, or one out of reach: as few as quality allows.
        bounded: give a candidate up where it cannot be smaller than the ones before; not where size is not all.
    """
    found: list[Candidate] = []
    for source in sources:
        search = _Search(context, source, judged, kept)
        best = min((item.size for item in found if item.verdict.acceptable), default=None) if bounded else None
        if not search.table:
            found += search.only()
        else:
            found += search.within(goal) if goal is not None else search.smallest(best)
    if goal is not None:
        fitting = sorted((item for item in found if item.size <= goal), key=lambda item: distance(item.verdict))
        return fitting[:1] or shortest(context, sources, judged, kept=kept, bounded=bounded)
    accepted = sorted((item for item in found if item.verdict.acceptable), key=lambda item: -item.size)
    return accepted or sorted(found, key=lambda item: -distance(item.verdict))[-1:]


def measured(item: Candidate) -> Candidate:
    """The candidate with the bytes that its coded file has."""
    return dataclasses.replace(item, coded_bytes=coded_size(item.model))


def _rank(item: Candidate) -> tuple[bool, float]:
    """Acceptable ones by their size, before others by their distance."""
    taken = item.verdict.acceptable
    return not taken, float(item.size) if taken else distance(item.verdict)


@dataclass
class _Search:
    """Budgets of bytes for one float candidate (private)."""

    context: Context
    source: Candidate
    judged: Judge
    kept: Sequence[str]
    known: dict[tuple[int, float], tuple[int, bool]] = field(default_factory=dict)
    best: Candidate | None = None
    rest: float | None = None

    def __post_init__(self) -> None:
        model = self.source.model
        nodes = [node for node in model.nodes if node.name not in self.kept and has_float32_weight(model, node)]
        classifies = self.judged.limit.measure != "sqnr"
        self.table: Table = step_table(self.context, model, [node.name for node in nodes], classifies=classifies)
        self.others = tuple(node.name for node in nodes if node.name not in self.table)
        self.tables = tables_of(model, self.kept)

    def smallest(self, below: int | None) -> Iterator[Candidate]:
        """The smallest form that is acceptable, or the closest one; no search where it cannot be below a size."""
        guess = self._guess()
        size, taken = self.outcome(guess)
        count = self._count() if below is None else self._until(guess, size, below)
        if guess < count or taken:
            count = max(count, guess + 1)
            place = first_accepted(lambda each: self.outcome(each)[1], count, guess, ROUNDS, STEP)
            if place is not None:
                self._paying(place)
        if self.best is not None:
            yield measured(self.best)

    def within(self, goal: int) -> Iterator[Candidate]:
        """The form whose file is as close to a size as may be without being larger, if there is one."""
        count = self._count()
        guess = sum(self._budget(place) <= goal for place in range(count - 1))
        larger = first_accepted(lambda each: self.outcome(each)[0] > goal, count, guess, ROUNDS, STEP)
        last = (count if larger is None else larger) - 1
        near = range(last, max(-1, last - CORRECTIONS), -1)
        fitting = sorted((place for (place, _), (size, _) in self.known.items() if size <= goal), reverse=True)
        for place in dict.fromkeys((*near, *fitting)):
            item = measured(self.form(self._budget(place), 0.0))
            if item.size <= goal:
                yield item
                return

    def only(self) -> Iterator[Candidate]:
        """The form without steps to choose, if there is anything else to round."""
        if self.others or self.tables:
            yield measured(self.form(0, 0.0))

    def outcome(self, place: int, rate: float = 0.0) -> tuple[int, bool]:
        """Bytes of the form of a budget, by its number, and whether it is acceptable. Only the best one is kept."""
        if (place, rate) not in self.known:
            item = self.form(self._budget(place), rate)
            self.known[place, rate] = item.size, item.verdict.acceptable
            self.best = item if self.best is None else min(self.best, item, key=_rank)
        return self.known[place, rate]

    def form(self, budget: int, rate: float) -> Candidate:
        """The form of a budget."""
        places = allocate(self.table, budget) if self.table else {}
        coding = Coding(steps_of(self.source.model, places), self.tables, rate, self.others)
        made = coded(self.context, self.source.cuts, coding)
        size = self._foreseen(made)
        return dataclasses.replace(
            self.source,
            name=f"{self.source.name}-coded-{8 * size / max(1, self.source.parameters):.2f}",
            label=f"{'pruned and ' if self.source.cuts else ''}rounded for the coded file",
            model=made.model,
            coding=coding,
            coded_bytes=size,
            verdict=self.judged(made.model),
            predicted=predicted(self.table, places),
        )

    def _foreseen(self, made: Coded) -> int:
        """Bytes of the coded file, by what the first one had besides the numbers of its weights."""
        numbers = sum(map(class_bits, made.whole.values())) / 8
        if self.rest is None:
            self.rest = coded_size(made.model) - numbers
        return max(1, round(numbers + self.rest))

    def _paying(self, place: int) -> None:
        """Try rounding that pays for bits, at the budget that was found and at those beside it."""
        size, _ = self.outcome(place)
        if self.outcome(place, RATE)[1]:
            if place > 0:
                self.outcome(place - 1, RATE)
            return
        for more in (1, 2):
            mine, taken = self.outcome(place + more, RATE)
            if taken or mine >= size:
                return

    def _guess(self) -> int:
        """The budget whose predicted error, which others make up for, is what may be lost; the middle without one."""
        limit, count = self.judged.limit, self._count()
        if limit.measure == "sqnr":
            return count // 2
        allowed = MADE_UP * max(0.0, KL_PER_POINT * limit.max_drop - self.source.verdict.kl)
        errors = (predicted(self.table, allocate(self.table, self._budget(place))) for place in range(count))
        return next((place for place, error in enumerate(errors) if error <= allowed), count - 1)

    def _until(self, guess: int, size: int, below: int) -> int:
        """The first budget whose file is not expected to be smaller than that, by one that was tried."""
        most = self._budget(guess) * below / size
        return next((place for place in range(self._count()) if self._budget(place) > most), self._count())

    def _budget(self, place: int) -> int:
        return math.ceil(self._least() * CLOSE**place)

    def _count(self) -> int:
        return 1 + math.ceil(math.log(self._most() / self._least()) / math.log(CLOSE))

    def _least(self) -> int:
        """Bytes of the coarsest steps."""
        return max(1, sum(min(width.size for width in widths.values()) for widths in self.table.values()))

    def _most(self) -> int:
        """Bytes of the finest."""
        return max(2, sum(max(width.size for width in widths.values()) for widths in self.table.values()))
