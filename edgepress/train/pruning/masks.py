"""MINT's published protocol: blocks of weights are masked once, then the network is retrained with the masks.

    score[c, p] = information that parent group p tells child group c beyond the other parents    (``scores.masks``)

A percentile of the scores of a layer is its threshold: the least one that masks enough. Layers without children (the
head) and without parents (the first one) have no masks, as in the paper's table of the perceptron; units that nobody
reads any more are masked, too. No unit disappears from the graph: zeros make neither a smaller plain file nor a faster
one; share and accuracy can be compared with the tables of the paper. The paper retrains by SGD, and reports the best of
its test epochs; here it is Adam, and hold-out samples.

Source: Ganesh, Corso & Sekeh 2020 (arXiv 2003.08472), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.calibrate.run import collect
from edgepress.groups import Group, find_groups
from edgepress.groups.binding import sizes_of
from edgepress.model import Model
from edgepress.scores.base import consumers
from edgepress.scores.masks import Blocks, block_masks, block_scores, masked, pruned_share
from edgepress.scores.mint import Mint
from edgepress.scores.readers import makers
from edgepress.train.batches import Batches
from edgepress.train.method import Found, Moment, Plain, badness, within

SAMPLES = 2048
CHILDREN, PARENTS = 20, 50
"""Groups of children and of parents: more find better blocks (the paper tries 5 to 50)."""


class Masked(Plain):
    """Retraining with masks."""

    def __post_init__(self) -> None:
        """Find the masks."""
        super().__post_init__()
        settings, whole = self.setting.settings, self.setting.model
        masking = masked_to(whole, self.setting.batches, settings.keep or 1.0, settings.seed)
        made = masking.model
        self.masks = {
            name: torch.from_numpy((made.constants[name] != 0) | (whole.constants[name] == 0)).to(self.setting.device)
            for name in self.executor.trainable
            if not np.array_equal(made.constants[name], whole.constants[name])
        }
        gone = sum(int((~mask).sum()) for mask in self.masks.values())
        share, own = 100 * gone / whole.parameters, 100 * masking.share
        self.notes.append(
            f"{own:.2f} % of the weights of the layers with masks are zero, {share:.2f} % of all; the graph is as wide "
            "as before."
        )

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """The weights under their masks."""
        own = self.adam.values
        return {name: value * self.masks[name] if name in self.masks else value for name, value in own.items()}

    def found(self) -> tuple[Model, int, int | None]:
        """The network, and its weights that are not masked."""
        model = self.current()
        return model, model.parameters - sum(int((~mask).sum()) for mask in self.masks.values()), None

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """The best that loses no more than it may."""
        return badness(found.verdict) if within(found.verdict) else None

    def judged(self, found: Found, moment: Moment) -> None:
        """Masks stay as they are."""

    def state(self) -> dict[str, np.ndarray]:
        """Also the masks."""
        return {**super().state(), **{f"mask/{name}": mask.cpu().numpy() for name, mask in self.masks.items()}}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        super().restore(arrays)
        self.masks = {
            name: torch.from_numpy(arrays[f"mask/{name}"]).to(mask.device) for name, mask in self.masks.items()
        }


@dataclass(frozen=True, slots=True)
class Masking:
    """A masked model.

    Attributes:
        model: the model with zeros.
        share: of the weights of the layers that have masks, how many are zero, as the paper counts.
    """

    model: Model
    share: float


def masked_to(model: Model, batches: Batches, keep: float, seed: int) -> Masking:
    """Mask blocks until at most a share of the weights of the layers that have masks is left.

    Args:
        model: the model.
        batches: samples that information is estimated from.
        keep: the share.
        seed: of the estimators.
    """
    feed = batches.chosen_feed(SAMPLES)
    one = next(iter(feed.subset([0]).chunks(1))).inputs
    groups = list(find_groups(model, sizes_of(model.inputs, one)).prunable)
    mint = Mint(positions=64, seed=seed, children=CHILDREN)
    probes = {probe.name: probe for group in groups for probe in mint.needs(model, group)}
    statistics = collect(model, feed, list(probes.values()), workers=1)
    blocks = [block for group in groups for block in block_scores(mint, model, group, statistics, parents=PARENTS)]
    made = {fit.name for group in groups for fit, _ in makers(model, group)}
    blocks = [block for block in blocks if block.fit.name in made] or blocks
    if not blocks:
        return Masking(model, 0.0)
    masks = [_least(block, keep) for block in blocks]
    return Masking(_without_dead(masked(model, blocks, masks), groups), pruned_share(blocks, masks))


def _least(block: Blocks, keep: float) -> np.ndarray:
    """The mask of one layer by the least percentile that is enough; the best block always stays."""
    best = np.zeros(block.scores.shape, bool)
    best.flat[int(block.scores.argmax())] = True
    for percentile in np.arange(0.0, 100.05, 0.1):
        (mask,) = block_masks([block.scores], min(float(percentile), 100.0))
        if pruned_share([block], [mask | best]) >= 1 - keep:
            return np.asarray(mask | best)
    return best


def _without_dead(model: Model, groups: list[Group]) -> Model:
    """Units whose readers are all zero are zero, the last ones first."""
    for group in reversed(groups):
        read = np.zeros(group.size, bool)
        for fit, columns in consumers(model, group):
            read |= (fit.matrix(model.constants)[:, columns] != 0).any((0, 2))
        changed: dict[str, np.ndarray] = {}
        for fit, owner in makers(model, group):
            matrix = fit.matrix(model.constants)
            matrix[(owner >= 0) & ~read[owner]] = 0.0
            changed |= fit.written(matrix, model.constants)
        model = model.with_constants(
            {name: array.astype(model.constants[name].dtype, copy=False) for name, array in changed.items()}
        )
    return model
