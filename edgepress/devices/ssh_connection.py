"""A connection by the system's ssh, as long as which one folder exists on the device.

The first ssh is the master of the connection and runs ``ssh_scripts.HOLD`` on the device; those that follow share it.
No ssh stays behind on this machine: the master ends with the script, which ends when this process closes its standard
input or dies. What the user has set in ``~/.ssh/config`` (names, jump hosts, keys, ports) holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgepress.devices.ssh_scripts import HOLD, line
from edgepress.errors import DeviceError

CONNECT_S = 15
START_S = 90.0
"""Until the folder is there: name, connection, keys, the login shell of a slow device."""

ALIVE_S, ALIVE_TIMES = 15, 4
"""How often ssh asks whether the device is there, and how many answers may be missing."""

BEAT_S, LOST_S = 15.0, 120
"""How often the device hears of this machine, and how often it looks: it clears up when nothing came in between."""

CLOSE_S = 30.0
SOCKET_LENGTH = 60
"""Sockets have names of about 100 bytes at most, and ssh appends to this one while it makes it."""

OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_S}",
    f"ServerAliveInterval={ALIVE_S}",
    f"ServerAliveCountMax={ALIVE_TIMES}",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",  # neither banners nor warnings: what is said is why it failed
)

CAUSES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key is not the one known here: somebody may be in between, or "
     "it was set up anew, and then ssh-keygen -R removes the old key"),
    ("Host key verification failed|host key is known", "its host key is not known here: connect once by ssh and "
     "compare the key"),
    ("Permission denied", "it lets nobody in with these keys: put your public key there by ssh-copy-id, or name a key "
     "by ?identity=PATH"),
    ("Could not resolve hostname", "nobody knows that name: check it, or write the address"),
    ("Connection refused", "no ssh server listens there: start one, or name its port"),
    ("timed out|No route to host|is unreachable|is down", "it does not answer: switch it on, and look whether it is in "
     "this network"),
    ("No space left on device", "the disk there is full: make room on it, or name another folder by ?folder=PATH"),
    ("mktemp: ", "no folder can be made there: name another place by ?folder=PATH"),
)  # fmt: skip
"""What ssh or the device says, and what to do about it."""


class Connection:
    """A connection and its folder: open from when it is made until it is closed, or this process ends."""

    def __init__(self, spec: str, words: Sequence[str], host: str, parent: str = "") -> None:
        """Connect.

        Args:
            spec: the device, for messages.
            words: the ssh command without host: options of the user's.
            host: as ssh knows it.
            parent: folder on the device to make one in; empty: the usual one.

        Raises:
            DeviceError: says why there is no connection.
        """
        self.spec = spec
        self.mark = f"edgepress-{secrets.token_hex(8)}"
        self._private = _private_folder()
        options = [word for option in OPTIONS for word in ("-o", option)]
        self._shared = [*words, *options, "-Tax", "-S", str(self._private / "c")]
        self._host = host
        self._errors = self._private / "errors"
        command = [*self._shared, "-M", "--", host, line(HOLD, self.mark, parent, str(LOST_S))]
        with self._errors.open("wb") as errors:
            self._master = started(command, subprocess.PIPE, errors)
        ended = threading.Event()
        self.close = weakref.finalize(self, _end, self._master, ended, self._private)
        try:
            self.folder = self._first_words()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=_beat, args=(self._master.stdin, ended), daemon=True).start()

    def client(self, script: str, words: Sequence[str], stdin: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a script on the device, its output in pipes."""
        # Should the connection be gone, ssh would make a new one, to a device without the folder: this makes it fail.
        alone = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")
        command = [*self._shared, *alone, "--", self._host, line(script, *words)]
        return started(command, stdin, subprocess.PIPE)

    def lost(self, patience: float = 3.0) -> str | None:
        """Why the connection is gone, in a few words; None while it is there."""
        try:
            self._master.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        said = self._said()
        return said[-1] if said else "the device or the network closed it"

    def _said(self) -> list[str]:
        text = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        return [told for told in map(str.strip, text.splitlines()) if told]

    def _first_words(self) -> str:
        """The folder, which the device names when it is there."""
        assert self._master.stdout is not None
        begin = f"{self.mark} ".encode()
        heard, until = b"", time.monotonic() + START_S
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._master.stdout, selectors.EVENT_READ)
            while not (found := re.search(re.escape(begin) + rb"([^\n]+)\n", heard)):
                if not waiting.select(max(until - time.monotonic(), 0.0)):
                    raise DeviceError(f"{self.spec}: no answer within {START_S:g} s: look what its login shell does.")
                more = os.read(self._master.stdout.fileno(), 1 << 16)
                if not more:
                    with contextlib.suppress(subprocess.TimeoutExpired):  # what it has said by now will do
                        self._master.wait(CLOSE_S)
                    raise self._refused()
                heard += more
        return found[1].decode(errors="surrogateescape")

    def _refused(self) -> DeviceError:
        said = self._said()
        for pattern, advice in CAUSES:
            if re.search(pattern, "\n".join(said)):
                return DeviceError(f"{self.spec}: {advice}.")
        return DeviceError(f"{self.spec}: ssh cannot connect ({said[-1] if said else 'and does not say why'}).")


def started(command: Sequence[str], stdin: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """An ssh out of the reach of the terminal: it asks nothing there, and Ctrl-C does not end it before its time."""
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=environment, start_new_session=True
    )


def _private_folder() -> Path:
    """A folder for the socket, in a place with a short name."""
    place = tempfile.gettempdir()
    plain = len(os.fsencode(place)) <= SOCKET_LENGTH and "%" not in place
    return Path(tempfile.mkdtemp(prefix="edgepress-", dir=place if plain else "/tmp"))


def _beat(to: IO[bytes], ended: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):  # the connection is gone, or was closed meanwhile
        while not ended.wait(BEAT_S):
            to.write(b"\n")
            to.flush()


def _end(master: subprocess.Popen[bytes], ended: threading.Event, private: Path) -> None:
    """Let the device clear up, wait until it has; what is already gone is no error."""
    ended.set()
    assert master.stdin is not None and master.stdout is not None
    with contextlib.suppress(OSError):  # beats that nobody took
        master.stdin.close()
    try:
        master.wait(CLOSE_S)
    except subprocess.TimeoutExpired:  # no answer: what watches on the device clears up without one
        master.kill()
        master.wait()
    master.stdout.close()
    shutil.rmtree(private, ignore_errors=True)
