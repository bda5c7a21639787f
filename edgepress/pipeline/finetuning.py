"""finetune(): train a model, and hand over the best that the hold-out samples saw, never worse than the start.

    read > clean > split > train > write

A part of the samples is held out: nothing is trained on them, and all decisions are made on them. What is handed over
is a plain ONNX file and a report; a checkpoint lies beside it while training runs.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgepress import __version__, codec
from edgepress.calibrate import Feed, split
from edgepress.calibrate.run import outputs
from edgepress.errors import DataError, InputError, OutputError, UnsupportedError
from edgepress.executor import Executor
from edgepress.executor.gradients import require_parity
from edgepress.model import Model, write_atomically
from edgepress.normalize.free_batch import fixed, fixed_batch
from edgepress.pipeline.answers import compared, row_axes
from edgepress.pipeline.any_batch import any_batch, with_any_batch
from edgepress.pipeline.context import inputs_of
from edgepress.pipeline.job import Job, coded_place
from edgepress.pipeline.prepare import Opened, clean, limit_of, read
from edgepress.pipeline.training_words import sentence, size, standing
from edgepress.quality import Comparison, Limit, Verdict, judge
from edgepress.quantize.storage.slim import lean
from edgepress.report.progress import Progress, Recorder, Silent
from edgepress.report.training import EpochRow, Standing, Training
from edgepress.request import Request, check_input, check_output, report_path
from edgepress.train.batches import Batches
from edgepress.train.checkpoint import checkpoint_path
from edgepress.train.loop import Loop, Outcome, deterministic
from edgepress.train.losses import Loss, Teacher, check_labels, shared_features
from edgepress.train.method import Found, Method, Setting
from edgepress.train.methods import figures_of, method_of, scratched
from edgepress.train.ranks import Ranks, joined
from edgepress.train.settings import Settings

HELD = 3000
"""Samples that are held out, as far as there are enough."""

SHARES = (0.05, 0.25)
"""Least and largest share of the samples that is held out."""


def finetune(job: Job, progress: Progress | None = None) -> Training:
    """Train.

    Args:
        job: what to do.
        progress: who listens; processes but the first are silent whoever that is.

    Raises:
        InputError: something handed over cannot be used.
        UnsupportedError: torch does not run this model as onnxruntime does.
    """
    with joined(job.device) as ranks, deterministic(job.threads):
        listener = progress if progress is not None and ranks.first else Silent()
        return _Run(job, ranks, Recorder(listener)).done()


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known before training (private)."""

    model: Model
    reference: Model
    teacher: Model | None
    fit: Feed
    hold_out: Feed
    evaluation: Feed | None
    limit: Limit
    axes: tuple[int | None, ...]
    classes: int
    batch: int | None


