"""Commands that train: finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepress.cli.options import DATA, DEBUG, JSON, MODEL, PATH, QUIET, RECIPE, options
from edgepress.cli.printing import listener, show
from edgepress.errors import DataError, EdgepressError
from edgepress.train.settings import AUGMENTS, FORMS, METHODS, WHENS

TRAINING = (
    click.option("--method", type=click.Choice(METHODS), default="distil", show_default=True, help="What for."),
    click.option("--teacher", type=PATH, metavar="MODEL", help="The model whose answers are to be given again."),
    click.option("--labels", is_flag=True, help="Train on the labels of the samples, too."),
    click.option("--epochs", type=float, metavar="E", help="Passes over the samples.  [default: the method's]"),
    click.option("--every", default=1.0, show_default=True, metavar="E", help="Epochs between looks at the hold-out."),
    click.option("--batch", default=128, show_default=True, metavar="N", help="Samples of a step."),
    click.option("--lr", default=1e-3, show_default=True, metavar="R", help="Learning rate of Adam."),
    click.option("--augment", type=click.Choice(AUGMENTS), default="none", show_default=True,
                 help="Move pictures by up to 2 pixels; flip: mirror some, too."),
    click.option("--kd", default=0.5, show_default=True, metavar="W", help="Weight of the teacher beside labels."),
    click.option("--features", default=0.0, show_default=True, metavar="W", help="Weight of inner tensors' errors."),
    click.option("--patience", type=int, metavar="N", help="End after N looks without a better result."),
)  # fmt: skip
SHRINKING = (
    click.option("--keep", type=float, metavar="R", help="Share of the weights to be left (flat, anneal, mint)."),
    click.option("--beta", type=float, metavar="B", help="Loss 10,000 bits are worth (entropy).  [default: chosen]"),
    click.option("--form", type=click.Choice(FORMS), default="straight", show_default=True,
                 help="Straight-through rounding, or the paper's soft assignment (entropy)."),
    click.option("--one-step", is_flag=True, help="One step for all output channels of a layer (entropy)."),
    click.option("--flatness", default=0.1, show_default=True, metavar="K", help="Most that flatness forgives (flat)."),
    click.option("--when", type=click.Choice(WHENS), default="along", show_default=True,
                 help="Remove units along the training, at once, or at its end (flat)."),
    click.option("--no-redistribute", is_flag=True, help="Units that stay take nothing over (flat)."),
    click.option("--from-scratch", is_flag=True, help="Start from random weights (distil, flat, mint)."),
)  # fmt: skip
RUNNING = (
    click.option("-o", "--output", type=PATH, help="Where to write.  [default: MODEL.tuned.onnx in this folder]"),
    click.option("--max-drop", default=1.0, show_default=True, metavar="POINTS", help="Accuracy that may be lost."),
    click.option("--min-sqnr", default=20.0, show_default=True, metavar="DB", help="Least SQNR (no classifier)."),
    click.option("--eval-data", metavar="SRC", help="Other samples to report quality on; they decide nothing."),
    RECIPE,
    click.option("--resume", is_flag=True, help="Go on from the checkpoint beside the output."),
    click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True),
    click.option("--threads", type=int, metavar="N", help="Threads of torch.  [default: torch's]"),
    click.option("--seed", default=0, show_default=True, help="Seed of the split, of the order and of all draws."),
    QUIET,
    JSON,
    DEBUG,
)


@click.command(short_help="Train a model: recover it, code it, prune it.")
@MODEL
@options(DATA, *TRAINING, *SHRINKING, *RUNNING)
def finetune(model: Path, data: str | None, output: Path | None, quiet: bool, as_json: bool, **given: Any) -> None:
    """Train MODEL on the samples of --data; the best on samples held out is written, never worse than the start."""
    from edgepress.report import training as page
    from edgepress.request import report_path
    from edgepress.train.ranks import is_first

    if data is None:
        raise DataError("Training needs samples of what the model will meet: give them by --data.")
    place = output or Path(f"{model.stem}.tuned.onnx")
    try:
        found = _finetuned(model, data, place, quiet, given)
    except EdgepressError as error:
        if is_first():
            raise
        raise SystemExit(error.exit_code) from None  # the first process says it
    if is_first():
        written = [found.output, str(report_path(place)), *([] if found.coded is None else [found.coded])]
        show(found, as_json, lambda out: page.render(found, out, written), lambda: page.pairs(found, written))


def _finetuned(model: Path, data: str, place: Path, quiet: bool, given: dict[str, Any]) -> Any:
    from edgepress.pipeline.finetuning import finetune
    from edgepress.pipeline.job import Job
    from edgepress.train.settings import Settings

    own = {name: given.pop(name) for name in ("teacher", "eval_data", "recipe", "resume", "device", "threads")}
    turned = {
        "row_steps": not given.pop("one_step"),
        "redistribute": not given.pop("no_redistribute"),
        "scratch": given.pop("from_scratch"),
    }
    return finetune(Job(model, data, place, Settings(**given, **turned), **own), listener(quiet))
