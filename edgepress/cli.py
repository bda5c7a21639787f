"""The command line. Every command calls one library function and prints what it returns.

stdout holds the result (a page on a terminal, ``key<TAB>value`` in a pipe, JSON with ``--json``), stderr the
progress and errors. Exit codes: 0 done, 1 a fault of edgepress, 2 something handed over cannot be used, 3 an
explicit budget is out of reach (the best found is printed), 130 interrupted. What a command needs is imported
inside it, so that ``edgepress --help`` loads neither torch nor onnxruntime nor onnx.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from edgepress import __version__, targets
from edgepress.errors import BudgetMissed, DataError, EdgepressError, OutputError
from edgepress.request import ALLOCATIONS, SCORE

if TYPE_CHECKING:
    from rich.console import Console

    from edgepress.report.progress import Progress
    from edgepress.report.result import Report

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
_DEBUG = "edgepress.debug"
INTERRUPTED = 130


class _Page(Protocol):
    """Something that can be printed in three ways."""

    def to_json(self) -> str: ...


class _Edgepress(click.Group):
    """Turns the errors of the library into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _tolerate_narrow_encodings()
        try:
            return super().invoke(ctx)
        except EdgepressError as error:
            if ctx.meta.get(_DEBUG):
                raise
            click.echo(f"edgepress: error: {_one_line(error)}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("edgepress: interrupted before it was done.", err=True)
            ctx.exit(INTERRUPTED)


def _one_line(error: EdgepressError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _tolerate_narrow_encodings() -> None:
    """A terminal that cannot show × shows ? instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _debug(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta[_DEBUG] = wanted


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help text."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_model = click.argument("model", type=PATH)
_data = click.option("--data", metavar="SRC", help="Samples: .npz, .npy, a folder of them or of images.")
_recipe = click.option("--recipe", metavar="JSON", help="How to read the samples (scaling, order of axes).")
_workers = click.option("--workers", type=int, metavar="N", help="Parallel workers for calibration.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else there.")
_debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error."
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="No progress.")


_width_options = (
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


@click.group(cls=_Edgepress, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgepress")
def main() -> None:
    """Make an ONNX model smaller and faster on a CPU, and say what that cost.

    \b
      edgepress compress model.onnx --data samples.npz   cut, quantize, measure
      edgepress quantize model.onnx --data samples.npz   only quantize
      edgepress bench model.onnx model.edge.onnx         time against each other
      edgepress explain model.onnx                       what can be cut, and why
      edgepress score model.onnx --data samples.npz      what channels are worth
      edgepress ops model.onnx                           operators that are known
    """  # noqa: D301  (click wants a real backspace before lines it must not fold)


_limit_options = (
    click.option("-o", "--output", type=PATH, help="Where to write.  [default: MODEL.edge.onnx in this folder]"),
    click.option("--max-drop", default=1.0, show_default=True, metavar="POINTS", help="Accuracy that may be lost."),
    click.option("--min-sqnr", default=20.0, show_default=True, metavar="DB", help="Least SQNR (no classifier)."),
    click.option("--eval-data", metavar="SRC", help="Other samples to judge quality by.  [default: hold out a part]"),
    _recipe,
    click.option("--task", type=click.Choice(("auto", "classify", "regress")), default="auto", show_default=True),
)
_size_ratio = click.option(
    "--size-ratio", type=float, metavar="R", help="File size to reach, as a share of the original's."
)
_speedup = click.option("--speedup", type=float, metavar="X", help="Speed-up to reach, 2 for half the time.")
_run_options = (
    click.option(
        "--target", default="auto", show_default=True, metavar="NAME",
        help=f"Kind of processor to make it for: {', '.join(targets.TARGETS)}.",
    ),
    click.option("--threads", type=int, metavar="N", help="Threads to time with, beside 1."),
    _workers,
    click.option("--seed", default=0, show_default=True, help="Seed of the split and of the order of timing."),
    click.option("--dry-run", is_flag=True, help="Decide and report, write nothing."),
    _quiet,
    click.option("-v", "--verbose", is_flag=True, help="Print every variant, layer and refusal."),
    _json,
    _debug_option,
)  # fmt: skip


@main.command(short_help="Compress a model as far as its quality is kept.")
@_model
@_options(
    _data,
    *_limit_options,
    click.option("--mac-ratio", type=float, metavar="R", help="Multiply-adds to reach, as a share of the original's."),
    _size_ratio,
    _speedup,
    click.option("--score", default=SCORE, show_default=True, metavar="NAME",
                 help="Which channels go first; several: NAME=WEIGHT,NAME=WEIGHT."),
    click.option("--allocation", type=click.Choice(ALLOCATIONS), default="hybrid", show_default=True,
                 help="How removals are spread over groups of channels."),
    click.option("--no-prune", is_flag=True, help="Remove no channels."),
    click.option("--no-quantize", is_flag=True, help="Keep float weights."),
    click.option("--width-multiple", type=int, metavar="M", help="Keep multiples of M channels.  [default: target's]"),
    *_width_options,
    *_run_options,
)  # fmt: skip
def compress(model: Path, output: Path | None, quiet: bool, verbose: bool, as_json: bool, **settings: Any) -> None:
    """Compress MODEL as far as the samples of --data show that quality is kept."""
    settings |= {"prune": not settings.pop("no_prune"), "quantize": not settings.pop("no_quantize")}
    _compress(model, output, settings, quiet=quiet, verbose=verbose, as_json=as_json)


@main.command(short_help="Quantize a model as far as its quality is kept.")
@_model
@_options(
    _data,
    *_limit_options,
    _size_ratio,
    _speedup,
    *_width_options,
    click.option("--save-overrides", type=PATH, metavar="JSON", help="Write ranges and scales in the same form."),
    *_run_options,
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
    request = Request(model=model, output=place, **settings)
    check_input(model)
    if place is not None:
        check_output(model, place, others=_files(request.data, request.eval_data, request.recipe, request.overrides))
    try:
        report = pipeline.compress(request, progress=_listener(quiet))
    except BudgetMissed as missed:
        if isinstance(missed.report, Report):
            _print_report(missed.report, as_json, verbose)
        raise
    _print_report(report, as_json, verbose)


@main.command(short_help="Apply a plan made by compress again.")
@_model
@click.argument("plan", type=PATH)
@_options(
    _data,
    click.option("-o", "--output", type=PATH, help="Where to write.  [default: MODEL.edge.onnx in this folder]"),
    _recipe,
    _workers,
    _debug_option,
)
def apply(
    model: Path, plan: Path, data: str | None, output: Path | None, recipe: str | None, workers: int | None
) -> None:
    """Apply PLAN, made by compress, to MODEL again: the same model, data and plan give the same bytes."""
    from edgepress import pipeline
    from edgepress.request import check_input, check_output, default_output

    check_input(model)
    place = output or default_output(model)
    check_output(model, place, others=[plan, *_files(data, recipe)])
    applied = pipeline.apply(model, plan, data, place, recipe=recipe, workers=workers)
    _print_lines([("written", str(applied.output)), ("bytes", str(applied.file_bytes)), ("note", applied.note)])


@main.command(short_help="Time models against each other.")
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@_options(
    _data,
    _recipe,
    click.option("--threads", default=1, show_default=True, metavar="N", help="Threads of every model."),
    click.option("--seconds", default=6.0, show_default=True, metavar="S", help="How long to take turns."),
    click.option("--seed", default=0, show_default=True, help="Seed of the order of turns."),
    _json,
    _debug_option,
)
def bench(models: tuple[Path, ...], as_json: bool, **settings: Any) -> None:
    """Time every MODEL against the first, in turns, and count what onnxruntime really runs."""
    from edgepress.benchmark import bench_files
    from edgepress.report import benchmark as page

    found = bench_files(models, **settings)
    _print(found, as_json, lambda console: page.render(found, console), lambda: page.pairs(found))


@main.command(short_help="Say what can be cut, what not, and why.")
@_model
@_options(
    click.option("--tensor", metavar="NAME", help="Only the channels of this activation or weight."),
    click.option("--op", "operator", metavar="TYPE", help="Only what happens at nodes of this operator."),
    click.option("--data", metavar="SRC", help="Samples that say how large free axes are.  [default: assume sizes]"),
    _json,
    _debug_option,
)
def explain(model: Path, tensor: str | None, operator: str | None, data: str | None, as_json: bool) -> None:
    """Say which channels of MODEL can be cut, and why others must stay."""
    from edgepress import pipeline
    from edgepress.report import answers, explanation
    from edgepress.request import check_input

    if tensor is not None and operator is not None:
        raise click.UsageError("--tensor and --op are two questions: ask one at a time.")
    check_input(model)
    if tensor is None and operator is None:
        found = pipeline.explain(model, data)
        _print(found, as_json, lambda out: explanation.render(found, out), lambda: explanation.pairs(found))
        return
    asked = pipeline.explain_operator if tensor is None else pipeline.explain_tensor
    answer = asked(model, tensor or operator or "", data)
    _print(answer, as_json, lambda out: answers.render(answer, out), lambda: answers.pairs(answer))


@main.command(short_help="List the operators that are understood.")
@click.argument("models", type=PATH, nargs=-1, metavar="[MODEL]...")
@_options(
    click.option("--unknown", is_flag=True, help="Only operators of the models that the table does not know."),
    _json,
    _debug_option,
)
def ops(models: tuple[Path, ...], unknown: bool, as_json: bool) -> None:
    """List the operators edgepress understands, or those of every MODEL."""
    from edgepress import pipeline
    from edgepress.report import operators as page

    if unknown and not models:
        raise click.UsageError("--unknown needs a MODEL to look into.")
    found = pipeline.operators(models, unknown=unknown)
    _print(found, as_json, lambda console: page.render(found, console), lambda: page.lines(found))


_scoring_options = (
    click.option("--labels", is_flag=True, help="Gradients are of the labels, not of the model's own answers."),
    _recipe,
    _workers,
)
_statistics_output = click.option(
    "-o", "--output", type=PATH, required=True, metavar="NPZ", help="Where to write the statistics."
)


@main.command(short_help="Save what scores need of the samples.")
@_model
@_options(
    _data,
    _statistics_output,
    click.option("--score", default=SCORE, show_default=True, metavar="NAME,...", help="The scores, one or several."),
    click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Only the I-th of N parts."),
    *_scoring_options,
    click.option("--seed", default=0, show_default=True, help="Seed of the order of the samples and of all draws."),
    _quiet,
    _json,
    _debug_option,
)
def calibrate(model: Path, data: str | None, output: Path, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Observe once what scores need of all samples of --data, or of a part of them, and save it."""
    from edgepress import pipeline
    from edgepress.report import scores as page

    if data is None:
        raise DataError("Statistics are of samples of what the model will meet: give them by --data.")
    saved = pipeline.calibrate(model, data, output, progress=_listener(quiet), **settings)
    _print(saved, as_json, lambda console: page.render_saved(saved, console), lambda: page.saved_pairs(saved))


@main.command(short_help="Put saved shards together.")
@click.argument("files", type=PATH, nargs=-1, required=True, metavar="NPZ...")
@_options(_statistics_output, _json, _debug_option)
def merge(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Put together what calibrate saved of several shards: the same statistics as without shards, bit for bit."""
    from edgepress import pipeline
    from edgepress.report import scores as page

    saved = pipeline.merge(files, output)
    _print(saved, as_json, lambda console: page.render_saved(saved, console), lambda: page.saved_pairs(saved))


@main.command(short_help="Say what every channel is worth.")
@_model
@_options(
    _data,
    click.option("--statistics", type=PATH, metavar="NPZ", help="What calibrate or merge saved, in place of --data."),
    click.option("--score", default=SCORE, show_default=True, metavar="NAME",
                 help="By which method; several: NAME=WEIGHT,NAME=WEIGHT."),
    click.option("-o", "--output", type=PATH, metavar="JSON",
                 help="Where to write; an .npz goes beside it.  [default: MODEL.scores.json in this folder]"),
    *_scoring_options,
    click.option("--seed", type=int, metavar="N", help="Seed of the order of the samples and of all draws.  "
                 "[default: that of --statistics, or 0]"),
    _quiet,
    _json,
    _debug_option,
)  # fmt: skip
def score(model: Path, data: str | None, output: Path | None, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Score every channel of MODEL that may go, the least important first."""
    from edgepress import pipeline
    from edgepress.pipeline.scoring import npz_path
    from edgepress.report import scores as page

    place = output or Path(f"{model.stem}.scores.json")
    found = pipeline.score(model, data, output=place, progress=_listener(quiet), **settings)
    written = [str(place), str(npz_path(place))]
    _print(found, as_json, lambda console: page.render(found, console, written), lambda: page.pairs(found, written))


def _files(*sources: str | None) -> list[Path]:
    return [Path(source) for source in sources if source is not None]


def _listener(quiet: bool) -> Progress:
    from edgepress.report.progress import listener

    return listener(quiet=quiet)


def _print_report(report: Report, as_json: bool, verbose: bool) -> None:
    from edgepress.report import terminal as page

    _print(
        report,
        as_json,
        lambda console: page.render(report, console, verbose=verbose),
        lambda: page.pairs(report),
    )


def _print(
    page: _Page, as_json: bool, render: Callable[[Console], None], lines: Callable[[], Sequence[tuple[str, ...]]]
) -> None:
    """Print a result the way stdout wants it."""
    if as_json:
        _write(page.to_json())
    elif sys.stdout is None or not sys.stdout.isatty():
        _print_lines(lines())
    else:
        from rich.console import Console

        render(Console(highlight=False))


def _print_lines(lines: Sequence[tuple[str, ...]]) -> None:
    """Cells with tabs between them, most often ``key<TAB>value``; keys without a value are left out."""
    from edgepress.report.numbers import clean

    _write("".join("\t".join(map(clean, cells)) + "\n" for cells in lines if cells[-1]))


def _write(text: str) -> None:
    """Write to stdout; a reader that went away early (``| head``) is no error."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
    except OSError as error:
        raise OutputError(f"Cannot print the result ({error.strerror}): send stdout elsewhere.") from error


if __name__ == "__main__":
    main()
