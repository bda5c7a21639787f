"""Where the time goes: profiles of models side by side, by kind of operator and by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from edgepress.bench.inspect import Profile
from edgepress.report import layout, numbers
from edgepress.report.found import BenchModel

MOST_NODES = 10
BETWEEN = "(between nodes)"
_SHOWN = 2
"""Models side by side; a page has no room for more. All are in the JSON."""


def render(models: Sequence[BenchModel], console: Console) -> None:
    """Print two tables for the first models: every kind of operator, and the nodes that take the most of either."""
    found = {model.name: model.profile for model in models if model.profile is not None}
    shown = dict(list(found.items())[:_SHOWN])
    if not shown:
        return
    columns = ("before", "after") if len(shown) > 1 else ("time",)
    headings = [text for column in columns for text in (column, "share")]
    layout.show(console, layout.table(console, ("operator", *headings), _rows(shown, _by_operator, None)))
    layout.show(console, layout.table(console, ("node", *headings), _rows(shown, _by_node, MOST_NODES)))
    if len(shown) > 1:
        before, after = shown
        more = f"; further profiles are in the output of --json: {', '.join(list(found)[_SHOWN:])}" * (
            len(found) > _SHOWN
        )
        layout.paragraph(console, "note", f"Before is {before}, after is {after}{more}.")


def totals(model: BenchModel) -> list[tuple[str, float]]:
    """µs of every kind of operator, most first; empty without a profile."""
    return [] if model.profile is None else list(_by_operator(model.profile).items())


def _by_operator(profile: Profile) -> dict[str, float]:
    return {**profile.by_operator(), BETWEEN: profile.between_us}


def _by_node(profile: Profile) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in profile.nodes:
        key = f"{node.node} ({node.operator})" if node.node else node.operator
        found[key] = found.get(key, 0.0) + node.us
    return found


def _rows(
    shown: Mapping[str, Profile], costs: Callable[[Profile], Mapping[str, float]], most: int | None
) -> list[list[str]]:
    """A row for everything that takes time in one of the models, the greatest share first."""
    taken = {name: costs(profile) for name, profile in shown.items()}
    whole = {name: sum(profile.by_operator().values()) + profile.between_us for name, profile in shown.items()}

    def share(key: str, name: str) -> float:
        return taken[name].get(key, 0.0) / max(whole[name], 1e-9)

    keys = list(dict.fromkeys(key for found in taken.values() for key in found))
    keys.sort(key=lambda key: -max(share(key, name) for name in shown))
    return [
        [key, *(cell for name in shown for cell in _cells(taken[name].get(key), share(key, name)))]
        for key in keys[:most]
    ]


def _cells(us: float | None, share: float) -> tuple[str, str]:
    if us is None:
        return numbers.DASH, numbers.DASH
    return numbers.time(us / 1000), f"{100 * share:.0f} %"
