"""Commands that measure: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepress.cli.options import DATA, DEBUG, DEVICE, JSON, PATH, RECIPE, options
from edgepress.cli.printing import show


@click.command(short_help="Time models against each other.")
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@options(
    DATA,
    RECIPE,
    DEVICE,
    click.option("--threads", default=1, show_default=True, metavar="N", help="Threads of every model."),
    click.option("--seconds", default=6.0, show_default=True, metavar="S", help="How long to take turns."),
    click.option(
        "--rounds", type=click.IntRange(min=1), metavar="N", help="Rounds to take, at least 6, in place of a time."
    ),
    click.option("--seed", default=0, show_default=True, help="Seed of the order of turns."),
    click.option("--max-temp", "max_temp_c", type=float, metavar="C", help="Wait while the device is hotter."),
    click.option("--profile", is_flag=True, help="Also show where the time goes."),
    click.option("--cycles", is_flag=True, help="Estimate cycles on an emulated core, in place of instructions."),
    JSON,
    DEBUG,
)
def bench(models: tuple[Path, ...], data: str | None, recipe: str | None, as_json: bool, **settings: Any) -> None:
    """Time every MODEL against the first, in turns, and count what onnxruntime really runs."""
    from edgepress.benchmark import How, bench_files
    from edgepress.report import benchmark as page

    found = bench_files(models, data, recipe=recipe, how=How(**settings))
    show(found, as_json, lambda console: page.render(found, console), lambda: page.pairs(found))
