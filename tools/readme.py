"""Rewrite the generated blocks of the documentation: `python -m tools.readme`.

A block stands between ``<!-- name -->`` and ``<!-- /name -->``: ``zoo`` in README.md is benchmarks/results/zoo.md as it
is, ``ops`` in docs/operators.md is the operator table. A test compares what is there with what this would write.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from edgepress.ops.table import ROWS, Op

ROOT = Path(__file__).parents[1]
ZOO = Path("benchmarks/results/zoo.md")
NO_ZOO = "There are no results in this checkout yet.\n"


def main() -> int:
    """Write the pages that changed and name them."""
    for path, text in pages(ROOT).items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


def pages(root: Path) -> dict[Path, str]:
    """Every page with a generated block, as it should be."""
    blocks = ((root / "README.md", "zoo", zoo(root)), (root / "docs/operators.md", "ops", operators()))
    return {path: filled(path.read_text(encoding="utf-8"), name, body) for path, name, body in blocks}


def filled(text: str, name: str, body: str) -> str:
    """The text with the body of one block replaced.

    Raises:
        ValueError: the block is not there exactly once.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->\n)", re.DOTALL)
    made, count = pattern.subn(lambda found: f"{found[1]}\n{body.rstrip()}\n\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"block {name!r} is there {count} times, not once")
    return made


def zoo(root: Path) -> str:
    """The table of the last run of benchmarks/zoo.py over the whole zoo; a sentence when there is none."""
    path = root / ZOO
    return path.read_text(encoding="utf-8") if path.is_file() else NO_ZOO


def operators() -> str:
    """The operator table as Markdown, by name."""
    rows = sorted(ROWS, key=lambda row: row.name)
    return (
        "\n".join(["| operator | since | channels | in an int8 graph |", "|---|---|---|---|", *map(_row, rows)]) + "\n"
    )


def _row(row: Op) -> str:
    return f"| {row.name} | {row.since} | {row.couple or 'wall'} | {row.role.value} |"


if __name__ == "__main__":
    sys.exit(main())
