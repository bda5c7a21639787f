"""Batches: which samples a step sees, and how pictures are moved about.

Every draw depends on the seed and the number of the epoch or step alone, so training can go on anywhere, and the
samples of a step are the same for any number of processes, each of which takes every n-th of them. What would not fill
a batch at the end of an epoch is left to the next ones, which have another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.calibrate.feed import Feed
from edgepress.errors import DataError
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings

IN_MEMORY = 2**30
"""Bytes of samples that are kept in memory; more are read from their files batch by batch."""

SHIFT = 2
"""Pixels that pictures are moved by, at the most."""

ORDER, DRAWS, SHIFTS, OTHERS = range(4)
"""What random numbers are for: each has its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process sees in one step.

    Attributes:
        inputs: by input name, samples along the first axis.
        labels: int64 [samples]; None without labels.
    """

    inputs: Mapping[str, torch.Tensor]
    labels: torch.Tensor | None

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))


class Batches:
    """The training samples, cut into batches."""

    def __init__(self, feed: Feed, settings: Settings, ranks: Ranks) -> None:
        """Check that the samples can be cut as asked for.

        Raises:
            DataError: too few samples, a model of fixed batch, a batch that cannot be shared.
        """
        if not feed.batched:
            raise DataError(
                "The model has a fixed batch, so it cannot be trained in batches: export it with a free batch axis."
            )
        if settings.batch > len(feed):
            raise DataError(
                f"There are {len(feed)} samples to train on, fewer than one batch of {settings.batch}: give more, or a "
                "smaller --batch."
            )
        if settings.batch % ranks.size:
            raise DataError(
                f"A batch of {settings.batch} cannot be shared by {ranks.size} processes: give a multiple by --batch."
            )
        self.feed, self.settings, self.ranks = feed, settings, ranks
        self.per_epoch = len(feed) // settings.batch
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._kept: dict[str, torch.Tensor] | None = None
        self._labels = None if feed.labels is None else torch.from_numpy(np.asarray(feed.labels, np.int64))

    def at(self, step: int) -> Batch:
        """The batch of a step, this process's share of it."""
        epoch, place = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, generator(self.settings.seed, ORDER, epoch).permutation(len(self.feed)))
        size, rank, ranks = self.settings.batch, self.ranks.rank, self.ranks.size
        whole = self._order[1][place * size : (place + 1) * size]
        found = self.read(whole[rank::ranks])
        if self.settings.augment == "none":
            return found
        drawn = generator(self.settings.seed, SHIFTS, step)
        moves = drawn.integers(-SHIFT, SHIFT + 1, (size, 2))[rank::ranks]
        mirrored = (drawn.random(size) < 0.5)[rank::ranks] & (self.settings.augment == "flip")
        moved = {
            name: shifted(value, moves, mirrored) if value.ndim == 4 and value.is_floating_point() else value
            for name, value in found.inputs.items()
        }
        return Batch(moved, found.labels)

    def first(self, count: int, number: int = 0) -> Batch:
        """Some samples in an order of their own, the same for every process.

        Args:
            count: how many; all, if there are no more.
            number: other ones for another number.
        """
        order = generator(self.settings.seed, OTHERS, number).permutation(len(self.feed))
        return self.read(order[:count])

    def chosen_feed(self, count: int) -> Feed:
        """The samples of :meth:`first` as a feed."""
        order = generator(self.settings.seed, OTHERS, 0).permutation(len(self.feed))
        return self.feed.subset(order[:count])

    def read(self, indices: np.ndarray) -> Batch:
        """Samples by their numbers."""
        labels = None if self._labels is None else self._labels[torch.from_numpy(indices)].to(self.ranks.device)
        if self._kept is None:
            kept = self._keep()
            if kept is None:
                (chunk,) = self.feed.subset(indices).chunks(len(indices))
                return Batch(
                    {name: torch.from_numpy(a).to(self.ranks.device) for name, a in chunk.inputs.items()}, labels
                )
            self._kept = kept
        chosen = torch.from_numpy(indices)
        return Batch({name: value[chosen].to(self.ranks.device) for name, value in self._kept.items()}, labels)

    def _keep(self) -> dict[str, torch.Tensor] | None:
        """All samples in memory; None where they are too many."""
        (one,) = self.feed.subset([0]).chunks(1)
        if len(self.feed) * sum(array.nbytes for array in one.inputs.values()) > IN_MEMORY:
            return None
        chunks = [chunk.inputs for chunk in self.feed.chunks(1024)]
        return {name: torch.from_numpy(np.concatenate([chunk[name] for chunk in chunks])) for name in one.inputs}


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers for one purpose at one time."""
    return np.random.default_rng([seed, purpose, number])


def torch_generator(seed: int, purpose: int, number: int) -> torch.Generator:
    """The same for torch, on the CPU."""
    state = np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(state))


def shifted(pictures: torch.Tensor, moves: np.ndarray, mirrored: np.ndarray) -> torch.Tensor:
    """Pictures [samples, channels, height, width] moved by rows and columns [samples, 2]; the border is repeated."""
    height, width = pictures.shape[2:]
    rows = np.clip(np.arange(height) - moves[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - moves[:, 1:], 0, width - 1)
    columns = np.where(mirrored[:, None], width - 1 - columns, columns)
    sample = np.arange(len(pictures))[:, None, None]
    along = (sample, rows[:, :, None], columns[:, None, :])
    index = tuple(torch.from_numpy(np.ascontiguousarray(each)).to(pictures.device) for each in along)
    moved = pictures.permute(0, 2, 3, 1)[index]
    return moved.permute(0, 3, 1, 2).contiguous()
