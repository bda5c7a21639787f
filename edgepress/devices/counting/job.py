"""The job of counting: all models in one process of an emulated core, with a plugin of qemu watching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from edgepress.devices.counting.marks import RUNS
from edgepress.devices.emulated import Emulated
from edgepress.devices.remote import Agent, Answer
from edgepress.errors import DeviceError

Feed = Mapping[str, np.ndarray]

WARMUP = 2
"""Runs before the one that counts: the first allocate memory that later ones find."""

SECONDS_EACH, SECONDS = 60.0, 600.0
"""Time a job may take for each model, and to start."""


@contextmanager
def job(agent: Agent, plugin: str, models: Sequence[tuple[bytes, Feed]]) -> Iterator[tuple[Answer, Agent]]:
    """Run every model once between marks.

    Args:
        agent: on an emulated core.
        plugin: that watches.
        models: serialized, each with a sample.

    Yields:
        The answer, whose report has the models' ``names`` in order; and the agent in whose folder files of the plugin
        are, which is gone afterwards.

    Raises:
        DeviceError: this is no emulated core, or it fails.
        ModelError: onnxruntime there cannot load or run a model.
    """
    device = agent.device
    if not isinstance(device, Emulated):
        raise DeviceError(
            f"{device.spec}: instructions are counted on emulated cores only: emulated://cortex-a72, say."
        )
    with device.with_plugin(plugin) as watched:
        helper = Agent(watched)
        names, feeds = [], {}
        known: dict[int, str] = {}  # by identity: tables have many models with the same sample
        for position, (model, feed) in enumerate(models):
            names.append(helper.send(f"{position}.onnx", model))
            if id(feed) not in known:
                known[id(feed)] = helper.send_feeds(f"{position}.npz", [feed])
            feeds[names[-1]] = known[id(feed)]
        models_of = {name: name for name in names}
        order = {"task": "count", "models": models_of, "feeds": feeds, "warmup": WARMUP, "runs": RUNS}
        yield helper.perform(order, SECONDS + SECONDS_EACH * len(models)), helper
