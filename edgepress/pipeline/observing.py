"""Gather what scores need: a run over the samples in onnxruntime, and one for every loss whose gradients they want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepress.calibrate.feed import Feed
from edgepress.calibrate.run import Runner, collect, collect_units
from edgepress.calibrate.statistics import Probe, slope
from edgepress.executor import Executor
from edgepress.executor.run import single_threaded
from edgepress.executor.slopes import SlopeRunner
from edgepress.model import Model


def observe(
    model: Model, feed: Feed, probes: Sequence[Probe], *, classifies: bool, workers: int, seed: int
) -> dict[str, Any]:
    """The statistics of all samples, by name of their probe.

    Args:
        model: one that the executor runs as onnxruntime does, where gradients are asked for.
        feed: the samples.
        probes: what to observe.
        classifies: the first output is logits or probabilities.
        workers: threads.
        seed: of drawn labels and noise.
    """
    distinct = list({probe.name: probe for probe in probes}.values())
    with single_threaded():
        runners = _runners(model, distinct, classifies, seed)
        return collect(model, feed, distinct, workers=workers, runners=runners)


def observe_units(
    model: Model, feed: Feed, probes: Sequence[Probe], *, classifies: bool, workers: int, seed: int, units: range
) -> dict[int, dict[str, Any]]:
    """As :func:`observe`, for some of the units the samples are cut into, each by itself."""
    distinct = list({probe.name: probe for probe in probes}.values())
    with single_threaded():
        runners = _runners(model, distinct, classifies, seed)
        return collect_units(model, feed, distinct, workers=workers, units=units, runners=runners)


def _runners(model: Model, probes: Sequence[Probe], classifies: bool, seed: int) -> Mapping[str, Runner]:
    losses = sorted({probe.loss for probe in probes if probe.loss})
    if not losses:
        return {}
    executor = Executor(model)
    return {loss: SlopeRunner(executor, loss, classifies, seed, mark=slope("")) for loss in losses}
