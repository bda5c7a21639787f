"""Split samples into a part to fit on and a part held out to judge by.

Every different sample gets the key ``SHA-256(seed, sample hash)`` and samples are taken in the order of their keys:
the split depends on seed, values and labels only, not on numpy's version nor on how the samples are stored. With
labels each class gives its share (largest remainders first), so both parts hold classes in the same proportion.

Guarantees: the parts are disjoint and together everything (but for what a fixed batch drops, see
``Feed.dropped``); equal samples stay on one side; with two different samples neither part is empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from edgepress.calibrate.feed import Feed
from edgepress.errors import DataError


@dataclass(frozen=True, slots=True)
class _Unit:
    """Equal samples, which stay together."""

    label: int
    key: bytes
    members: tuple[int, ...]


def split(feed: Feed, *, seed: int, hold_out: float) -> tuple[Feed, Feed]:
    """Split ``feed`` into (fit, hold-out), each in the order of ``feed``.

    Args:
        feed: the samples.
        seed: another seed gives another split.
        hold_out: share of the samples to hold out, over 0 and under 1; rounded to whole samples (whole runs for a
            model with a fixed batch).

    Raises:
        DataError: ``hold_out`` is not a share.
    """
    if not 0 < hold_out < 1:
        raise DataError(f"The share to hold out is {hold_out}: give a number over 0 and under 1, such as 0.2.")
    units = _units(feed, seed)
    target = _target(len(feed), feed.step, hold_out)
    held = _choose(units, target) if len(units) > 1 else set()
    positions = np.arange(len(feed))
    mask = np.isin(positions, sorted(held))
    return feed.subset(positions[~mask]), feed.subset(positions[mask])


def _units(feed: Feed, seed: int) -> list[_Unit]:
    """Different samples by label, then key. Equal samples with differing labels go by the smallest."""
    members: dict[bytes, list[int]] = {}
    for position, digest in enumerate(feed.sample_hashes()):
        members.setdefault(digest, []).append(position)
    # Labels per row of a complete sample name no class of the sample: such feeds are split as if without labels.
    labels = feed.labels if feed.labels is not None and feed.labels.ndim == 1 else np.zeros(len(feed), np.int64)
    units = [
        _Unit(min(int(labels[i]) for i in same), hashlib.sha256(b"%d/%b" % (seed, digest)).digest(), tuple(same))
        for digest, same in members.items()
    ]
    return sorted(units, key=lambda unit: (unit.label, unit.key))


def _target(count: int, step: int, hold_out: float) -> int:
    """Samples to hold out: a multiple of ``step`` that leaves something on both sides where that is possible."""
    runs = count // step
    return step * min(max(1, round(runs * hold_out)), max(runs - 1, 0))


def _choose(units: Sequence[_Unit], target: int) -> set[int]:
    """Positions to hold out: about ``target``, each label giving its share."""
    strata = [list(group) for _, group in groupby(units, key=lambda unit: unit.label)]
    sizes = [sum(len(unit.members) for unit in group) for group in strata]
    quotas = _quotas(sizes, [group[0].key for group in strata], target)
    held: set[int] = set()
    for group, quota in zip(strata, quotas, strict=True):
        _take(group, quota, held)
    # Groups of equal samples may not have fitted the shares: fill up from all labels.
    _take(sorted(units, key=lambda unit: unit.key), target - len(held), held)
    if not held and target:
        smallest = min(units, key=lambda unit: (len(unit.members), unit.key))
        held.update(smallest.members)
    return held


def _quotas(sizes: Sequence[int], keys: Sequence[bytes], target: int) -> list[int]:
    """Shares of ``target`` in proportion to ``sizes``, whole numbers; ties go by key."""
    total = sum(sizes)
    quotas = [size * target // total for size in sizes]
    order = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * target % total), keys[i]))
    for i in order[: target - sum(quotas)]:
        quotas[i] += 1
    return quotas


def _take(units: Sequence[_Unit], quota: int, held: set[int]) -> None:
    """Add whole units to ``held``, in order, as long as they fit into ``quota``."""
    room = quota
    for unit in units:
        if len(unit.members) <= room and unit.members[0] not in held:
            held.update(unit.members)
            room -= len(unit.members)
