"""Blocks: how often a run executed every block of instructions, as the plugin ``blocks.c`` has written it.

A block is a text of its instructions, eight hexadecimal digits each. The same instructions may lie in several places of
memory; they are added up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgepress.devices.counting.marks import RUNS, check_marks
from edgepress.errors import DeviceError

FILE = "edgepress-blocks.txt"
DIGITS = 8
_LINE = re.compile(rf"(\d+) ((?:[0-9a-f]{{{DIGITS}}})+)")

Blocks = Mapping[str, int]
"""How often each block was executed."""


def length(block: str) -> int:
    """How many instructions a block has."""
    return len(block) // DIGITS


def runs_in(text: str, models: int) -> list[Blocks]:
    """The blocks of every model, of the run with the fewest instructions.

    Args:
        text: of the plugin's file.
        models: how many were run.

    Raises:
        DeviceError: a run is missing, or the file is of another version.
    """
    marks: list[int] = []
    runs: list[dict[str, int]] = []
    for line in text.splitlines():
        if line.startswith("mark "):
            marks.append(int(line.split()[1]))
            runs.append({})
        elif runs and (found := _LINE.fullmatch(line)):
            runs[-1][found[2]] = runs[-1].get(found[2], 0) + int(found[1])
        else:
            raise DeviceError(
                "The emulator's counting plugin is of another version: set it up anew by tools/arm/setup.py."
            )
    check_marks(marks, models)
    return [min(runs[start : start + RUNS], key=_instructions) for start in range(0, len(runs), RUNS)]


def _instructions(run: Blocks) -> int:
    return sum(times * length(block) for block, times in run.items())
