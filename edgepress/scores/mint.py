"""MINT (Ganesh 2020): a filter matters as far as the next layer learns from it what the other filters do not tell.

    score(p) = sum over child groups C of  I(C; p | all other parents)

Parents are the channels that a consumer reads, children its outputs. Information adds up over child groups, parts of a
consumer (groups, phases, gates) and consumers. Three estimators (:mod:`edgepress.scores.mutual`):

gaussian    in closed form, on one number per unit and sample (:mod:`edgepress.calibrate.features`) of all samples;
            child groups are contiguous.
patches     in closed form on the rows that a consumer really reads: every tap of a kernel is a variable, a channel is
            all of its taps, every output a child of its own. Needs what redundancy needs, and knows where in a sample
            something happens, which means over positions do not.
graph       the paper's, corrected: minimum spanning trees, on the same numbers as ``gaussian`` of the first samples.
            One number per filter given all others, in ``rounds``: after each one the weakest go and the rest is
            measured anew.

In closed form the channel that tells least goes, again and again: both of a correlated pair tell nothing beyond the
other one, and one-shot scores would remove both. With the parents' inverse covariance ``Q``, regression weights ``w``
of the children and covariance ``R_C`` of what is left of them, removing p loses ::

    I(C; p | rest) = 1/2 log det(1 + R_C^-1 w_Cp (Q_pp)^-1 w_Cp^T)

then ``R_C += w_Cp (Q_pp)^-1 w_Cp^T`` and ``Q``, ``w`` change as in every backward elimination
(:mod:`edgepress.scores.elimination`). By the chain rule the losses add up to what all channels together tell. Children
without an activation are linear in their parents and ``R_C`` would be 0: parents and children carry noise.

Source: Ganesh, Corso & Sekeh 2020, "MINT: Deep Network Compression via Mutual Information-based Neuron Trimming" (arXiv
2003.08472), section 3. Design notes, seeds.md section 4 (what is wrong with the published code).
Guarantees: deterministic for a seed; losses are never negative; orders are made once, on the original network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from edgepress.calibrate.features import MOST, Features, Means, activation_behind, feature_probe, moment_probe
from edgepress.calibrate.ridge import pulls
from edgepress.calibrate.slopes import Reader
from edgepress.calibrate.statistics import Gram, Probe, SplitGram, gram_probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.scores import mutual
from edgepress.scores.base import Ranking, consumers
from edgepress.scores.elimination import Consumer, eliminate
from edgepress.scores.readers import readers_of

PARENT_NOISE = 1e-3
"""Noise of every parent, relative to its variance."""

CHILD_NOISE = 1e-2
"""Noise of every child, relative to its variance: the floor of what is left unexplained."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One linear operator that reads the channels of a group.

    Attributes:
        key: of its statistic.
        means: how its features are made: the group's channels, other parents, children.
        size: channels of the group.
    """

    key: str
    means: Means
    size: int

    def children(self, count: int) -> list[np.ndarray]:
        """Contiguous groups of its outputs, as equal as can be."""
        return contiguous(self.means.part.outputs, count)


@dataclass(frozen=True, slots=True)
class Mint:
    """The MINT score.

    Attributes:
        positions: output positions observed in each sample.
        seed: seed of the choice of positions, and of the parts that the graph estimator splits samples into.
        name: of the score.
        estimator: ``gaussian``, ``patches`` or ``graph`` (see the module).
        children: child groups of a consumer; ``patches`` has one for every output.
        most: samples that ``graph`` keeps.
        rounds: times that ``graph`` measures.
    """

    positions: int
    seed: int = 0
    name: str = "mint"
    estimator: Literal["gaussian", "patches", "graph"] = "gaussian"
    children: int = 8
    most: int = MOST
    rounds: int = 1

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """What is kept of every operator that reads the group: moments of features, features, or a Gram."""
        if self.estimator == "patches":
            parts = (part for fit, _ in consumers(model, group) for part in fit.parts)
            return tuple(gram_probe(part, positions=self.positions, seed=self.seed) for part in parts)
        return tuple(self._probe(reading) for reading in self.readings(model, group))

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Information lost with each channel at its turn (in nats, but for ``graph``): float64 [size]."""
        return self.information(model, group, statistics).added

    def order(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Order of removal, int64 [size]."""
        return self.information(model, group, statistics).order

    def information(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """The order, with the information lost in the place of errors; energy is what all channels tell.

        Nothing counts as lossless: noise hides what is exact.
        """
        with one_blas_thread():  # the order must not depend on the number of cores
            if self.estimator == "graph":
                order, cost = self._in_rounds(self.readings(model, group), group.size, statistics)
            elif self.estimator == "patches":
                order, cost = eliminate(_patches(model, group, statistics), group.size)
            else:
                order, cost = eliminate(self._means(model, group, statistics), group.size)
        return Ranking(np.array(order, np.int64), cost, 0, float(cost[-1]))

    def readings(self, model: Model, group: Group) -> list[Reading]:
        """The operators that read the group, as ``gaussian`` and ``graph`` see them."""
        found = []
        for reader in readers_of(model, group):
            if (reader.owners >= 0).any():
                owners, part = _parents(reader), reader.part
                behind = activation_behind(model, part)
                parents = max(group.size, int(owners.max()) + 1)
                means = Means(part, owners, parents, behind, self.positions, self.seed)
                found.append(Reading(f"{part.name} {self.estimator} {group.name}", means, group.size))
        return found

    def _probe(self, reading: Reading) -> Probe:
        means = reading.means
        if self.estimator == "gaussian":
            return moment_probe(reading.key, means.tensors, means.of)
        return feature_probe(reading.key, means.tensors, means.of, self.most)

    def _means(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> list[Informed]:
        states = []
        for reading in self.readings(model, group):
            joint, parents = covariance(statistics[reading.key], reading.means.parents), reading.means.parents
            blocks, groups = np.arange(group.size)[:, None], reading.children(self.children)
            states.append(Informed(joint[:parents, :parents], joint[parents:, :parents], joint[parents:, parents:],
                                   blocks, groups))  # fmt: skip
        return states

    def _in_rounds(
        self, readings: Sequence[Reading], size: int, statistics: Mapping[str, Any]
    ) -> tuple[list[int], np.ndarray]:
        """Order and summed losses [size + 1], by the graph."""
        alive, order, lost = list(range(size)), list[int](), [0.0]
        for gone in map(len, contiguous(size, self.rounds)):
            told = sum((self._told(reading, statistics[reading.key], alive) for reading in readings), np.zeros(size))
            weakest = [alive[place] for place in np.argsort(told[alive], kind="stable")[:gone]]
            order += weakest
            lost += [float(told[channel]) for channel in weakest]
            alive = [channel for channel in alive if channel not in weakest]
        return order, np.cumsum(lost)

    def _told(self, reading: Reading, features: Features, alive: Sequence[int]) -> np.ndarray:
        """What each living channel tells the children beyond the others, by the graph: [size]."""
        parents, children = np.split(features.rows, [reading.means.parents], axis=1)
        given = [*alive, *range(reading.size, reading.means.parents)]
        groups = [children[:, group] for group in reading.children(self.children)]
        found = np.zeros(reading.size)
        for channel in alive:
            own = parents[:, [channel]]
            expected = mutual.predicted(own, parents[:, [other for other in given if other != channel]])
            found[channel] = sum(mutual.geometric_cmi_given(group, own, expected, self.seed) for group in groups)
        return found


def contiguous(size: int, groups: int) -> list[np.ndarray]:
    """The positions 0..size-1 in contiguous groups, as equal as can be, none of them empty."""
    return np.array_split(np.arange(size), min(groups, size))


def covariance(moments: Gram, parents: int) -> np.ndarray:
    """Covariance of features, with noise: float64 [parents + children, the same]."""
    inner = moments.inner / max(moments.rows, 1)
    means = inner[-1, :-1]
    noise = np.where(np.arange(len(means)) < parents, PARENT_NOISE, CHILD_NOISE)
    return mutual.noisy(inner[:-1, :-1] - np.outer(means, means), np.diag(inner)[:-1], noise)


class Informed(Consumer):
    """Working state of one consumer: what its children still learn from which channel.

    Channels have one column each, or child groups one child each: then what a channel adds to ``R_C`` has rank one.
    """

    def __init__(
        self, inner: np.ndarray, across: np.ndarray, own: np.ndarray, blocks: np.ndarray, groups: Sequence[np.ndarray]
    ) -> None:
        """Start from second moments with noise.

        Args:
            inner: of the parents, [parents, parents].
            across: of children and parents, [children, parents].
            own: of the children, [children, children]; only what is within a group is read.
            blocks: the parents that each channel is, [size, block].
            groups: the children of every group.
        """
        inverse = np.linalg.inv(inner)
        inverse = (inverse + inverse.T) / 2
        weights = across @ inverse
        super().__init__(weights, inverse, blocks, 1.0)
        left = own - weights @ across.T
        width = max(map(len, groups))
        self.groups = np.full((len(groups), width), len(own))  # the position behind the last child stands for none
        self.precision = np.zeros((len(groups), width, width))
        for number, group in enumerate(groups):
            self.groups[number, : len(group)] = group
            self.precision[number, : len(group), : len(group)] = np.linalg.inv(left[np.ix_(group, group)])

    def costs(self, channels: list[int]) -> np.ndarray:
        """Information lost with each of the channels, in nats."""
        weights = self.weights[channels]
        scaled = self._grouped(np.linalg.solve(self.local[channels], weights))
        felt = (scaled @ self.precision[:, None] * self._grouped(weights)).sum((2, 3))
        return np.asarray(np.log1p(np.maximum(felt, 0.0)).sum(0) / 2)

    def remove(self, channel: int) -> None:
        """Drop a channel: the children are less certain, and the other channels take over."""
        weights = self.weights[[channel]]
        scaled = self._grouped(np.linalg.solve(self.local[[channel]], weights))[:, 0] @ self.precision
        own = self._grouped(weights)[:, 0]
        felt = (scaled * own).sum((1, 2))
        step = scaled.transpose(0, 2, 1) @ (own @ self.precision)
        self.precision = self.precision - step / (1 + felt)[:, None, None]
        super().remove(channel)

    def _grouped(self, weights: np.ndarray) -> np.ndarray:
        """Weights [channels, block, children] by child group: [groups, channels, block, width]."""
        return np.moveaxis(np.pad(weights, ((0, 0), (0, 0), (0, 1)))[:, :, self.groups], 2, 0)


def _patches(model: Model, group: Group, statistics: Mapping[str, Any]) -> list[Informed]:
    """The consumers by their Grams; columns of ones are parents that always stay."""
    found = []
    for fit, blocks in consumers(model, group):
        splits = [cast(SplitGram, statistics[part.name]) for part in fit.parts]
        gram = fit.joined(splits).whole
        inner, squares = gram.inner / gram.rows, gram.energy / gram.rows
        variance = squares - (sum(split.whole.cross[:, -1] for split in splits) / gram.rows) ** 2
        noise = np.where(variance > mutual.DEAD * squares, CHILD_NOISE * variance, 1.0)
        noisy = inner + np.diag(pulls(inner, PARENT_NOISE, fit.biases))
        groups = contiguous(fit.outputs, fit.outputs)
        found.append(Informed(noisy, gram.cross / gram.rows, np.diag(squares + noise), blocks, groups))
    return found


def _parents(reader: Reader) -> np.ndarray:
    """The parent that each column of a part belongs to: the group's channels first, then what else it reads.

    Other columns belong together when they read the same position of the first axis that is summed over: taps of one
    input channel.
    """
    places = [
        number * 2**32 + cast(np.ndarray, source.columns_along(source.order[source.into]))
        for number, source in enumerate(reader.part.weights)
    ]
    foreign = reader.owners < 0
    owners = reader.owners.copy()
    owners[foreign] = reader.size + np.unique(np.concatenate(places)[foreign], return_inverse=True)[1]
    return owners
