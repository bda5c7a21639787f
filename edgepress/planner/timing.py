"""Costs of the layers of a model alone, over a grid of widths: the material of a latency table.

Every weighted node becomes a model of its own (:mod:`edgepress.planner.single`) at the widths of a grid
(:mod:`edgepress.planner.grid`); layers of the same shape are taken once, and what a device was asked for before is not
asked again (:mod:`edgepress.planner.cache`). Where costs come from is the matter of a meter: times of this process or
of a device, where the points of a layer take turns and the least disturbed visit counts; or instructions counted there.
What starting a run takes is taken as well, and off; and the whole model at a few widths, which brings the layers
together.

Bounded: the longer the model takes the coarser the grid. A clock has ``SECONDS`` for all layers; an emulator, which is
slower than a device by orders of magnitude, has ``COUNTING_S``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import TensorProto, helper

from edgepress.bench.here import ROUNDS, VISIT_MS
from edgepress.bench.meter import Meter, Small
from edgepress.devices import Level
from edgepress.groups import Group, Grouping
from edgepress.model import Model
from edgepress.planner.cache import CostCache, short_hash
from edgepress.planner.grid import GridLayer, Removed, kept_of, shrinking
from edgepress.planner.latency import LatencyTable, LayerTimes, never_less
from edgepress.planner.macs import count_macs
from edgepress.planner.widths import KEEP
from edgepress.surgery.cut import cut

SECONDS = 5.0
"""Time for all layers of a model, about."""

COUNTING_S = 90.0
"""The same for an emulator."""

GRIDS = ((5, 17), (4, 17), (3, 17), (3, 9), (2, 9), (2, 5), (2, 0))
"""Points along an axis, and steps along it with all others whole; the finest grid first."""

WHOLES = 5
"""States that the whole model is taken in."""

SETUP_MS = 8.0
"""Making and opening the model of one point, about; says how fine a grid there is time for."""

COUNTED_RUNS = 3
COUNTED_SETUP_S = 0.2
COUNTED_PER_S = 60.0
"""An emulator runs a model so often for a count, takes so long to open it, and does so many millions of instructions a
second, about."""

BATCH_BYTES = 64 * 2**20
"""Models that are made before they are handed to a meter."""

LEAST = 1e-4
"""A layer that cannot be told from nothing."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Clock:
    """How to time: intra-op threads, seconds for all layers (None: those of this module), seed of the order."""

    threads: int = 1
    seconds: float | None = None
    seed: int = 0


def measure_latency(
    model: Model,
    grouping: Grouping,
    groups: Sequence[Group],
    multiple: int,
    feed: Feed,
    meter: Meter,
    clock: Clock,
    cache: CostCache | None = None,
) -> LatencyTable:
    """Take the costs of a model and its layers.

    Args:
        model: the model.
        grouping: its channel groups.
        groups: those that may shrink.
        multiple: widths on the grid are multiples of this, where groups are wide enough.
        feed: one sample.
        meter: where costs come from.
        clock: how to time.
        cache: costs that are known; None knows nothing, and remembers nothing.
    """
    seconds = clock.seconds if clock.seconds is not None else COUNTING_S if meter.level == "counted" else SECONDS
    book = _Book(meter, clock, cache or CostCache(None, "", {}))
    states = _states(groups, multiple)
    wholes = [_whole(model, grouping, removed, feed) for removed in states]
    start, *costs = book.costs([_Point(*_nothing()), *wholes], seconds / 4)
    layers = _affordable(model, grouping, groups, multiple, meter.level, costs[0], seconds)
    kinds = {layer.key: layer for layer in layers}
    times = book.layers(kinds, start, seconds / max(1, len(kinds)))
    rows = [
        LayerTimes(layer.single.node.name, tuple(span.axis for span in layer.spans), layer.grid, *times[layer.key])
        for layer in layers
    ]
    table = LatencyTable.of(rows, list(zip(states, costs, strict=True)), meter.level)
    return replace(table, taken=book.taken, known=book.known, note=book.cache.note)


def _states(groups: Sequence[Group], multiple: int) -> list[Removed]:
    """Channels removed when every group keeps the same share; nothing first."""
    found = [
        {group.name: group.size - kept_of(group, share, multiple) for group in groups}
        for share in np.geomspace(1, KEEP, WHOLES)
    ]
    return [state for place, state in enumerate(found) if state not in found[:place]]


def _whole(model: Model, grouping: Grouping, removed: Removed, feed: Feed) -> _Point:
    """The whole model without some channels."""
    made = cut(model, grouping, _first(removed)).model if any(removed.values()) else model
    return _Point(made, feed, short_hash((made.sha256, [(name, value.shape) for name, value in feed.items()])))


def _affordable(
    model: Model,
    grouping: Grouping,
    groups: Sequence[Group],
    multiple: int,
    level: Level,
    whole: float,
    seconds: float,
) -> list[GridLayer]:
    """The layers on the finest grid there is time for."""
    macs = count_macs(model, grouping.sizes)
    total, found = max(1, sum(macs.values())), shrinking(model, grouping, groups)
    layers: list[GridLayer] = []
    for points, steps in GRIDS:
        layers = [layer.at_points(groups, multiple, points, steps) for layer in found]
        once = {layer.key: layer for layer in layers}.values()
        costs = ((layer, whole * macs.get(layer.single.node.name, 0) / total) for layer in once)
        if sum(_expected(layer, cost, level) for layer, cost in costs) <= seconds:
            break
    return layers


