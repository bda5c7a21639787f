"""explain(): what could be done to a model, without doing it."""

from __future__ import annotations

from pathlib import Path

from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.normalize.admission import admit
from edgepress.report.result import Explanation, GroupRow
from edgepress.request import check_input


def explain(model: Path) -> Explanation:
    """Channel groups of a model and what must stay, and why."""
    check_input(model)
    loaded = Model.load(model)
    admit(loaded)
    grouping = find_groups(normalize(loaded, []).model)
    rows = [
        GroupRow(
            group.name,
            group.size,
            group.producers,
            group.consumers,
            None if group.refusal is None else group.refusal.reason,
        )
        for group in grouping.groups
    ]
    return Explanation(str(model), tuple(rows), grouping.refusals)
