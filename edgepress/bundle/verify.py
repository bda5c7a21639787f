"""Verify a bundle: run its test vectors on a device, and compare with what it promises."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepress.bundle import check
from edgepress.bundle.manifest import VECTORS, Manifest
from edgepress.devices import Agent, open_device
from edgepress.errors import DeviceError, InputError
from edgepress.report import schema
from edgepress.report.bundle import Compared, Verification

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
    wanted = _arrays(folder / check.EXPECTED, folder, manifest)
    with open_device(device) as opened:
        agent = Agent(opened)
        machine = _machine(agent, device, manifest)
        for part in (name, *_weights(manifest, name)):
            agent.send(part, (folder / part).read_bytes())
        agent.send(VECTORS, (folder / VECTORS).read_bytes())
        job = {"task": "outputs", "model": name, "feeds": VECTORS, "to": check.ANSWERS, "threads": threads}
        agent.perform(job)
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


def _machine(agent: Agent, device: str, manifest: Manifest) -> Mapping[str, Any]:
    """What the device says of itself, after a look at its onnxruntime."""
    found: Mapping[str, Any] = agent.perform({"task": "identify"}).report.get("machine", {})
    version = str(found.get("onnxruntime", ""))
    if check.older(version, manifest.onnxruntime):
        raise DeviceError(
            f"{device} has onnxruntime {version or 'of an unknown version'}, but the bundle needs "
            f"{manifest.onnxruntime} or newer: install that there."
        )
    return found


def _weights(manifest: Manifest, name: str) -> list[str]:
    """Files that the model keeps its weights in."""
    return [other for other in manifest.files if other == f"{name}.data"]


def _arrays(path: Path, folder: Path, manifest: Manifest) -> Mapping[str, Any]:
    """The expected outputs, all of them."""
    try:
        found = check.arrays(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: {path.name} cannot be read ({error}): make the bundle again.") from error
    for number in range(manifest.samples):
        for place in range(len(manifest.outputs)):
            if f"{number}/{place}" not in found:
                raise InputError(f"{folder}: {path.name} lacks output {place} of sample {number}: make it again.")
    return found


def _answered(content: bytes, device: str) -> Mapping[str, Any]:
    try:
        return check.arrays(io.BytesIO(content))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DeviceError(f"{device} gave answers that cannot be read ({error}): run it again.") from error
