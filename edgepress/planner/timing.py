"""Times of the layers of a model on this CPU, alone, over a grid of widths: the material of a latency table.

Every weighted node becomes a model of its own (:mod:`edgepress.planner.single`) at the widths of a grid
(:mod:`edgepress.planner.grid`); layers of the same shape are timed once. The points of a layer take turns, in shuffled
rounds, and the best visit of a point counts, as the least disturbed one; what starting a run takes is timed as well and
taken off. Bounded: the longer the model takes the coarser the grid, and rounds end when their share of the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

import numpy as np
from onnx import TensorProto, helper

from edgepress.groups import Group, Grouping
from edgepress.model import Model
from edgepress.planner.grid import GridLayer, Removed, Shrinking, shrinking
from edgepress.planner.latency import LatencyTable, LayerTimes, never_less

SECONDS = 5.0
"""Time for all layers of a model, about."""

GRIDS = (5, 4, 3, 2)
"""Points along an axis, the finest grid first."""

VISIT_MS = 0.5
ROUNDS = 8
FEWEST_ROUNDS = 2
"""Rounds of a layer whose time is up."""

SETUP_MS = 8.0
"""Making and opening the model of one point, about; says how fine a grid there is time for."""

MOST_RUNS = 50
LEAST_MS = 1e-4
"""A layer that cannot be told from nothing."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Clock:
    """How to time: intra-op threads, seconds for all layers, seed of the order of visits."""

    threads: int = 1
    seconds: float = SECONDS
    seed: int = 0


def measure_latency(
    model: Model, grouping: Grouping, groups: Sequence[Group], multiple: int, feed: Feed, clock: Clock
) -> LatencyTable:
    """Time a model and its layers.

    Args:
        model: the model.
        grouping: its channel groups.
        groups: those that may shrink.
        multiple: widths on the grid are multiples of this, where groups are wide enough.
        feed: one sample.
        clock: how to time.
    """
    start, whole = _best([_opened(*_nothing(), clock), _opened(model, feed, clock)], clock, clock.seconds / 10)
    found = shrinking(model, grouping, groups)
    count = next((count for count in GRIDS if _expected(found, count, float(whole)) <= clock.seconds), GRIDS[-1])
    layers = [layer.at_points(groups, multiple, count) for layer in found]
    kinds = {layer.key: layer for layer in layers}
    share = clock.seconds / max(1, len(kinds))
    times = {key: _times(layer, float(start), clock, share) for key, layer in kinds.items()}
    rows = [
        LayerTimes(layer.single.node.name, tuple(span.axis for span in layer.spans), layer.grid, times[layer.key])
        for layer in layers
    ]
    return LatencyTable.of(rows, float(whole), float(start))


def _expected(layers: Sequence[Shrinking], count: int, whole: float) -> float:
    """Seconds that a grid of so many points along an axis takes, about."""
    each = max(VISIT_MS, whole / max(1, len(layers)))
    points = sum(count ** len(layer.spans) for layer in layers)
    return float(points * (SETUP_MS + 2 * ROUNDS * each) / 1000)


def _times(layer: GridLayer, start: float, clock: Clock, seconds: float) -> np.ndarray:
    """Times of a layer over its grid in ms, without what starting a run takes."""
    runners = [_opened(*layer.single.at(_first(removed)), clock) for removed in layer.states()]
    times = _best(runners, clock, seconds) - start
    return never_less(np.maximum(times, LEAST_MS).reshape([len(along) for along in layer.points]))


def _first(removed: Removed) -> dict[str, range]:
    """The first channels of every group: which ones go makes no difference to the time."""
    return {name: range(count) for name, count in removed.items()}


def _nothing() -> tuple[Model, dict[str, np.ndarray]]:
    """A model that does nothing, for what starting a run takes."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", value[:1], value[1:])
    opset = [helper.make_opsetid("", 17)]
    return Model.of(helper.make_model(graph, opset_imports=opset, ir_version=8)), {"x": np.zeros(1, np.float32)}


def _opened(model: Model, feed: Feed, clock: Clock) -> Callable[[], object]:
    opened = model.session(threads=clock.threads)
    names, values = [output.name for output in opened.get_outputs()], dict(feed)
    return lambda: opened.run(names, values)


def _best(runners: Sequence[Callable[[], object]], clock: Clock, seconds: float) -> np.ndarray:
    """Best time of each in ms, visited in shuffled rounds."""
    begin, random = perf_counter(), np.random.default_rng(clock.seed)
    best = np.array([_run_ms(run, 1) for run in runners])  # the first run allocates
    best = np.array([_run_ms(run, 1) for run in runners])
    counts = [int(np.clip(VISIT_MS / max(took, 1e-6), 1, MOST_RUNS)) for took in best]
    for done in range(ROUNDS):
        if done >= FEWEST_ROUNDS and perf_counter() - begin > seconds:
            break
        for place in random.permutation(len(runners)):
            best[place] = min(best[place], _run_ms(runners[place], counts[place]))
    return best


def _run_ms(run: Callable[[], object], count: int) -> float:
    """The best of some runs in a row."""
    stamps = [perf_counter_ns()]
    for _ in range(count):
        run()
        stamps.append(perf_counter_ns())
    return float(np.diff(stamps).min()) / 1e6
