"""Cores: kinds of ARM cores that are emulated by qemu-user, and the folder all of them lie in.

An emulated core is a ``-cpu`` of qemu together with a /proc/cpuinfo that agrees with it, which onnxruntime picks its
kernels by, and without which it crashes (older qemu has none of its own). Emulation is exact in values and says nothing
about time. ``tools/arm/setup.py`` fills the folder::

    host/           qemu-user and its libraries
    root/           Python and the C and C++ libraries, for arm64
    site/           onnxruntime and numpy; another version of onnxruntime in site-VERSION
    cores/NAME      what a core sees: links to root/, and its own /proc/cpuinfo
    plugins/NAME.so counters of instructions for qemu
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepress.errors import DeviceError

VARIABLE = "EDGEPRESS_ARM"
FOLDER = Path("build", "arm")
SETUP = "python tools/arm/setup.py"
PROCESSORS = 4
"""Of every core. Their number is seen by onnxruntime, and moves counts by a few instructions."""

LAST_SIGNAL = 64
"""Of Linux; statuses above 128 and this are those of programs that ended by themselves."""

BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
DOT_PRODUCTS = f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


class Crash(DeviceError):
    """A program failed on a core instead of answering, by an illegal instruction for instance."""


@dataclass(frozen=True, slots=True)
class Core:
    """A kind of ARM core.

    Attributes:
        part: number in /proc/cpuinfo.
        release: r2p0 is 2, 0.
        features: as Linux names them.
        qemu: its name in qemu.
        model: the scheduling model of LLVM that is nearest to it.
    """

    part: int
    release: tuple[int, int]
    features: str
    qemu: str
    model: str


CORES = {
    "cortex-a53": Core(0xD03, (0, 4), BASE, "cortex-a53", "cortex-a53"),
    # Not in qemu 7.2: an A76 that says it is an A55. Release 0 would be taken for one without dot products.
    "cortex-a55": Core(0xD05, (2, 0), DOT_PRODUCTS, "cortex-a76", "cortex-a55"),
    "cortex-a72": Core(0xD08, (0, 3), BASE, "cortex-a72", "cortex-a57"),
    "cortex-a76": Core(0xD0B, (4, 1), DOT_PRODUCTS, "cortex-a76", "neoverse-n1"),
}
"""LLVM has no models of their own for the A72, whose forerunner is the A57, and the A76, which the N1 is made of."""


def core_name(text: str) -> str:
    """The full name of a core, which may be written without ``cortex-``.

    Raises:
        DeviceError: there is none.
    """
    name = text if text in CORES else f"cortex-{text}"
    if name not in CORES:
        raise DeviceError(f"There is no emulated core {text!r}: choose one of {', '.join(CORES)}.")
    return name


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


def default_folder() -> Path:
    """Where the emulator is unless told otherwise: EDGEPRESS_ARM, or build/arm of the current folder."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def command(folder: Path, name: str, plugin: Path | None = None) -> tuple[str, ...]:
    """The words that start Python on a core, with a plugin of qemu if one is named.

    Raises:
        DeviceError: the folder is not set up.
    """
    folder = folder.resolve()
    qemu = folder / "host" / "usr" / "bin" / "qemu-aarch64"
    pythons = sorted((folder / "root" / "usr" / "bin").glob("python3.*[0-9]"))
    if not qemu.is_file() or not pythons or not (folder / "cores" / name).is_dir():
        raise DeviceError(
            f"{folder} holds no emulated ARM: set it up by {SETUP} {folder}, and name another folder by {VARIABLE}."
        )
    words = [str(qemu), "-U", "LD_LIBRARY_PATH", "-L", str(folder / "cores" / name), "-cpu", CORES[name].qemu]
    if plugin is not None:
        words += ["-plugin", f"file={str(plugin).replace(',', ',,')}"]  # qemu splits its options at single commas
    return (*words, str(pythons[0]))


def environment(folder: Path, onnxruntime: str = "") -> Mapping[str, str]:
    """All variables of the process: the same everywhere, as counts depend on them.

    Args:
        folder: of the emulator.
        onnxruntime: a version other than that of the folder, set up beside it.

    Raises:
        DeviceError: that version is not there.
    """
    folder = folder.resolve()
    sites = [folder / "site"]
    if onnxruntime:
        sites.insert(0, folder / f"site-{onnxruntime}")
        if not sites[0].is_dir():
            raise DeviceError(
                f"{folder} has no onnxruntime {onnxruntime}: add it by {SETUP} {folder} --also {onnxruntime}."
            )
    libraries = sorted(str(path) for path in (folder / "host" / "usr" / "lib").glob("*-linux-gnu*"))
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),  # for qemu; -U keeps it from the emulated Python
        "PYTHONPATH": os.pathsep.join(map(str, sites)),
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    }


def cause(status: int, errors: str) -> str | None:
    """Why a process was ended by a signal, in a sentence; None if it was not."""
    number = -status if status < 0 else status - 128
    if "Illegal instruction" in errors or number == signal.SIGILL:
        return "Illegal instruction: onnxruntime uses instructions that this core does not have"
    if 0 < number <= LAST_SIGNAL:
        names = {known.value: known.name for known in signal.Signals}  # not all have one
        return f"the process was ended by {names.get(number, f'signal {number}')}"
    return None
