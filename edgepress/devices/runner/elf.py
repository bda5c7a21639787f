"""What machine a program or library was built for, by its ELF header (System V ABI, chapter 4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepress.errors import DeviceError

MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
"""``e_machine`` of what onnxruntime is built for."""

RUNS = {
    "aarch64": ("aarch64", "arm"),
    "x86_64": ("x86-64", "x86"),
    "armv7l": ("arm",),
    "armv8l": ("arm",),
    "i686": ("x86",),
    "riscv64": ("riscv64",),
    "loongarch64": ("loongarch64",),
}
"""What a machine runs, by its name in ``uname -m``."""

_HEADER, _INTERPRETER = 64, 3


@dataclass(frozen=True, slots=True)
class Built:
    """What a file was built for: the machine, and the loader that starts it (empty for libraries)."""

    machine: str
    loader: str


def built(path: Path) -> Built:
    """Read a program or a library.

    Raises:
        DeviceError: it is neither, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) < _HEADER or content[:4] != b"\x7fELF" or content[5] != 1:
        raise DeviceError(
            f"{path} is no program or library of Linux or Android: name one that was built for the device."
        )
    (number,) = struct.unpack_from("<H", content, 18)
    try:
        segments = list(_segments(content))
    except struct.error:
        segments = []
    if not segments or any(start + size > len(content) for _, start, size in segments):
        raise DeviceError(f"{path} is cut off: build or copy it again.")
    loaders = [content[start : start + size] for kind, start, size in segments if kind == _INTERPRETER]
    loader = loaders[0].rstrip(b"\0").decode(errors="replace") if loaders else ""
    return Built(MACHINES.get(number, f"machine {number}"), loader)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and size in the file of every segment."""
    wide = content[4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", content, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", content, 54 if wide else 42)
    for place in range(table, table + count * size, size or 1):
        if wide:
            kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", content, place)
        else:
            kind, start, _, _, length = struct.unpack_from("<IIIII", content, place)
        yield kind, start, length


def check(runner: Path, library: Path, machine: str, spec: str) -> None:
    """Make sure that a device runs these two.

    Args:
        runner: the program.
        library: what it loads.
        machine: what the device calls itself (``uname -m``).
        spec: the device, for messages.

    Raises:
        DeviceError: says which file was built for what.
    """
    program, loaded = built(runner), built(library)
    if program.machine != loaded.machine:
        raise DeviceError(
            f"{runner} is built for {program.machine}, {library} for {loaded.machine}: "
            f"take two that are built for the device, which is {machine or 'unknown'}."
        )
    if machine in RUNS and program.machine not in RUNS[machine]:
        raise DeviceError(
            f"{runner} and {library} are built for {program.machine}, {spec} is {machine}: name those built for it."
        )
