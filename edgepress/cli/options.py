"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgepress.cli import group

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def _debug(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta[group.DEBUG] = wanted


def options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help text."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


MODEL = click.argument("model", type=PATH)
DATA = click.option("--data", metavar="SRC", help="Samples: .npz, .npy, a folder of them or of images.")
RECIPE = click.option("--recipe", metavar="JSON", help="How to read the samples (scaling, order of axes).")
WORKERS = click.option("--workers", type=int, metavar="N", help="Parallel workers for calibration.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else there.")
DEBUG = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error."
)
DEVICE = click.option(
    "--device", metavar="SPEC", help="Where it shall run: ssh://HOST, adb://, emulated://CORE, local."
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress.")
