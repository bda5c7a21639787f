"""Marks: what the plugin that counts classes of instructions has written, and which model each line is about.

A run lies between two marks of the agent's task ``count``; at the second the plugin writes a line to stderr::

    edgepress-counts {"mark": 0, "fp_fma": 999939, ...}

Models are counted one after the other, so that the lines come in their order; the number of a mark is the position of
the model modulo ``CYCLE`` and tells that none is missing. Every model has ``RUNS`` runs, and the one with the fewest
instructions counts: what may come between (a table that grows, say: 7,000 in one run of ten) only adds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

from edgepress.devices.counting.classes import NAMES
from edgepress.errors import DeviceError

PREFIX = "edgepress-counts "
CYCLE = 99
RUNS = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions of one run, in all and by class (:mod:`edgepress.devices.counting.classes`)."""

    total: int
    fp_fma: int
    int_dot: int
    int_mmla: int
    int_widen_mla: int
    simd_other: int
    sve_sme: int
    ld_vec: int
    st_vec: int
    ld_int: int
    st_int: int
    branch: int
    int_other: int


CLASSES = tuple(field.name for field in fields(Counts))[1:]


def counts_in(errors: str, names: Sequence[str]) -> dict[str, Counts]:
    """The counts of models, from what an emulator wrote to stderr.

    Args:
        errors: all of it; other lines may be between.
        names: of the models, in the order they were run.

    Raises:
        DeviceError: a line is missing, or the plugin is of another version.
    """
    rows = [_row(line[len(PREFIX) :]) for line in errors.splitlines() if line.startswith(PREFIX)]
    check_marks([mark for mark, _ in rows], len(names))
    found = [counts for _, counts in rows]
    groups = [found[start : start + RUNS] for start in range(0, len(found), RUNS)]
    return {name: min(group, key=lambda counts: counts.total) for name, group in zip(names, groups, strict=True)}


def check_marks(marks: Sequence[int], models: int) -> None:
    """Make sure that every run of every model was seen.

    Raises:
        DeviceError: it was not.
    """
    if list(marks) != [position % CYCLE for position in range(models) for _ in range(RUNS)]:
        raise DeviceError(
            f"The emulator counted {len(marks)} runs instead of {models * RUNS}: set it up anew by tools/arm/setup.py."
        )


def _row(text: str) -> tuple[int, Counts]:
    try:
        row = json.loads(text)
        mark, classes = int(row.pop("mark")), {name: int(count) for name, count in row.items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        classes = {}
    if set(classes) != set(NAMES):
        raise DeviceError("The emulator's counting plugin is of another version: set it up anew by tools/arm/setup.py.")
    return mark, Counts(sum(classes.values()), **classes)
