"""calibrate() and merge(): what scores need, observed once, in one go or in shards on several machines, and saved.

All samples are observed: nothing is held out, since nothing is decided. They come in the seed's random order, so that
what scores keep of the first samples is a fair choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepress import __version__, targets
from edgepress.calibrate import store
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import UNITS, Units
from edgepress.calibrate.statistics import Probe
from edgepress.calibrate.store import Header, Statistics
from edgepress.errors import DataError, InputError, Refusal, UnsupportedError
from edgepress.groups import Group, find_groups
from edgepress.groups.binding import sizes_of
from edgepress.model import Model
from edgepress.pipeline.analysis import refusal_of, shuffled
from edgepress.pipeline.context import Context, inputs_of
from edgepress.pipeline.observing import observe, observe_units
from edgepress.pipeline.prepare import Opened, clean, executor_refusal, limit_of, read
from edgepress.report.progress import Progress, Recorder, Silent
from edgepress.report.scores import Saved
from edgepress.request import AUTO, SCORE, Request, check_input, check_output
from edgepress.scores import Options, Score
from edgepress.scores.registry import find


@dataclass(frozen=True, slots=True)
class Material:
    """What a score is observed on.

    Attributes:
        context: the model, its groups and the samples, in random order.
        groups: those that can be scored.
        refusals: why the others cannot.
        classifies: the first output is logits or probabilities.
        probes: what the score needs of all groups.
        header: what statistics of them are of.
    """

    context: Context
    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]
    classifies: bool
    probes: tuple[Probe, ...]
    header: Header

    def observed(self) -> Mapping[str, Any]:
        """The statistics of all samples.

        Raises:
            DataError: the model gives NaN or infinite values.
        """
        context = self.context
        found = observe(
            context.model, context.fit, self.probes, classifies=self.classifies, workers=context.workers,
            seed=context.seed,
        )  # fmt: skip
        store.finite(found)
        return found

    def observed_units(self, units: range) -> Units:
        """As :meth:`observed`, of some units of the samples, each by itself."""
        context = self.context
        found = observe_units(
            context.model, context.fit, self.probes, classifies=self.classifies, workers=context.workers,
            seed=context.seed, units=units,
        )  # fmt: skip
        for unit in found.values():
            store.finite(unit)
        return found


def calibrate(
    model: Path,
    data: str,
    output: Path,
    *,
    score: str = SCORE,
    shard: str = "1/1",
    labels: bool = False,
    recipe: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Saved:
    """Observe what scores need over all samples, or over one of several shards of them, and save it.

    Args:
        model: the ONNX file.
        data: source of the samples.
        output: the .npz file to write.
        score: the scores, with commas between (``scores.registry``); weights of a mix make no difference here.
        shard: ``i/n``: the i-th of n parts of the samples.
        labels: gradients are of the labels where a score does not say what of.
        recipe: how to read pictures.
        seed: of the order of the samples and of all draws.
        workers: threads; the result does not depend on them.
        progress: who listens.

    Raises:
        InputError: something handed over cannot be used.
        UnsupportedError: a score needs gradients, which the executor cannot take of this model.
    """
    recorder = Recorder(progress or Silent())
    units = units_of(shard)
    find(score, Options(1))  # a name that is none is said before any work
    request = Request(model, None, data, recipe=recipe, seed=seed, workers=workers, dry_run=True)
    with recorder.stage("read") as stage:
        opened = opened_beside(request, [output])
        stage.note(f"{len(opened.model.nodes)} nodes, {opened.model.parameters:,} weights")
    with recorder.stage("groups") as stage:
        material = material_of(request, opened, score, labels)
        stage.note(f"{len(material.groups)} to score, {len(material.refusals)} not")
    with recorder.stage("observe") as stage:
        whole = len(units) == UNITS  # merged on the way, which takes far less memory
        found = {0: material.observed()} if whole else material.observed_units(units)
        stage.note(f"{material.header.samples} samples, part {store.parts_text(units)} of {UNITS}")
    return _saved(output, Statistics.of(material.header, units, found))


def merge(files: Sequence[Path], output: Path) -> Saved:
    """Merge what :func:`calibrate` saved of several shards.

    Args:
        files: what it wrote, in any order; files that were merged before are fine.
        output: the .npz file to write.

    Raises:
        DataError: files of different calibrations, damaged ones, a shard that is there twice.
        OutputError: the output cannot be written.
    """
    for file in files:
        check_output(file, output)
    return _saved(output, store.merge(files))


def opened_beside(request: Request, places: Sequence[Path], *more: Path) -> Opened:
    """Open the model and the samples; nothing that is read may be overwritten.

    Args:
        request: what to open.
        places: what will be written.
        more: further files that are read.

    Raises:
        InputError: something handed over cannot be used.
    """
    check_input(request.model)
    sources = [*(Path(name) for name in (request.data, request.recipe) if name is not None), *more]
    for place in places:
        check_output(request.model, place, others=sources)
    opened = read(request)
    for place in places:
        check_output(request.model, place, others=list(opened.model.external))
    return opened


def material_of(request: Request, opened: Opened, score: str, labels: bool) -> Material:
    """What a score is observed on.

    Raises:
        DataError: there are no samples, or they have no labels and the score needs some.
        UnsupportedError: the score needs gradients, which the executor cannot take.
    """
    feed = opened.feed
    if feed is None:
        raise DataError("Scores are made from samples: give them by --data.")
    model = clean(opened).model
    sizes = sizes_of(model.inputs, inputs_of(feed, 1)[0])
    context = _context(request, model, feed, sizes)
    judged = [(group, refusal_of(context, group)) for group in context.grouping.groups]
    groups = tuple(group for group, refusal in judged if refusal is None)
    options = Options(context.positions, context.seed, loss_of(labels))
    probes = probes_of(find(score, options), model, groups)
    losses = sorted({probe.loss for probe in probes if probe.loss})
    _check_losses(model, feed, score, losses, labels)
    refusals = tuple(refusal for _, refusal in judged if refusal is not None)
    names = tuple(group.name for group in groups)
    header = Header(
        __version__, model.sha256, feed.sha256, len(feed), context.seed, context.positions, score, labels,
        tuple(losses), names, refusals, sizes,
    )  # fmt: skip
    classifies = limit_of(request, model, feed).measure != "sqnr"
    return Material(context, groups, refusals, classifies, probes, header)


def probes_of(score: Score, model: Model, groups: Iterable[Group]) -> tuple[Probe, ...]:
    """What a score needs of some groups, each thing once."""
    every = (probe for group in groups for probe in score.needs(model, group))
    return tuple({probe.name: probe for probe in every}.values())


def loss_of(labels: bool) -> str:
    """What gradients are of where a score does not say."""
    return "labels" if labels else "answer"


def units_of(shard: str) -> range:
    """The units of a shard ``i/n``.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count <= UNITS:
        raise InputError(f"--shard is {shard}: give i/n, the i-th of n parts, as in 1/4; n is at most {UNITS}.")
    return range((number - 1) * UNITS // count, number * UNITS // count)


def _context(request: Request, model: Model, feed: Feed, sizes: Mapping[str, int]) -> Context:
    """A context in which everything is observed and nothing is decided."""
    return shuffled(
        Context(
            model=model,
            grouping=find_groups(model, sizes),
            fit=feed,
            hold_out=feed.subset([]),
            row_axes=(),
            sweep_samples=len(feed),
            target=targets.find(AUTO),
            multiple=1,
            seed=request.seed,
            workers=request.workers or 2,
        )
    )


def _check_losses(model: Model, feed: Feed, score: str, losses: Sequence[str], labels: bool) -> None:
    """Gradients can be taken, and are those of this model."""
    if feed.labels is None and (labels or "labels" in losses):
        asked = "--labels" if labels else f"--score {score}"
        raise DataError(f"{asked} asks for gradients of the labels, but the samples have none: leave the labels out.")
    if not losses:
        return
    refusal = executor_refusal(model, feed)
    if refusal is not None:
        problem = refusal.reason.rpartition(": ")[0] or refusal.reason
        raise UnsupportedError(f"--score {score} needs gradients, but {problem}: choose a score without gradients.")


def _saved(output: Path, statistics: Statistics) -> Saved:
    size = store.save(output, statistics)
    header = statistics.header
    return Saved(
        str(output), size, header.score, header.samples, len(header.groups), UNITS, statistics.held, statistics.missing
    )