class _Run:
    """One run (private)."""

    def __init__(self, job: Job, ranks: Ranks, recorder: Recorder) -> None:
        self.job, self.ranks, self.recorder, self.began = job, ranks, recorder, time.perf_counter()

    def done(self) -> Training:
        """Train, write, report."""
        job, recorder = self.job, self.recorder
        with recorder.stage("read") as stage:
            opened, teacher = self._read()
            stage.note(f"{len(opened.model.nodes)} nodes, {opened.model.parameters:,} weights")
        with recorder.stage("split") as stage:
            known = self._prepare(opened, teacher)
            start = self._judge(known, known.hold_out)(known.model)
            freed = "" if known.batch is None else f"; a batch of {known.batch} is freed for training"
            stage.note(f"{len(known.fit)} samples to train on, {len(known.hold_out)} held out{freed}")
        with recorder.stage("start") as stage:
            method = method_of(self._setting(known))
            loop = self._loop(known, method, start)
            stage.note("; ".join(method.notes) or f"{loop.weights:,} weights are trained")
        outcome = loop.run(method.setting.batches.per_epoch)
        with recorder.stage("write") as stage:
            found = self._written(known, method, start, outcome, opened)
            stage.note(str(job.output))
        return found

    def _read(self) -> tuple[Opened, Model | None]:
        job = self.job
        check_input(job.model)
        place = checkpoint_path(job.output)
        sources = [Path(name) for name in (job.data, job.eval_data, job.recipe) if name is not None]
        sources += [] if job.teacher is None else [job.teacher]
        for path in (job.output, report_path(job.output), place, coded_place(job)):
            if path is not None:
                check_output(job.model, path, others=sources)
        if place.exists() and not job.resume:
            raise OutputError(
                f"{place} is there from a run that did not end: go on with --resume, or remove it to start anew."
            )
        opened = read(self._request)
        if job.teacher is None:
            return opened, None
        check_input(job.teacher)
        teacher = Model.load(job.teacher)
        if teacher.inputs.keys() != opened.model.inputs.keys() or tuple(teacher.outputs) != tuple(opened.model.outputs):
            raise InputError(
                f"{job.teacher} has other inputs or outputs than {job.model}: give the model that it was made from."
            )
        return opened, teacher

    @cached_property
    def _request(self) -> Request:
        """What the job asks for, as the rest of the pipeline takes it."""
        job = self.job
        return Request(job.model, job.output, job.data, eval_data=job.eval_data, recipe=job.recipe,
                       max_drop=job.settings.max_drop, min_sqnr=job.settings.min_sqnr)  # fmt: skip

    def _prepare(self, given: Opened, teacher: Model | None) -> _Prepared:
        job, opened = self.job, with_any_batch(self._request, given)
        feed, model = opened.feed, clean(opened).model
        if feed is None:
            raise DataError("Training needs samples: give them by --data.")
        share = float(np.clip(HELD / len(feed), *SHARES))
        fit, hold_out = split(feed, seed=job.settings.seed, hold_out=share)
        if not len(fit) or not len(hold_out):
            raise DataError("The samples cannot be split into some to train on and some to judge by: give more.")
        limit = limit_of(self._request, model, feed, opened.evaluation)
        shape = next(iter(model.outputs.values())).shape
        classes = shape[1] if shape is not None and len(shape) == 2 and isinstance(shape[1], int) else 0
        if job.settings.labels:
            if limit.measure == "sqnr":
                raise DataError("--labels trains a classifier, with one output [samples, classes], which this is not.")
            check_labels(feed.labels, classes)
        taught = None
        if job.teacher is not None and teacher is not None:
            taught = clean(dataclasses.replace(opened, model=any_batch(teacher, feed, job.teacher))).model
        for each in (model, *([] if taught is None else [taught])):
            require_parity(Executor(each), inputs_of(fit, 4)[0])
        if not Executor(model).trainable:
            raise UnsupportedError(f"{job.model} has no float weights that training could change: give a float model.")
        reference = model if taught is None else taught
        return _Prepared(model, reference, taught, fit, hold_out, opened.evaluation, limit,
                         row_axes(reference, hold_out), classes, fixed_batch(given.model))  # fmt: skip

    def _setting(self, known: _Prepared) -> Setting:
        settings, batches = self.job.settings, Batches(known.fit, self.job.settings, self.ranks)
        device = self.ranks.device
        own = known.teacher if known.teacher is not None else None if _alone(settings) else known.model
        taught = None
        if own is not None:
            features = shared_features(known.model, own, batches.first(2)) if settings.features else ()
            if settings.features and not features:
                raise InputError("--features compares inner tensors, but both models share none: leave it out.")
            taught = Teacher(Executor(own, device=device), features)
        classifies = known.limit.measure != "sqnr"
        loss = Loss(tuple(known.model.outputs), classifies, settings.labels, taught, settings.kd, settings.features)
        model = scratched(known.model, settings.seed) if settings.scratch else known.model
        return Setting(model, loss, batches, settings, self.ranks, device)

    def _loop(self, known: _Prepared, method: Method, start: Verdict) -> Loop:
        job = self.job
        place = checkpoint_path(job.output)
        given = [known.model.sha256, known.fit.sha256, known.reference.sha256, str(self.ranks.size), __version__]
        loop = Loop(method, job.settings, self.ranks, self._judge(known, known.hold_out), self.recorder, place,
                    job.settings.identity(*given), method.weights)  # fmt: skip
        loop.begin(
            Found(known.model, start, known.model.parameters),
            counts=job.settings.method == "distil" and not job.settings.scratch,
        )
        data = self.ranks.told(place.read_bytes() if job.resume and self.ranks.first and place.exists() else b"")
        if data:
            loop.resume(data, place)
        return loop

    def _judge(self, known: _Prepared, feed: Feed) -> Callable[[Model], Verdict]:
        """The verdict of some samples on a model; the first process gives it, the others are told."""
        reference = [mine for _, mine in outputs(known.reference, feed, chunk=256)]

        def verdict(model: Model) -> Verdict:
            if not self.ranks.first:
                return Verdict(**json.loads(self.ranks.told(b"")))
            answers = zip(reference, outputs(model, feed, chunk=256), strict=True)
            parts = [compared(part, mine, theirs, known.axes) for mine, (part, theirs) in answers]
            found = judge(Comparison.join(parts), known.limit)
            self.ranks.told(json.dumps(dataclasses.asdict(found)).encode())
            return found

        return verdict

    def _written(self, known: _Prepared, method: Method, start: Verdict, outcome: Outcome, opened: Opened) -> Training:
        job, best = self.job, outcome.model
        model = known.model if best is None else best
        judged = self._judge(known, known.hold_out)
        result = start if best is None else judged(model)
        evaluated: tuple[Standing | None, Standing | None] = (None, None)
        if known.evaluation is not None:
            asked = self._judge(known, known.evaluation)
            evaluated = (standing(asked(known.model)), standing(asked(model)))
        figures = figures_of(method, model)
        place = coded_place(job)
        codes = place is not None and best is not None
        notes = {"edgepress.version": __version__, "edgepress.trained": job.settings.method}
        whole = model if known.batch is None else fixed(model, known.batch)
        handed = lean(whole) if codes else whole.with_metadata(notes)
        data = bytes(codec.encode(handed.data)) if codes else None
        found = Training(
            model=str(job.model),
            output=str(job.output),
            coded=None if data is None else str(place),
            reference=str(job.teacher or job.model),
            settings={**dataclasses.asdict(job.settings), "epochs": job.settings.passes, "device": job.device},
            verdict=sentence(start, result, best is not None, job.settings),
            improved=best is not None,
            start=standing(start),
            result=standing(result),
            evaluated_start=evaluated[0],
            evaluated_result=evaluated[1],
            before=size(opened.model),
            after=size(handed, None if data is None else len(data)),
            epochs=tuple(
                EpochRow(row.number, row.steps, row.loss, row.bits, row.after, row.lost, row.kl, row.parameters,
                         row.coded_bytes, row.best) for row in outcome.epochs
            ),
            figures=figures,
            notes=outcome.notes,
            processes=self.ranks.size,
            resumed=outcome.resumed,
            seconds=time.perf_counter() - self.began,
            stages=tuple(self.recorder.rows),
            versions={"edgepress": __version__, **{name: version(name) for name in ("onnx", "onnxruntime", "torch")}},
        )  # fmt: skip
        if self.ranks.first:
            handed.save(job.output)
            if data is not None and place is not None:
                write_atomically(place, data)
            write_atomically(report_path(job.output), found.to_json().encode())
            checkpoint_path(job.output).unlink(missing_ok=True)
        return found


def _alone(settings: Settings) -> bool:
    """Whether nobody's answers count where no teacher is named."""
    return settings.scratch or settings.method == "distil"
