"""Commands that measure: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepress.cli.options import DATA, DEBUG, JSON, PATH, RECIPE, options
from edgepress.cli.printing import show


@click.command(short_help="Time models against each other.")
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@options(
    DATA,
    RECIPE,
    click.option("--threads", default=1, show_default=True, metavar="N", help="Threads of every model."),
    click.option("--seconds", default=6.0, show_default=True, metavar="S", help="How long to take turns."),
    click.option("--seed", default=0, show_default=True, help="Seed of the order of turns."),
    JSON,
    DEBUG,
)
def bench(models: tuple[Path, ...], as_json: bool, **settings: Any) -> None:
    """Time every MODEL against the first, in turns, and count what onnxruntime really runs."""
    from edgepress.benchmark import bench_files
    from edgepress.report import benchmark as page

    found = bench_files(models, **settings)
    show(found, as_json, lambda console: page.render(found, console), lambda: page.pairs(found))
