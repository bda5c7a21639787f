r"""Parity: does a rewritten model still compute what the original computes?

The original's outputs on a few feeds are taken once. A rewritten model agrees when, for every output of every feed,

    max |new - reference|  <=  limit * max(1, max |reference|)

with limit 1e-4, far above the noise of a reordered float32 sum (about 1e-6) and far below any wrong operator, or
1e-2 when the model holds half-precision weights. Integer outputs (labels, indices) may differ in one element of
a thousand, for ties that float noise decides. Shapes and types must be equal, and NaN agrees with NaN only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.normalize import feeds
from edgepress.runtime import run

LIMIT = 1e-4
HALF_LIMIT = 1e-2
INTEGER_SHARE = 1e-3


@dataclass(frozen=True)
class Reference:
    """What the original model answers: ``outputs[i]`` to ``feeds[i]``; ``limit`` is the largest allowed difference."""

    feeds: tuple[feeds.Feed, ...]
    outputs: tuple[Mapping[str, object], ...]
    limit: float


def reference(model: Model, samples: Sequence[feeds.Feed]) -> Reference:
    """Run the original on ``samples``, or on made-up feeds when there are none.

    Raises:
        ModelError: onnxruntime cannot load the model, or cannot run it on the samples or on any made-up feed.
    """
    opened = model.session()
    limit = HALF_LIMIT if _holds_half(model) else LIMIT
    if samples:
        return Reference(tuple(samples), tuple(run(opened, feed) for feed in samples), limit)
    problem: ModelError | None = None
    for free in feeds.FREE_SIZES:
        made = tuple(_made_up(model, free))
        try:
            return Reference(made, tuple(run(opened, feed) for feed in made), limit)
        except ModelError as error:
            problem = problem or error
        if not feeds.symbols(model.inputs).keys() - feeds.batch_symbols(model.inputs):
            break
    raise ModelError(f"The model does not run on made-up inputs, give samples with --data ({problem}).") from problem


def difference(model: Model, against: Reference) -> float:
    """Largest relative difference of a rewritten model, on the scale of ``against.limit`` (infinite: not comparable).

    Raises:
        ModelError: onnxruntime cannot load or run the rewritten model.
    """
    opened = model.session()
    worst = 0.0
    for feed, expected in zip(against.feeds, against.outputs, strict=True):
        found = run(opened, feed, list(expected))
        worst = max([worst, *(_difference(found[name], expected[name], against.limit) for name in expected)])
    return worst


def _made_up(model: Model, free: int) -> list[dict[str, np.ndarray]]:
    batches = (1, 2) if feeds.batch_symbols(model.inputs) else (1,)
    return [feeds.made_up(model.inputs, batch=batch, free=free) for batch in batches]


def _holds_half(model: Model) -> bool:
    half = ("float16", "bfloat16")
    stated = [*model.inputs.values(), *model.outputs.values()]
    return any(kind.dtype in half for kind in stated) or any(str(a.dtype) in half for a in model.constants.values())


def _difference(found: object, expected: object, limit: float) -> float:
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        return max((_difference(a, b, limit) for a, b in zip(found, expected, strict=True)), default=0.0)
    if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
        return 0.0 if type(found) is type(expected) and found == expected else float("inf")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    return _array_difference(found, expected, limit)


def _array_difference(found: np.ndarray, expected: np.ndarray, limit: float) -> float:
    if not expected.size:
        return 0.0
    if expected.dtype.kind not in "fV":
        # a share of INTEGER_SHARE weighs as much as a float difference at the limit
        return float(np.mean(found != expected)) / INTEGER_SHARE * limit
    a, b = found.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
        return float("inf")
    largest = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    return float(np.abs(a[~same] - b[~same]).max(initial=0.0) / largest)


def as_bytes(proto: onnx.ModelProto) -> bytes:
    """The proto serialized the same way every time."""
    return bytes(proto.SerializeToString(deterministic=True))
