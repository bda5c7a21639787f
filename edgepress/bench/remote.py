"""Remote: the clock of a device as a meter. Models and samples are sent once; the statistics are taken here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgepress.bench import here
from edgepress.bench.machine import Machine
from edgepress.bench.summary import Timing, summarize
from edgepress.bench.timing import NONE, Limits, check
from edgepress.devices import Agent, Level
from edgepress.devices.agent import OVERTIME
from edgepress.devices.base import TIMEOUT_S

Feed = Mapping[str, np.ndarray]
Small = tuple[bytes, Feed]


class Remote:
    """Times on one device."""

    level: Level = "measured"

    def __init__(self, agent: Agent, limits: Limits = NONE) -> None:
        """Use an agent, and take times within limits."""
        self.agent = agent
        self.spec = agent.device.spec
        self.limits = limits

    def machine(self) -> Machine:
        """The device, now.

        Raises:
            DeviceError: it cannot be reached, or lacks what it needs.
        """
        report = self.agent.perform({"task": "identify"}).report
        return Machine.of(report["machine"], report["before"])

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
        """Models against a reference, as :func:`edgepress.bench.timing.compare`.

        Raises:
            InputError: no feed, an unknown reference or settings out of range.
            DeviceError: the device, its connection or its Python fails.
            ModelError: onnxruntime there cannot load or run one of the models.
        """
        check(models, feeds, reference, threads, seconds, min_rounds)
        job = {
            "task": "race",
            "models": sent(self.agent, models),
            "reference": reference,
            "feeds": sent_feeds(self.agent, feeds),
            "threads": threads,
            "seconds": seconds,
            "min_rounds": min_rounds,
            "seed": seed,
            "overtime": self.limits.overtime,
            "max_temp_c": self.limits.max_temp_c,
        }
        race = self.agent.perform(job, TIMEOUT_S + self.limits.overtime * max(seconds, 1.0)).report
        return summarize(race, reference, threads, seed)

    def best(
        self, groups: Sequence[Sequence[Small]], *, threads: int = 1, seconds: float = 1.0, seed: int = 0
    ) -> list[np.ndarray]:
        """The best time of every model in ms, per group float64 [models].

        Raises:
            DeviceError: the device, its connection or its Python fails.
            ModelError: onnxruntime there cannot load or run one of them.
        """
        named = [[(model_name(model), feeds_name([feed])) for model, feed in group] for group in groups]
        files: dict[str, bytes] = {}
        for group, names in zip(groups, named, strict=True):
            for (model, feed), (of_model, of_feed) in zip(group, names, strict=True):
                files[of_model] = model
                if of_feed not in files:  # a table has many models with the same sample
                    files[of_feed] = self.agent.packed([feed])
        self.agent.send_many(files)
        job: dict[str, Any] = {
            "task": "best",
            "groups": [[{"model": model, "feeds": feeds} for model, feeds in names] for names in named],
            "threads": threads,
            "visit_ms": here.VISIT_MS,
            "rounds": here.ROUNDS,
            "seconds": seconds,
            "seed": seed,
        }
        report = self.agent.perform(job, TIMEOUT_S + OVERTIME * seconds * len(groups)).report
        return [np.array(found, np.float64) for found in report["best_ms"]]


def sent(agent: Agent, models: Mapping[str, bytes]) -> dict[str, str]:
    """Have models on the device; names of their files there."""
    return {name: sent_model(agent, model) for name, model in models.items()}


def sent_model(agent: Agent, model: bytes) -> str:
    """Have a model on the device."""
    return agent.send(model_name(model), model)


def sent_feeds(agent: Agent, feeds: Sequence[Feed]) -> str:
    """Have samples on the device."""
    return agent.send_feeds(feeds_name(feeds), feeds)


def model_name(model: bytes) -> str:
    """The name of a model's file, which its content decides: equal ones are sent once."""
    return f"{hashlib.sha256(model).hexdigest()[:24]}.onnx"


def feeds_name(feeds: Sequence[Feed]) -> str:
    """The name of a file of samples, likewise."""
    found = hashlib.sha256()
    for feed in feeds:
        for name, value in feed.items():
            found.update(f"{name} {value.dtype} {value.shape};".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        found.update(b"\n")
    return f"{found.hexdigest()[:24]}.npz"
