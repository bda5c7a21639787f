"""Spec: which device, as the user writes it, and the registry of kinds of devices.

A spec has the form::

    KIND[://[user@][host][:port][?name=value&...]]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from urllib.parse import parse_qsl, urlsplit

from edgepress.devices.base import Device
from edgepress.errors import DeviceError, PluginError

GROUP = "edgepress.devices"
BUILT_IN = {
    "local": "edgepress.devices.local:Local.of",
    "ssh": "edgepress.devices.ssh:Ssh.of",
    "adb": "edgepress.devices.adb:Adb.of",
    "emulated": "edgepress.devices.emulated:Emulated.of",
}
"""Where every kind is made; imported when first used."""

_PLAIN = re.compile(r"[A-Za-z0-9._%:\[\]-]*")


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


def parse(text: str) -> Spec:
    """Read a spec.

    Raises:
        DeviceError: it is none.
    """
    kind, _, rest = text.partition("://")
    if not rest and "?" in kind:
        kind, _, query = kind.partition("?")
        rest = f"?{query}"
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError as error:
        raise DeviceError(f"{text!r} names no device ({error}): write ssh://user@host:port, say.") from None
    settings = parse_qsl(parts.query, keep_blank_values=True)
    host, user = parts.hostname or "", parts.username or ""
    plain = _PLAIN.fullmatch(host) and _PLAIN.fullmatch(user) and not host.startswith("-") and not user.startswith("-")
    if not kind or not plain or parts.path or parts.fragment or parts.password is not None:
        raise DeviceError(
            f"{text!r} names no device: write local, ssh://user@host:port, adb://serial or emulated://cortex-a72."
        )
    if len(dict(settings)) != len(settings):
        raise DeviceError(f"{text!r} names a setting twice: name it once.")
    return Spec(text, kind, user, host, port, dict(settings))


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
        try:
            return others[spec.kind].load()  # type: ignore[no-any-return]
        except Exception as error:  # whatever another package raises when it is imported
            raise PluginError(f"The device kind {spec.kind!r} cannot be loaded: {error}.") from error
    kinds = (*BUILT_IN, *others)
    near = get_close_matches(spec.kind.lower(), kinds, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise DeviceError(f"There is no kind of device {spec.kind!r}{meant}: choose one of {', '.join(kinds)}.")
