"""score(): what every channel is worth, from samples or from saved statistics: the same numbers bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.calibrate import store
from edgepress.calibrate.run import UNITS
from edgepress.calibrate.store import Header, Statistics
from edgepress.errors import DataError, OutputError, PluginError
from edgepress.groups import Group, find_groups
from edgepress.model import Model, write_atomically
from edgepress.parallel import one_blas_thread
from edgepress.pipeline.calibrating import loss_of, material_of, opened_beside, probes_of
from edgepress.pipeline.prepare import Opened, clean
from edgepress.report.progress import Progress, Recorder, Silent
from edgepress.report.scores import GroupScores, Scores
from edgepress.request import SCORE, Request
from edgepress.scores import Detailed, Options, Score, order_of
from edgepress.scores.registry import find


@dataclass(frozen=True, slots=True)
class Observed:
    """What a score is made from.

    Attributes:
        model: the normalized model.
        groups: those that are scored.
        statistics: by name of their probe.
        header: what they are of.
    """

    model: Model
    groups: tuple[Group, ...]
    statistics: Mapping[str, Any]
    header: Header


def score(
    model: Path,
    data: str | None = None,
    *,
    statistics: Path | None = None,
    score: str = SCORE,
    labels: bool = False,
    output: Path | None = None,
    recipe: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score the channels of every group that may shrink.

    Args:
        model: the ONNX file.
        data: source of the samples. Beside ``statistics`` they only have to be those that these are of.
        statistics: what ``calibrate`` or ``merge`` saved, of all samples.
        score: name, ``NAME@LOSS`` or mix (``scores.registry``).
        labels: gradients are of the labels where the score does not say what of.
        output: the JSON file to write, with an .npz of the same name beside it; None writes nothing.
        recipe: how to read pictures.
        seed: of the order of the samples and of all draws; None is that of the statistics, without them 0.
        workers: threads; the result does not depend on them.
        progress: who listens.

    Raises:
        InputError: something handed over cannot be used.
        UnsupportedError: the score needs gradients, which the executor cannot take of this model.
    """
    recorder = Recorder(progress or Silent())
    find(score, Options(1))  # a name that is none is said before any work
    if data is None and statistics is None:
        raise DataError("Scores are made from samples: give --data, or --statistics that edgepress calibrate saved.")
    request = Request(model, None, data, recipe=recipe, seed=seed or 0, workers=workers, dry_run=True)
    with recorder.stage("read") as stage:
        opened = opened_beside(request, _places(output), *([] if statistics is None else [statistics]))
        stage.note(f"{len(opened.model.nodes)} nodes, {opened.model.parameters:,} weights")
    with recorder.stage("observe") as stage:
        if statistics is None:
            observed = _from_data(request, opened, score, labels)
        else:
            observed = _from_statistics(statistics, opened, score, labels, seed)
        stage.note(f"{observed.header.samples} samples, {len(observed.statistics)} statistics")
    with recorder.stage("score") as stage:
        rows = _rows(observed, score, labels, statistics)
        stage.note(f"{sum(row.size for row in rows)} channels in {len(rows)} groups")
    header = observed.header
    found = Scores(
        str(model), score, labels, header.samples, header.seed, header.positions, header.model, header.data, rows,
        header.refusals,
    )  # fmt: skip
    if output is not None:
        _write(output, found)
    return found


def npz_path(output: Path) -> Path:
    """Where the arrays of ``output`` are written."""
    return output.with_suffix(".npz")


def _places(output: Path | None) -> list[Path]:
    """What is written."""
    if output is None:
        return []
    if output.suffix == ".npz":
        raise OutputError(f"{output} would be JSON, and arrays go beside it as .npz: give a name with .json by -o.")
    return [output, npz_path(output)]


def _from_data(request: Request, opened: Opened, score: str, labels: bool) -> Observed:
    material = material_of(request, opened, score, labels)
    return Observed(material.context.model, material.groups, material.observed(), material.header)


def _from_statistics(path: Path, opened: Opened, score: str, labels: bool, seed: int | None) -> Observed:
    """Saved statistics, checked against everything else that was handed over."""
    stored = store.load(path)
    _check_header(path, stored, None if opened.feed is None else opened.feed.sha256, seed)
    header, model = stored.header, clean(opened).model
    if model.sha256 != header.model:
        raise DataError(f"{path} is of another model: {store.AGAIN}, or give the model it is of.")
    groups = _groups(path, model, header)
    needed = {probe.name for probe in probes_of(find(score, _options(header, labels)), model, groups)}
    if not needed <= stored.whole.keys():
        known = f"--score {header.score}" + (" --labels" if header.labels else "")
        asked = f"--score {score}" + (" --labels" if labels else "")
        raise DataError(f"{path} was made with {known}, which is not enough for {asked}: {store.AGAIN} {asked}.")
    return Observed(model, groups, stored.whole, header)


def _check_header(path: Path, stored: Statistics, data: str | None, seed: int | None) -> None:
    if stored.missing:
        raise DataError(
            f"{path} lacks part {store.parts_text(stored.missing)} of {UNITS} of the samples: merge it with the other "
            "shards by edgepress merge."
        )
    if data is not None and data != stored.header.data:
        raise DataError(f"{path} was made with other samples than those of --data: give the same, or leave --data out.")
    if seed is not None and seed != stored.header.seed:
        raise DataError(f"{path} was made with --seed {stored.header.seed}: give the same, or leave --seed out.")


def _groups(path: Path, model: Model, header: Header) -> tuple[Group, ...]:
    """The groups that statistics were made of."""
    by_name = {group.name: group for group in find_groups(model, header.sizes).groups}
    if not set(header.groups) <= by_name.keys():
        raise DataError(f"{path} is of groups that this version of edgepress does not find: {store.AGAIN}.")
    return tuple(by_name[name] for name in header.groups)


def _options(header: Header, labels: bool) -> Options:
    return Options(header.positions, header.seed, loss_of(labels))


def _rows(observed: Observed, score: str, labels: bool, path: Path | None) -> tuple[GroupScores, ...]:
    """Scores and order of every group."""
    made = find(score, _options(observed.header, labels))
    with one_blas_thread():  # the same bits on any number of cores
        try:
            return tuple(_row(made, observed, group) for group in observed.groups)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            if path is None:
                raise
            raise DataError(f"The statistics in {path} do not fit the model ({error}): {store.AGAIN}.") from error


def _row(score: Score, observed: Observed, group: Group) -> GroupScores:
    values = np.asarray(score.score(observed.model, group, observed.statistics), np.float64)
    order = np.asarray(order_of(score, observed.model, group, observed.statistics))
    if values.shape != (group.size,) or sorted(order.tolist()) != list(range(group.size)):
        raise PluginError(
            f"The score {score.name} does not give one number for each of the {group.size} channels of {group.name}: "
            "mend or remove its package."
        )
    details = score.details(observed.model, group, observed.statistics) if isinstance(score, Detailed) else {}
    return GroupScores(
        group.name, group.size, group.producers, group.consumers, tuple(values.tolist()), tuple(order.tolist()), details
    )


def _write(output: Path, found: Scores) -> None:
    arrays = {row.name: np.array(row.scores, np.float64) for row in found.groups}
    write_atomically(npz_path(output), store.npz(arrays))
    write_atomically(output, found.to_json().encode())
