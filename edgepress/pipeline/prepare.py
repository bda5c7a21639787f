"""From paths to a context: read and check the model and the samples, normalize, find groups, split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepress import targets
from edgepress.calibrate import Feed, open_feed, split
from edgepress.calibrate.feed import overlap
from edgepress.calibrate.views import parts
from edgepress.errors import DataError, ModelError, OutputError, Refusal, UnsupportedError
from edgepress.executor import Executor
from edgepress.executor.sweep import affordable
from edgepress.groups import find_groups
from edgepress.groups.binding import sizes_of
from edgepress.model import Model, Node
from edgepress.normalize import Normalized, normalize
from edgepress.normalize.admission import admit
from edgepress.pipeline.analysis import shuffled
from edgepress.pipeline.answers import row_axes
from edgepress.pipeline.context import ROWS_PER_COLUMN, SWEEP_SAMPLES, Context, inputs_of
from edgepress.pipeline.given import given_by
from edgepress.pipeline.place import Place, here
from edgepress.quality import Limit, Measure
from edgepress.quantize import quantize_refusal
from edgepress.request import AUTO, Request, check_input, check_output, plan_path, report_path

FEWEST = 8
"""Samples that compression needs at the least."""

HOLD_OUT = 0.25
"""Share of the samples that decisions are made on and nothing is fitted to."""

PARITY_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Opened:
    """What the user handed over, checked."""

    model: Model
    feed: Feed | None
    evaluation: Feed | None


def read(request: Request) -> Opened:
    """Open the model and the samples; everything wrong with them is said here, before any work."""
    check_input(request.model)
    check_places(request, ())
    if request.data is None:
        _check_needs_no_data(request)
    model = Model.load(request.model)
    check_places(request, model.external)
    if not model.fits_one_file:
        raise ModelError(
            f"{request.model} is over 2 GiB, which compress does not take: edgepress explain says what can be cut, and "
            "edgepress.surgery cuts it from Python."
        )
    admit(model)
    feed, evaluation = feeds_of(request, model)
    return Opened(model, feed, evaluation)


def feeds_of(request: Request, model: Model) -> tuple[Feed | None, Feed | None]:
    """The samples to work with and those to say the quality on, checked."""
    feed = None if request.data is None else open_feed(request.data, model, recipe=request.recipe)
    if feed is not None and len(feed) < FEWEST:
        raise DataError(f"{request.data} holds {len(feed)} samples: compression needs at least {FEWEST}, better 500.")
    evaluation = None if request.eval_data is None else open_feed(request.eval_data, model, recipe=request.recipe)
    if feed is not None and evaluation is not None and (common := overlap(feed, evaluation)):
        raise DataError(
            f"{common} samples of --eval-data are also in --data, figures on them would flatter: hand over other ones."
        )
    return feed, evaluation


def _check_needs_no_data(request: Request) -> None:
    budgets = (("--mac-ratio", request.mac_ratio), ("--size-ratio", request.size_ratio), ("--speedup", request.speedup))
    files = (("--eval-data", request.eval_data), ("--recipe", request.recipe), ("--overrides", request.overrides))
    others = (("--keep-float", request.keep_float or None), ("--bits", request.bits), ("--device", request.device))
    for option, value in (*budgets, *files, *others):
        if value is not None:
            raise DataError(f"{option} is of no use without samples, as a model can only be cleaned then: add --data.")


def check_places(request: Request, external: Iterable[Path]) -> None:
    """Neither the output nor the plan and the report beside it may overwrite anything that is read."""
    if request.output is not None and not request.dry_run:
        given = (request.data, request.eval_data, request.recipe, request.overrides)
        sources = [*(Path(name) for name in given if name is not None), *external]
        written = [request.output, plan_path(request.output), report_path(request.output)]
        for path in written:
            check_output(request.model, path, others=sources)
        if request.save_overrides is not None:
            check_output(request.model, request.save_overrides, others=sources, option="--save-overrides")
            if request.save_overrides in written:
                raise OutputError(
                    f"{request.save_overrides} would be written twice: give another path with --save-overrides."
                )


def clean(opened: Opened) -> Normalized:
    """Normalize, parity-checked on a few samples (on made-up inputs without data, which checks equality only)."""
    samples = [] if opened.feed is None else inputs_of(opened.feed, PARITY_SAMPLES)
    return normalize(opened.model, samples)


def context_of(
    request: Request, normalized: Model, feed: Feed, place: Place | None = None
) -> tuple[Context, tuple[Refusal, ...]]:
    """Split the samples and look at the graph; also returns why it cannot be refitted or quantized, if so."""
    place = place or here()
    target = place.cpu if request.target == AUTO else targets.find(request.target)
    given = given_by(request, normalized, target)
    fit, hold_out = split(feed, seed=request.seed, hold_out=HOLD_OUT)
    if not len(fit) or not len(hold_out):
        raise DataError(
            "The samples cannot be split into some to fit on and some to judge by (they are all alike, or too few for "
            f"the model's batch of {feed.step}): give more and different ones."
        )
    reason = executor_refusal(normalized, fit)
    context = Context(
        model=normalized,
        grouping=find_groups(normalized, sizes_of(normalized.inputs, inputs_of(fit, 1)[0])),
        fit=fit,
        hold_out=hold_out,
        row_axes=row_axes(normalized, fit),
        sweep_samples=0 if reason else affordable(normalized, min(len(fit), _wanted(normalized))),
        target=target,
        multiple=request.width_multiple or (1 if request.rounds_steps and request.speedup is None else target.multiple),
        seed=request.seed,
        workers=request.workers or 2,
        given=given,
        place=place,
    )
    unquantized = quantize_refusal(normalized) if request.quantize else None
    return shuffled(context), tuple(problem for problem in (reason, unquantized) if problem is not None)


def _wanted(model: Model) -> int:
    """Samples worth sweeping over: a Gemm gets one row per sample, so wide ones need many."""
    found = [parts(model, node) for node in model.nodes if node.op in ("Gemm", "MatMul", "Einsum")]
    views = [part for views in found if not isinstance(views, Refusal) for part in views]
    return max([SWEEP_SAMPLES, *(ROWS_PER_COLUMN * part.columns // _tokens(model, part.node) for part in views)])


def _tokens(model: Model, node: Node) -> int:
    """Rows that one sample gives to a product with a matrix, as far as the model says."""
    known = model.types.get(node.output)
    shape = known.shape if known is not None and known.shape is not None else ()
    return int(np.prod([size for size in shape[1:-1] if isinstance(size, int)], dtype=np.int64))


def executor_refusal(model: Model, fit: Feed) -> Refusal | None:
    """Why the torch executor may not be used on this model: an operator it lacks, or outputs that differ."""
    try:
        differs = Executor(model).parity(inputs_of(fit, 4)[0])
    except UnsupportedError as error:
        return Refusal("redistribution", str(error))
    if differs is not None:
        return Refusal("redistribution", f"the torch executor disagrees with onnxruntime at tensor {differs!r}")
    return None


def limit_of(request: Request, model: Model, feed: Feed, evaluation: Feed | None = None) -> Limit:
    """What a candidate may lose, and in which measure."""
    shapes = [known.shape for known in model.outputs.values()]
    shape = shapes[0]
    classes = shape[1] if shape is not None and len(shape) == 2 else None
    classifies = isinstance(classes, int) and classes >= 2 and (len(shapes) == 1 or request.task == "classify")
    if request.task == "classify" and not classifies:
        raise DataError("--task classify needs a first output of shape [samples, classes]: use --task regress.")
    if request.task == "regress" or not classifies:
        return Limit("sqnr", request.max_drop, request.min_sqnr)
    measure: Measure = "agreement" if feed.labels is None else "accuracy"
    for given in (feed, evaluation):
        labels = None if given is None else given.labels
        if labels is not None and isinstance(classes, int) and not _labels_fit(labels, classes):
            raise DataError(f"The labels reach outside 0..{classes - 1}, the model's {classes} classes: mend them.")
    return Limit(measure, request.max_drop, request.min_sqnr)


def _labels_fit(labels: np.ndarray, classes: int) -> bool:
    return bool(labels.min() >= 0 and labels.max() < classes)


def with_evaluation(context: Context, evaluation: Feed) -> Context:
    """The same context judged on other samples."""
    return dataclasses.replace(context, hold_out=evaluation)
