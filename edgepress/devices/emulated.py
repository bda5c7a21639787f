"""Emulated ARM cores as devices: ``emulated://cortex-a53|cortex-a55|cortex-a72|cortex-a76``.

Programs run under qemu-user on this machine, in a folder of their own. Values are exact: outputs are those of a real
core. Wall time is never called latency: qemu computes floats in software, so that int8 looks several times as good as
it is. What can be told is how many instructions a run has (:mod:`edgepress.devices.counting`).

Settings: ``folder``, where ``tools/arm/setup.py`` has put the emulator, and ``onnxruntime``, a version that lies
beside the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepress.devices.base import TIMEOUT_S, Done, Level
from edgepress.devices.emulated_cores import SETUP, Crash, cause, command, core_name, default_folder, environment
from edgepress.devices.local import Local
from edgepress.devices.spec import Spec, expanded
from edgepress.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Place:
    """Which core, in which folder, with which onnxruntime (empty: that of the folder)."""

    core: str
    folder: Path
    onnxruntime: str = ""


class Emulated(Local):
    """An emulated core."""

    level: Level = "counted"

    def __init__(self, spec: str, place: Place, plugin: Path | None = None) -> None:
        """Use a core, with a plugin of qemu if one is named.

        Raises:
            DeviceError: the folder is not set up, or lacks that onnxruntime.
        """
        super().__init__(spec)
        self.place = place
        self.python = command(place.folder, place.core, plugin)
        self.environment = environment(place.folder, place.onnxruntime)

    @classmethod
    def of(cls, spec: Spec) -> Emulated:
        """The device of a spec."""
        spec.only("folder", "onnxruntime")
        if spec.user or spec.port is not None:
            raise DeviceError(f"{spec.text!r}: an emulated core has no user and no port.")
        version = spec.settings.get("onnxruntime", "")
        if not set(version) <= set("0123456789."):
            raise DeviceError(f"{spec.text!r}: {version!r} is no version of onnxruntime: write 1.21.0, say.")
        folder = Path(expanded(spec.settings["folder"])) if spec.settings.get("folder") else default_folder()
        return cls(spec.text, Place(core_name(spec.host), folder, version))

    def with_plugin(self, name: str) -> Emulated:
        """The same core in a folder of its own, with a plugin that the set-up has built; to be closed by the caller.

        Raises:
            DeviceError: it was not built.
        """
        folder = self.place.folder.resolve()
        plugin = folder / "plugins" / f"{name}.so"
        if not plugin.is_file():
            raise DeviceError(
                f"{folder} has no {plugin.name}, which counts instructions: install a C compiler (cc), then "
                f"{SETUP} {folder}."
            )
        return Emulated(self.spec, self.place, plugin)

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = TIMEOUT_S) -> Done:
        """Run a program.

        Raises:
            Crash: a signal ended it, an illegal instruction for instance.
            DeviceError: the time is up, or qemu cannot be started.
        """
        done = super().run(words, stdin=stdin, timeout=timeout)
        why = cause(done.status, done.stderr.decode(errors="replace")) if done.status else None
        if why is not None:
            raise Crash(f"{self.spec}: {why}.")
        return done

    def __enter__(self) -> Emulated:
        """The core."""
        return self
