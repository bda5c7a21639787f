"""Machines that models can be run on: this one, and ARM cores emulated by qemu-user.

An emulated core is a ``-cpu`` of qemu together with a /proc/cpuinfo that agrees with it, which onnxruntime
picks its kernels by, and without which it crashes (older qemu has none of its own). Emulation is exact in values and
says nothing about time.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
GUEST = Path(__file__).with_name("guest.py")
VARIABLE = "EDGEPRESS_ARM"
MARK = "edgepress-arm.json"
PROCESSORS = 4
TIMEOUT = 1800

BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
DOT_PRODUCTS = f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


class Failure(Exception):
    """Something is missing or cannot be used; the message says what to do."""


class Crash(Failure):
    """onnxruntime ended on a core instead of answering."""


@dataclass(frozen=True, slots=True)
class Core:
    """A kind of ARM core: part number, release (r2p0 is 2, 0), features as Linux names them, its name in qemu."""

    part: int
    release: tuple[int, int]
    features: str
    qemu: str


CORES = {
    "cortex-a53": Core(0xD03, (0, 4), BASE, "cortex-a53"),
    # Not in qemu 7.2: an A76 that says it is an A55. Release 0 would be taken for one without dot products.
    "cortex-a55": Core(0xD05, (2, 0), DOT_PRODUCTS, "cortex-a76"),
    "cortex-a72": Core(0xD08, (0, 3), BASE, "cortex-a72"),
    "cortex-a76": Core(0xD0B, (4, 1), DOT_PRODUCTS, "cortex-a76"),
}


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


def write_cores(folder: Path) -> None:
    """Give every core its own view of the root: the same files, another /proc/cpuinfo."""
    for name, core in CORES.items():
        view = folder / "cores" / name
        (view / "proc").mkdir(parents=True)
        for part in ("bin", "etc", "lib", "usr"):
            (view / part).symlink_to(f"../../root/{part}")
        (view / "proc" / "cpuinfo").write_text(cpuinfo(core), encoding="ascii")


def cpuinfo(core: Core) -> str:
    """What Linux writes to /proc/cpuinfo on a machine of such cores."""
    rows = {
        "BogoMIPS": "100.00",
        "Features": core.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": f"{core.release[0]:#x}",
        "CPU part": f"{core.part:#x}",
        "CPU revision": f"{core.release[1]}",
    }
    lines = "".join(f"{key}\t: {value}\n" for key, value in rows.items())
    return "".join(f"processor\t: {number}\n{lines}\n" for number in range(PROCESSORS))


def emulated(folder: Path, name: str) -> Machine:
    """An emulated core.

    Raises:
        Failure: unknown core, or the folder is not set up.
    """
    if name not in CORES:
        raise Failure(f"There is no core {name!r}: choose among {', '.join(CORES)}.")
    folder = folder.resolve()
    qemu = folder / "host" / "usr" / "bin" / "qemu-aarch64"
    pythons = sorted((folder / "root" / "usr" / "bin").glob("python3.*[0-9]"))
    if not qemu.is_file() or not pythons or not (folder / "cores" / name).is_dir():
        raise Failure(f"{folder} holds no emulated ARM: set it up by python tools/arm/setup.py {folder}")
    libraries = sorted(str(path) for path in (folder / "host" / "usr" / "lib").glob("*-linux-gnu*"))
    options = ("-U", "LD_LIBRARY_PATH", "-L", str(folder / "cores" / name), "-cpu", CORES[name].qemu)
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),  # for qemu; -U keeps it from the emulated Python
        "PYTHONPATH": str(folder / "site"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "LANG": "C.UTF-8",
    }
    return Machine(name, (str(qemu), *options, str(pythons[0])), environment)


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
    raise Crash(f"{machine.name}: {cause(done.returncode, done.stderr)}")


def cause(status: int, errors: str) -> str:
    """Why a process failed, in a sentence."""
    if "Illegal instruction" in errors or status in (-signal.SIGILL, 128 + signal.SIGILL):
        return "Illegal instruction: onnxruntime uses instructions that this core does not have"
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        return f"the process was ended by {signal.Signals(number).name}"
    return (errors.strip().splitlines() or [f"it ended with status {status}"])[-1]
