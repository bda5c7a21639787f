"""Printing: a page on a terminal, lines in a pipe, JSON when asked for; progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edgepress.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from edgepress.report.progress import Progress


class Page(Protocol):
    """Something that can be printed in three ways."""

    def to_json(self) -> str:
        """As JSON."""
        ...


def listener(quiet: bool) -> Progress:
    """Who hears of progress."""
    from edgepress.report.progress import listener

    return listener(quiet=quiet)


def show(
    page: Page, as_json: bool, render: Callable[[Console], None], lines: Callable[[], Sequence[tuple[str, ...]]]
) -> None:
    """Print a result the way stdout wants it."""
    if as_json:
        write(page.to_json())
    elif sys.stdout is None or not sys.stdout.isatty():
        show_lines(lines())
    else:
        from rich.console import Console

        render(Console(highlight=False))


def show_lines(lines: Sequence[tuple[str, ...]]) -> None:
    """Cells with tabs between them, most often ``key<TAB>value``; keys without a value are left out."""
    from edgepress.report.numbers import clean

    write("".join("\t".join(map(clean, cells)) + "\n" for cells in lines if cells[-1]))


def write(text: str) -> None:
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
