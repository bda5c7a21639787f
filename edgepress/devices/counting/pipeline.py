"""Pipeline: cycles of blocks of instructions by llvm-mca, from LLVM's scheduling model of a core.

llvm-mca reads assembly, so that llvm-mc turns the instructions into it first, every one once. Then one call simulates
all blocks, ``ITERATIONS`` times each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepress.devices.counting.blocks import DIGITS
from edgepress.errors import DeviceError

OLDEST = 19
"""LLVM's first version that goes on after an instruction its model does not know."""

ITERATIONS = 50
TIMEOUT_S = 600.0
FEATURES = "-mattr=+v8.4a,+dotprod,+fullfp16"
"""All that code may use which asks what a core has; that never executed is in no block."""

_NAME = re.compile(r"llvm-mca(?:-(\d+))?")
_ENCODED = re.compile(r"^\s*(\S.*?)\s*// encoding: \[0x(..),0x(..),0x(..),0x(..)\]", re.MULTILINE)
_REGION = re.compile(r"Code Region - b(\d+)\s+Iterations:\s+(\d+)\s+Instructions:\s+\d+\s+Total Cycles:\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Simulates blocks.

    Attributes:
        mca: the program llvm-mca.
        mc: llvm-mc of the same version.
        version: theirs.
        cpu: the core, as LLVM names it.
    """

    mca: Path
    mc: Path
    version: str
    cpu: str

    @property
    def name(self) -> str:
        """What estimates are reported with."""
        return f"llvm-mca {self.version}, {self.cpu}"

    def cycles(self, blocks: Sequence[str]) -> Mapping[str, float]:
        """Cycles of one execution of each block (hexadecimal, 8 digits an instruction); some may be missing.

        Raises:
            DeviceError: a program fails.
        """
        texts = self._assembly(sorted({word for block in blocks for word in words(block)}))
        regions = []
        for number, block in enumerate(blocks):
            lines = [texts[word] for word in words(block) if word in texts]
            regions += [f"# LLVM-MCA-BEGIN b{number}", *lines, "# LLVM-MCA-END"] if lines else []
        options = ["-mtriple=aarch64", f"-mcpu={self.cpu}", f"-iterations={ITERATIONS}", "-instruction-info=false"]
        options += ["-resource-pressure=false", "-skip-unsupported-instructions=lack-sched"]
        told = self._told([self.mca, *options], "\n".join([*regions, ""]))
        return {blocks[int(number)]: int(total) / int(count) for number, count, total in _REGION.findall(told)}

    def _assembly(self, needed: Sequence[str]) -> dict[str, str]:
        """The text of every instruction that can be read."""
        given = "\n".join(" ".join(f"0x{byte:02x}" for byte in bytes.fromhex(word)[::-1]) for word in needed)
        told = self._told([self.mc, "-triple=aarch64", "--disassemble", "--show-encoding"], given)
        return {"".join(found[:0:-1]): found[0] for found in _ENCODED.findall(told)}

    def _told(self, command: Sequence[str | Path], given: str) -> str:
        try:
            done = subprocess.run(
                [*command, FEATURES], input=given, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{Path(command[0]).name} has not ended within {TIMEOUT_S:g} s: take fewer models."
            ) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise DeviceError(f"{Path(command[0]).name} cannot estimate cycles ({last}): try another version of LLVM.")
        return done.stdout


def words(block: str) -> list[str]:
    """The instructions of a block."""
    return [block[start : start + DIGITS] for start in range(0, len(block), DIGITS)]


def pipeline(cpu: str) -> Pipeline:
    """The newest llvm-mca on PATH (``llvm-mca``, or ``llvm-mca-19`` and the like), for a core as LLVM names it.

    Raises:
        DeviceError: there is none, or it is too old.
    """
    found = [_versioned(path) for path in _programs()]
    version, mca, mc = max(found, default=("", Path(), Path()), key=lambda item: _order(item[0]))
    if _order(version) < (OLDEST,):
        have = f"llvm-mca {version} is too old" if version else "there is no llvm-mca"
        raise DeviceError(f"Cycles cannot be estimated: {have}: install LLVM {OLDEST} or newer (apt: llvm-{OLDEST}).")
    return Pipeline(mca, mc, version, cpu)


def _programs() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    names = {path.name for folder in folders for path in folder.glob("llvm-mca*") if _NAME.fullmatch(path.name)}
    return [Path(path) for name in sorted(names) if (path := shutil.which(name))]


def _versioned(mca: Path) -> tuple[str, Path, Path]:
    """The version of a program, itself, and llvm-mc beside it; no version if one of them is of no use."""
    mc = mca.with_name(mca.name.replace("llvm-mca", "llvm-mc"))
    done = subprocess.run([mca, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"LLVM version (\d+(?:\.\d+)*)", done.stdout)
    return (found[1] if found and mc.is_file() else "", mca, mc)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
