"""Machines that models can be run on: this one, and ARM cores emulated by qemu-user.

What the cores are and how a program is started on one is said by :mod:`edgepress.devices.emulated_cores`. Here a model
is run there in ways that devices have no need of: with the graph written out as onnxruntime runs it, or run as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.devices import emulated_cores
from edgepress.devices.emulated_cores import CORES, VARIABLE, Crash, cause, cpuinfo

ROOT = Path(__file__).parents[2]
GUEST = Path(__file__).with_name("guest.py")
MARK = "edgepress-arm.json"
TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Machine:
    """How to start Python on a machine."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor over all samples: type as onnxruntime names it, sha256 of its bytes."""

    type: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a model answered: every graph output, and the values if they were asked for."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def sha256(self) -> dict[str, str]:
        """Of every output."""
        return {name: tensor.sha256 for name, tensor in self.tensors.items()}

    @property
    def digest(self) -> str:
        """One sha256 for all outputs: that of the only one, or of theirs in a row."""
        found = [tensor.sha256 for tensor in self.tensors.values()]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def default_folder() -> Path:
    """The folder of the emulator: EDGEPRESS_ARM, or build/arm in this repository."""
    return Path(os.environ.get(VARIABLE) or ROOT / "build" / "arm")


def ready(folder: Path) -> dict[str, Any] | None:
    """What setup.py noted when it had finished; None if it has not."""
    mark = folder / MARK
    noted: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {}
    return noted or None  # empty while it works


def versions(folder: Path) -> dict[str, str]:
    """What is set up: versions of onnxruntime, numpy, Python and qemu, by name; empty if nothing is."""
    noted = ready(folder)
    return dict(part.split(" ") for part in noted["summary"].split(", ")) if noted else {}


def write_cores(folder: Path) -> None:
    """Give every core its own view of the root: the same files, another /proc/cpuinfo."""
    for name, core in CORES.items():
        view = folder / "cores" / name
        (view / "proc").mkdir(parents=True)
        for part in ("bin", "etc", "lib", "usr"):
            (view / part).symlink_to(f"../../root/{part}")
        (view / "proc" / "cpuinfo").write_text(cpuinfo(core), encoding="ascii")


def emulated(folder: Path, name: str) -> Machine:
    """An emulated core.

    Raises:
        DeviceError: unknown core, or the folder is not set up.
    """
    name = emulated_cores.core_name(name)
    return Machine(name, emulated_cores.command(folder, name), dict(emulated_cores.environment(folder)))


def here() -> Machine:
    """This machine, with the onnxruntime of this environment."""
    return Machine("here", (sys.executable,), dict(os.environ))


def run(
    machine: Machine,
    model: Path,
    samples: Mapping[str, np.ndarray],
    *,
    optimized: Path | None = None,
    as_is: bool = False,
    values: bool = True,
) -> Run:
    """Run a model on samples.

    Args:
        machine: where.
        model: the file.
        samples: for every input an array whose first axis counts the runs.
        optimized: where onnxruntime shall write the graph it really runs.
        as_is: run the graph as it is, without optimizing it.
        values: return the values of the outputs, not only what their bytes hash to.

    Raises:
        Crash: the process ended by a signal, or onnxruntime refused the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgepress-arm-") as place:
        given, found = Path(place) / "samples.npz", Path(place) / "values.npz"
        arrays: dict[str, Any] = dict(samples)
        np.savez(given, **arrays)
        words: list[str] = [str(GUEST), str(model), str(given)]
        words += ["--optimized", str(optimized)] if optimized else []
        words += ["--as-is"] if as_is else []
        words += ["--values", str(found)] if values else []
        entries = json.loads(told(machine, words))
        tensors = {entry["name"]: Tensor(entry["type"], entry["sha256"]) for entry in entries}
        if not values:
            return Run(tensors)
        with np.load(found) as archive:
            return Run(tensors, {name: archive[str(place)] for place, name in enumerate(tensors)})


def told(machine: Machine, words: Sequence[str]) -> str:
    """What Python prints on a machine when it is started with these words.

    Raises:
        Crash: it failed; the message says on which core and how.
    """
    command = [*machine.command, *words]
    done = subprocess.run(
        command, env=machine.environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    if done.returncode == 0:
        return done.stdout.strip()
    last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    raise Crash(f"{machine.name}: {cause(done.returncode, done.stderr) or last}")
