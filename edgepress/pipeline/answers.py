"""What two models answer to the same samples, brought into a shape that can be compared: one row per sample.

Which axis of an output counts the samples is observed in runs of different numbers of them: sequence models put the
time first, and what a file states about its outputs is often wrong. Outputs without such an axis (a constant, a table
of anchors) are left out, even where their length happens to be the number of samples. A run of a single sample may
have outputs of any shape: each is one row. An original that answers NaN or infinity cannot be judged by; a candidate
that does is as far away as can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress import runtime
from edgepress.calibrate import Chunk, Feed
from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.quality import Comparison

FAR = 1e30
"""Stands for what a candidate should have answered a number to: its square is finite in float64."""

COUNTS = (1, 2, 5)
"""Numbers of samples that are run to see which axis of an output follows them."""

Axes = Sequence[int | None]


def row_axes(model: Model, feed: Feed) -> tuple[int | None, ...]:
    """The axis of every output that counts the samples, None where none does; 0 where a run takes one sample only.

    Raises:
        ModelError: the model does not run.
    """
    counts = [count for count in COUNTS if count <= len(feed)] if feed.batched else [feed.step]
    parts = [next(iter(feed.subset(np.arange(count)).chunks(count))) for count in counts]
    if all(len(part.samples) == 1 for part in parts):
        return (0,) * len(model.outputs)
    opened, names = model.session(), list(model.outputs)
    runs = [runtime.run(opened, part.inputs, names) for part in parts]
    return tuple(_following([seen[name] for seen in runs], counts) for name in names)


def _following(seen: Sequence[object], counts: Sequence[int]) -> int | None:
    """The first axis that is as long as there are samples, in every run."""
    shapes = [output.shape for output in seen if isinstance(output, np.ndarray)]
    sizes = list(zip(*shapes, strict=True)) if len({len(shape) for shape in shapes}) == 1 else []
    return next((axis for axis, found in enumerate(sizes) if found == tuple(counts)), None)


def compared(part: Chunk, original: Sequence[object], candidate: Sequence[object], axes: Axes) -> Comparison:
    """Compare the outputs of one chunk.

    Args:
        part: what was run.
        original: outputs of the original.
        candidate: outputs of the candidate.
        axes: the axis of every output that counts the samples (:func:`row_axes`).

    Raises:
        ModelError: no output has one row per sample, or the original answers NaN or infinity.
    """
    pairs = [
        (mine, theirs)
        for before, after, axis in zip(original, candidate, axes, strict=True)
        if (mine := _rows(before, part, axis)) is not None and (theirs := _rows(after, part, axis)) is not None
    ]
    if not pairs or any(mine.shape != theirs.shape for mine, theirs in pairs):
        raise ModelError(
            "The outputs of this model do not have one row per sample whose size is fixed, so that quality cannot be "
            "judged: cut off what follows the last such tensor (NonMaxSuppression, say), or fix its batch at 1."
        )
    for mine, _ in pairs:
        _check_finite(mine, part)
    return Comparison.of([mine for mine, _ in pairs], [_far(theirs) for _, theirs in pairs], part.labels)


def _rows(output: object, part: Chunk, axis: int | None) -> np.ndarray | None:
    """The output as ``[rows, ...]``; None if it has no rows of numbers that belong to samples."""
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub" or axis is None:
        return None
    rows = len(part.samples) if part.labels is None else len(part.labels)
    if output.shape[axis : axis + 1] == (rows,):
        return np.moveaxis(output, axis, 0)
    return output.reshape(1, -1) if rows == 1 else None


def _check_finite(output: np.ndarray, part: Chunk) -> None:
    broken = np.flatnonzero(~np.isfinite(output.reshape(len(output), -1)).all(axis=1))
    if broken.size:
        sample = int(part.samples[min(int(broken[0]), len(part.samples) - 1)])
        raise ModelError(
            f"The model as it came answers NaN or infinity (sample {sample} of those held out): quality cannot be "
            "judged by that, mend the model or leave such samples out."
        )


def _far(output: np.ndarray) -> np.ndarray:
    return np.nan_to_num(output.astype(np.float64), nan=FAR, posinf=FAR, neginf=-FAR)
