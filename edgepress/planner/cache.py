"""Costs that a device was asked for before: one JSON file per device in the user's cache folder.

A cost depends on the device (processor, instruction sets, cores), on how it was taken (level), on the release of
onnxruntime, the threads and the layer alone: operator, attributes, shapes and types, widths included. That is its key;
the same layer in another model, or at the widths of another pruning, has the same one. What stands in the file stays,
so that two compressions see the same costs and decide alike.

Only used where a device is named. Without one times are taken anew: they serve to foresee a speed-up whose result is
timed on the spot, so that fresh ones, with the load and the clock of now, foresee better. With one they shape widths.

Guarantees: written beside and renamed, under a lock, so that processes at the same time lose nothing; a file that
cannot be read is made anew, and :attr:`CostCache.note` says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepress.errors import OutputError
from edgepress.model import write_atomically

FORMAT = "edgepress-costs/1"
VARIABLE = "EDGEPRESS_CACHE"
"""Names another folder; ``off`` remembers nothing."""

Section = dict[str, dict[str, float]]


def cache_folder() -> Path | None:
    """Where costs are remembered: EDGEPRESS_CACHE, or edgepress in the user's cache folder; None where they are not."""
    named = os.environ.get(VARIABLE)
    if named == "off":
        return None
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgepress"


def short_hash(value: object) -> str:
    """A hash of something that prints the same whenever it is the same."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]


@dataclass
class CostCache:
    """What is known of one device.

    Attributes:
        path: the file; None: nothing is remembered.
        section: how the costs were taken (level, onnxruntime, threads).
        device: what the file holds for.
        known: costs by key.
        note: what was wrong with the file or its folder, a sentence; empty if nothing.
    """

    path: Path | None
    section: str
    device: Mapping[str, Any]
    known: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def open(cls, folder: Path | None, device: Mapping[str, Any], section: str) -> CostCache:
        """The costs of a device.

        Args:
            folder: where files of costs lie; None remembers nothing.
            device: what tells it from others.
            section: how costs are taken.
        """
        path = None if folder is None else folder / f"costs-{short_hash(sorted(device.items()))[:16]}.json"
        sections, note = ({}, "") if path is None else _read(path)
        return cls(path, section, device, dict(sections.get(section, {})), note)

    def add(self, found: Mapping[str, float]) -> None:
        """Remember costs; what another process has written in the meantime stays. A failure is noted, no more."""
        self.known |= found
        if self.path is None or not found:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix(".lock")):
                sections, _ = _read(self.path)
                sections[self.section] = {**self.known, **sections.get(self.section, {})}
                content = {"format": FORMAT, "device": dict(self.device), "costs": sections}
                write_atomically(self.path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
        except (OSError, OutputError):
            self.note = f"Costs could not be kept in {self.path.parent}: name another folder by {VARIABLE}."


def _read(path: Path) -> tuple[Section, str]:
    """Sections of a file, and what is wrong with it."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path} cannot be read ({error.strerror}): the costs in it were taken anew."
    try:
        raw = json.loads(text)
    except ValueError:  # no text, or no JSON
        raw = None
    if isinstance(raw, dict) and raw.get("format") == FORMAT and _is_costs(raw.get("costs")):
        return raw["costs"], ""
    return {}, f"{path} was damaged, or of another version: the costs in it were taken anew."


def _is_costs(raw: object) -> bool:
    return isinstance(raw, dict) and all(
        isinstance(section, dict) and all(_is_cost(value) for value in section.values()) for section in raw.values()
    )


def _is_cost(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among processes that write here."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
