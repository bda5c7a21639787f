"""Annealed removal between epochs of training (Shah, Olivier & Raj 2020).

    loop    remove the p % cheapest units of all groups, redistribute, train for an epoch
            keep it if the hold-out samples accept, else go back and halve p                p from 10 % down
    end     once p is too small or few enough weights are left, the accepted network trains on

What a unit costs is the error that removing it leaves when the others take over (``scores.redundancy``), for each
weight that goes with it; units that depend linearly on others cost nothing, and removing them is lossless.
Redistribution is the sequential least-squares fit of ``surgery.fold``. The learning rate stays as it is while units go,
and falls once they do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import collect
from edgepress.executor import Executor
from edgepress.groups import Grouping, find_groups
from edgepress.groups.binding import sizes_of
from edgepress.model import Model
from edgepress.planner import Costs, Ladder, removed_channels
from edgepress.planner.anneal import LEAST, SHARE, cheapest_share
from edgepress.planner.widths import Widths
from edgepress.scores.redundancy import Redundancy
from edgepress.surgery.cut import cut
from edgepress.surgery.fold import fold
from edgepress.targets import find as find_target
from edgepress.train.batches import Batch
from edgepress.train.method import Found, Moment, Plain, badness, read_model, within
from edgepress.train.pruning.units import prunable

SAMPLES = 1024
"""Samples that costs and the redistribution are made from."""

ROWS = 16_000
LAST = 0.7
"""Share of the steps after which nothing is removed any more."""


class Anneal(Plain):
    """Remove, train, keep or go back."""

    def __post_init__(self) -> None:
        """Remove for the first time."""
        super().__post_init__()
        self.share, self.trying = SHARE, False
        self.least = int((self.setting.settings.keep or 0.0) * self.setting.model.parameters)
        self.accepted = self.state()
        self._thin()

    def rate(self, moment: Moment) -> float:
        """The same while units go, then down along a cosine."""
        behind = max(0.0, moment.share - LAST) / (1 - LAST)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, behind)))

    def judged(self, found: Found, moment: Moment) -> None:
        """Keep what was tried, or go back; then try again."""
        if not self.trying:
            return
        if within(found.verdict):
            self.accepted = {}
            self.accepted = self.state()
        else:
            self._back()
            self.share /= 2
        self.trying = False
        if moment.share < LAST and self.share >= LEAST and self._current_size() > self.least:
            self._thin()

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """The smallest that loses no more than it may; of these the best."""
        return (float(found.parameters), *badness(found.verdict)) if within(found.verdict) else None

    def state(self) -> dict[str, np.ndarray]:
        """Also the network that was accepted last."""
        own = {**super().state(), "share": np.array(self.share), "trying": np.array(self.trying)}
        own["model"] = np.frombuffer(self.executor.model.data, np.uint8)
        accepted = getattr(self, "accepted", {})
        return {**own, **{f"accepted/{name}": array for name, array in accepted.items()}}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        self.share, self.trying = float(arrays["share"]), bool(arrays["trying"])
        self.accepted = {n.removeprefix("accepted/"): a for n, a in arrays.items() if n.startswith("accepted/")}
        self._take({name: array for name, array in arrays.items() if not name.startswith("accepted/")})

    def _back(self) -> None:
        """The network that was accepted last."""
        self._take(self.accepted)

    def _take(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.executor = Executor(read_model(arrays["model"].tobytes()), device=self.setting.device)
        self.adam.restore(arrays)

    def _current_size(self) -> int:
        return self.executor.model.parameters

    def _thin(self) -> None:
        """Remove a share of the cheapest units, and let the others take over."""
        model = self.current()
        batch = self.setting.batches.first(SAMPLES)
        smaller = thinned(model, self.setting.batches.chosen_feed(SAMPLES), batch, self.share, self.least,
                          self.setting.settings.seed)  # fmt: skip
        if smaller is None:
            self.share = 0.0
            return
        made, kept = smaller
        self.adam.cut(kept)
        self.executor = Executor(made, device=self.setting.device)
        for name in self.adam.values:
            self.adam.put(name, self.executor.parameters[name])
        self.trying = True


def thinned(
    model: Model, feed: Feed, batch: Batch, share: float, least: int, seed: int
) -> tuple[Model, Mapping[str, tuple[np.ndarray | None, ...]]] | None:
    """The model without a share of its cheapest units, and what is kept of each tensor; None where none may go.

    Args:
        model: the model.
        feed: samples that costs are made from.
        batch: samples of the redistribution.
        share: of the units that are left.
        least: weights that are few enough.
        seed: of the choice of positions.
    """
    arrays = {name: value.cpu().numpy() for name, value in batch.inputs.items()}
    grouping: Grouping = find_groups(model, sizes_of(model.inputs, {name: each[:1] for name, each in arrays.items()}))
    groups = [group for group in prunable(model, grouping) if group.size > 1]
    if not groups:
        return None
    score = Redundancy(max(1, ROWS // len(batch)), seed)
    probes = {probe.name: probe for group in groups for probe in score.needs(model, group)}
    statistics = collect(model, feed, list(probes.values()), workers=1)
    rankings = {group.name: score.rank(model, group, statistics) for group in groups}
    costs = Costs.of(model, groups, find_target("auto"), grouping)
    ladder = Ladder(tuple(groups), rankings, {}, costs, 1)
    goal = costs.weights({}) * least / max(1, model.parameters)
    found = cheapest_share(ladder, costs.weights, goal or None)(Widths({}, 0.0), share)
    if found is None:
        return None
    removed = {entry.group: entry.removed for entry in removed_channels(groups, rankings, found)}
    cutting = cut(model, grouping, removed)
    chunks = [{name: each[at : at + 32] for name, each in arrays.items()} for at in range(0, len(batch), 32)]
    made = fold(model, cutting, chunks, positions=max(1, ROWS // len(batch)), seed=seed, workers=1)
    return made, cutting.kept
