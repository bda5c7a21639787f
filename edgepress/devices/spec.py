"""Spec: which device, as the user writes it, and the registry of kinds of devices.

A spec has the form::

    KIND[://[user@][host][:port]][?name=value&...]

Hosts keep their capitals, for they may be names of a user's own. Values of settings may hold anything, written with
percent signs where need be (``%26`` is an ampersand); a plus sign stands for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import unquote

from edgepress.devices.base import Device, Native
from edgepress.errors import DeviceError, PluginError

GROUP = "edgepress.devices"
BUILT_IN = {
    "local": "edgepress.devices.local:Local.of",
    "ssh": "edgepress.devices.ssh:Ssh.of",
    "adb": "edgepress.devices.adb:Adb.of",
    "emulated": "edgepress.devices.emulated:Emulated.of",
}
"""Where every kind is made; imported when first used."""

_FORM = re.compile(
    r"(?P<kind>[A-Za-z0-9][A-Za-z0-9_.+-]*)"
    r"(?:://(?:(?P<user>[\w.][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.][\w.-]*)?(?::(?P<port>[0-9]{1,5}))?)?"
    r"(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
"""No user and no host begins with a dash: programs would take it for an option."""

_CPUS = re.compile(r"[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?)*", re.ASCII)
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Spec:
    """A device as named by the user: ``text`` as it was written, and its parts; ``settings`` are those of the query."""

    text: str
    kind: str
    user: str = ""
    host: str = ""
    port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def only(self, *known: str) -> None:
        """Refuse settings other than these.

        Raises:
            DeviceError: names the setting.
        """
        for name in self.settings:
            if name not in known:
                may = f"it may be {', '.join(known)}" if known else "it has none"
                raise DeviceError(f"{self.kind} devices have no setting {name!r} ({self.text}): {may}.")

    def cpus(self) -> tuple[int, ...]:
        """The setting ``cpus``, ``0,2`` or ``4-7``: processors to stay on; empty without it.

        Raises:
            DeviceError: it is no list of processors.
        """
        text = self.settings.get("cpus")
        if text is None:
            return ()
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")] if _CPUS.fullmatch(text) else []
        found = {cpu for pair in ends for cpu in range(pair[0], pair[-1] + 1)}
        if not found or any(pair[0] > pair[-1] for pair in ends):
            raise DeviceError(f"{text!r} is no list of processors ({self.text}): write cpus=0,2 or cpus=4-7, say.")
        return tuple(sorted(found))

    def native(self) -> Native | None:
        """The settings ``runner`` and ``library``, files of this machine for a device without Python.

        Raises:
            DeviceError: one is named without the other, with a Python, or is not there.
        """
        named = {name: self.settings[name] for name in ("runner", "library") if name in self.settings}
        if not named:
            return None
        if len(named) == 1 or "python" in self.settings:
            raise DeviceError(f"{self.text!r}: name runner and library together and no python, or python alone.")
        runner, library = (Path(expanded(named[name])) for name in ("runner", "library"))
        for path in (runner, library):
            if not path.is_file():
                raise DeviceError(f"{self.text!r}: there is no file {path} here.")
        return Native(runner, library)


def parse(text: str) -> Spec:
    """Read a spec.

    Raises:
        DeviceError: it is none.
    """
    form = _FORM.fullmatch(text)
    port = int(form["port"]) if form and form["port"] else None
    if form is None or not (port is None or 0 < port <= LAST_PORT):
        raise DeviceError(
            f"{text!r} names no device: write local, ssh://user@host:port, adb://serial or emulated://cortex-a72."
        )
    pairs = [part.partition("=") for part in (form["query"] or "").split("&") if part]
    settings = {unquote(name): unquote(value) for name, _, value in pairs}
    if any("\0" in value for value in settings.values()):
        raise DeviceError(f"{text!r} names no device: no name on any system holds a NUL (%00).")
    if len(settings) != len(pairs):
        raise DeviceError(f"{text!r} names a setting twice: name it once.")
    host = (form["host"] or "").removeprefix("[").removesuffix("]")
    return Spec(text, form["kind"], form["user"] or "", host, port, settings)


def expanded(path: str) -> str:
    """A path of this machine whose ``~`` is a home folder; as it is where there is no such user."""
    return os.path.expanduser(path)  # that of pathlib raises RuntimeError then


def open_device(text: str) -> Device:
    """The device of a spec; nothing is sent to it before it is used.

    Raises:
        DeviceError: the text names no device, or one that cannot be had here.
        PluginError: the kind comes from another package and cannot be used.
    """
    spec = parse(text)
    return _maker(spec)(spec)


def _maker(spec: Spec) -> Callable[[Spec], Device]:
    if spec.kind in BUILT_IN:
        place, _, names = BUILT_IN[spec.kind].partition(":")
        found: object = import_module(place)
        for name in names.split("."):
            found = getattr(found, name)
        return found  # type: ignore[return-value]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if spec.kind in others:
        return partial(_plugged, others[spec.kind])
    kinds = (*BUILT_IN, *others)
    near = get_close_matches(spec.kind.lower(), kinds, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise DeviceError(f"There is no kind of device {spec.kind!r}{meant}: choose one of {', '.join(kinds)}.")


def _plugged(point: EntryPoint, spec: Spec) -> Device:
    """A device of another package, which may be broken."""
    try:
        return point.load()(spec)  # type: ignore[no-any-return]
    except DeviceError:
        raise
    except Exception as error:  # whatever another package raises when it is imported or makes a device
        raise PluginError(f"The device kind {spec.kind!r} cannot be loaded or made ({error}): mend it.") from error
