"""What two models answer to the same samples, brought into a shape that can be compared: one row per sample.

Outputs without a row per sample (a constant, a table of anchors) are left out. A run of a single sample may have
outputs of any shape: each is one row. An original that answers NaN or infinity cannot be judged by; a
candidate that does is as far away as can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress.calibrate import Chunk
from edgepress.errors import ModelError
from edgepress.quality import Comparison

FAR = 1e30
"""Stands for what a candidate should have answered a number to: its square is finite in float64."""


def compared(part: Chunk, original: Sequence[object], candidate: Sequence[object]) -> Comparison:
    """Compare the outputs of one chunk.

    Raises:
        ModelError: no output has one row per sample, or the original answers NaN or infinity.
    """
    pairs = [
        (mine, theirs)
        for before, after in zip(original, candidate, strict=True)
        if (mine := _rows(before, part)) is not None and (theirs := _rows(after, part)) is not None
    ]
    if not pairs or any(mine.shape != theirs.shape for mine, theirs in pairs):
        raise ModelError(
            "The outputs of this model do not have one row per sample whose size is fixed, so that quality cannot be "
            "judged: cut off what follows the last such tensor (NonMaxSuppression, say), or fix its batch at 1."
        )
    for mine, _ in pairs:
        _check_finite(mine, part)
    return Comparison.of([mine for mine, _ in pairs], [_far(theirs) for _, theirs in pairs], part.labels)


def _rows(output: object, part: Chunk) -> np.ndarray | None:
    """The output as ``[rows, ...]``; None if it has no rows of numbers that belong to samples."""
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
        return None
    rows = len(part.samples) if part.labels is None else len(part.labels)
    if output.shape[:1] == (rows,):
        return output
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
