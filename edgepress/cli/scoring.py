"""Commands about what channels are worth: calibrate, merge, score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepress.cli.options import DATA, DEBUG, JSON, MODEL, PATH, QUIET, RECIPE, WORKERS, options
from edgepress.cli.printing import listener, show
from edgepress.errors import DataError
from edgepress.request import SCORE

SCORING = (
    click.option("--labels", is_flag=True, help="Gradients are of the labels, not of the model's own answers."),
    RECIPE,
    WORKERS,
)
STATISTICS = click.option(
    "-o", "--output", type=PATH, required=True, metavar="NPZ", help="Where to write the statistics."
)


@click.command(short_help="Save what scores need of the samples.")
@MODEL
@options(
    DATA,
    STATISTICS,
    click.option("--score", default=SCORE, show_default=True, metavar="NAME,...", help="The scores, one or several."),
    click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Only the I-th of N parts."),
    *SCORING,
    click.option("--seed", default=0, show_default=True, help="Seed of the order of the samples and of all draws."),
    QUIET,
    JSON,
    DEBUG,
)
def calibrate(model: Path, data: str | None, output: Path, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Observe once what scores need of all samples of --data, or of a part of them, and save it."""
    from edgepress import pipeline
    from edgepress.report import scores as page

    if data is None:
        raise DataError("Statistics are of samples of what the model will meet: give them by --data.")
    saved = pipeline.calibrate(model, data, output, progress=listener(quiet), **settings)
    show(saved, as_json, lambda console: page.render_saved(saved, console), lambda: page.saved_pairs(saved))


@click.command(short_help="Put saved shards together.")
@click.argument("files", type=PATH, nargs=-1, required=True, metavar="NPZ...")
@options(STATISTICS, JSON, DEBUG)
def merge(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Put together what calibrate saved of several shards: the same statistics as without shards, bit for bit."""
    from edgepress import pipeline
    from edgepress.report import scores as page

    saved = pipeline.merge(files, output)
    show(saved, as_json, lambda console: page.render_saved(saved, console), lambda: page.saved_pairs(saved))


@click.command(short_help="Say what every channel is worth.")
@MODEL
@options(
    DATA,
    click.option("--statistics", type=PATH, metavar="NPZ", help="What calibrate or merge saved, in place of --data."),
    click.option("--score", default=SCORE, show_default=True, metavar="NAME",
                 help="By which method; several: NAME=WEIGHT,NAME=WEIGHT."),
    click.option("-o", "--output", type=PATH, metavar="JSON",
                 help="Where to write; an .npz goes beside it.  [default: MODEL.scores.json in this folder]"),
    *SCORING,
    click.option("--seed", type=int, metavar="N", help="Seed of the order of the samples and of all draws.  "
                 "[default: that of --statistics, or 0]"),
    QUIET,
    JSON,
    DEBUG,
)  # fmt: skip
def score(model: Path, data: str | None, output: Path | None, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Score every channel of MODEL that may go, the least important first."""
    from edgepress import pipeline
    from edgepress.pipeline.scoring import npz_path
    from edgepress.report import scores as page

    place = output or Path(f"{model.stem}.scores.json")
    found = pipeline.score(model, data, output=place, progress=listener(quiet), **settings)
    written = [str(place), str(npz_path(place))]
    show(found, as_json, lambda console: page.render(found, console, written), lambda: page.pairs(found, written))
