"""Blocks: how often a run executed every block of instructions, as the plugin ``blocks.c`` has written it.

A block is a text of its instructions, eight hexadecimal digits each. The same instructions may lie in several places of
memory; they are added up.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgepress.devices.counting.marks import RUNS, check_marks
from edgepress.errors import DeviceError

FILE = "edgepress-blocks.txt"
DIGITS = 8
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
    texts: dict[str, str] = {}
    try:
        for line in text.splitlines():
            first, *rest = line.split()
            if first == "mark":
                marks.append(int(rest[0]))
                runs.append({})
            elif first == "block":
                texts[rest[0]] = rest[1]
            else:
                block = texts[first]
                runs[-1][block] = runs[-1].get(block, 0) + int(rest[0])
    except (ValueError, IndexError, KeyError) as error:
        raise DeviceError(
            "The emulator's counting plugin is of another version: set it up anew by tools/arm/setup.py."
        ) from error
    check_marks(marks, models)
    return [min(runs[start : start + RUNS], key=_instructions) for start in range(0, len(runs), RUNS)]


def _instructions(run: Blocks) -> int:
    return sum(times * length(block) for block, times in run.items())
