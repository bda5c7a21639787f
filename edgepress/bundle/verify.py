"""Verify a bundle: run its test vectors on a device, and compare with what it promises."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepress.bundle import check
from edgepress.bundle.manifest import VECTORS, Manifest
from edgepress.devices import Agent, open_device
from edgepress.errors import DeviceError, InputError, ModelError
from edgepress.report import schema
from edgepress.report.bundle import Compared, Verification

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is no .npz."""

SAID = ("cpu", "os", "machine", "python", "numpy", "onnxruntime")
"""What of the device's description is kept."""


def verify(folder: Path, device: str = "local", *, threads: int = 1, ort: bool = False) -> Verification:
    """Run the test vectors of a bundle on a device.

    Args:
        folder: the bundle.
        device: where, as a spec (:mod:`edgepress.devices`).
        threads: of the model.
        ort: run the .ort file, not the .onnx file.

    Returns:
        What was found; :attr:`Verification.agrees` says whether the device keeps the promises.

    Raises:
        InputError: the folder is no bundle, damaged, or incomplete.
        DeviceError: the device cannot be used, or its onnxruntime is older than the bundle needs.
        ModelError: onnxruntime there cannot run the model.
    """
    if threads < 1:
        raise InputError("A model needs a thread: give --threads 1 or more.")
    manifest = Manifest.load(folder)
    manifest.check_files(folder)
    name = manifest.ort if ort else manifest.model
    if name is None:
        raise InputError(f"{folder} has no .ort file: make it again with --ort, or leave --ort out.")
    wanted, feeds = _expected(folder, manifest), _inputs(folder, manifest)
    with open_device(device) as opened:
        agent = Agent(opened)
        for part in (name, *_weights(manifest, name)):
            agent.send(part, (folder / part).read_bytes())
        agent.send_feeds(VECTORS, feeds)
        job = {"task": "outputs", "model": name, "feeds": VECTORS, "to": check.ANSWERS, "threads": threads}
        machine = _performed(agent, job, device, manifest)
        got = _answered(agent.fetch(check.ANSWERS), device)
        level = opened.level
    rows = check.compare([schema.encode(item) for item in manifest.promises], got, wanted, manifest.samples)
    return Verification(
        bundle=str(folder),
        device=device,
        level=level,
        machine={key: str(machine[key]) for key in SAID if machine.get(key)},
        model=name,
        threads=threads,
        samples=manifest.samples,
        compared=tuple(Compared(**row) for row in rows),
    )


def _performed(agent: Agent, job: Mapping[str, Any], device: str, manifest: Manifest) -> Mapping[str, Any]:
    """Have the vectors run; what the device says of itself. One whose onnxruntime is too old is refused."""
    try:
        report = agent.perform(job).report
    except ModelError:
        _check_version(agent.perform({"task": "identify"}).report, device, manifest)  # it may be that
        raise
    return _check_version(report, device, manifest)


def _check_version(report: Mapping[str, Any], device: str, manifest: Manifest) -> Mapping[str, Any]:
    machine: Mapping[str, Any] = report.get("machine", {})
    version = str(machine.get("onnxruntime", ""))
    if check.older(version, manifest.onnxruntime):
        raise DeviceError(
            f"{device} has onnxruntime {version or 'of an unknown version'}, but the bundle needs "
            f"{manifest.onnxruntime} or newer: install that there."
        )
    return machine


def _weights(manifest: Manifest, name: str) -> list[str]:
    """Files that the model keeps its weights in."""
    return [other for other in manifest.files if other == f"{name}.data"]


def _inputs(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The inputs of all samples."""
    names = [port.name for port in manifest.inputs]
    found = _held(folder, VECTORS, manifest.samples, names)
    return [{name: found[f"{number}/{name}"] for name in names} for number in range(manifest.samples)]


def _expected(folder: Path, manifest: Manifest) -> Mapping[str, Any]:
    """The expected outputs of all samples."""
    return _held(folder, check.EXPECTED, manifest.samples, [str(place) for place in range(len(manifest.outputs))])


def _held(folder: Path, file: str, samples: int, names: Sequence[str]) -> Mapping[str, Any]:
    """The arrays of a file, which are to be one of every name for each sample."""
    try:
        found = check.read(str(folder), file)
    except UNREADABLE as error:
        raise _useless(folder, file, str(error)) from error
    if found.keys() != {f"{number}/{name}" for number in range(samples) for name in names}:
        raise _useless(folder, file, "it does not hold all of every sample")
    return found


def _useless(folder: Path, name: str, why: str) -> InputError:
    return InputError(f"{folder}: {name} cannot be used ({why}): make the bundle again.")


def _answered(content: bytes, device: str) -> Mapping[str, Any]:
    try:
        return check.arrays(io.BytesIO(content))
    except UNREADABLE as error:
        raise DeviceError(f"{device} gave answers that cannot be read ({error}): run it again.") from error
