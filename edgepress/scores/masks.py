"""The block masks of MINT, so that the tables of the paper can be compared.

    score[c, p] = I(child group c; parent group p | all other parents)

One percentile of the scores of all consumers together is the threshold: a block of a consumer's weights whose score is
at or below it becomes zero, but no more than a share ``cap`` of the blocks of one consumer. No channel disappears, so a
masked model is neither smaller nor faster as it is; the share of zeros is what the paper calls pruned. Scores of the
graph are within 0 and 1 and can be compared between consumers, as the paper does; nats add up over the children of a
group, so that with ``gaussian`` narrow layers lose their blocks first.

Source: Ganesh, Corso & Sekeh 2020, "MINT" (arXiv 2003.08472), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.fits import Fit
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.scores import mutual
from edgepress.scores.base import consumers
from edgepress.scores.mint import Mint, Reading, contiguous, covariance

Masks = Sequence[np.ndarray]
"""One bool array [child groups, parent groups] for every consumer: True where a block stays."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one consumer's weights.

    Attributes:
        fit: the consumer.
        children: outputs of every child group.
        parents: columns of every parent group.
        scores: float64 [child groups, parent groups]; the parts of a consumer add up.
    """

    fit: Fit
    children: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]
    scores: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Weights of every block."""
        return np.outer([len(outputs) for outputs in self.children], [len(columns) for columns in self.parents])


def block_scores(
    mint: Mint, model: Model, group: Group, statistics: Mapping[str, Any], *, parents: int = 8
) -> tuple[Blocks, ...]:
    """Score the blocks of every consumer of a group.

    Args:
        mint: how information is estimated (``gaussian`` or ``graph``), and the number of child groups.
        model: the model.
        group: its channels, in ``parents`` contiguous groups.
        statistics: those of ``mint.needs``.
        parents: parent groups.
    """
    if mint.estimator == "patches":
        raise ValueError("blocks are scored by means of channels: give a Mint with gaussian or graph")
    groups = contiguous(group.size, parents)
    readings = {reading.means.part.name: reading for reading in mint.readings(model, group)}
    found = []
    with one_blas_thread():
        for fit, columns in consumers(model, group):
            children = contiguous(fit.outputs, mint.children)
            scores = np.zeros((len(children), len(groups)))
            for reading in (readings[part.name] for part in fit.parts if part.name in readings):
                scores += _told(mint, reading, statistics[reading.key], groups)
            own = tuple(columns[channels].ravel() for channels in groups)
            found.append(Blocks(fit, tuple(children), own, scores))
    return tuple(found)


def block_masks(scores: Sequence[np.ndarray], percentile: float, cap: float = 1.0) -> tuple[np.ndarray, ...]:
    """Which blocks stay.

    Args:
        scores: of every consumer, [child groups, parent groups].
        percentile: of all scores together, 0 to 100: blocks at or below it go.
        cap: share of one consumer's blocks that may go, 0 to 1; those with the lowest scores go first.
    """
    if not 0 <= percentile <= 100 or not 0 <= cap <= 1:
        raise ValueError("the percentile is a number from 0 to 100, and the cap one from 0 to 1")
    threshold = np.percentile(np.concatenate([each.ravel() for each in scores]), percentile)
    return tuple(_kept(each, float(threshold), cap) for each in scores)


def masked(model: Model, blocks: Sequence[Blocks], masks: Masks) -> Model:
    """The model with the blocks that do not stay set to zero."""
    constants = dict(model.constants)
    changed: dict[str, np.ndarray] = {}
    for each, mask in zip(blocks, masks, strict=True):
        matrix = each.fit.matrix(constants)
        for child, parent in np.argwhere(~mask):
            matrix[np.ix_(each.children[child], each.parents[parent])] = 0.0
        changed |= each.fit.written(matrix, constants)
        constants |= changed
    return model.with_constants(changed)


def pruned_share(blocks: Sequence[Blocks], masks: Masks) -> float:
    """Share of the weights in all blocks that masks set to zero."""
    gone = sum(int(each.sizes[~mask].sum()) for each, mask in zip(blocks, masks, strict=True))
    return gone / max(1, sum(int(each.sizes.sum()) for each in blocks))


def _kept(scores: np.ndarray, threshold: float, cap: float) -> np.ndarray:
    gone = scores.ravel() <= threshold
    most = int(cap * scores.size)
    if gone.sum() > most:
        gone[np.argsort(scores.ravel(), kind="stable")[most:]] = False
    return ~gone.reshape(scores.shape)


def _told(mint: Mint, reading: Reading, statistic: Any, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Information of every child group about every parent group given all other parents."""
    parents, children = reading.means.parents, reading.children(mint.children)
    joint = covariance(statistic, parents) if mint.estimator == "gaussian" else statistic.rows

    def told(outputs: np.ndarray, channels: np.ndarray) -> float:
        rest, behind = np.setdiff1d(np.arange(parents), channels), parents + outputs
        if mint.estimator == "gaussian":
            return mutual.covariance_cmi(joint, behind, channels, rest)
        return mutual.geometric_cmi(joint[:, behind], joint[:, channels], joint[:, rest], mint.seed)

    return np.array([[told(outputs, channels) for channels in groups] for outputs in children])
