"""Agent: jobs for a device, and its answers.

Files of a job are copied to the device's folder, the agent's own file first; :mod:`edgepress.devices.agent` says what a
job and a report hold. On a device without Python the native runner takes the agent's place
(:mod:`edgepress.devices.native`), behind the same function.
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.devices import agent
from edgepress.devices.base import TIMEOUT_S, Device, check_name
from edgepress.devices.runner import tensors
from edgepress.errors import DeviceError, ModelError

NAME = "edgepress_agent.py"
ARCHIVE = "edgepress_files.zip"
UNPACK = "import os, sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(); os.remove(sys.argv[1])"
"""A program for the Python there; its word is the archive's name."""

TIMED = ("race", "best", "memory", "profile")
"""Tasks whose figures mean nothing where wall time does not."""

FEWEST_PACKED, MOST_PACKED = 3, 1 << 26
"""New files from which on an archive and a program that unpacks it are less than a transfer each; and bytes of one: the
device has to have room for it beside its files, and must have it within ``TIMEOUT_S``."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the report, and what was written beside it (an emulator's counts)."""

    report: Mapping[str, Any]
    stderr: str


class Agent:
    """Does jobs on one device. Files that were sent once are not sent again."""

    def __init__(self, device: Device) -> None:
        """Use a device; nothing is sent yet."""
        self.device = device
        self.made: dict[str, bytes] = {}
        """Files that were made here of what the native runner answered, for it writes no .npz."""
        self._sent: dict[str, str] = {}

    def send(self, name: str, content: bytes) -> str:
        """Have a file in the device's folder; its name."""
        digest = _digest(content)
        if self._sent.get(check_name(name)) != digest:
            with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
                place = Path(folder) / name
                place.write_bytes(content)
                self.device.push(place, name)
            self._sent[name] = digest
        return name

    def send_many(self, files: Mapping[str, bytes]) -> None:
        """Have many files in the device's folder, by name, in few transfers: each takes a while by ssh.

        One by one where there is no Python to unpack an archive.

        Raises:
            DeviceError: the device or its connection fails, or a name is none for a device.
        """
        digests = {check_name(name): _digest(content) for name, content in files.items()}
        new = [name for name, digest in digests.items() if self._sent.get(name) != digest]
        for batch in _batches({name: files[name] for name in new}):
            if self.device.python is None or len(batch) < FEWEST_PACKED:
                for name, content in batch.items():
                    self.send(name, content)
            else:
                for name in batch:
                    self._sent.pop(name, None)  # unpacking may end in the middle of one
                self._send_packed(batch, self.device.python)
                self._sent.update((name, digests[name]) for name in batch)

    def _send_packed(self, files: Mapping[str, bytes], python: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
            place = Path(folder) / ARCHIVE
            with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            self.device.push(place, ARCHIVE)
        done = self.device.run([*python, "-c", UNPACK, ARCHIVE])
        if done.status:
            raise failure(self.device.spec, done.status, done.stderr.decode(errors="replace"))

    def send_feeds(self, name: str, feeds: Sequence[Feed]) -> str:
        """Have samples in the device's folder."""
        return self.send(name, self.packed(feeds))

    def packed(self, feeds: Sequence[Feed]) -> bytes:
        """Samples as a file, the way the agent reads them, or the native runner where there is no Python."""
        if self.device.python is None:
            return tensors.pack(feeds)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            f"{number}/{key}": value for number, feed in enumerate(feeds) for key, value in feed.items()
        }
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def fetch(self, name: str) -> bytes:
        """A file of the device's folder."""
        if name in self.made:
            return self.made[name]
        with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
            place = Path(folder) / name
            self.device.pull(name, place)
            return place.read_bytes()

    def perform(self, job: Mapping[str, Any], timeout: float = TIMEOUT_S) -> Answer:
        """Have a job done.

        Raises:
            DeviceError: the device, its connection or its Python fails, or it is emulated and the job takes times.
            ModelError: onnxruntime there cannot load or run the model.
        """
        if self.device.level != "measured" and job.get("task") in TIMED:
            raise DeviceError(
                f"{self.device.spec}: emulated cores tell no times: count instructions there, or name a real device."
            )
        if self.device.cpus:
            job = {"cpus": list(self.device.cpus), **job}
        if self.device.python is None:
            return self._perform_native(job, timeout)
        self.send(NAME, Path(agent.__file__).read_bytes())
        done = self.device.run([*self.device.python, NAME], stdin=json.dumps(job).encode(), timeout=timeout)
        errors = done.stderr.decode(errors="replace")
        if done.status:
            raise failure(self.device.spec, done.status, errors)
        return Answer(reported(self.device.spec, done.stdout), errors)

    def _perform_native(self, job: Mapping[str, Any], timeout: float) -> Answer:
        if self.device.native is None:
            raise DeviceError(f"{self.device.spec} has no Python: name one by ?python=PATH.")
        from edgepress.devices import native  # only devices without Python need it

        return native.perform(self, job, timeout)


def _batches(files: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Files in the same order, together of at most ``MOST_PACKED`` bytes; one that is larger is alone."""
    batch: dict[str, bytes] = {}
    size = 0
    for name, content in files.items():
        if batch and size + len(content) > MOST_PACKED:
            yield batch
            batch, size = {}, 0
        batch[name] = content
        size += len(content)
    if batch:
        yield batch


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def reported(spec: str, stdout: bytes) -> Mapping[str, Any]:
    """The report, which is the last line: a program that starts the Python may have its say before.

    Raises:
        DeviceError: the line is no report.
    """
    last = (stdout.strip().splitlines() or [b""])[-1]
    try:
        report = json.loads(last)
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("format") != agent.FORMAT:
        told = f"it says {last[:80].decode(errors='replace')!r}" if last else "it says nothing"
        raise DeviceError(f"{spec} sent no report ({told}): name by ?python=PATH a program that is nothing but Python.")
    return report


HINTS: dict[int, str] = {
    signal.SIGKILL: "the device may have run out of memory, so close programs there or take a smaller model",
    signal.SIGILL: "this onnxruntime has no build for that processor, so install another version there",
}


def failure(spec: str, status: int, errors: str) -> DeviceError | ModelError:
    """Why the agent ended without a report, as the error to raise."""
    last = (errors.strip().splitlines() or [f"the agent ended with status {status}"])[-1]
    if status == agent.MODEL_FAILED:
        return ModelError(f"On {spec}: {last}")
    if status == agent.LACKS:
        return DeviceError(f"{spec}: {last.rstrip('.')}: install it there, or name another Python by ?python=PATH.")
    if status < 0:
        hint = HINTS.get(-status, "run it again, and install another onnxruntime there if it happens again")
        return DeviceError(f"{spec}: the agent was ended by signal {-status}: {hint}.")
    if "SyntaxError" in last:
        return DeviceError(f"{spec}: its Python is older than 3.8: name another by ?python=PATH.")
    if "MemoryError" in last:
        return DeviceError(f"{spec}: its memory is full: close programs there, or take a smaller model.")
    if "No space left on device" in last:
        return DeviceError(f"{spec}: the disk there is full: make room on it.")
    return DeviceError(f"{spec}: {last}")
