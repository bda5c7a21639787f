"""Machine: where a time was measured. Read from /proc, /sys and ``platform``; no shell is started.

A latency without its machine is a rumour: the clock governor, the load by others and the runtime's
version move it more than most compression does.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgepress.targets import cpu_flags

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine a measurement was made on.

    Attributes:
        cpu: model name.
        cores: logical cores this process may use.
        governor: clock governor of the first core; None where the kernel does not say.
        frequency_mhz: clock of the first core when it was read; None where the kernel does not say.
        load_1m: load average of the last minute, before the timing began; None where there is none.
        onnxruntime: version.
        numpy: version.
        python: version.
        os: operating system and machine type.
        flags_vnni: the CPU has int8 dot products (AVX-VNNI or AVX512-VNNI).
    """

    cpu: str
    cores: int
    governor: str | None
    frequency_mhz: float | None
    load_1m: float | None
    onnxruntime: str
    numpy: str
    python: str
    os: str
    flags_vnni: bool


def describe() -> Machine:
    """Describe the machine this runs on, now."""
    info = _cpuinfo()
    clock = info.get("cpu MHz")
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        cores=_cores(),
        governor=_read(_GOVERNOR).strip() or None,
        frequency_mhz=float(clock) if clock else None,
        load_1m=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        onnxruntime=_version("onnxruntime"),
        numpy=_version("numpy"),
        python=platform.python_version(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        flags_vnni=bool(cpu_flags() & {"avx512_vnni", "avx_vnni"}),
    )


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    block = _read(_CPUINFO).split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cores() -> int:
    """Cores this process may use: a container often allows fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # not Linux, or a container that hides it
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime also comes as onnxruntime-gpu and others
        return "unknown"
