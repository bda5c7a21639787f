"""Progress: what the pipeline tells while it works, and three ways to hear it.

The pipeline says ``with progress.stage("score") as stage: ... stage.note("48 groups")``. On a terminal a
finished stage is one line and only the running one moves; in a pipe every finished stage is a plain line;
``Silent`` says nothing. Everything goes to stderr: stdout is for the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TextIO

from edgepress.report import numbers
from edgepress.report.result import StageRow

if TYPE_CHECKING:
    from rich.console import Console

NAME_WIDTH = 11

_STATUS = Path("/proc/self/status")


class Stage(Protocol):
    """A stage that is running."""

    def note(self, text: str) -> None:
        """Say what was found; the last note stands."""


class Progress(Protocol):
    """Somebody who listens."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """Begin a stage; it ends with the ``with`` block. One stage runs at a time."""


@dataclass
class _Noted:
    """A stage that keeps its last note."""

    text: str = ""

    def note(self, text: str) -> None:
        self.text = numbers.clean(text)


class Silent:
    """Says nothing."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """A stage nobody hears of."""
        return nullcontext(_Noted())


@dataclass(frozen=True)
class Lines:
    """One plain line per finished stage, for pipes and log files."""

    stream: TextIO

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Write ``name<TAB>seconds<TAB>note`` when the stage ends well."""
        begin, noted = perf_counter(), _Noted()
        yield noted
        self.stream.write(f"{name}\t{perf_counter() - begin:.1f} s\t{noted.text}\n")
        self.stream.flush()


@dataclass(frozen=True)
class Live:
    """One line per finished stage on a terminal; a spinner for the running one."""

    console: Console

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show the stage while it runs, then its time and its note."""
        from rich.text import Text

        begin, noted, ending = perf_counter(), _Noted(), ("✗", "red", "stopped")
        try:
            with self.console.status(Text(name), spinner="dots"):
                yield noted
            ending = ("✓", "green", noted.text)
        finally:
            mark, style, note = ending
            self.console.print(self._line(mark, style, name, perf_counter() - begin, note))

    @staticmethod
    def _line(mark: str, style: str, name: str, seconds: float, note: str) -> object:
        from rich.text import Text

        return Text.assemble((mark, style), f" {name:<{NAME_WIDTH}} ", (f"{seconds:5.1f} s", "dim"), f"  {note}")


@dataclass(frozen=True)
class Recorder:
    """Passes everything on to another listener and keeps a :class:`StageRow` per finished stage."""

    listener: Progress = field(default_factory=Silent)
    rows: list[StageRow] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A stage whose time, memory and note are kept."""
        begin, noted = perf_counter(), _Noted()
        with self.listener.stage(name) as heard:
            yield _Both(noted, heard)
        self.rows.append(StageRow(name, perf_counter() - begin, peak_mb(), noted.text))


@dataclass(frozen=True)
class _Both:
    first: Stage
    second: Stage

    def note(self, text: str) -> None:
        self.first.note(text)
        self.second.note(text)


def peak_mb() -> float | None:
    """Highest memory of this process so far in MB (10^6 bytes); None where the system does not say."""
    if _STATUS.is_file():  # unlike ru_maxrss this does not count the process that started us
        lines = _STATUS.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), None)
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def listener(*, quiet: bool) -> Progress:
    """The right listener for this process's stderr."""
    if quiet or sys.stderr is None:
        return Silent()
    if not sys.stderr.isatty():
        return Lines(sys.stderr)
    from rich.console import Console

    return Live(Console(stderr=True, highlight=False, soft_wrap=True))
