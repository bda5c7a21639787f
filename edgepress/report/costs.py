"""Costs in words: how the figures of every level are called, so that nothing but a time is ever called fast.

    measured    ms of the clock: faster, slower
    counted     millions of instructions under an emulator: fewer, more
    cycles      millions of cycles, estimated from those: fewer, more
    analytic    millions of instructions that multiply-adds need at the least: fewer, more

Figures of two levels never stand in one column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgepress.devices import Level, parse
from edgepress.errors import DeviceError
from edgepress.report import numbers

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one level.

    Attributes:
        noun: what is compared.
        less: what a model is that takes less of it.
        more: what a model is that takes more.
        how: how the figure came about.
    """

    noun: str
    less: str
    more: str
    how: str

    def change(self, noise: str) -> str:
        """The word for a ratio: ``faster`` and ``slower`` stand for less and more; anything else as it is."""
        return {"faster": self.less, "slower": self.more}.get(noise, noise)


WORDS: Mapping[Level, Words] = {
    "measured": Words("time", "faster", "slower", "measured"),
    "counted": Words("instructions", "fewer", "more", "counted"),
    "cycles": Words("cycles", "fewer", "more", "estimated"),
    "analytic": Words("instructions", "fewer", "more", "analytic"),
}


def amount(value: float, level: Level) -> str:
    """A cost with its unit: a time given in ms, or how many, given in millions."""
    return numbers.time(value) if level == "measured" else numbers.count(value * MILLION)


def device_name(spec: str) -> str:
    """A device for a sentence: its kind and its host, without settings; ``local`` is this machine."""
    try:
        found = parse(spec)
    except DeviceError:  # a spec of another version of edgepress
        return spec
    return "this machine" if found.kind == "local" else " ".join(part for part in (found.kind, found.host) if part)
