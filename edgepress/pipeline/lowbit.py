"""Mixed widths: levels of every layer by Fisher information, as few bytes as the limits allow.

For a budget of bytes ``planner.levels`` gives the levels, the joint pass rounds to them, and the hold-out samples
judge. With a file size to reach, the budget is what the rest of the file leaves; without one it is bisected for the
smallest file whose answers keep the limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from edgepress.levels import INT8
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.choose import ratio_of, tie_of
from edgepress.pipeline.context import Context, inputs_of
from edgepress.pipeline.integers import Maker, distance
from edgepress.pipeline.searching import first_accepted
from edgepress.pipeline.sequences import has_fixed_ranges
from edgepress.pipeline.widths import Table, width_table
from edgepress.plan import Quantization
from edgepress.planner.levels import allocate, predicted
from edgepress.quality import KL_PER_POINT
from edgepress.quantize.storage.unpacking import narrowest
from edgepress.request import Request
from edgepress.targets.releases import release

ROUNDS = 8
"""Budgets tried for one float candidate."""

CLOSE = 1.05
"""The accepted and the refused budget that the search ends with differ by this factor."""

EARLY = 1.5
"""Seconds of timing that say which int8 form mixed widths start from."""

MADE_UP = 12.0
"""Predicted error (at the temperature of the scores, nothing made up for) over what the joint pass leaves of it. Only
where the search starts depends on it: a wrong one costs steps, not quality."""


def start(request: Request, context: Context, found: list[Candidate]) -> Candidate:
    """The int8 form that mixed widths start from: by the target's rules, or without them where that is faster.

    Args:
        request: says in how many threads it will run.
        context: the compression.
        found: integer forms of one float candidate, one at least.
    """
    best: dict[bool, Candidate] = {}
    for item in sorted(found, key=lambda item: distance(item.verdict)):
        if item.quantization is not None and has_fixed_ranges(item.quantization):
            best.setdefault(item.quantization.whole, item)
    ruled, whole = best.get(False), best.get(True)
    if ruled is None or whole is None or context.target.artifact:
        return ruled or whole or found[0]
    data = {item.name: item.model.data for item in (ruled, whole)}
    feeds = inputs_of(context.hold_out, 8, chunk=1)
    threads = request.threads or 1
    meter = context.place.meter
    timing = meter.compare(data, feeds, threads=threads, seconds=EARLY, seed=request.seed, reference=ruled.name)
    return whole if ratio_of(whole.name, timing) * (1 + tie_of(timing)) < 1 else ruled


def mixed(
    context: Context, source: Candidate, judged: Judge, request: Request, wide: Candidate, goal: int | None
) -> list[Candidate]:
    """Mixed-width forms of a float candidate.

    Args:
        context: the compression.
        source: the float candidate.
        judged: the judge.
        request: says whether codebooks may be used.
        wide: the best int8 form: its ranges and float layers are kept.
        goal: bytes that the file may have; None for as few as quality allows.
    """
    settings = dataclasses.replace(
        wide.quantization or Quantization(), rounding="joint", equalize=False, dynamic=(), blocked=(), recurrent=()
    )
    settled = {*settings.float_nodes, *context.given.decided}
    nodes = [node.name for node in source.model.nodes if node.name not in settled]
    table = width_table(
        context,
        source.model,
        nodes,
        classifies=judged.limit.measure != "sqnr",
        narrow=narrowest(source.model.opset, release(settings.min_ort)),
        limit=settings.weight_limit,
    )
    if not table:
        return []
    others: tuple[Literal["float"], ...] = () if context.target.artifact else ("float",)
    search = _Search(Maker(context, source, judged), settings, table, wide.size, request.codebooks, others)
    found = list(search.smallest() if goal is None else search.within(goal))
    accepted = [item for item in found if item.verdict.acceptable]
    return _smallest_of_each(accepted) if accepted else sorted(found, key=lambda item: distance(item.verdict))[:1]


def _smallest_of_each(found: list[Candidate]) -> list[Candidate]:
    """The smallest form of each arithmetic."""
    ordered = sorted(found, key=lambda item: -item.size)
    return list({item.quantization.compute: item for item in ordered if item.quantization is not None}.values())


@dataclasses.dataclass
class _Search:
    """Budgets of bytes for one float candidate (private)."""

    maker: Maker
    settings: Quantization
    table: Table
    wide: int
    codebooks: bool
    others: tuple[Literal["float"], ...]

    def smallest(self) -> list[Candidate]:
        """Forms on the way to the smallest acceptable one; budgets are numbered on a geometric scale."""
        count = 1 + math.ceil(math.log(self._most() / self._least()) / math.log(CLOSE))
        found: list[Candidate] = []

        def accepted(place: int) -> bool:
            forms = self.forms(math.ceil(self._least() * CLOSE**place))
            found.extend(forms)
            return any(item.verdict.acceptable for item in forms)

        first_accepted(accepted, count, self._guess(count), ROUNDS)
        return found

    def _guess(self, count: int) -> int:
        """The budget whose predicted error, which others make up for, is what may be lost; the middle without one."""
        limit = self.maker.judged.limit
        if limit.measure == "sqnr":
            return count // 2
        allowed = MADE_UP * KL_PER_POINT * limit.max_drop

        def fits(place: int) -> bool:
            return predicted(self.table, allocate(self.table, math.ceil(self._least() * CLOSE**place))) <= allowed

        return next((place for place in range(count) if fits(place)), count - 1)

    def within(self, goal: int) -> Iterator[Candidate]:
        """Forms whose file is no larger than a goal, as close to it as may be."""
        budget = goal - (self.wide - self._most())
        for _ in range(3):
            forms = self.forms(budget)
            yield from forms
            over = max(item.size for item in forms) - goal
            if over <= 0 or budget <= self._least():
                return
            budget -= over

    def forms(self, budget: int) -> list[Candidate]:
        """The form of one budget, and the stored one where that is of use."""
        levels = allocate(self.table, budget)
        few = {name: count for name, count in levels.items() if count < INT8}
        books = tuple(name for name, count in few.items() if count <= 16) if self.codebooks else ()
        settings = dataclasses.replace(self.settings, levels={**self.settings.levels, **few}, codebooks=books)
        made = self.maker.material(settings)
        error = predicted(self.table, levels)
        forms = dict.fromkeys((self.settings.compute, *self.others))
        found = [self.maker.form(made, dataclasses.replace(settings, compute=compute)) for compute in forms]
        return [dataclasses.replace(item, predicted=error) for item in found]

    def _least(self) -> int:
        """Bytes of the narrowest widths."""
        return sum(min(width.size for width in widths.values()) for widths in self.table.values())

    def _most(self) -> int:
        """Bytes of the widest."""
        return sum(max(width.size for width in widths.values()) for widths in self.table.values())
