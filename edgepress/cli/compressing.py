"""Commands that make a smaller model: compress, quantize, apply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepress import targets
from edgepress.cli.options import DATA, DEBUG, DEVICE, JSON, MODEL, PATH, QUIET, RECIPE, WORKERS, options
from edgepress.cli.printing import listener, show, show_lines
from edgepress.errors import BudgetMissed, DataError
from edgepress.request import ALLOCATIONS, CODED_SUFFIX, SCORE

if TYPE_CHECKING:
    from edgepress.report.result import Report


WIDTHS = (
    click.option("--bits", metavar="N|auto", help="Width of the weights; auto: its own for each layer.  [default: 8]"),
    click.option("--activations", type=click.Choice(("8", "16", "float")), default="8", show_default=True,
                 help="Width of activations; 16 on accelerators only."),
    click.option("--fixed-point", is_flag=True, help="Weight scales are powers of two."),
    click.option("--codebooks", is_flag=True, help="Levels of few-bit weights lie where the weights are."),
    click.option("--equalize", is_flag=True, help="Also try to even out neighbouring layers."),
    click.option("--keep-float", multiple=True, metavar="NODE", help="A node that stays float; may be repeated."),
    click.option("--min-ort", default="", metavar="VERSION", help="Oldest onnxruntime that must load the result."),
    click.option("--overrides", metavar="JSON", help="onnxruntime's TensorQuantOverrides to start from."),
)  # fmt: skip


LIMITS = (
    click.option(
        "-o",
        "--output",
        type=PATH,
        help="Where to write; FILE.epz: a coded file.  [default: MODEL.edge.onnx in this folder]",
    ),
    click.option("--max-drop", default=1.0, show_default=True, metavar="POINTS", help="Accuracy that may be lost."),
    click.option("--min-sqnr", default=20.0, show_default=True, metavar="DB", help="Least SQNR (no classifier)."),
    click.option("--eval-data", metavar="SRC", help="Other samples to judge quality by.  [default: hold out a part]"),
    RECIPE,
    click.option("--task", type=click.Choice(("auto", "classify", "regress")), default="auto", show_default=True),
)
SIZE_RATIO = click.option(
    "--size-ratio", type=float, metavar="R", help="File size to reach, as a share of the original's."
)
SPEEDUP = click.option("--speedup", type=float, metavar="X", help="Speed-up to reach, 2 for half the time.")
RUNNING = (
    click.option(
        "--target", default="auto", show_default=True, metavar="NAME",
        help=f"Kind of processor to make it for: {', '.join(targets.TARGETS)}.",
    ),
    DEVICE,
    click.option("--threads", type=int, metavar="N", help="Threads to time with, beside 1."),
    WORKERS,
    click.option("--seed", default=0, show_default=True, help="Seed of the split and of the order of timing."),
    click.option("--dry-run", is_flag=True, help="Decide and report, write nothing."),
    QUIET,
    click.option("-v", "--verbose", is_flag=True, help="Print every variant, layer and refusal."),
    JSON,
    DEBUG,
)  # fmt: skip


@click.command(short_help="Compress a model as far as its quality is kept.")
@MODEL
@options(
    DATA,
    *LIMITS,
    click.option("--mac-ratio", type=float, metavar="R", help="Multiply-adds to reach, as a share of the original's."),
    SIZE_RATIO,
    SPEEDUP,
    click.option("--score", default=SCORE, show_default=True, metavar="NAME",
                 help="Which channels go first; several: NAME=WEIGHT,NAME=WEIGHT."),
    click.option("--allocation", type=click.Choice(ALLOCATIONS), default="hybrid", show_default=True,
                 help="How removals are spread over groups of channels."),
    click.option("--no-prune", is_flag=True, help="Remove no channels."),
    click.option("--no-quantize", is_flag=True, help="Keep float weights."),
    click.option("--width-multiple", type=int, metavar="M", help="Keep multiples of M channels.  [default: target's]"),
    *WIDTHS,
    *RUNNING,
)  # fmt: skip
def compress(model: Path, output: Path | None, quiet: bool, verbose: bool, as_json: bool, **settings: Any) -> None:
    """Compress MODEL as far as the samples of --data show that quality is kept."""
    settings |= {"prune": not settings.pop("no_prune"), "quantize": not settings.pop("no_quantize")}
    _compress(model, output, settings, quiet=quiet, verbose=verbose, as_json=as_json)


@click.command(short_help="Quantize a model as far as its quality is kept.")
@MODEL
@options(
    DATA,
    *LIMITS,
    SIZE_RATIO,
    SPEEDUP,
    *WIDTHS,
    click.option("--save-overrides", type=PATH, metavar="JSON", help="Write ranges and scales in the same form."),
    *RUNNING,
)
def quantize(model: Path, output: Path | None, quiet: bool, verbose: bool, as_json: bool, **settings: Any) -> None:
    """Quantize MODEL: weights and activations become integers where that keeps quality and is not slower."""
    if settings["data"] is None:
        raise DataError("Quantizing needs samples of what the model will meet: give them by --data.")
    _compress(model, output, {**settings, "prune": False}, quiet=quiet, verbose=verbose, as_json=as_json)


def _compress(
    model: Path, output: Path | None, settings: dict[str, Any], *, quiet: bool, verbose: bool, as_json: bool
) -> None:
    from edgepress import pipeline
    from edgepress.report.result import Report
    from edgepress.request import Request, check_input, check_output, default_output

    place = None if settings["dry_run"] else output or default_output(model)
    coded = output is not None and output.suffix == CODED_SUFFIX
    request = Request(model=model, output=place, coded=coded, **settings)
    check_input(model)
    if place is not None:
        check_output(model, place, others=files(request.data, request.eval_data, request.recipe, request.overrides))
    try:
        report = pipeline.compress(request, progress=listener(quiet))
    except BudgetMissed as missed:
        if isinstance(missed.report, Report):
            _show(missed.report, as_json, verbose)
        raise
    _show(report, as_json, verbose)


@click.command(short_help="Apply a plan made by compress again.")
@MODEL
@click.argument("plan", type=PATH)
@options(
    DATA,
    click.option("-o", "--output", type=PATH, help="Where to write.  [default: MODEL.edge.onnx in this folder]"),
    RECIPE,
    WORKERS,
    DEBUG,
)
def apply(
    model: Path, plan: Path, data: str | None, output: Path | None, recipe: str | None, workers: int | None
) -> None:
    """Apply PLAN, made by compress, to MODEL again: the same model, data and plan give the same bytes."""
    from edgepress import pipeline
    from edgepress.request import check_input, check_output, default_output

    check_input(model)
    place = output or default_output(model)
    check_output(model, place, others=[plan, *files(data, recipe)])
    applied = pipeline.apply(model, plan, data, place, recipe=recipe, workers=workers)
    show_lines([("written", str(applied.output)), ("bytes", str(applied.file_bytes)), ("note", applied.note)])


def files(*sources: str | None) -> list[Path]:
    """Paths of the sources that were given."""
    return [Path(source) for source in sources if source is not None]


def _show(report: Report, as_json: bool, verbose: bool) -> None:
    from edgepress.report import terminal as page

    show(
        report,
        as_json,
        lambda console: page.render(report, console, verbose=verbose),
        lambda: page.pairs(report),
    )
