"""Jobs on a device without Python: the native runner does what the agent does, and its report reads the same.

The runner and onnxruntime's library are copied once per device object. :mod:`edgepress.devices.runner` holds the
runner's source, :mod:`edgepress.devices.runner.words` how it is spoken to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from edgepress.devices import agent
from edgepress.devices.base import TIMEOUT_S, Device, Done, Native
from edgepress.devices.remote import Agent, Answer, failure
from edgepress.devices.runner import elf, words
from edgepress.errors import DeviceError

RUNNER, LIBRARY = "edgerun", "libonnxruntime.so"
_STATUS_NO_PROGRAM = (126, 127)

_ready: WeakKeyDictionary[Device, Native] = WeakKeyDictionary()
"""Devices that have the runner and the library, and which: both are tens of megabytes."""


@runtime_checkable
class Watched(Protocol):
    """A device that says by itself what the runner may not look at there."""

    def called(self) -> str:
        """What people call it; empty if it does not know."""
        ...

    def health(self) -> Mapping[str, Any]:
        """Some of what the agent calls health; None where it does not know."""
        ...


def perform(host: Agent, job: Mapping[str, Any], timeout: float = TIMEOUT_S) -> Answer:
    """Have a job done by the native runner.

    Raises:
        DeviceError: the device, its connection or the runner fails, or was built for another machine.
        ModelError: onnxruntime there cannot load or run the model.
    """
    device = host.device
    if device.native is None:
        raise DeviceError(f"{device.spec} has neither Python nor a runner: name one by ?runner=PATH&library=PATH.")
    said = words.said(job, LIBRARY)
    _install(device, device.native)
    before = _health(device)
    done = device.run([f"./{RUNNER}"], stdin=said, timeout=timeout)
    errors = done.stderr.decode(errors="replace")
    if done.status:
        raise _failed(device, device.native, done, errors)
    report, made = words.understood(job, done.stdout, host.fetch)
    host.made |= made
    if isinstance(device, Watched):
        report["machine"]["cpu"] = device.called() or report["machine"]["cpu"]
    report["before"] = _filled(report["before"], before)
    report["after"] = _filled(report["after"], _health(device))
    return Answer(report, errors)


def _install(device: Device, native: Native) -> None:
    if _ready.get(device) == native:
        return
    elf.check(native.runner, native.library, _machine(device), device.spec)
    device.push(native.library, LIBRARY)
    device.push(native.runner, RUNNER)
    done = device.run(["chmod", "755", RUNNER])
    if done.status:
        raise DeviceError(f"{device.spec}: {RUNNER} cannot be made a program there: {_last(done)}")
    _ready[device] = native


def _machine(device: Device) -> str:
    """What the device calls its processor; empty if it does not say."""
    done = device.run(["uname", "-m"])
    return "" if done.status else done.stdout.decode(errors="replace").strip()


def _failed(device: Device, native: Native, done: Done, errors: str) -> Exception:
    """Why the runner ended without a report."""
    if done.status in _STATUS_NO_PROGRAM:
        loader = elf.built(native.runner).loader
        return DeviceError(
            f"{device.spec}: {native.runner} does not start there ({_last(done)}): it is started by "
            f"{loader or 'nothing'}, so build it for the system of the device (docs/devices-native.md says how)."
        )
    if done.status == agent.LACKS:
        return DeviceError(f"{device.spec}: {_last(done)}")
    return failure(device.spec, done.status, errors)


def _last(done: Done) -> str:
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.status}"


def _health(device: Device) -> Mapping[str, Any]:
    return device.health() if isinstance(device, Watched) else {}


def _filled(found: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What the runner found, and what it could not see from the device itself."""
    return {**found, **{key: value for key, value in other.items() if found.get(key) is None}}