def _expected(layer: GridLayer, cost: float, level: Level) -> float:
    """Seconds that a layer takes, about, if it costs so much when it is whole."""
    shares = layer.shares()
    if level == "counted":
        return COUNTED_SETUP_S * len(shares) + COUNTED_RUNS * cost * sum(shares) / COUNTED_PER_S
    return len(shares) * (SETUP_MS + 2 * ROUNDS * max(VISIT_MS, cost)) / 1000


@dataclass(frozen=True, slots=True)
class _Point:
    """A model to take the cost of, and what tells it from others."""

    model: Model
    feed: Feed
    key: str = ""

    @property
    def name(self) -> str:
        """Of what counts: operators, attributes, shapes, types; not of names and values."""
        if self.key:
            return self.key
        arrays = {**self.model.constants, **self.feed}
        return short_hash(
            [
                (node.op, node.domain, sorted((key, repr(value)) for key, value in node.attributes.items()),
                 [(str(arrays[name].dtype), arrays[name].shape) for name in node.inputs if name])
                for node in self.model.nodes
            ]
        )  # fmt: skip


@dataclass
class _Book:
    """Takes costs, those that are known from the cache."""

    meter: Meter
    clock: Clock
    cache: CostCache
    taken: int = 0
    known: int = 0
    found: dict[str, float] = field(default_factory=dict)

    def layers(
        self, kinds: Mapping[str, GridLayer], start: float, share: float
    ) -> dict[str, tuple[np.ndarray, tuple[tuple[np.ndarray, np.ndarray], ...]]]:
        """Costs of layers over their grids, and their profiles, without what starting a run takes."""
        names: dict[str, list[str]] = {}
        for batch in _batches((key, layer, _points(layer)) for key, layer in kinds.items()):
            groups = [points for _, _, points in batch]
            self._take(groups, share)
            names |= {key: [point.name for point in points] for key, _, points in batch}
        return {key: self._formed(layer, names[key], start) for key, layer in kinds.items()}

    def costs(self, points: Sequence[_Point], seconds: float) -> list[float]:
        """Costs of models that take turns."""
        self._take([points], seconds)
        return [self.found[point.name] for point in points]

    def _take(self, groups: Sequence[Sequence[_Point]], seconds: float) -> None:
        """Have the costs of all points in ``found``."""
        self.taken += sum(len(group) for group in groups)
        for point in (point for group in groups for point in group if point.name in self.cache.known):
            self.found[point.name] = self.cache.known[point.name]
            self.known += 1
        asked = [{point.name: point for point in group if point.name not in self.found} for group in groups]
        asked = [group for group in asked if group]
        if not asked:
            return
        small: list[list[Small]] = [[(point.model.data, point.feed) for point in group.values()] for group in asked]
        taken = self.meter.best(small, threads=self.clock.threads, seconds=seconds, seed=self.clock.seed)
        fresh = {
            name: max(float(cost), LEAST)
            for group, costs in zip(asked, taken, strict=True)
            for name, cost in zip(group, costs, strict=True)
        }
        self.found |= fresh
        self.cache.add(fresh)

    def _formed(
        self, layer: GridLayer, names: Sequence[str], start: float
    ) -> tuple[np.ndarray, tuple[tuple[np.ndarray, np.ndarray], ...]]:
        costs = np.maximum(np.array([self.found[name] for name in names]) - start, LEAST)
        shape = [len(along) for along in layer.points]
        inner, rest = costs[: int(np.prod(shape))].reshape(shape), costs[int(np.prod(shape)) :]
        ends = np.cumsum([len(along) for along in layer.steps])[:-1]
        profiles = [self._settled(part) for part in np.split(rest, ends)] if layer.steps else []
        return self._settled(inner), tuple(zip(layer.step_lengths if layer.steps else (), profiles, strict=True))

    def _settled(self, costs: np.ndarray) -> np.ndarray:
        """Times with what only disturbances can have added; counts as they are, since nothing disturbs them."""
        return costs if self.meter.level == "counted" else never_less(costs)


def _points(layer: GridLayer) -> list[_Point]:
    """The grid, the last axis running fastest, then the steps along every axis."""
    return [_Point(*layer.single.at(_first(removed))) for removed in [*layer.states(), *layer.step_states()]]


Row = tuple[str, GridLayer, list[_Point]]


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Layers whose models together have ``BATCH_BYTES``, or one alone that has more."""
    batch: list[Row] = []
    used = 0
    for row in rows:
        batch.append(row)
        used += sum(point.model.size for point in row[2])
        if used >= BATCH_BYTES:
            yield batch
            batch, used = [], 0
    if batch:
        yield batch


def _first(removed: Removed) -> dict[str, range]:
    """The first channels of every group: which ones go makes no difference to the time."""
    return {name: range(count) for name, count in removed.items()}


def _nothing() -> tuple[Model, dict[str, np.ndarray]]:
    """A model that does nothing, for what starting a run takes."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", value[:1], value[1:])
    opset = [helper.make_opsetid("", 17)]
    return Model.of(helper.make_model(graph, opset_imports=opset, ir_version=8)), {"x": np.zeros(1, np.float32)}
