"""Here: this process as a meter. Nothing is written to disk, no process is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgepress.bench import timing
from edgepress.bench.machine import Machine, describe
from edgepress.bench.summary import Timing
from edgepress.devices import Level, agent

VISIT_MS = 0.5
ROUNDS = 8
"""Of ``best``: layers alone are short, and the least disturbed of a few visits is enough."""

Feed = Mapping[str, np.ndarray]
Small = tuple[bytes, Feed]


class Here:
    """This process."""

    level: Level = "measured"
    spec: str = "local"

    def __init__(self, limits: timing.Limits = timing.NONE) -> None:
        """Take times within limits."""
        self.limits = limits

    def machine(self) -> Machine:
        """This machine, now."""
        return describe()

    def compare(
        self,
        models: Mapping[str, bytes],
        feeds: Sequence[Feed],
        *,
        threads: int = 1,
        seconds: float = 6.0,
        min_rounds: int = 20,
        seed: int = 0,
        reference: str,
    ) -> Timing:
        """Models against a reference, as :func:`edgepress.bench.timing.compare`."""
        return timing.compare(
            models, feeds, threads=threads, seconds=seconds, min_rounds=min_rounds, seed=seed, reference=reference,
            limits=self.limits,
        )  # fmt: skip

    def best(
        self, groups: Sequence[Sequence[Small]], *, threads: int = 1, seconds: float = 1.0, seed: int = 0
    ) -> list[np.ndarray]:
        """The best time of every model in ms, per group float64 [models]; a group's sessions are open together.

        Raises:
            ModelError: onnxruntime cannot load or run one of them.
        """
        return [np.array(self._best(group, threads, seconds, seed)) for group in groups]

    def _best(self, group: Sequence[Small], threads: int, seconds: float, seed: int) -> list[float]:
        with timing.failures_as_errors():
            runs = [_runner(model, feed, threads) for model, feed in group]
            return agent.best_of(runs, VISIT_MS, ROUNDS, seconds, seed)


def _runner(model: bytes, feed: Feed, threads: int) -> Callable[[], object]:
    session, values = agent.opened(model, threads), dict(feed)
    agent.ran(session, values)  # what cannot run says so here
    return lambda: session.run(None, values)
