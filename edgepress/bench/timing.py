"""Timing: models against each other in this process, in interleaved rounds.

The loop is the agent's (``devices.agent.take_turns``), which is also what runs on a device; models are bytes in memory
here. Only ORT_ENABLE_ALL is timed, and threads do not spin: those of one model would take the other's time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edgepress.bench.summary import Timing, summarize
from edgepress.devices import agent
from edgepress.errors import DeviceError, InputError, ModelError

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a comparison waits for.

    Attributes:
        max_temp_c: it waits while the machine is hotter; None: it does not look.
        overtime: ``min_rounds`` may stretch ``seconds`` (1 at least) so many fold.
    """

    max_temp_c: float | None = None
    overtime: float = agent.OVERTIME


NONE = Limits()


def compare(
    models: Mapping[str, bytes],
    feeds: Sequence[Feed],
    *,
    threads: int = 1,
    seconds: float = 6.0,
    min_rounds: int = 20,
    seed: int = 0,
    reference: str,
    limits: Limits = NONE,
) -> Timing:
    """Time models against the reference.

    Args:
        models: serialized models by name; all take the same inputs.
        feeds: model inputs by name; used in turn, one per round.
        threads: intra-op threads.
        seconds: how long to go on; sessions are opened anew within it.
        min_rounds: rounds to take even if that needs longer; given up after ``overtime`` times ``seconds``.
        seed: seed of the order of visits and of the bootstrap.
        reference: the name in ``models`` that the ratios refer to.
        limits: of heat, and of patience.

    Raises:
        InputError: no feed, an unknown reference or settings out of range.
        ModelError: onnxruntime cannot load or run one of the models.
        DeviceError: it stays hotter than that, or does not say how hot it is.
    """
    check(models, feeds, reference, threads, seconds, min_rounds)
    about, before = agent.machine(), agent.health()
    with failures_as_errors():
        race = agent.compared(
            models, reference, feeds, threads, seconds, min_rounds, seed, limits.max_temp_c, limits.overtime
        )
    return summarize({**race, "machine": about, "before": before, "after": agent.health()}, reference, threads, seed)


def check(
    models: Mapping[str, bytes], feeds: Sequence[Feed], reference: str, threads: int, seconds: float, min_rounds: int
) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: no feed, an unknown reference or settings out of range.
    """
    if not feeds:
        raise InputError("There is nothing to run the models on: give at least one sample.")
    if reference not in models:
        raise InputError(f"There is no model {reference!r} to compare with: choose one of {', '.join(models)}.")
    if threads < 1 or min_rounds < 1 or not 0 <= seconds < math.inf:
        raise InputError("Timing needs at least 1 thread, 1 round and a time of 0 seconds or more.")


@contextmanager
def failures_as_errors() -> Iterator[None]:
    """What the agent calls a failure, as this process calls it."""
    try:
        yield
    except agent.Failure as error:
        kind = ModelError if error.code == agent.MODEL_FAILED else DeviceError
        raise kind(str(error)) from error
