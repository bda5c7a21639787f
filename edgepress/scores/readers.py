"""The linear operators around a group: those that read its channels, and those that make them."""

from __future__ import annotations

import numpy as np

from edgepress.calibrate.fits import Fit, fits_of
from edgepress.calibrate.slopes import Reader, gates_probe
from edgepress.calibrate.statistics import Probe
from edgepress.calibrate.views import Part
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.base import consumers


def gates_of(model: Model, group: Group, loss: str) -> Probe:
    """The probe of how the channels of a group are felt by a loss."""
    return gates_probe(group.name, group.size, readers_of(model, group), loss)


def readers_of(model: Model, group: Group) -> tuple[Reader, ...]:
    """The parts that read a group, with the channel of each of their columns."""
    return tuple(
        Reader(part, _owners(fit, part, blocks), group.size)
        for fit, blocks in consumers(model, group)
        for part in fit.parts
    )


def makers(model: Model, group: Group) -> tuple[tuple[Fit, np.ndarray], ...]:
    """The producers that are linear operators, each with the channel of its outputs: int64 [outputs], -1 for none."""
    sites = [site for site in group.sites if site.role == "out"]
    found = []
    for fit in fits_of(model, group.producers)[0]:
        owner = np.full(fit.outputs, -1, np.int64)
        for site in sites:
            for source in (source for part in fit.parts for source in part.weights if source.tensor == site.tensor):
                along = source.outputs_along(site.axis)
                if along is not None:
                    channel = np.full(source.shape[site.axis], -1, np.int64)
                    channel[site.index] = np.arange(group.size)[:, None]
                    owner = np.where(channel[along] >= 0, channel[along], owner)
        if (owner >= 0).any():
            found.append((fit, owner))
    return tuple(found)


def _owners(fit: Fit, part: Part, blocks: np.ndarray) -> np.ndarray:
    """The channel of every column of a part, -1 for none: int64 [columns]."""
    of_fit = np.full(fit.width, -1, np.int64)
    of_fit[blocks] = np.arange(len(blocks))[:, None]
    return np.asarray(of_fit[fit.place(part)[: part.columns]])
