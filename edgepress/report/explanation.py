"""An explanation of a model, on a terminal and in a pipe: channel groups, and what must stay as it is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from edgepress.errors import Refusal
from edgepress.report import layout
from edgepress.report.found import Explanation, GroupRow
from edgepress.report.terminal import merged


def render(explanation: Explanation, console: Console) -> None:
    """Print the groups that can be cut, then why others must stay, then what else was met."""
    free = _free(explanation)
    kept = [Refusal(group.name, group.refusal) for group in explanation.groups if group.refusal is not None]
    layout.sentence(console, _sentence(explanation, free), "bold")
    console.print()
    if free:
        headings = ("group", "channels", "read by")
        layout.show(console, layout.table(console, headings, [_cells(group) for group in free]))
    for reason in merged(kept, None):
        layout.paragraph(console, "must stay", reason)
    for refusal in explanation.refusals:
        layout.paragraph(console, "wall", str(refusal))
    for note in explanation.notes:
        layout.paragraph(console, "note", note)


def _sentence(explanation: Explanation, free: Sequence[GroupRow]) -> str:
    channels, every = sum(group.size for group in free), sum(group.size for group in explanation.groups)
    groups = f"{len(free)} of {len(explanation.groups)} channel groups can be cut"
    return f"{explanation.model}: {groups}, {channels} of {every} channels."


def _cells(group: GroupRow) -> list[str]:
    return [group.name, str(group.size), _few(group.consumers)]


def _few(names: Sequence[str]) -> str:
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else "".join(names)


def pairs(explanation: Explanation) -> list[tuple[str, str]]:
    """The explanation as keys and values for a pipe; a group that must stay carries its reason."""
    found = []
    for group in explanation.groups:
        made, read = ",".join(group.producers), ",".join(group.consumers)
        found.append((f"group.{group.name}", f"{group.size} {made} -> {read}"))
        if group.refusal is not None:
            found.append((f"group.{group.name}.refusal", group.refusal))
    free, every = (sum(group.size for group in groups) for groups in (_free(explanation), explanation.groups))
    found += [("channels", str(every)), ("channels.free", str(free))]
    found += [("wall", str(refusal)) for refusal in explanation.refusals]
    return found + [("note", note) for note in explanation.notes]


def _free(explanation: Explanation) -> list[GroupRow]:
    return [group for group in explanation.groups if group.refusal is None]
