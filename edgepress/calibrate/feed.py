"""Feed: the user's samples, ready to run, in chunks; memory flat in the number of samples.

A feed is a view (an array of indices) over a source with random access: parts of it (``subset``, ``split``) share
the data on disk and cost 8 bytes per sample. All samples are read once when a feed is opened, so that
whatever is wrong with them is said before any work starts; the hashes of the samples come from that pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.calibrate.layout import Source


@dataclass(frozen=True)
class Chunk:
    """What one run of the model takes.

    Attributes:
        inputs: arrays by input name, to be fed as they are.
        samples: positions of the samples in the feed, int64.
        labels: int64, one per sample, or per row of a complete sample whose rows are labelled; None without labels.
    """

    inputs: dict[str, np.ndarray]
    samples: np.ndarray
    labels: np.ndarray | None


class Feed:
    """Samples of one model, in a fixed order. Made by ``open_feed``."""

    def __init__(self, source: Source, digests: np.ndarray, indices: np.ndarray) -> None:
        """View ``source`` at ``indices``; ``digests`` are the hashes of all its samples.

        With a model of fixed batch b the last ``len(indices) % b`` samples fill no run and are left out; their
        number is :attr:`dropped`.
        """
        whole = len(indices) - len(indices) % (source.step or 1)
        self.dropped = len(indices) - whole
        self._source = source
        self._digests = digests
        self._indices = np.array(indices[:whole], np.int64)

    @classmethod
    def over(cls, source: Source) -> Feed:
        """All samples of ``source``; reads them once.

        Raises:
            DataError: a sample cannot be used.
        """
        return cls(source, source.digests(), np.arange(source.count))

    def __len__(self) -> int:
        """Number of samples that are fed."""
        return len(self._indices)

    @property
    def batched(self) -> bool:
        """Whether the model has a free batch axis."""
        return self._source.batched

    @property
    def step(self) -> int:
        """Samples that one run must have (1 when any number will do)."""
        return self._source.step or 1

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 ``[samples]`` (``[samples, b]`` when complete samples have a label per row); None without labels."""
        return None if self._source.labels is None else self._source.labels[self._indices]

    @cached_property
    def sha256(self) -> str:
        """Identity of the feed: inputs, values, labels and order of the samples, however they are stored or cut."""
        names = [[item.name, str(item.dtype)] for item in self._source.inputs]
        state = hashlib.sha256(json.dumps([names, len(self)]).encode())
        state.update(self._digests[self._indices].tobytes())
        if self.labels is not None:
            state.update(f"labels {self.labels.shape}".encode() + self.labels.astype("<i8").tobytes())
        return state.hexdigest()

    def sample_hashes(self) -> list[bytes]:
        """SHA-256 over the inputs of every sample (not its label)."""
        return [row.tobytes() for row in self._digests[self._indices]]

    def subset(self, indices: Sequence[int] | np.ndarray) -> Feed:
        """The samples at the given positions of this feed, in that order.

        Raises:
            IndexError: a position is not in this feed.
        """
        chosen = np.asarray(indices, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"positions must be within 0..{len(self) - 1}")
        return Feed(self._source, self._digests, self._indices[chosen])

    def runs(self, size: int = 64) -> int:
        """How many chunks there are (see :meth:`chunks`)."""
        return -(-len(self) // self._run(size))

    def chunks(self, size: int = 64, numbers: range | None = None) -> Iterator[Chunk]:
        """Cut the feed into runs, in order.

        Args:
            size: most samples of one chunk where the model takes any number; otherwise a chunk is one run.
            numbers: which chunks, counted from 0; all without.
        """
        step = self._run(size)
        for number in range(self.runs(size)) if numbers is None else numbers:
            yield self._chunk(np.arange(number * step, min((number + 1) * step, len(self))))

    def _run(self, size: int) -> int:
        """Samples of one chunk."""
        if size < 1:
            raise ValueError("size must be at least 1")
        return 1 if self._source.complete else self._source.step or size

    def _chunk(self, samples: np.ndarray) -> Chunk:
        values = self._source.get(self._indices[samples])
        labels = None if self.labels is None else self.labels[samples]
        if self._source.complete:
            values = {name: np.asarray(array[0]) for name, array in values.items()}
            labels = None if labels is None else labels.reshape(-1)
        return Chunk(values, samples, labels)


def overlap(a: Feed, b: Feed) -> int:
    """Number of different samples that both feeds hold (by hash of their inputs)."""
    return len(set(a.sample_hashes()) & set(b.sample_hashes()))
