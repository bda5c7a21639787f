"""What ``coder.py`` keeps: rows by name, as JSON and as a page, with the machine and its load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgepress.bench.machine import describe

Row = dict[str, Any]
"""A name, and figures by column."""

TITLES = {
    "compare": "The coder of coded files against others on the same whole numbers, in bits for each weight",
    "large": "Coded files of models of 26 million weights: time and memory",
}
COLUMNS = {
    "compare": {"name": "", "weights": "", "edgepress": ".4f", "ideal": ".4f", "xz": ".4f", "nncodec": ".4f",
                "constriction": ".4f", "edgepress / nncodec": ".3f", "encode MB/s": ".2f", "decode MB/s": ".1f",
                "load": ".1f"},
    "large": {"name": "", "MB": ".1f", "coded MB": ".2f", "encode MB/s": ".1f", "decode MB/s": ".1f",
              "encode memory": ".2f", "decode memory": ".2f", "load": ".1f"},
}  # fmt: skip
"""Columns of the pages, and how their figures are written."""

MADE_BY = """
Made by `python benchmarks/coder.py {command}`. MB/s are of float32, whatever the file stores, and of CPU time.
{more}
Load is that of the machine when the row was done: {cpus}.
"""
COMMANDS = {"compare": "compare --others PYTHON", "large": "large"}
MORE = {
    "compare": "Codes, recipes and low bits, no graph; nncodec is DeepCABAC, without headers.\nOthers: {others}.",
    "large": "Memory is over that of the imports, in sizes of the model's file.",
}


def kept(out: Path, section: str) -> dict[str, Row]:
    """The rows that are kept, by their names."""
    path = out / f"coder-{section}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {row["name"]: row for row in rows}


def keep(out: Path, section: str, row: Row) -> None:
    """Put a row in the place of the one of its name, and write all as JSON and as a page."""
    machine = describe()
    rows = kept(out, section)
    rows[row["name"]] = row | {"load": os.getloadavg()[0], "cpu": f"{machine.cpu}, {machine.cores} cores"}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"coder-{section}.json"
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(list(rows.values()), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    path.with_suffix(".md").write_text(_page(section, list(rows.values())), encoding="utf-8")


def _page(section: str, rows: list[Row]) -> str:
    columns = COLUMNS[section]
    table = [list(columns), ["---"] * len(columns)]
    table += [[format(row[name], form) if name in row else "" for name, form in columns.items()] for row in rows]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    cpus = "; ".join(sorted({row["cpu"] for row in rows}))
    others = "; ".join(sorted({row["others"] for row in rows if "others" in row})) or "none"
    more = MORE[section].format(others=others)
    note = MADE_BY.format(command=COMMANDS[section], cpus=cpus, more=more)
    return f"# {TITLES[section]}\n\n{lines}{note}"
