"""What every stage of one compression needs: the normalized model, the samples, the target, fixed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import CHUNK
from edgepress.groups import Grouping
from edgepress.model import Model
from edgepress.pipeline.given import Given
from edgepress.pipeline.place import Place, here
from edgepress.targets import Target

ROWS = 16_000
"""Rows of a Gram: enough for every layer measured (10,000 were as good as 60,000)."""

SWEEP_SAMPLES = 512
"""Samples of a sweep; more only where a Gemm with one row per sample needs them (``ROWS_PER_COLUMN`` each)."""

ROWS_PER_COLUMN = 4

QUANTIZE_SAMPLES = 256
"""Samples that activation ranges are observed on."""

REPAIR_SAMPLES = 256
SENSITIVITY_SAMPLES = 96


@dataclass(frozen=True)
class Context:
    """One compression.

    Attributes:
        model: the normalized model.
        grouping: its channel groups.
        fit: samples to fit on.
        hold_out: samples to decide on.
        row_axes: the axis of every output that counts the samples (:mod:`edgepress.pipeline.answers`).
        sweep_samples: how many fit samples a side-by-side sweep may hold in memory; 0 when the torch executor
            does not run this model (then nothing can be refitted).
        target: rules of the CPU.
        multiple: kept widths are multiples of this.
        seed: seed of every choice.
        workers: threads for calibration.
        given: what the user says about single nodes and tensors.
        place: where costs are taken.
    """

    model: Model
    grouping: Grouping
    fit: Feed
    hold_out: Feed
    row_axes: tuple[int | None, ...]
    sweep_samples: int
    target: Target
    multiple: int
    seed: int
    workers: int
    given: Given = field(default_factory=Given)
    place: Place = field(default_factory=here)

    @property
    def positions(self) -> int:
        """Output positions per sample that fill ``ROWS`` rows over all fit samples."""
        return max(1, ROWS // max(1, len(self.fit)))

    @property
    def sweep_positions(self) -> int:
        """The same for the samples of a sweep."""
        return max(1, ROWS // max(1, self.sweep_samples))

    @cached_property
    def sweep_chunks(self) -> list[Mapping[str, np.ndarray]]:
        """Inputs of the samples a sweep runs on, in chunks."""
        return inputs_of(self.fit, self.sweep_samples)

    @cached_property
    def repair_chunks(self) -> list[Mapping[str, np.ndarray]]:
        """Inputs of the samples that rounding is repaired on."""
        return inputs_of(self.fit, min(REPAIR_SAMPLES, self.sweep_samples))

    def settings(self) -> dict[str, Any]:
        """What besides the decisions changes the result: kept in the plan, checked on replay."""
        return {
            "fit_samples": len(self.fit),
            "sweep_samples": self.sweep_samples,
            "rows": ROWS,
            "chunk": CHUNK,
            "quantize_samples": QUANTIZE_SAMPLES,
            "repair_samples": REPAIR_SAMPLES,
            "target": self.target.name,
        }


def first(feed: Feed, count: int) -> Feed:
    """The first samples of a (shuffled) feed."""
    return feed if len(feed) <= count else feed.subset(np.arange(count))


def inputs_of(feed: Feed, count: int, chunk: int = CHUNK) -> list[Mapping[str, np.ndarray]]:
    """Inputs of the first ``count`` samples (of one run at least, where the batch is fixed), held in memory."""
    return [part.inputs for part in first(feed, max(count, feed.step or 1)).chunks(chunk)] if count else []
