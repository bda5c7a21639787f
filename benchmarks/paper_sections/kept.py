"""Rows that were made: one JSON file for each section; a row that is there is not made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepress.model import write_atomically
from paper_sections.commands import ROOT, Row
from paper_sections.place import Place

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Piece:
    """One row to make.

    Attributes:
        section: which paper.
        name: the network.
        kind: how.
        seed: of all draws.
        make: makes it, from the place, the name, the kind and the seed.
    """

    section: str
    name: str
    kind: str
    seed: int
    make: Callable[[Place, str, str, int], Row]

    @property
    def key(self) -> Row:
        """What tells it from others."""
        return {"name": self.name, "kind": self.kind, "seed": self.seed}

    @property
    def there(self) -> bool:
        """Whether it was made before."""
        return any({what: row[what] for what in self.key} == self.key for row in rows_of(self.section))


def results(section: str) -> Path:
    """Where rows of a section are kept."""
    return RESULTS / f"papers-{section}.json"


def rows_of(section: str) -> list[Row]:
    """The rows that were made."""
    path = results(section)
    return json.loads(path.read_text()) if path.is_file() else []


def keep(piece: Piece, row: Row) -> None:
    """Put a row to the others, in the place of an older one."""
    others = [each for each in rows_of(piece.section) if {what: each[what] for what in piece.key} != piece.key]
    every = sorted([*others, {**piece.key, **row}], key=lambda each: (each["name"], each["kind"], each["seed"]))
    write_atomically(results(piece.section), (json.dumps(every, indent=1) + "\n").encode())
