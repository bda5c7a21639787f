"""The seam for allocations: from a ladder of widths and a cost to states, mildest first.

Laws: every state is legal (:meth:`edgepress.planner.Ladder.choices`), cheaper than the one before and not predicted to
be better; nothing lossless is given back; ``within`` finds a state wherever the narrowest one is cheap enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths


class Allocation(Protocol):
    """A way to spread removals over groups."""

    @property
    def name(self) -> str:
        """What the user types after ``--allocation``."""
        ...

    def path(self, ladder: Ladder, cost: Cost) -> list[Widths]:
        """States from the mildest to the narrowest; the start, which is what is lossless, is left out."""
        ...

    def within(self, ladder: Ladder, cost: Cost, budget: float) -> Widths | None:
        """The mildest state that costs no more than a budget; None where none does."""
        ...


@dataclass(frozen=True, slots=True)
class Walk:
    """An allocation that is one path, whatever the budget."""

    name: str
    walk: Callable[[Ladder, Cost], list[Widths]]

    def path(self, ladder: Ladder, cost: Cost) -> list[Widths]:
        """See :class:`Allocation`."""
        return self.walk(ladder, cost)

    def within(self, ladder: Ladder, cost: Cost, budget: float) -> Widths | None:
        """See :class:`Allocation`."""
        states = [ladder.lossless(), *self.walk(ladder, cost)]
        return next((state for state in states if cost(state.removed) <= budget), None)
