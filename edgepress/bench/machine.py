"""Machine: where costs were measured, and what may have disturbed them there.

A latency without its machine is a rumour: the clock governor, the load by others, heat and the runtime's version move
it more than most compression does. The agent reads all of it from /proc, /sys and ``platform``, here as on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgepress.devices import agent

SLOWED = 1.10
"""The canary slowed down by this factor: the clock fell, or the caches are another's."""

WARMED_C = 5.0
"""Degrees that are worth a word."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine a measurement was made on.

    Attributes:
        cpu: model name.
        cores: logical cores this process may use.
        governor: clock governor of the first core; None where the kernel does not say.
        frequency_mhz: clock of the first core when it was read; None where the kernel does not say.
        load_1m: load average of the last minute, before the timing began; None where there is none.
        onnxruntime: version.
        numpy: version.
        python: version.
        os: operating system and machine type.
        flags_vnni: the CPU has int8 dot products (AVX-VNNI or AVX512-VNNI).
    """

    cpu: str
    cores: int
    governor: str | None
    frequency_mhz: float | None
    load_1m: float | None
    onnxruntime: str
    numpy: str
    python: str
    os: str
    flags_vnni: bool

    @classmethod
    def of(cls, about: Mapping[str, Any], health: Mapping[str, Any]) -> Machine:
        """From what an agent reports as ``machine`` and ``before``; a runner that is no Python leaves some out."""
        return cls(
            cpu=about["cpu"],
            cores=about["cores"],
            governor=health.get("governor"),
            frequency_mhz=health.get("frequency_mhz"),
            load_1m=health.get("load_1m"),
            onnxruntime=about["onnxruntime"],
            numpy=about.get("numpy") or "",
            python=about.get("python") or "",
            os=about["os"],
            flags_vnni=bool({"avx512_vnni", "avx_vnni"} & set(about.get("flags", ()))),
        )


@dataclass(frozen=True, slots=True)
class Health:
    """What may disturb a measurement, at one moment; None where the system does not say.

    Attributes:
        governor: clock governor of the first core.
        frequency_mhz: its clock.
        max_mhz: its highest clock.
        temperature_c: of the hottest zone.
        throttled: the clock is held down, by heat or by a weak supply.
        load_1m: load average of the last minute.
    """

    governor: str | None = None
    frequency_mhz: float | None = None
    max_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    load_1m: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Health:
        """From what an agent reports as ``before`` or ``after``."""
        return cls(**{item.name: found.get(item.name) for item in fields(cls)})


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a measurement was made under.

    Attributes:
        before: health before it.
        after: health after it.
        canary_before_ms: least time of a fixed piece of work, before; None where it was not timed.
        canary_after_ms: the same, after.
    """

    before: Health = field(default_factory=Health)
    after: Health = field(default_factory=Health)
    canary_before_ms: float | None = None
    canary_after_ms: float | None = None

    def warnings(self, cores: int) -> tuple[str, ...]:
        """What disturbed the measurement, in sentences; ``cores`` are those it could use."""
        found = (self._slowed(), self._throttled(), self._warmed(), self._loaded(cores))
        return tuple(sentence for sentence in found if sentence)

    def _slowed(self) -> str:
        before, after = self.canary_before_ms, self.canary_after_ms
        if before is None or after is None or after <= SLOWED * before:
            return ""
        return f"A fixed piece of work took {after / before:.2f} times as long after the timing as before it."

    def _throttled(self) -> str:
        return (
            "The clock is held down, by heat or by a weak supply."
            if self.before.throttled or self.after.throttled
            else ""
        )

    def _warmed(self) -> str:
        before, after = self.before.temperature_c, self.after.temperature_c
        if before is None or after is None or after < before + WARMED_C:
            return ""
        return f"It became {after - before:.0f} °C hotter, to {after:.0f} °C: see that it does not throttle."

    def _loaded(self, cores: int) -> str:
        load = self.before.load_1m
        if load is None or load <= cores:
            return ""
        return f"The load was {load:.1f} on {cores} core{'s' * (cores != 1)}: others were busy too."


def describe() -> Machine:
    """Describe the machine this runs on, now."""
    return Machine.of(agent.machine(), agent.health())
