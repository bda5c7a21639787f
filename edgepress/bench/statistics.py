"""Statistics of timing: quantiles of single runs, and paired ratios with an interval.

Machines drift (clock, caches, neighbours), so absolute times of two models taken one after the other
compare the drift, not the models. Every round visits every model once; the ratio is taken inside the
round, where the drift cancels::

    d[r] = log(time[r] / time_reference[r])        ratio = exp(median(d))

The 95 % interval is the percentile bootstrap of that median over rounds (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13). A second session of the reference (the A/A twin) goes through
the same rounds; how far its interval reaches from 1 is the noise floor: no difference inside it is claimed.
The functions are deterministic, and a ratio does not depend on which other models were timed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

Noise = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one model takes, over all recorded single runs.

    Attributes:
        name: the model.
        p50: median in ms.
        p90: 90th percentile in ms.
        p99: 99th percentile in ms.
        load_ms: opening the session (reading and optimizing the graph).
        first_ms: the first run, which also allocates.
        rounds: rounds the model was visited in.
    """

    name: str
    p50: float
    p90: float
    p99: float
    load_ms: float
    first_ms: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of a model over time of the reference; below 1 is faster.

    Attributes:
        name: the model.
        reference: the model it is compared with.
        median: exp of the median of the per-round log ratios.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        noise: ``faster`` or ``slower`` only if the whole interval lies outside the noise floor.
    """

    name: str
    reference: str
    median: float
    low: float
    high: float
    noise: Noise


def latency(name: str, runs_ms: np.ndarray, *, load_ms: float, first_ms: float, rounds: int) -> Latency:
    """Quantiles of the single runs ``runs_ms`` (float64 [runs], in ms)."""
    p50, p90, p99 = (float(value) for value in np.percentile(runs_ms, (50, 90, 99)))
    return Latency(name, p50, p90, p99, load_ms, first_ms, rounds)


def median_interval(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the median of ``values`` (float64 [n], n >= 1)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(resamples, len(values)))
    medians = np.median(values[picks], axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(medians, (tail, 100 - tail))
    return float(low), float(high)


def noise_floor(twin: np.ndarray, reference: np.ndarray, *, seed: int) -> float:
    """How far from 0 the A/A interval of log ratios reaches (best times of twin and reference, float64 [rounds])."""
    low, high = median_interval(np.log(twin / reference), seed=seed)
    return max(abs(low), abs(high))


def paired_ratio(
    name: str, times: np.ndarray, reference: str, reference_times: np.ndarray, *, floor: float, seed: int
) -> Ratio:
    """Compare the best times per round (float64 [rounds], any unit) of a model and the reference.

    Args:
        name: the model.
        times: its best time in every round.
        reference: name of the reference.
        reference_times: best time of the reference in the same rounds.
        floor: noise floor, the absolute value of a log ratio.
        seed: seed of the bootstrap.
    """
    logs = np.log(times / reference_times)
    low, high = median_interval(logs, seed=seed)
    return Ratio(
        name, reference, math.exp(float(np.median(logs))), math.exp(low), math.exp(high), _noise(low, high, floor)
    )


def _noise(low: float, high: float, floor: float) -> Noise:
    if high < -floor:
        return "faster"
    return "slower" if low > floor else "no difference"
