"""Devices reached by ssh: ``ssh://[user@]host[:port]``, by the ssh of the system and what the user has set for it.

Settings::

    python            the Python there (python3); ``~/`` is the home folder there
    folder            where to make a folder (TMPDIR there, or /tmp); ``~/`` as above
    cpus              processors to stay on: 0,2 or 4-7
    identity          a key file of this machine
    config            an ssh configuration of this machine in place of the user's
    runner, library   files of this machine for a device without Python

Nothing is left on the device, see :mod:`edgepress.devices.ssh_scripts`. Files go through the same door as programs:
scp would need the server's sftp, which small systems lack, and fails where a login shell prints something.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import IO

from edgepress.devices.base import TIMEOUT_S, Done, Level, Native, check_name
from edgepress.devices.spec import Spec, expanded
from edgepress.devices.ssh_connection import Connection
from edgepress.devices.ssh_scripts import PUT, RUN, STOP
from edgepress.errors import DeviceError

STOP_S = 20.0
BASES, LAST_SIGNAL = (128, 256, 384), 64
"""Shells tell a signal by its number added to 128, ksh to 256, yash to 384."""


class Ssh:
    """A device reached by ssh; connected when first used."""

    level: Level = "measured"

    def __init__(self, spec: Spec) -> None:
        """Use a device."""
        self.spec = spec.text
        self.name = spec.text.partition("?")[0]
        """For messages: the settings are long."""
        self.cpus = spec.cpus()
        self.native: Native | None = spec.native()
        python = spec.settings.get("python", "python3")
        self.python: tuple[str, ...] | None = (python,) if self.native is None else None
        self._host = spec.host
        self._words = _words(spec)
        self._parent = spec.settings.get("folder", "")
        self._numbers = count(1)

    @classmethod
    def of(cls, spec: Spec) -> Ssh:
        """The device of a spec.

        Raises:
            DeviceError: a setting is wrong, or there is no ssh on this machine.
        """
        spec.only("python", "folder", "cpus", "identity", "config", "runner", "library")
        if not spec.host:
            raise DeviceError(f"{spec.text!r} names no host: write ssh://user@host.")
        if shutil.which("ssh") is None:
            raise DeviceError(f"{spec.text}: there is no ssh on this machine: install the OpenSSH client.")
        empty = [name for name in ("python", "identity", "config") if spec.settings.get(name) == ""]
        if empty:
            raise DeviceError(f"{spec.text!r}: {empty[0]} is empty: name a file, or leave it out.")
        return cls(spec)

    @cached_property
    def _connection(self) -> Connection:
        return Connection(self.name, self._words, self._host, self._parent)

    @property
    def folder(self) -> str:
        """Where everything lies on the device."""
        return self._connection.folder

    def push(self, source: Path, name: str) -> None:
        """Copy a file."""
        words = ["sh", "-c", PUT, "edgepress", check_name(name), str(source.stat().st_size)]
        with source.open("rb") as content:
            done = self._done(words, content, TIMEOUT_S)
        if done.status:
            raise DeviceError(f"{self.name}: {name} cannot be written there ({_last(done)}): {_room(done)}.")

    def pull(self, name: str, target: Path) -> None:
        """Copy a file back."""
        done = self.run(["cat", check_name(name)])
        if done.status:
            raise DeviceError(f"{self.name}: {name} cannot be fetched ({_last(done)}).")
        beside = target.with_name(f"{target.name}.part")
        beside.write_bytes(done.stdout)
        beside.replace(target)

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT_S) -> Done:
        """Run a program."""
        return self._done(words, stdin, timeout)

    def _done(self, words: Sequence[str], stdin: bytes | IO[bytes], timeout: float) -> Done:
        connection, number = self._connection, str(next(self._numbers))
        reason = connection.lost(0)
        if reason is not None:
            raise self._cut(reason)
        content, source = (stdin, subprocess.PIPE) if isinstance(stdin, bytes) else (None, stdin)
        with connection.client(RUN, (connection.mark, connection.folder, number, *words), source) as client:
            try:
                stdout, stderr = client.communicate(content, timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(f"{self.name}: no answer within {timeout:g} s: the model may be too large.") from None
            finally:
                if client.returncode is None:
                    client.kill()
                    self._stop(number)
        return self._told(words[0], stdout, stderr)

    def _told(self, program: str, stdout: bytes, stderr: bytes) -> Done:
        """What the marks say about how a program has ended.

        Raises:
            DeviceError: it has not: it could not be started, or there is no mark at all.
        """
        mark = self._connection.mark.encode()
        errors, _, how = stderr.rpartition(b"\n%s " % mark)
        how, _, _ = how.partition(b"\n")
        if how.isdigit():
            _, _, written = stdout.partition(b"%s\n" % mark)
            return Done(signalled(int(how)), written, errors)
        if how == b"missing":
            raise DeviceError(f"{self.name}: there is no program {program} there: name another by ?python=PATH.")
        if how == b"full":
            raise DeviceError(f"{self.name}: the disk there is full: make room, or name another place by ?folder=PATH.")
        if how == b"gone":
            raise DeviceError(f"{self.name}: somebody has removed {self.folder} there: run it again.")
        reason = self._connection.lost()
        if reason is not None:
            raise self._cut(reason)
        raise DeviceError(f"{self.name}: the shell of {program} was ended there ({_last(Done(1, b'', stderr))}).")

    def _cut(self, reason: str) -> DeviceError:
        return DeviceError(f"{self.name}: the connection broke ({reason}): look after the network and run it again.")

    def _stop(self, number: str) -> None:
        """End a program whose end nobody awaits any more; the connection as well, if that cannot be done."""
        with self._connection.client(STOP, (self.folder, number), subprocess.DEVNULL) as client:
            try:
                client.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                client.kill()
                self.close()

    def close(self) -> None:
        """Remove the folder, end programs and the connection; used again, it connects again."""
        if "_connection" in self.__dict__:
            self.__dict__.pop("_connection").close()

    def __enter__(self) -> Ssh:
        """The device."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Remove what is there."""
        self.close()


def signalled(status: int) -> int:
    """The exit status that a shell tells, negative where it says that a signal ended the program."""
    return next((base - status for base in BASES if base < status <= base + LAST_SIGNAL), status)


def _words(spec: Spec) -> list[str]:
    """The ssh command, with what the spec says about the connection."""
    words = ["ssh"]
    if "config" in spec.settings:
        words += ["-F", expanded(spec.settings["config"])]
    if "identity" in spec.settings:
        words += ["-i", expanded(spec.settings["identity"]), "-o", "IdentitiesOnly=yes"]
    if spec.port is not None:
        words += ["-p", str(spec.port)]
    if spec.user:
        words += ["-l", spec.user]
    return words


def _last(done: Done) -> str:
    """The last thing a program said before it failed."""
    return (done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.status}"])[-1]


def _room(done: Done) -> str:
    """What to do about a file that cannot be written."""
    full = b"No space left" in done.stderr or b"quota" in done.stderr
    return "make room there, or name another folder by ?folder=PATH" if full else "name another folder by ?folder=PATH"
