"""What could be handed over: narrower float models, and forms of them in integers or for a coded file."""

from __future__ import annotations

import dataclasses

from edgepress.pipeline.analysis import Analysis
from edgepress.pipeline.budgets import search_of
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.context import Context
from edgepress.pipeline.integers import integers
from edgepress.pipeline.lowbit import mixed, start
from edgepress.pipeline.narrowing import Made, narrower
from edgepress.pipeline.shortest import shortest
from edgepress.quantize import quantize_refusal
from edgepress.request import Request

QUANTIZED_WIDTHS = 2
"""Pruned float models that get an int8 form, the strongest acceptable ones."""

PRUNED_SHARES = (0.35, 0.8)
"""Shares of the limit that pruning may use where narrow weights use the rest. (Measured: on convolutions a third is
best, since rounding absorbs the same redundancy; LeNets reach the narrowest weights before that and want more.)"""

CODED_SHARES = (0.35, 0.15, 0.7)
"""The same for coded files, the most promising first: all of them are tried, and the whole model too."""


def narrow(request: Request, context: Context, analysis: Analysis, judged: Judge) -> list[Candidate]:
    """Narrower float models, mildest first; with widths or steps of their own those that leave a part to rounding."""
    search = search_of(request, context, analysis, judged.original_bytes)
    if not request.mixed_widths and not request.rounds_steps:
        return narrower(context, analysis, judged, search)
    made: Made = {}
    shares = CODED_SHARES if request.rounds_steps else PRUNED_SHARES
    strongest = [narrower(context, analysis, judged.at(share), search, made)[-1:] for share in shares]
    return [dataclasses.replace(item, verdict=judged(item.model)) for found in strongest for item in found]


def integer_forms(request: Request, context: Context, judged: Judge, sources: list[Candidate]) -> list[Candidate]:
    """Integer forms of float candidates, where they are wanted and possible."""
    if not request.wants_integers or quantize_refusal(context.model) is not None:
        return []
    return [item for source in sources for item in _quantized(request, context, judged, source)]


def coded_forms(request: Request, context: Context, judged: Judge, sources: list[Candidate]) -> list[Candidate]:
    """Float candidates rounded for a coded file, where one is asked for and they can be."""
    if not request.rounds_steps or not context.sweep_samples:
        return []
    goal = None if request.size_ratio is None else int(request.size_ratio * judged.original_bytes)
    bounded = request.mac_ratio is None and request.speedup is None
    return shortest(context, sources, judged, kept=request.keep_float, goal=goal, bounded=bounded)


def _quantized(request: Request, context: Context, judged: Judge, source: Candidate) -> list[Candidate]:
    """Integer forms of one float candidate, of the width that is asked for."""
    found = integers(context, source, judged, request)
    if not request.mixed_widths:
        return found
    goal = None if request.size_ratio is None else int(request.size_ratio * judged.original_bytes)
    return [*found, *mixed(context, source, judged, request, start(request, context, found), goal)]
