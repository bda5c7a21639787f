"""What a target rewards: which widths are fast, how far weights may reach, what int8 is worth.

A :class:`Target` is a small readable record of measured facts of onnxruntime 1.31 (x64) or facts read
from its kernels (arm64). ``detect`` names the record for this machine.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from edgepress.errors import InputError


@dataclass(frozen=True, slots=True)
class Target:
    """Rules of one kind of CPU.

    Attributes:
        name: what the user types after ``--target``.
        multiple: kept widths are multiples of this; anything else falls off the fast kernels.
        block: width of the staircase: inside one block channels cost nearly the same.
        slope: share of a block's cost that is saved half-way down the block (0 = pure staircase, 1 = linear).
        weight_limit: largest ``|int8 weight|`` that cannot saturate (64 without VNNI, else 127).
        stem_multiple: an int8 convolution wants its input channels to be a multiple of this.
        gemm_floor: a Gemm under this many multiply-adds per call is faster in float.
    """

    name: str
    multiple: int
    block: int
    slope: float
    weight_limit: int
    stem_multiple: int = 4
    gemm_floor: int = 65_536

    def effective_width(self, channels: int) -> float:
        """Width that ``channels`` cost like: the staircase of the target's kernels (in channels)."""
        step = self.block * -(-channels // self.block)
        fine = self.multiple * -(-channels // self.multiple)
        return (1 - self.slope) * step + self.slope * fine


TARGETS = {
    target.name: target
    for target in (
        Target("x64-vnni", multiple=8, block=16, slope=0.35, weight_limit=127),
        Target("x64-avx2", multiple=8, block=8, slope=1.0, weight_limit=64),
        Target("arm64", multiple=8, block=8, slope=1.0, weight_limit=127),
    )
}


def detect() -> Target:
    """The record for the CPU this runs on."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return TARGETS["arm64"]
    return TARGETS["x64-vnni" if cpu_flags() & {"avx512_vnni", "avx_vnni"} else "x64-avx2"]


def find(name: str) -> Target:
    """The record of that name; ``auto`` means this machine.

    Raises:
        InputError: no such target.
    """
    if name == "auto":
        return detect()
    if name not in TARGETS:
        raise InputError(f"There is no target {name!r}: choose auto or one of {', '.join(TARGETS)}.")
    return TARGETS[name]


def cpu_flags() -> set[str]:
    """Instruction-set flags as the Linux kernel names them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return set()
    lines = path.read_text(errors="replace").splitlines()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))
