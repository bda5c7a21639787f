"""What has to hold for every network: exact cuts, the groups that must be there, redistribution that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgepress import runtime
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.inputs import wanted
from edgepress.calibrate.run import collect
from edgepress.calibrate.stream import from_stream
from edgepress.groups import Group, Grouping, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.scores import Redundancy
from edgepress.scores.base import consumers
from edgepress.surgery.cut import cut, silence
from edgepress.surgery.fold import fold
from edgepress.surgery.oracle import check_cut
from zoo.export import SAMPLES, modules_of
from zoo.parts import DYNAMO, Net, Variant

Feeds = Sequence[Mapping[str, np.ndarray]]

MOST = 60
"""Groups that are cut, drawn at random where there are more."""

FIT, HOLD_OUT, CHUNK = 128, 64, 32
ROWS = 4000


@dataclass(frozen=True)
class Analyzed:
    """A normalized model and its groups."""

    model: Model
    grouping: Grouping


@dataclass(frozen=True)
class Exactness:
    """How far cuts are from silence.

    Attributes:
        worst: the largest relative difference.
        moved: how much silence changed the outputs, largest over all cuts: what makes ``worst`` worth something.
        groups: groups that were cut.
    """

    worst: float
    moved: float
    groups: int


@dataclass(frozen=True)
class Errors:
    """Mean squared error on held-out samples, relative to the variance of the outputs, after losing a quarter."""

    plain: float
    refitted: float


def feeds_of(net: Net, variant: Variant) -> list[dict[str, np.ndarray]]:
    """Two feeds of different batches and lengths, as far as these are free."""
    if not net.batch:
        return [net.samples(SAMPLES, 5), net.samples(SAMPLES, 6)]
    longer = 0 if net.rigid and variant.exporter == DYNAMO else 3
    return [net.samples(1, 5), net.samples(3, 6, longer)]


def analyze(model: Model, feeds: Feeds) -> Analyzed:
    """Normalize and find groups."""
    model = normalize(model, feeds).model
    return Analyzed(model, find_groups(model))


def groups_by_module(net: Net, path: Path, grouping: Grouping) -> Counter[str]:
    """The prunable groups by the torch modules that produce them, written like :func:`zoo.parts.expected`."""
    names = dict(net.module().named_modules())
    modules = modules_of(onnx.load(path), names)

    def producers(group: Group) -> set[str]:
        made = [site for site in group.sites if site.role == "out"]
        stated = {site.node: owner for site in made if (owner := site.tensor.rpartition(".")[0]) in names}
        return {stated.get(site.node) or modules.get(site.node, f"?{site.node}") for site in made}

    return Counter("+".join(sorted(producers(group))) + f":{group.size}" for group in grouping.prunable)


def exactness(analyzed: Analyzed, feeds: Feeds, seed: int, parts: int = 8) -> Exactness:
    """Cut random channels of all groups at once, then of parts of them, and compare each cut with silence."""
    random = np.random.default_rng(seed)
    prunable = analyzed.grouping.prunable
    chosen = sorted(random.permutation(len(prunable))[:MOST].tolist())
    before = _outputs(analyzed.model, feeds)
    worst = moved = 0.0
    for part in _parts([prunable[number] for number in chosen], parts, random):
        removed = {group.name: _some(group, random) for group in part}
        cutting = cut(analyzed.model, analyzed.grouping, removed)
        worst = max(worst, check_cut(analyzed.model, analyzed.grouping, removed, cutting, feeds))
        after = _outputs(silence(analyzed.model, analyzed.grouping, removed), feeds)
        moved = max(moved, max(_relative(a, b) for a, b in zip(after, before, strict=True)))
    return Exactness(worst, moved, len(chosen))


def _parts(groups: list[Group], parts: int, random: np.random.Generator) -> Iterator[list[Group]]:
    """All together; then each alone if they are few, else random parts that cover them."""
    if groups:
        yield groups
    if 1 < len(groups) <= parts:
        yield from ([group] for group in groups)
    elif groups[1:]:
        for part in np.array_split(random.permutation(len(groups)), parts):
            yield [groups[number] for number in part]


def _some(group: Group, random: np.random.Generator) -> list[int]:
    """From one channel to all but one."""
    return sorted(random.permutation(group.size)[: random.integers(1, group.size)].tolist())


def errors(net: Net, analyzed: Analyzed) -> Errors | None:
    """:func:`losses` on samples of a network."""
    samples, held = (_runs(net, net.samples(count, seed)) for count, seed in ((FIT, 100), (HOLD_OUT, 900)))
    return losses(analyzed, samples, held)


def losses(
    analyzed: Analyzed,
    samples: Feeds,
    held: Feeds,
    *,
    widest: int = 10_000,
    most: int = 10_000,
) -> Errors | None:
    """Remove a quarter of every group, plainly and with redistribution.

    Args:
        analyzed: the model and its groups.
        samples: what to fit on: all in one, or complete inputs for a model with a fixed batch.
        held: what to judge by.
        widest: only groups whose consumers have no more columns than that.
        most: so many of them at most, evenly spread over the model.

    Returns:
        None where no group has four channels.
    """
    model, grouping = analyzed.model, analyzed.grouping
    feed = _feed(model, samples)
    removed = _least(model, _fitting(model, grouping, widest, most), feed)
    if not removed:
        return None
    cutting = cut(model, grouping, removed)
    chunks = [part.inputs for part in feed.chunks(CHUNK)]
    refitted = fold(model, cutting, chunks, positions=max(1, ROWS // len(feed)), seed=0, workers=1)
    held_out = [part.inputs for part in _feed(model, held).chunks(CHUNK)]
    expected = _outputs(model, held_out)
    return Errors(*(_squared(_outputs(small, held_out), expected) for small in (cutting.model, refitted)))


def _runs(net: Net, samples: Mapping[str, np.ndarray]) -> Feeds:
    """The samples; of a model with a fixed batch one complete input after the other."""
    if net.batch:
        return [samples]
    count = len(next(iter(samples.values())))
    return [{name: array[i : i + SAMPLES] for name, array in samples.items()} for i in range(0, count, SAMPLES)]


def _feed(model: Model, runs: Feeds) -> Feed:
    return Feed.over(from_stream([(f"run {i}", run) for i, run in enumerate(runs)], wanted(model), "samples"))


def _fitting(model: Model, grouping: Grouping, widest: int, most: int) -> list[Group]:
    """Groups of four channels and more whose consumers can be refitted."""
    found = [group for group in grouping.prunable if group.size >= 4]
    views = {group.name: [fit for fit, _ in consumers(model, group)] for group in found}
    narrow = [g for g in found if views[g.name] and max(view.columns for view in views[g.name]) <= widest]
    return narrow[:: max(1, -(-len(narrow) // most))]


def _least(model: Model, groups: Sequence[Group], feed: Feed) -> dict[str, list[int]]:
    """The quarter of every group that costs least."""
    if not groups:
        return {}
    score = Redundancy(positions=max(1, ROWS // len(feed)))
    probes = {probe.name: probe for group in groups for probe in score.needs(model, group)}
    statistics = collect(model, feed, list(probes.values()), workers=1)
    ranked = ((group, score.rank(model, group, statistics)) for group in groups)
    return {group.name: sorted(ranking.order[: group.size // 4].tolist()) for group, ranking in ranked}


def _outputs(model: Model, feeds: Feeds) -> list[np.ndarray]:
    opened = runtime.session(model.data)
    return [array for feed in feeds for array in runtime.run(opened, feed).values()]


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(1e-6, np.abs(expected).max()))


def _squared(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    left, right = (
        np.concatenate([array.ravel() for array in arrays]).astype(np.float64) for arrays in (found, expected)
    )
    return float(((left - right) ** 2).mean() / right.var())
