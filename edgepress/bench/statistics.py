"""Statistics of timing: quantiles of single runs, and paired ratios with an interval.

Machines drift (clock, caches, neighbours), so absolute times of two models taken one after the other
compare the drift, not the models. Every round visits every model once; the ratio is taken inside the
round, where the drift cancels::

    d[r] = log(time[r] / time_reference[r])        m[o] = median of d[r] over the rounds r of opening o
    ratio = exp(median of m)

Two sessions of ONE file differ by some percent for as long as they are open, by where their memory happens to lie, so
rounds of one opening are no independent draws; openings are (``devices.agent.take_turns``: other places, another
order). The interval is therefore the bootstrap of the median over openings, not over rounds (Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8: of nested data, resample the outermost level), as a
percentile interval whose tails are narrowed for the few openings there are (Hesterberg, What Teachers Should Know About
the Bootstrap, arXiv:1411.5279, section 5.3: tail Phi(-sqrt(n / (n - 1)) t) in place of 2.5 %). One more model in the
rounds is a second session of the reference, the A/A twin: its ratio should be 1. By how much it is not, the interval of
every ratio is widened; how far its own interval reaches from 1 is the noise floor: no difference inside it is claimed.
Fewer than six openings (``FEWEST_OPENINGS``) say nothing about places in memory: then rounds are resampled, and the
floor is at least ``PLACES``.

Widened like this the interval covers 1 more often than in 95 of 100 runs: in about 99, when openings are drawn from a
normal distribution or from one with heavy tails.

The functions are deterministic, and a ratio does not depend on which other models were timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from edgepress.devices.agent import FEWEST_OPENINGS

RESAMPLES = 4000
LEVEL = 0.95

PLACES = math.log(1.05)
"""Log ratio that places in memory alone can make."""

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
"""Student's t at 97.5 %, for 1 degree of freedom and more; beyond, 1.96 + 2.4 / freedom is as near as it matters."""

Noise = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True, slots=True)
class Latency:
    """What one run of a model costs, over all recorded single runs.

    Attributes:
        name: the model.
        p50: median, in the unit of the level: ms, where it was measured.
        p90: 90th percentile.
        p99: 99th percentile.
        load_ms: opening the session (reading and optimizing the graph), the median of all openings; NaN: not timed.
        first_ms: the first run of a session, which also allocates, likewise.
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
    """Cost of a model over cost of the reference; below 1 is faster.

    Attributes:
        name: the model.
        reference: the model it is compared with.
        median: exp of the median log ratio.
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


@dataclass(frozen=True, slots=True)
class Floor:
    """What a second session of the reference shows of the noise, as log ratios of 0 or more.

    Attributes:
        stray: how far the twin's median is from the reference; every interval is widened by it.
        reach: how far its interval reaches; nothing inside is a difference.
    """

    stray: float = 0.0
    reach: float = 0.0


def latency(name: str, runs_ms: np.ndarray, *, load_ms: float, first_ms: float, rounds: int) -> Latency:
    """Quantiles of the single runs ``runs_ms`` (float64 [runs], in ms)."""
    p50, p90, p99 = (float(value) for value in np.percentile(runs_ms, (50, 90, 99)))
    return Latency(name, p50, p90, p99, load_ms, first_ms, rounds)


def per_opening(logs: np.ndarray, openings: Sequence[int]) -> np.ndarray:
    """Median of every opening, float64 [openings]; the rounds themselves where there are too few openings.

    Args:
        logs: log ratios, float64 [rounds].
        openings: number of rounds of every opening, in order.
    """
    if len(openings) < FEWEST_OPENINGS:
        return logs
    return np.array([np.median(part) for part in np.split(logs, np.cumsum(openings)[:-1])])


def median_interval(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % expanded percentile-bootstrap interval of the median of ``values`` (float64 [n], n >= 1)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(resamples, len(values)))
    medians = np.median(values[picks], axis=1)
    tail = 100 * _tail(len(values))
    low, high = np.percentile(medians, (tail, 100 - tail))
    return float(low), float(high)


def _tail(count: int) -> float:
    """Share of resamples beyond either end of the interval."""
    if count < 2:
        return (1 - LEVEL) / 2
    freedom = count - 1
    student = _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom
    return NormalDist().cdf(-math.sqrt(count / freedom) * student)


def noise_floor(twin: np.ndarray, reference: np.ndarray, openings: Sequence[int], *, seed: int) -> Floor:
    """What the twin shows (best times of twin and reference, float64 [rounds])."""
    values = per_opening(np.log(twin / reference), openings)
    low, high = median_interval(values, seed=seed)
    least = PLACES if len(openings) < FEWEST_OPENINGS else 0.0
    return Floor(abs(float(np.median(values))), max(abs(low), abs(high), least))


def paired_ratio(
    name: str,
    times: np.ndarray,
    reference: str,
    reference_times: np.ndarray,
    openings: Sequence[int],
    *,
    floor: Floor,
    seed: int,
) -> Ratio:
    """Compare the best times per round (float64 [rounds], any unit) of a model and the reference.

    Args:
        name: the model.
        times: its best time in every round.
        reference: name of the reference.
        reference_times: best time of the reference in the same rounds.
        openings: number of rounds of every opening.
        floor: what the twin showed.
        seed: seed of the bootstrap.
    """
    values = per_opening(np.log(times / reference_times), openings)
    low, high = median_interval(values, seed=seed)
    low, high = low - floor.stray, high + floor.stray
    median = math.exp(float(np.median(values)))
    return Ratio(name, reference, median, math.exp(low), math.exp(high), noise(low, high, floor.reach))


def noise(low: float, high: float, reach: float) -> Noise:
    """What an interval of a log ratio allows to be claimed."""
    if high < -reach:
        return "faster"
    return "slower" if low > reach else "no difference"
