"""Which target a machine is: by what its kernel and operating system say of the CPU, this one's or a device's.

x64 is ``x64-vnni`` with AVX512-VNNI or AVX-VNNI, else ``x64-avx2``. ARM is ``arm64-dotprod`` if the kernel names
``asimddp`` (it names only what every core has, little ones included) or if it is a Mac (every Apple silicon one has
it), ``arm64-nodot`` if the kernel lists other flags, and ``arm64`` if nobody says.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
ARM = ("aarch64", "arm64")
VNNI = {"avx512_vnni", "avx_vnni"}
DOTPROD = "asimddp"


def detected() -> str:
    """Name of the target that the CPU of this machine is."""
    return named(platform.machine(), platform.system(), cpu_flags())


def named(machine: str, system: str, flags: Collection[str]) -> str:
    """Name of the target that a CPU is.

    Args:
        machine: type of the machine, ``x86_64`` or ``aarch64``.
        system: name of its operating system, ``Linux`` or ``Darwin``.
        flags: instruction sets as the Linux kernel names them; empty where nobody says.
    """
    if machine.lower() in ARM:
        return _arm(system, flags)
    return "x64-vnni" if VNNI & set(flags) else "x64-avx2"


def _arm(system: str, flags: Collection[str]) -> str:
    if DOTPROD in flags or system == "Darwin":
        return "arm64-dotprod"
    return "arm64-nodot" if flags else "arm64"


def cpu_flags() -> set[str]:
    """Instruction-set flags of the first processor as the Linux kernel names them; empty elsewhere."""
    if not CPUINFO.is_file():
        return set()
    lines = CPUINFO.read_text(errors="replace").splitlines()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), []))
