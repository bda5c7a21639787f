"""This machine as a device: programs run in a folder of their own, in processes of their own.

Settings: ``python``, ``cpus``, or ``runner`` and ``library`` in place of Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from edgepress.devices.base import TIMEOUT_S, Done, Level, Native, check_name
from edgepress.devices.spec import Spec, expanded
from edgepress.errors import DeviceError


class Local:
    """This machine."""

    level: Level = "measured"
    native: Native | None = None
    cpus: tuple[int, ...] = ()
    environment: Mapping[str, str] | None = None
    """Of the programs, all of it; None: that of this process."""

    def __init__(self, spec: str = "local", python: str = sys.executable) -> None:
        """Use this machine, with this Python."""
        self.spec = spec
        self.python: tuple[str, ...] | None = (python,)

    @classmethod
    def of(cls, spec: Spec) -> Local:
        """The device of a spec."""
        spec.only("python", "cpus", "runner", "library")
        if spec.host or spec.user or spec.port is not None:
            raise DeviceError(f"{spec.text!r} names no device: this machine is called local, without a host.")
        device = cls(spec.text, expanded(spec.settings.get("python", sys.executable)))
        device.cpus, device.native = spec.cpus(), spec.native()
        if device.native is not None:
            device.python = None
        return device

    @cached_property
    def folder(self) -> Path:
        """Where everything lies, made on first use."""
        return Path(tempfile.mkdtemp(prefix="edgepress-device-"))

    def push(self, source: Path, name: str) -> None:
        """Copy a file."""
        beside = self.folder / f"{check_name(name)}.part"
        try:
            shutil.copyfile(source, beside)
            beside.replace(self.folder / name)
        except OSError as error:
            raise DeviceError(
                f"{name} cannot be written to {self.folder} ({error.strerror}): make room there."
            ) from error

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT_S) -> Done:
        """Run a program."""
        try:
            done = subprocess.run(
                list(words),
                input=stdin,
                capture_output=True,
                cwd=self.folder,
                env=self.environment,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.spec}: no answer within {timeout:g} s: the model may be too large.") from None
        except OSError as error:
            raise DeviceError(f"{self.spec}: {words[0]} cannot be started ({error.strerror}): name another.") from error
        return Done(done.returncode, done.stdout, done.stderr)

    def pull(self, name: str, target: Path) -> None:
        """Copy a file back."""
        try:
            shutil.copyfile(self.folder / check_name(name), target)
        except OSError as error:
            raise DeviceError(f"{self.spec}: {name} cannot be fetched ({error.strerror}).") from error

    def close(self) -> None:
        """Remove the folder."""
        if "folder" in self.__dict__:
            shutil.rmtree(self.__dict__.pop("folder"), ignore_errors=True)

    def __enter__(self) -> Local:
        """The device."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Remove what is there."""
        self.close()
