"""What the report of a training run says of models: quality, size, and the verdict in a sentence."""

from __future__ import annotations

import numpy as np

from edgepress.model import Model
from edgepress.quality import Verdict
from edgepress.report.training import Size, Standing
from edgepress.train.settings import Settings


def standing(verdict: Verdict) -> Standing:
    """A verdict as the report keeps it."""
    return Standing(
        verdict.samples, verdict.measure, verdict.after, verdict.loss, verdict.low, verdict.high, verdict.kl,
        verdict.agreement,
    )  # fmt: skip


def size(model: Model, coded: int | None = None) -> Size:
    """How large a model is.

    Args:
        model: the model.
        coded: bytes of its coded file, if there is one.
    """
    floats = [array for array in model.constants.values() if array.dtype.kind == "f"]
    return Size(model.size, model.parameters, sum(int(np.count_nonzero(array)) for array in floats), coded)


def sentence(start: Verdict, result: Verdict, improved: bool, settings: Settings) -> str:
    """What came of the training, on the hold-out samples."""
    if not improved:
        return "Nothing was better than the start on the hold-out samples: the start is handed over."
    unit = {"accuracy": "{:.2f} % accuracy", "agreement": "{:.4f} nats of divergence", "sqnr": "{:.1f} dB"}[
        result.measure
    ]
    before, after = (item.kl if item.measure == "agreement" else item.after for item in (start, result))
    lost = "" if settings.method == "distil" or result.measure == "sqnr" else f", {_lost(result)}"
    return f"From {unit.format(before)} to {unit.format(after)} on the hold-out samples{lost}."


def _lost(result: Verdict) -> str:
    word = "points" if result.measure == "accuracy" else "nats"
    return f"{result.loss:.3g} of {result.allowed:.3g} {word} that may be lost"
