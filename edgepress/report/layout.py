"""Layout: the few shapes every page of the terminal is made of: a table, labelled paragraphs, cells.

Text takes 79 columns at most; a table that is too wide for the terminal loses its last columns. Labelled
texts fold with a hanging indent, and what is to be copied (paths, commands) is never broken.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgepress.report import numbers

WIDTH = 79
LABEL = 11
GAP = 2
_GLUE = "\0"  # a space that is not folded at


def width(console: Console) -> int:
    """Columns to use."""
    return min(console.width, WIDTH)


def table(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], *, bold: str = "", prose: bool = False
) -> Table:
    """A table whose first column holds labels.

    Args:
        console: where it goes.
        headings: one per column.
        rows: cells, one per heading.
        bold: heading of the column to stress.
        prose: the last column holds text and folds; otherwise last columns that do not fit are left out.
    """
    kept = len(headings)
    while not prose and kept > 2 and _needed(headings[:kept], [row[:kept] for row in rows]) > console.width:
        kept -= 1
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for position, heading in enumerate(headings[:kept]):
        text = prose and position == kept - 1
        made.add_column(
            Text(heading),
            justify="right" if position and not text else "left",
            style="bold" if heading and heading == bold else None,
            no_wrap=not text and position > 0,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(numbers.clean(cell)) for cell in row[:kept]))
    return made


def show(console: Console, made: Table) -> None:
    """Print a table, folded to the width, and an empty line."""
    console.print(made)
    console.print()


def _needed(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = [max(len(row[position]) for row in (headings, *rows)) for position in range(len(headings))]
    return sum(widths) + GAP * (len(widths) - 1)


def paragraph(console: Console, label: str, text: str, style: str = "dim") -> None:
    """A labelled text, folded between words with a hanging indent."""
    _fold(console, label, numbers.clean(text), style)


def items(console: Console, label: str, texts: Sequence[str]) -> None:
    """Labelled short texts with dots between them; those that fit on a line are not broken."""
    room = max(width(console) - LABEL, 20) - len(" ·")
    whole = [text.replace(" ", _GLUE) if len(text) <= room else text for text in map(numbers.clean, texts)]
    _fold(console, label, f"{_GLUE}· ".join(whole), "dim")


def _fold(console: Console, label: str, text: str, style: str) -> None:
    room = max(width(console) - LABEL, 20)
    folded = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    for position, part in enumerate(folded):
        head = label if position == 0 else ""
        console.print(Text.assemble((f"{head:<{LABEL}}", style), part.replace(_GLUE, " ")), soft_wrap=True)


def line(console: Console, label: str, text: str) -> None:
    """A labelled text on one line, however long: it is meant to be copied."""
    console.print(Text.assemble((f"{label:<{LABEL}}", "dim"), numbers.clean(text)), soft_wrap=True)


def paths(console: Console, label: str, found: Sequence[str]) -> None:
    """Labelled paths: on one line if they fit, else one below the other."""
    together = " · ".join(found)
    lines = [together] if LABEL + len(together) <= width(console) else found
    for position, text in enumerate(lines):
        line(console, "" if position else label, text)


def sentence(console: Console, text: str, style: str = "", *, mark: str = "") -> None:
    """A sentence, folded; ``mark`` stands before it."""
    indent = " " * (len(mark) + 1) if mark else ""
    folded = textwrap.wrap(
        numbers.clean(f"{mark} {text}" if mark else text),
        width(console),
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    for part in folded:
        console.print(Text(part, style=style), soft_wrap=True)
