"""Android devices, by the system's adb: ``adb://[serial]?runner=PATH&library=PATH``.

There is no Python on them: the native runner (:mod:`edgepress.devices.native`), built by Android's NDK, does the work.
Everything lies in a folder of its own below /data/local/tmp, where programs may be started without root. Serials are
those of ``adb devices``, ``192.168.1.5:5555`` included; without one the only device there is taken, or the one that
ANDROID_SERIAL names. Settings: ``runner``, ``library`` and ``cpus``.

``adb shell`` hands one text to a shell there, so every word is quoted. What a program writes goes to files, and its
exit status comes with a mark of its own: adb before Android 7 mixes stdout and stderr, changes line ends and tells no
status, and a text without the mark is one that was cut off.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from edgepress.devices.base import TIMEOUT_S, Done, Level, Native, check_name
from edgepress.devices.runner import FOLDER
from edgepress.devices.spec import Spec
from edgepress.errors import DeviceError

HOME = "/data/local/tmp"
SHORT_S = 60.0
"""For what takes no time: making a folder, asking for the battery."""

MARK = "edgepress-ended"
_STDIN, _STDOUT, _STDERR, _PID = "run.in", "run.out", "run.err", "run.pid"

BUILD = (
    f"cmake -S {FOLDER} -B build-android -DCMAKE_TOOLCHAIN_FILE=$NDK/build/cmake/android.toolchain.cmake "
    "-DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=24 && cmake --build build-android"
)

STATES = {
    "unauthorized": "it has not been told to trust this machine: unlock it and accept the question it asks",
    "authorizing": "it has not been told to trust this machine: unlock it and accept the question it asks",
    "offline": "it is offline: plug it in again, or restart it",
    "no permissions": "this user may not open its USB port: add a udev rule for it, or plug it in again",
    "bootloader": "it is in its bootloader: start Android",
    "recovery": "it is in its recovery system: start Android",
    "sideload": "it waits for a package: start Android",
}

_LOST = ("device offline", "not found", "no devices", "closed", "disconnected", "connection reset", "EOF")


class _Late(DeviceError):
    """The time is up."""


class Adb:
    """An Android device."""

    level: Level = "measured"
    python: tuple[str, ...] | None = None

    def __init__(self, spec: str, serial: str, native: Native, cpus: tuple[int, ...] = ()) -> None:
        """Use the device of a serial, or the only one; nothing is started yet."""
        self.spec, self.wanted, self.cpus = spec, serial, cpus
        self.name = spec.partition("?")[0]  # for messages: the files of the query are long
        self.native: Native | None = native

    @classmethod
    def of(cls, spec: Spec) -> Adb:
        """The device of a spec.

        Raises:
            DeviceError: no runner or library is named, or they are not there.
        """
        spec.only("runner", "library", "cpus")
        if spec.user:
            raise DeviceError(f"{spec.text!r}: Android devices have no user: write adb://SERIAL.")
        if "runner" not in spec.settings:
            raise DeviceError(f"{spec.text!r} needs a runner: build it by {BUILD}, then name it by ?runner=PATH.")
        if "library" not in spec.settings:
            raise DeviceError(
                f"{spec.text!r} needs onnxruntime's library: unzip jni/arm64-v8a/libonnxruntime.so out of the file "
                "onnxruntime-android-VERSION.aar and name it by &library=PATH."
            )
        native = spec.native()
        if native is None:
            raise DeviceError(f"{spec.text!r} needs a runner and a library.")
        host = spec.host or os.environ.get("ANDROID_SERIAL", "")
        return cls(spec.text, f"{host}:{spec.port}" if spec.port is not None else host, native, spec.cpus())

    @cached_property
    def program(self) -> str:
        """Where adb is."""
        found = shutil.which("adb")
        if found is None:
            raise DeviceError("There is no adb here: install Android's platform tools (the package adb on Debian).")
        return found

    @cached_property
    def serial(self) -> str:
        """Which device, ready to be used."""
        there = self._attached()
        if self.wanted and self.wanted not in there:
            hint = f"connect it by adb connect {self.wanted}" if ":" in self.wanted else f"choose {_listed(there)}"
            raise DeviceError(f"{self.name}: no Android device {self.wanted} is attached: {hint}.")
        if not there:
            raise DeviceError(f"{self.name}: no Android device is attached: plug one in and allow USB debugging there.")
        if not self.wanted and len(there) > 1:
            raise DeviceError(f"{self.name}: several Android devices are attached: write adb:// and {_listed(there)}.")
        serial = self.wanted or next(iter(there))
        if there[serial] != "device":
            why = next((text for state, text in STATES.items() if there[serial].startswith(state)), None)
            raise DeviceError(f"{serial} cannot be used: {why or f'its state is {there[serial]}'}.")
        return serial

    def _attached(self) -> dict[str, str]:
        """Serials and states, as ``adb devices`` lists them."""
        done = self._adb("devices", timeout=SHORT_S)
        if done.status:
            raise DeviceError(f"{self.name}: adb does not work here ({_last(done)}): start it by adb start-server.")
        lines = done.stdout.decode(errors="replace").partition("List of devices attached")[2].splitlines()
        pairs = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("*"))
        return {pair[0]: pair[1].strip() if len(pair) > 1 else "" for pair in pairs}

    @cached_property
    def folder(self) -> str:
        """Where everything lies there, made on first use."""
        folder = f"{HOME}/edgepress-{secrets.token_hex(6)}"
        status, told = self._shell(f"mkdir -m 700 {folder} 2>&1")
        if status:
            raise DeviceError(f"{self.name}: no folder can be made in {HOME} ({_line(told)}): make room there.")
        return folder

    def push(self, source: Path, name: str) -> None:
        """Copy a file."""
        target = f"{self.folder}/{check_name(name)}"
        done = self._adb("-s", self.serial, "push", str(source.resolve()), target)
        if done.status:
            raise self._failed(f"{name} cannot be copied to it", done)

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT_S) -> Done:
        """Run a program; it can see the libraries in its folder."""
        with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
            if stdin:
                (Path(folder) / _STDIN).write_bytes(stdin)
                self.push(Path(folder) / _STDIN, _STDIN)
            status, told = self._run(words, _STDIN if stdin else "/dev/null", timeout)
            there = told.split()
            found = [self._content(name, Path(folder)) if name in there else b"" for name in (_STDOUT, _STDERR)]
            return Done(_signalled(status), *found)

    def _run(self, words: Sequence[str], given: str, timeout: float) -> tuple[int, str]:
        """Exit status, and which files of output are not empty."""
        command = " ".join(map(shlex.quote, words))
        text = (
            f"cd {self.folder} && export LD_LIBRARY_PATH={self.folder} && "
            f"{{ {command} < {given} > {_STDOUT} 2> {_STDERR} & echo $! > {_PID}; wait $!; status=$?; "
            f"for name in {_STDOUT} {_STDERR}; do [ -s $name ] && echo $name; done; (exit $status); }}"
        )
        ended = False
        try:
            found = self._shell(text, timeout)
            ended = True
        except _Late:
            raise DeviceError(f"{self.name}: no answer within {timeout:g} s: the model may be too large.") from None
        finally:
            if not ended:  # late, or interrupted here: it would go on there
                with suppress(DeviceError):
                    self._shell(f"kill -9 $(cat {self.folder}/{_PID})")
        return found

    def _content(self, name: str, folder: Path) -> bytes:
        self.pull(name, folder / name)
        return (folder / name).read_bytes()

    def pull(self, name: str, target: Path) -> None:
        """Copy a file back."""
        done = self._adb("-s", self.serial, "pull", f"{self.folder}/{check_name(name)}", str(target.resolve()))
        if done.status:
            raise self._failed(f"{name} cannot be fetched from it", done)

    def close(self) -> None:
        """Remove what is there; a device that has gone keeps it until somebody empties /data/local/tmp."""
        if "folder" in self.__dict__:
            with suppress(DeviceError):
                self._shell(f"rm -rf {self.__dict__.pop('folder')}")

    def __enter__(self) -> Adb:
        """The device."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Remove what is there."""
        self.close()

    # --- what the runner cannot see: it is not allowed to, or Android knows better -----------------------------------

    def called(self) -> str:
        """Model and chip, as Android names them."""
        names = self._asked("getprop ro.product.model; getprop ro.soc.model").splitlines()
        return " ".join(name.strip() for name in names if name.strip())

    def health(self) -> Mapping[str, Any]:
        """Heat of the battery in °C, and whether Android holds the clock down for heat."""
        told = self._asked("dumpsys battery; dumpsys thermalservice")
        tenths = re.search(r"^ *temperature: (\d+)", told, re.MULTILINE)
        status = re.search(r"^ *Thermal ?Status: (\d+)", told, re.MULTILINE)
        return {
            "temperature_c": int(tenths[1]) / 10 if tenths else None,
            "throttled": int(status[1]) > 0 if status else None,
        }

    def _asked(self, text: str) -> str:
        """What commands print; nothing where the device has none such."""
        return self._shell(f"{{ {text}; }} 2> /dev/null")[1]

    # --- adb ---------------------------------------------------------------------------------------------------------

    def _shell(self, text: str, timeout: float = SHORT_S) -> tuple[int, str]:
        """Have a text read by the shell there: exit status and what it printed.

        Raises:
            DeviceError: the device has gone before it was done, or the time is up (``_Late``).
        """
        done = self._adb("-s", self.serial, "shell", f"{text}; status=$?; echo; echo {MARK} $status", timeout=timeout)
        told = done.stdout.decode(errors="replace").replace("\r", "")
        printed, mark, status = told.rpartition(f"\n{MARK} ")
        if not mark or not status.strip().isdigit():
            raise self._failed("it did not answer", done)
        return int(status), printed

    def _adb(self, *words: str, timeout: float = TIMEOUT_S) -> Done:
        """Start adb and wait for it."""
        try:
            done = subprocess.run(
                [self.program, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise _Late(f"{self.name}: adb has no answer within {timeout:g} s: plug the device in again.") from None
        except OSError as error:
            raise DeviceError(f"{self.program} cannot be started ({error.strerror}): install it again.") from error
        return Done(done.returncode, done.stdout, done.stderr)

    def _failed(self, what: str, done: Done) -> DeviceError:
        """Why adb did not do something, with what to do."""
        told = f"{done.stderr.decode(errors='replace')}\n{done.stdout.decode(errors='replace')}"
        if "No space left" in told:
            return DeviceError(f"{self.name}: {what}, its disk is full: make room in {HOME}.")
        if "unauthorized" in told:
            return DeviceError(f"{self.name}: {what}, {STATES['unauthorized']}.")
        if not told.strip() or any(word in told for word in _LOST):
            return DeviceError(f"{self.name}: {what}, it has gone ({_last(done)}): plug it in again.")
        return DeviceError(f"{self.name}: {what} ({_last(done)}).")


def _signalled(status: int) -> int:
    """A shell's exit status as :class:`Done` has it: negative for signals."""
    return 128 - status if 128 < status < 128 + 65 else status


def _last(done: Done) -> str:
    return _line((done.stderr.strip() or done.stdout.strip()).decode(errors="replace")) or "it says nothing"


def _line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].removeprefix("adb: ").removeprefix("error: ")


def _listed(there: Mapping[str, str]) -> str:
    return " or ".join(there) if there else "one that adb devices lists, which lists none now"
