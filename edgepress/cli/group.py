"""The group of all commands: errors of the library become one line and an exit code."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from edgepress.errors import EdgepressError

DEBUG = "edgepress.debug"
INTERRUPTED = 130


class Edgepress(click.Group):
    """Turns the errors of the library into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _tolerate_narrow_encodings()
        try:
            return super().invoke(ctx)
        except EdgepressError as error:
            if ctx.meta.get(DEBUG):
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
