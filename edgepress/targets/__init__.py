"""What a target rewards: which widths are fast, how far weights may reach, what int8 is worth.

A :class:`Target` is a small readable record of facts: timed on x64, read from onnxruntime's kernels for ARM, stated by
its makers for QNN. ``detect`` names the record for this machine, ``of_machine`` that for another;
:mod:`edgepress.targets.releases` says what each release of onnxruntime loads.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from edgepress.errors import InputError
from edgepress.targets.arm import ARM64, ARM64_DOTPROD, ARM64_NODOT
from edgepress.targets.cpu import cpu_flags, detected, named
from edgepress.targets.qnn import QNN
from edgepress.targets.target import SOFTMAX, FixedGrid, Target
from edgepress.targets.x64 import X64_AVX2, X64_VNNI

__all__ = ["SOFTMAX", "TARGETS", "FixedGrid", "Target", "cpu_flags", "detect", "find", "of_machine"]

TARGETS = {target.name: target for target in (X64_VNNI, X64_AVX2, ARM64, ARM64_DOTPROD, ARM64_NODOT, QNN)}


def detect() -> Target:
    """The record for the CPU this runs on."""
    return TARGETS[detected()]


def of_machine(machine: str, system: str, flags: Collection[str]) -> Target:
    """The record for a CPU, by what its system says of it (:func:`edgepress.targets.cpu.named`)."""
    return TARGETS[named(machine, system, flags)]


def find(name: str) -> Target:
    """The record of that name; ``auto`` means this machine.

    Raises:
        InputError: no such target; names the nearest ones.
    """
    if name == "auto":
        return detect()
    if name not in TARGETS:
        near = get_close_matches(name.strip().lower(), ("auto", *TARGETS), n=2, cutoff=0.5)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"There is no target {name!r}{meant}: choose auto or one of {', '.join(TARGETS)}.")
    return TARGETS[name]
