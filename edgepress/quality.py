"""How much a compressed model differs from the original, with the uncertainty of the samples in view.

Measures (decided from the model and the data):

* ``accuracy``  labels given: points of accuracy lost, paired: mean of (right before - right after)
* ``agreement`` a classifier without labels: KL(original || candidate) decides, changed answers are shown with it
* ``sqnr``      anything else: 10 log10(sum y^2 / sum (y - y')^2) per output, the worst output counts

Without labels the limit in points of accuracy is translated into KL by what was measured on trained networks: 0.01
nats are worth 0 to 0.5 points and 0.02 nats 0.3 to 0.6 points, on confident networks and on hesitant ones alike,
while the share of changed answers that goes with 1 point ranges from 2 to 12 %. So the limit is ``KL <= 0.02 *
max_drop``.

A verdict has three states: ``within`` (so is its whole 95 % interval), ``probably within`` (the point is, the
interval reaches out; says how many samples would settle it), ``over``. A candidate is taken only when the upper end
of its 80 % interval (one-sided) keeps the limit: a lucky draw of few samples is not enough. Labels tell little where
samples are few (a right answer says one bit, the divergence of the answers much more), so a candidate that loses no
more than is allowed on them is also taken if the divergence alone would do: labels never make the choice more timid
than none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Measure = Literal["accuracy", "agreement", "sqnr"]
State = Literal["within", "probably within", "over"]

KL_PER_POINT = 0.02
"""Nats of mean KL divergence for each point of accuracy that may be lost."""

EQUAL = 90.0
"""From this SQNR on, in dB, outputs are equal but for float rounding: no changed answer is then proof of none."""

_ROUNDING = 1e-9
_Z = 1.959964
_Z80 = 0.841621


@dataclass(frozen=True, slots=True)
class Comparison:
    """Per-sample facts of original against candidate, enough for every measure; concatenates over chunks.

    Attributes:
        changed: bool [samples], the answer (argmax of the first output) differs.
        divergence: float64 [samples], KL(original || candidate) in nats.
        right: bool [samples, 2], original and candidate right; None without labels.
        signal: float64 [samples, outputs], squared norm of the original's outputs.
        noise: float64 [samples, outputs], squared norm of the difference.
    """

    changed: np.ndarray
    divergence: np.ndarray
    right: np.ndarray | None
    signal: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(
        cls, original: Sequence[np.ndarray], candidate: Sequence[np.ndarray], labels: np.ndarray | None
    ) -> Comparison:
        """Compare the outputs of one chunk (first axis = rows)."""
        rows = original[0].shape[0] if original[0].ndim else 1
        flat = [
            (a.reshape(rows, -1).astype(np.float64), b.reshape(rows, -1).astype(np.float64))
            for a, b in zip(original, candidate, strict=True)
            if (a.shape or (1,))[0] == rows
        ]
        first, second = flat[0]
        answers = np.stack([first.argmax(1), second.argmax(1)], axis=1)
        right = None if labels is None else answers == np.asarray(labels).reshape(-1, 1)
        squashed = are_probabilities(first)  # rounded probabilities need not sum to one any more
        before, after = log_probabilities(first, squashed), log_probabilities(second, squashed)
        divergence = np.maximum((np.exp(before) * (before - after)).sum(1), 0.0)
        signal = np.stack([(a**2).sum(1) for a, _ in flat], axis=1)
        noise = np.stack([((a - b) ** 2).sum(1) for a, b in flat], axis=1)
        return cls(answers[:, 0] != answers[:, 1], divergence, right, signal, noise)

    @classmethod
    def join(cls, parts: Iterable[Comparison]) -> Comparison:
        """All samples of several chunks."""
        every = list(parts)
        right = None if every[0].right is None else np.concatenate([p.right for p in every if p.right is not None])
        return cls(
            np.concatenate([p.changed for p in every]),
            np.concatenate([p.divergence for p in every]),
            right,
            np.concatenate([p.signal for p in every]),
            np.concatenate([p.noise for p in every]),
        )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.changed)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a candidate may lose: points of accuracy for classifiers, an SQNR floor in dB for the rest."""

    measure: Measure
    max_drop: float
    min_sqnr: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A comparison read against a limit.

    Attributes:
        measure: what was measured.
        samples: how many samples it rests on.
        before: accuracy of the original in percent; 100 for agreement; infinite for SQNR.
        after: accuracy or agreement in percent, or SQNR in dB.
        loss: points lost (accuracy), mean KL in nats (agreement), dB below the floor (SQNR).
        low: lower end of the 95 % interval of ``loss``.
        high: upper end of the 95 % interval of ``loss``.
        allowed: the limit ``loss`` is held against.
        kl: mean KL(original || candidate) in nats (classifiers, else NaN).
        agreement: percent of unchanged answers (classifiers, else NaN), and its Wilson 95 % interval:
        agreement_low: lower end.
        agreement_high: upper end.
        sqnr: worst output's signal to noise ratio in dB.
        state: within, probably within or over.
        settle: samples that would settle "probably within", None otherwise.
        acceptable: whether a candidate may be taken on this evidence.
    """

    measure: Measure
    samples: int
    before: float
    after: float
    loss: float
    low: float
    high: float
    allowed: float
    kl: float
    agreement: float
    agreement_low: float
    agreement_high: float
    sqnr: float
    state: State
    settle: int | None
    acceptable: bool


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A loss with its 95 % interval, against what is allowed."""

    point: float
    low: float
    high: float
    allowed: float
    finite: bool = True

    @property
    def state(self) -> State:
        if not (self.finite and self.point <= self.allowed + _ROUNDING):  # NaN is over
            return "over"
        return "within" if self.high <= self.allowed + _ROUNDING else "probably within"

    @property
    def acceptable(self) -> bool:
        upper = self.point + (self.high - self.point) * _Z80 / _Z
        return self.finite and upper <= self.allowed + _ROUNDING

    def settle(self, count: int) -> int | None:
        """Samples at which the interval would no longer reach over the limit (it shrinks with the square root)."""
        room = self.allowed - self.point
        if self.state != "probably within" or room <= _ROUNDING:
            return None
        return math.ceil(count * ((self.high - self.point) / room) ** 2)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether rows (along the last axis) are probabilities already: non-negative, summing to one."""
    return bool(outputs.min() >= 0 and np.allclose(outputs.sum(-1), 1.0, atol=1e-3))


def log_probabilities(outputs: np.ndarray, squashed: bool) -> np.ndarray:
    """Log-probabilities of rows that are logits, or probabilities already (``squashed``)."""
    if squashed:
        clipped = np.maximum(outputs, 1e-7)
        return np.asarray(np.log(clipped / clipped.sum(1, keepdims=True)))
    shifted = outputs - outputs.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def judge(comparison: Comparison, limit: Limit) -> Verdict:
    """Read a comparison against a limit."""
    if limit.measure == "sqnr":
        return _judge_sqnr(comparison, limit)
    count = len(comparison)
    same = 100 * float(1 - comparison.changed.mean())
    finite = bool(np.isfinite(comparison.noise).all())  # an answer among NaN is none, even if it is right
    unlabelled = _mean(comparison.divergence, KL_PER_POINT * limit.max_drop, floor=0.0, finite=finite)
    if limit.measure == "accuracy" and comparison.right is not None:
        lost = 100 * (comparison.right[:, 0].astype(float) - comparison.right[:, 1])
        equal = _sqnr(comparison.signal.sum(0), comparison.noise.sum(0)) >= EQUAL
        estimate = _mean(lost, limit.max_drop, floor=0.0 if equal else 100 / math.sqrt(count), finite=finite)
        before = 100 * float(comparison.right[:, 0].mean())
        after = before - estimate.point
        acceptable = estimate.acceptable or (estimate.state != "over" and unlabelled.acceptable)
    else:
        estimate, acceptable = unlabelled, unlabelled.acceptable
        before, after = 100.0, same
    low, high = wilson(count - int(comparison.changed.sum()), count)
    return Verdict(
        measure=limit.measure,
        samples=count,
        before=before,
        after=after,
        loss=estimate.point,
        low=estimate.low,
        high=estimate.high,
        allowed=estimate.allowed,
        kl=float(comparison.divergence.mean()),
        agreement=same,
        agreement_low=100 * low,
        agreement_high=100 * high,
        sqnr=_sqnr(comparison.signal.sum(0), comparison.noise.sum(0)),
        state=estimate.state,
        settle=estimate.settle(count),
        acceptable=acceptable,
    )


def _mean(values: np.ndarray, allowed: float, *, floor: float, finite: bool) -> _Estimate:
    """Mean with a normal 95 % interval; ``floor`` is the least deviation: no change seen is no proof of none."""
    point = float(values.mean())
    half = _Z * max(float(values.std()), floor) / math.sqrt(len(values))
    return _Estimate(point, point - half, point + half, allowed, finite)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson 95 % interval of a share."""
    share, spread = hits / count, _Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _judge_sqnr(comparison: Comparison, limit: Limit) -> Verdict:
    """SQNR with a bootstrap interval over samples."""
    count = len(comparison)
    value = _sqnr(comparison.signal.sum(0), comparison.noise.sum(0))
    draws = np.random.default_rng(0).integers(0, count, (400, count))
    values = [_sqnr(comparison.signal[d].sum(0), comparison.noise[d].sum(0)) for d in draws]
    low, high = (float(bound) for bound in np.percentile(values, [2.5, 97.5]))
    estimate = _Estimate(limit.min_sqnr - value, limit.min_sqnr - high, limit.min_sqnr - low, 0.0)
    return Verdict(
        measure="sqnr",
        samples=count,
        before=math.inf,
        after=value,
        loss=estimate.point,
        low=estimate.low,
        high=estimate.high,
        allowed=0.0,
        kl=math.nan,
        agreement=math.nan,
        agreement_low=math.nan,
        agreement_high=math.nan,
        sqnr=value,
        state=estimate.state,
        settle=None,
        acceptable=estimate.acceptable,
    )


def _sqnr(signal: np.ndarray, noise: np.ndarray) -> float:
    """Worst output's ratio in dB, capped at 200 (equal outputs)."""
    ratio = np.maximum(signal, 1e-30) / np.maximum(noise, 1e-20 * np.maximum(signal, 1e-30))
    with np.errstate(divide="ignore"):  # infinite noise
        return float(10 * np.log10(ratio).min())
