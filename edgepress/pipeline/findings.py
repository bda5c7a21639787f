"""Everything the stages of one compression found out, before it is put into words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgepress import __version__
from edgepress.bench import Timing
from edgepress.devices import Level
from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize import Normalized
from edgepress.pipeline.candidates import Candidate, candidate
from edgepress.pipeline.choose import Choice
from edgepress.pipeline.coding import coded_size
from edgepress.pipeline.context import Context
from edgepress.pipeline.place import Place, here
from edgepress.pipeline.prepare import Opened
from edgepress.planner import LatencyTable
from edgepress.quality import Comparison, Limit, Verdict, judge
from edgepress.report.result import CLEANED
from edgepress.request import Request


@dataclass(frozen=True)
class Findings:
    """What is known so far; every stage adds to it."""

    request: Request
    opened: Opened
    normalized: Normalized
    context: Context | None
    limit: Limit | None
    candidates: tuple[Candidate, ...]
    timing: Mapping[int, Timing]
    choice: Choice | None
    plain: Model | None
    plain_verdict: Verdict | None
    refusals: tuple[Refusal, ...]
    provenance: Mapping[str, Any]
    table: LatencyTable | None = None

    @classmethod
    def start(
        cls,
        request: Request,
        opened: Opened,
        normalized: Normalized,
        context: Context | None = None,
        refusals: Sequence[Refusal] = (),
    ) -> Findings:
        """What is known before anything was tried."""
        skipped = [Refusal(step.name, step.skipped) for step in normalized.steps if step.skipped]
        return cls(
            request=request,
            opened=opened,
            normalized=normalized,
            context=context,
            limit=None,
            candidates=(),
            timing={},
            choice=None,
            plain=None,
            plain_verdict=None,
            refusals=(*skipped, *refusals),
            provenance={
                "version": __version__,
                "budgets": budgets(request),
                "score": request.score,
                "allocation": request.allocation,
            },
        )

    @property
    def original_bytes(self) -> int:
        """Size of the model as it came, weights inside."""
        return self.opened.model.size

    @property
    def place(self) -> Place:
        """Where costs are taken."""
        return here() if self.context is None else self.context.place

    @property
    def level(self) -> Level:
        """What the costs that decided are worth; ``analytic``, where none were taken."""
        return next((timing.level for timing in self.timing.values()), "analytic")

    @property
    def threads(self) -> tuple[int, ...]:
        """Thread counts to take costs with."""
        return self.place.threads(self.request.threads)

    @property
    def decisive_threads(self) -> int:
        """The count the choice is made by: one, unless the user names another."""
        return self.request.threads or 1

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen; the cleaned model when nothing was tried."""
        if self.choice is None:
            return self._alone
        return next(item for item in self.candidates if item.name == self.choice.chosen)

    @cached_property
    def _alone(self) -> Candidate:
        """The cleaned model, with nothing measured but its coded file, where that is what is handed over."""
        found = candidate(CLEANED, "cleaned fp32", self.normalized.model, (), never_measured(), None)
        if not self.request.for_coding:
            return found
        return dataclasses.replace(found, coded_bytes=coded_size(found.model))


def never_measured() -> Verdict:
    """Verdict of a model that was only cleaned, without samples: nothing was measured."""
    nothing = np.zeros(1)
    same = Comparison(np.zeros(1, bool), nothing, None, np.ones((1, 1)), nothing[:, None])
    return dataclasses.replace(judge(same, Limit("sqnr", 0.0, 0.0)), samples=0)


def budgets(request: Request) -> dict[str, float | None]:
    """What was asked for; None where nothing was."""
    return {
        "max_drop": request.max_drop,
        "min_sqnr": request.min_sqnr,
        "mac_ratio": request.mac_ratio,
        "size_ratio": request.size_ratio,
        "speedup": request.speedup,
    }
