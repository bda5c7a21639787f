"""What is asked for, as budgets that pruning can follow.

    --mac-ratio    multiply-adds, exact
    --size-ratio   bytes of the file: of the float form with --no-quantize, of the integer form where --bits names its
                   width; where every layer gets a width or a step of its own, bits reach the size and pruning leaves it
                   to them
    --speedup      the latency table of this machine, or of the device (:mod:`edgepress.planner.timing`), corrected by
                   what each model is measured to take

The bytes of the integer form that pruning does not change are taken from one that is made of the whole model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edgepress.levels import INT8
from edgepress.model import Model
from edgepress.pipeline.analysis import Analysis
from edgepress.pipeline.build import integer, mark_bytes, material
from edgepress.pipeline.choose import quick_ratio
from edgepress.pipeline.context import Context, inputs_of
from edgepress.pipeline.integers import base_settings
from edgepress.pipeline.narrowing import Search
from edgepress.planner import Budget, Clock, FileSize, LatencyTable, measure_latency
from edgepress.quantize import has_float32_weight
from edgepress.quantize.storage.unpacking import narrowest, stored_bytes
from edgepress.request import Request
from edgepress.targets.releases import release

MARK = 16
"""Bytes that what a file says about itself may grow by."""


def search_of(request: Request, context: Context, analysis: Analysis, original_bytes: int) -> Search:
    """How narrower models are looked for.

    Takes the costs of the layers of the model where speed is asked for; those of a device are in the ladder already.
    """
    if not analysis.ladder.groups:
        return Search(request.allocation)
    table = analysis.table
    if table is None and request.speedup is not None:
        table = _table(request, context, analysis)
    budgets = tuple(_budgets(request, context, analysis, original_bytes, table))
    return Search(request.allocation, budgets, table, for_file=request.for_coding)


def along_device(request: Request, context: Context, analysis: Analysis) -> Analysis:
    """The analysis with the costs of the device that the user has named: widths go along them."""
    if not context.place.named or not analysis.ladder.groups:
        return analysis
    table = _table(request, context, analysis)
    ladder = dataclasses.replace(analysis.ladder, costs=dataclasses.replace(analysis.ladder.costs, time=table))
    return dataclasses.replace(analysis, ladder=ladder, table=table)


def _budgets(
    request: Request, context: Context, analysis: Analysis, original_bytes: int, table: LatencyTable | None
) -> Iterator[Budget]:
    ladder = analysis.ladder
    if request.mac_ratio is not None and (macs := ladder.costs.macs({})):
        yield Budget("--mac-ratio", ladder.costs.macs, request.mac_ratio * macs)
    if request.size_ratio is not None and not request.mixed_widths and not request.rounds_steps:
        goal = request.size_ratio * original_bytes - mark_bytes((), None) - MARK
        if goal > 0:
            yield _size(request, context, analysis, goal)
    if request.speedup is not None and table is not None:
        whole = table({})

        def measured(model: Model) -> float:
            feeds = inputs_of(context.hold_out, 8, chunk=1)
            return whole * quick_ratio(model, context.model, feeds, request, context.place.meter)

        yield Budget("--speedup", table, whole / request.speedup, measured)


def _table(request: Request, context: Context, analysis: Analysis) -> LatencyTable:
    feed = inputs_of(context.hold_out, 1, chunk=1)[0]
    clock, place = Clock(threads=request.threads or 1, seed=request.seed), context.place
    groups, multiple = analysis.ladder.groups, analysis.ladder.multiple
    return measure_latency(
        context.model, context.grouping, groups, multiple, feed, place.meter, clock, place.cache(clock.threads)
    )


def _size(request: Request, context: Context, analysis: Analysis, goal: float) -> Budget:
    model, groups = context.model, analysis.ladder.groups
    if not request.quantize:
        return Budget("--size-ratio", FileSize.of(model, groups, model.size), goal, lambda found: found.size)
    whole, stored = _integer_form(request, context)
    return Budget("--size-ratio", FileSize.of(model, groups, whole, stored), goal)


def _integer_form(request: Request, context: Context) -> tuple[int, dict[str, float]]:
    """Bytes of an integer form of the whole model, and bytes per number of the weights that are integers in it."""
    model, settings = context.model, dataclasses.replace(base_settings(context, request), repair=False)
    nodes = [node for node in model.nodes if has_float32_weight(model, node) and node.name not in settings.float_nodes]
    levels = INT8 if request.levels is None else request.levels
    few = {node.name: levels for node in nodes} if levels < INT8 else {}
    settings = dataclasses.replace(settings, levels=few)
    form = integer(context, material(context, (), model, settings), settings)
    narrow = narrowest(model.opset, release(request.min_ort))
    counts = {node.inputs[1]: int(model.constants[node.inputs[1]].size) for node in nodes}
    return form.size, {name: stored_bytes(count, levels, narrow) / max(1, count) for name, count in counts.items()}
