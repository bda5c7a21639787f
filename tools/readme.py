"""Rewrite the generated blocks of the documentation: `python -m tools.readme`.

A block stands between ``<!-- name -->`` and ``<!-- /name -->``. In README.md: ``zoo`` is benchmarks/results/zoo.md as
it is, ``quantizer`` a summary of benchmarks/results/quantize-*.json, ``kinds`` the operator table by kind. In
docs/operators.md: ``rules`` is what every rule does, ``ops`` the table by operator. A test compares what is there with
what this would write.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from edgepress.ops.couple import words
from edgepress.ops.rows import ROWS
from edgepress.pipeline.listing import described
from edgepress.report.operators import OperatorRow

ROOT = Path(__file__).parents[1]
ZOO = Path("benchmarks/results/zoo.md")
QUANTIZER = {name: Path(f"benchmarks/results/quantize-{name}.json") for name in ("int8", "lowbit")}
KINDS = (
    ("make new channels", "shrink on either side", ("conv", "conv_transpose", "gemm", "matmul", "einsum")),
    ("recurrent", "hidden units go with all their gates", ("recurrent",)),
    (
        "attention",
        "heads go as a whole",
        ("attention", "multi_head_attention", "group_query_attention", "rotary_embedding"),
    ),
    ("normalization", "channels go along, those of a group together", ("normalization", "group_normalization")),
    (
        "layer normalization",
        "stops the channels it normalizes over",
        ("layer_normalization", "skip_layer_normalization"),
    ),
    ("value by value", "channels pass; what is joined goes together", ("elementwise",)),
    ("pooling, resizing", "channels pass", ("pooling", "resampling")),
    ("data movement", "channels move along", ("movement", "gather", "shape")),
    ("reductions and the like", "a wall along channels, nothing to it along other axes", ("reduction", "mixing")),
    ("neither of these", "channels stop, if any enter", ("wall",)),
)
"""Heading, what happens to channels, rules: the lines of the short table."""

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
    found = {}
    blocks = (
        ("README.md", {"zoo": zoo(root), "quantizer": quantizer(root), "kinds": kinds()}),
        ("docs/operators.md", {"rules": rules(), "ops": operators()}),
    )
    for name, bodies in blocks:
        text = (root / name).read_text(encoding="utf-8")
        for block, body in bodies.items():
            text = filled(text, block, body)
        found[root / name] = text
    return found


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


def quantizer(root: Path) -> str:
    """Int8 beside onnxruntime's own, and mixed widths, a line for every model; a sentence when there are no results."""
    int8, lowbit = (_rows(root / path) for path in QUANTIZER.values())
    if not int8:
        return NO_ZOO
    narrow = {(row["model"], row["allowed"]): row for row in lowbit}
    mixed = " | ".join(f"mixed, {limit}: loss | size" for limit in ("0.5 points", "1 point"))
    head = [f"| model | int8: loss | latency | onnxruntime's best | size | {mixed} |", "|" + "---|" * 9]
    lines = [_int8(row) + "".join(_narrow(narrow.get((row["model"], drop))) for drop in (0.5, 1.0)) for row in int8]
    return "\n".join([*head, *lines]) + "\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _int8(row: dict[str, Any]) -> str:
    loss = f"{row['loss']:+.2f} ± {row['half']:.2f}" if "loss" in row else f"{row['sqnr']:.1f} dB"
    peers = [peer["latency"] for peer in row["peers"].values()]
    return f"| {row['model']} | {loss} | {row['latency']:.3f} | {min(peers):.3f} | {row['size']:.3f} |"


def _narrow(row: dict[str, Any] | None) -> str:
    if row is None:
        return "  |  |"
    loss = f"{row['loss']:+.2f} ± {row['half']:.2f}" if "loss" in row else f"{row['sqnr']:.1f} dB"
    return f" {loss} | {row['size']:.3f} |"


def table() -> list[OperatorRow]:
    """Our rows, by name; rows of other packages are not documented here."""
    return sorted(map(described, ROWS), key=lambda row: (row.operator.lower(), row.domain, row.since))


def kinds() -> str:
    """The operator table as Markdown, a line for every kind."""
    named: dict[str, list[str]] = {}
    for row in table():
        held = named.setdefault(row.channels, [])
        if row.operator not in held:  # several versions, or the same in another domain
            held.append(row.operator)
    left = [(rule, "", (rule,)) for rule in sorted(named.keys() - {rule for *_, rules in KINDS for rule in rules})]
    lines = [
        f"| {heading} | {', '.join(sorted(operators, key=str.lower))} | {what} |"
        for heading, what, rules in (*KINDS, *left)
        if (operators := [operator for rule in rules for operator in named.get(rule, [])])
    ]
    return "\n".join(["| kind | operators | channels |", "|---|---|---|", *lines]) + "\n"


def rules() -> str:
    """What every rule does, as Markdown, the commonest first."""
    rows = table()
    used = sorted(words.SENTENCES, key=lambda rule: -sum(row.channels == rule for row in rows))
    lines = [f"| `{rule}` | {words.SENTENCES[rule]} |" for rule in used]
    return "\n".join(["| rule | what happens to channels |", "|---|---|", *lines, f"| `wall` | {words.WALL} |"]) + "\n"


def operators() -> str:
    """The operator table as Markdown, by name."""
    head = ["| operator | versions | channels | torch | in an int8 graph |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(_row, table())]) + "\n"


def _row(row: OperatorRow) -> str:
    return f"| {row.name} | {row.versions} | {row.channels} | {row.torch} | {row.role} |"


if __name__ == "__main__":
    sys.exit(main())
