"""The seam for importance methods.

A score says what must be observed (``needs``) and turns the statistics into one number per channel (``score``). A
method that removes one channel after the other has an order of its own (:class:`Ordered`); one that also knows what
each step costs when the rest takes over is an :class:`Elimination`: it gives a :class:`Ranking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from edgepress.calibrate.fits import Fit, fits_of
from edgepress.calibrate.statistics import Probe
from edgepress.errors import Refusal
from edgepress.groups import Group
from edgepress.model import Model


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order of removal.

    Attributes:
        order: int64 [size], first removed first.
        cost: float64 [size + 1], summed squared error of the consumers' outputs (mean over rows) after removing
            the first ``k`` channels and refitting the rest; ``cost[0] = 0``, never falling.
        free: number of leading channels whose removal is lossless up to rounding.
        energy: variance of the consumers' outputs, to read ``cost`` against.
    """

    order: np.ndarray
    cost: np.ndarray
    free: int
    energy: float

    @property
    def added(self) -> np.ndarray:
        """What the removal of each channel added at its turn: float64 [size]."""
        found = np.empty(len(self.order))
        found[self.order] = np.diff(self.cost)
        return found


@dataclass(frozen=True, slots=True)
class Options:
    """What every score is made with.

    Attributes:
        positions: output positions observed in each sample, where rows are drawn.
        seed: of the choice of positions and of other draws.
        loss: what gradients are of: ``answer``, ``labels`` or ``outputs`` (``executor.slopes``).
    """

    positions: int
    seed: int = 0
    loss: str = "answer"


class Score(Protocol):
    """Importance per channel: small numbers go first."""

    @property
    def name(self) -> str:
        """As the user calls it."""
        ...

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """What to observe for a group."""
        ...

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """float64 [size], from the statistics of :meth:`needs`."""
        ...


@runtime_checkable
class Ordered(Score, Protocol):
    """A score that removes step by step, so that its order is not that of its numbers."""

    def order(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Order of removal, int64 [size]."""
        ...


@runtime_checkable
class Elimination(Score, Protocol):
    """A score that removes step by step and knows what that costs when the other channels take over."""

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Order and cost of removal."""
        ...


@runtime_checkable
class Detailed(Score, Protocol):
    """A score that knows more about a group than a number per channel."""

    def details(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Mapping[str, float]:
        """Figures by what they say."""
        ...


def order_of(score: Score, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
    """The order in which a score removes channels: int64 [size]; equal ones by their number."""
    if isinstance(score, Elimination):
        return score.rank(model, group, statistics).order
    if isinstance(score, Ordered):
        return score.order(model, group, statistics)
    return np.argsort(score.score(model, group, statistics), kind="stable")


@dataclass(frozen=True, slots=True)
class Readers:
    """What reads the channels of a group.

    Attributes:
        fits: each consumer that can be refitted, with its columns per channel, int64 [size, block].
        refusals: the consumers that cannot, and why.
    """

    fits: tuple[tuple[Fit, np.ndarray], ...]
    refusals: tuple[Refusal, ...]


def readers(model: Model, group: Group) -> Readers:
    """The consumers of a group as least-squares problems; consumers that share weights are one."""
    sites = [(site.tensor, site.axis, site.index) for site in group.sites if site.role == "in"]
    fits, refusals = fits_of(model, group.consumers)
    found, uneven = [], []
    for fit in fits:
        blocks = _blocks(fit.owners(sites), group.size)
        if blocks is None:
            uneven.append(Refusal(fit.name, "it reads more of some channels than of others"))
        elif blocks.size:
            found.append((fit, blocks))
    return Readers(tuple(found), (*refusals, *uneven))


def consumers(model: Model, group: Group) -> tuple[tuple[Fit, np.ndarray], ...]:
    """The group's consumers that can be refitted, each with its columns per channel: int64 [size, block]."""
    return readers(model, group).fits


def _blocks(owners: np.ndarray, size: int) -> np.ndarray | None:
    """Columns of every channel, rising; None when they differ in number."""
    counts = np.bincount(owners[owners >= 0], minlength=size)
    if (counts != counts[0]).any():
        return None
    return np.argsort(np.where(owners < 0, size, owners), kind="stable")[: size * counts[0]].reshape(size, -1)
