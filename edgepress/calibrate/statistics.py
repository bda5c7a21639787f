"""Statistics that merge: observed chunk by chunk, added in float64.

A statistic is a frozen value with ``merge``; partial statistics of chunks are merged in chunk order, so the
number of workers never changes a bit. Means are kept as sums and counts, never as running averages.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from edgepress.calibrate.views import Part

R = TypeVar("R")
S = TypeVar("S", bound="Statistic")


class Statistic(Protocol):
    """Something observed on one chunk that adds up over chunks."""

    def merge(self: S, other: S) -> S:
        """The statistic of both sets of samples together (associative up to float rounding)."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """What to observe.

    Attributes:
        name: key of the statistic in the result.
        tensors: names of the activations it needs.
        observe: makes the partial statistic of one chunk from these activations and the chunk's number.
        slopes: names of the activations whose gradients it needs too; they come under :func:`slope` of the name.
        loss: what these are gradients of (``executor.slopes``); empty where there are none.
    """

    name: str
    tensors: tuple[str, ...]
    observe: Callable[[Mapping[str, np.ndarray], int], Any]
    slopes: tuple[str, ...] = ()
    loss: str = ""


class Values(dict[str, np.ndarray]):
    """Activations of one chunk by name, and what probes have made of them: several may need the same."""

    def __init__(self, *given: Mapping[str, np.ndarray]) -> None:
        """Take over activations."""
        super().__init__()
        for each in given:
            self.update(each)
        self.made: dict[Hashable, Any] = {}


def once(values: Mapping[str, np.ndarray], key: Hashable, make: Callable[[], R]) -> R:
    """What is made of a chunk, made the first time it is asked for."""
    if not isinstance(values, Values):
        return make()
    if key not in values.made:
        values.made[key] = make()
    return cast(R, values.made[key])


def slope(tensor: str) -> str:
    """The key of a tensor's gradient among the values that a probe observes."""
    return f"{tensor}@grad"


@dataclass(frozen=True, slots=True)
class Gram:
    """Second moments of a linear operator's rows: everything a least-squares refit needs.

    Attributes:
        inner: sum of [X,1]^T [X,1], float64 [columns + 1, columns + 1].
        cross: sum of Y^T [X,1], float64 [outputs, columns + 1] (the last column holds the sums of Y).
        energy: sum of Y^2, float64 [outputs].
        rows: number of rows.
    """

    inner: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    rows: int

    @classmethod
    def of(cls, rows: np.ndarray, targets: np.ndarray) -> Gram:
        """Moments of one chunk of rows."""
        return cls(rows.T @ rows, targets.T @ rows, np.einsum("ij,ij->j", targets, targets), len(rows))

    def merge(self, other: Gram) -> Gram:
        """Moments of both."""
        return Gram(
            self.inner + other.inner, self.cross + other.cross, self.energy + other.energy, self.rows + other.rows
        )

    def select(self, columns: np.ndarray, outputs: np.ndarray | None = None) -> Gram:
        """Moments restricted to some columns (the bias column last) and outputs."""
        cross = self.cross[:, columns]
        chosen = slice(None) if outputs is None else outputs
        return Gram(self.inner[np.ix_(columns, columns)], cross[chosen], self.energy[chosen], self.rows)

    def placed(self, columns: np.ndarray, width: int) -> Gram:
        """Moments of rows that have these columns among ``width`` ones, the others being zero."""
        if len(columns) == width and np.array_equal(columns, np.arange(width)):
            return self
        inner, cross = np.zeros((width, width)), np.zeros((len(self.cross), width))
        inner[np.ix_(columns, columns)] = self.inner
        cross[:, columns] = self.cross
        return Gram(inner, cross, self.energy, self.rows)

    def error(self, matrix: np.ndarray) -> float:
        """Mean over rows of ||Y - [X,1] M^T||^2, summed over outputs."""
        quadratic = float(np.einsum("ij,ij->", matrix @ self.inner, matrix))
        return max(0.0, (float(self.energy.sum()) + quadratic - 2.0 * float((matrix * self.cross).sum())) / self.rows)

    @property
    def variance(self) -> float:
        """Variance of Y summed over outputs (last column of ``cross`` holds the sums)."""
        mean = self.cross[:, -1] / self.rows
        return max(0.0, float((self.energy / self.rows - mean**2).sum()))


@dataclass(frozen=True, slots=True)
class Moments:
    """Per-channel sums and sums of squares: float64 [channels], over ``count`` positions."""

    total: np.ndarray
    square: np.ndarray
    count: int

    @classmethod
    def of(cls, activations: np.ndarray, axis: int) -> Moments:
        """Moments of one chunk per channel, channels along ``axis``."""
        flat = np.moveaxis(activations, axis, 0).reshape(activations.shape[axis], -1).astype(np.float64)
        return cls(flat.sum(1), np.einsum("ij,ij->i", flat, flat), flat.shape[1])

    def merge(self, other: Moments) -> Moments:
        """Moments of both."""
        return Moments(self.total + other.total, self.square + other.square, self.count + other.count)

    @property
    def mean(self) -> np.ndarray:
        """Mean per channel."""
        return np.asarray(self.total / self.count)

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation per channel."""
        return np.asarray(np.sqrt(np.maximum(self.square / self.count - self.mean**2, 0.0)))


def gram_probe(part: Part, *, positions: int, seed: int) -> Probe:
    """Observe a linear operator under its name: ``positions`` positions per sample, drawn anew for each chunk.

    The rows of one chunk in ``HELD_OUT`` are kept apart, for choosing the ridge.
    """

    def observe(values: Mapping[str, np.ndarray], chunk: int) -> SplitGram:
        drawn = draw(part, values, positions, seed, chunk)
        return SplitGram.of(Gram.of(drawn.rows, drawn.targets), chunk)

    return Probe(part.name, part.geometry.tensors, observe)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows of a part at positions that were drawn (None: all), with a last column of ones, and its outputs there."""

    chosen: np.ndarray | None
    rows: np.ndarray
    targets: np.ndarray


def draw(part: Part, values: Mapping[str, np.ndarray], positions: int, seed: int, chunk: int) -> Drawn:
    """Draw positions of each sample; the same for everyone who looks at the part with this seed."""

    def make() -> Drawn:
        chosen = part.choose(values, positions, np.random.default_rng([seed, chunk]))
        return Drawn(chosen, part.rows(values, chosen), part.targets(values, chosen))

    return once(values, ("drawn", part.name, positions, seed), make)


HELD_OUT = 4
"""Every chunk whose number leaves remainder 3 on division by this is held out of the fit."""


@dataclass(frozen=True, slots=True)
class SplitGram:
    """A Gram for fitting and one, of other samples, for choosing the ridge; either may be None."""

    fit: Gram | None
    held: Gram | None

    @classmethod
    def of(cls, gram: Gram, chunk: int) -> SplitGram:
        """Put a chunk's Gram on the side its number says."""
        return cls(None, gram) if chunk % HELD_OUT == HELD_OUT - 1 else cls(gram, None)

    def merge(self, other: SplitGram) -> SplitGram:
        """Both sides merged."""
        return SplitGram(_merge(self.fit, other.fit), _merge(self.held, other.held))

    @property
    def whole(self) -> Gram:
        """All rows together."""
        merged = _merge(self.fit, self.held)
        if merged is None:
            raise ValueError("no rows were observed")
        return merged


def _merge(first: Gram | None, second: Gram | None) -> Gram | None:
    if first is None or second is None:
        return first if second is None else second
    return first.merge(second)
