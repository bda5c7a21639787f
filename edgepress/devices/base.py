"""A device: a machine that models can be run on, near or far.

    push    copy a file to the device
    run     start a program there and wait for it
    pull    copy a file back
    close   remove everything that was put there

Files live in one folder that the device object makes when it is first used and removes when it is closed; programs run
in that folder, so that names of files are relative. Words of a command reach the program as they are: no shell reads
them, or they are quoted for the one that must. A device is a context manager: ``with open_device(spec) as device``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgepress.errors import DeviceError

Level = Literal["analytic", "counted", "cycles", "measured"]
"""How sure a cost is, from worst to best: multiply-adds per lane, instructions counted under an emulator, cycles
estimated from those, time measured on the device. Costs of different levels are never compared."""

_LETTERS = frozenset(string.ascii_letters + string.digits + "._-")

TIMEOUT_S = 900.0
"""A program that takes longer is ended: a device may hang."""


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ended: its exit status (negative: by that signal) and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


class Device(Protocol):
    """What a kind of device has to offer.

    Attributes:
        spec: as the user named it.
        level: what a time that is taken there is worth: ``measured``, or ``counted`` where wall time means nothing.
        python: the words that start a Python with numpy and onnxruntime there; None where there is none.
        native: what is used there in place of Python; None where there is nothing.
        cpus: processors to stay on; empty: whatever the device gives.
    """

    spec: str
    level: Level
    python: tuple[str, ...] | None
    native: Native | None
    cpus: tuple[int, ...]

    def push(self, source: Path, name: str) -> None:
        """Copy a file of this machine into the device's folder under a name (``check_name``)."""
        ...

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT_S) -> Done:
        """Run a program in the device's folder.

        Raises:
            DeviceError: the device cannot be reached, the connection broke, or the time is up; not that the program
                failed, which :class:`Done` says.
        """
        ...

    def pull(self, name: str, target: Path) -> None:
        """Copy a file of the device's folder here."""
        ...

    def close(self) -> None:
        """Remove the folder and end the connection; what has already gone is no error."""
        ...

    def __enter__(self) -> Device:
        """The device itself."""
        ...

    def __exit__(self, *problem: object) -> None:
        """Close it."""
        ...


@dataclass(frozen=True, slots=True)
class Native:
    """For a device without Python: the runner built for it, and onnxruntime's library for it; files of this machine."""

    runner: Path
    library: Path


def check_name(name: str) -> str:
    """A file name that means the same on every device: letters, digits, dots, dashes and underscores.

    Raises:
        DeviceError: it is not.
    """
    if not name or name.startswith((".", "-")) or not set(name) <= _LETTERS:
        raise DeviceError(f"{name!r} is no file name for a device: use letters, digits, dots, dashes and underscores.")
    return name
