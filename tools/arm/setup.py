"""Set up onnxruntime for emulated ARM cores: `python tools/arm/setup.py [FOLDER]`, by default build/arm.

Three things are fetched from the package registries that this machine is set up for, and unpacked below FOLDER, and
what counts instructions is built by this machine's C compiler, if it has one; nothing is installed and no privileges
are needed::

    host/      qemu-user, and those of its libraries that this machine lacks   (apt-get, this machine's architecture)
    root/      Python and the C and C++ libraries                              (apt-get, arm64)
    site/      onnxruntime and numpy, the versions of constraints.txt          (pip, wheels for aarch64)
    plugins/   qemu's plugins that count instructions                          (cc)

``--also VERSION`` adds another onnxruntime beside, in ``site-VERSION/``; devices name it by ``?onnxruntime=VERSION``.

apt-get works on package lists of its own, so that those of the machine need no arm64 and are not written. Running it
again does nothing if everything is there in the versions wanted, and starts over otherwise.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import plugins
from emulator import MARK, default_folder, emulated, ready, told, write_cores

from edgepress.devices.emulated_cores import CORES, cpuinfo
from edgepress.errors import DeviceError

sys.path.append(str(Path(__file__).parents[1]))  # the folder of scripts that serve more than one set-up
from debian import Failure, claim, fetch, own_architecture, package_list, spoken, unpack

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
GUEST = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
WHEELS = ("onnxruntime", "numpy")
PROBE = (
    "import platform, numpy, onnxruntime; "
    "print(f'onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}')"
)
OLDEST_GLIBC = 17
"""Wheels tagged for glibc 2.17 (manylinux2014) and newer exist for aarch64."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Set the folder up and say what is in it."""
    parser = argparse.ArgumentParser(description="Set up onnxruntime for emulated ARM cores.")
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder(), help="where to (default build/arm)")
    parser.add_argument(
        "--sources", type=Path, help="apt sources to use instead of this machine's, if those lack arm64"
    )
    parser.add_argument("--onnxruntime", metavar="VERSION", help="another version than that of constraints.txt")
    parser.add_argument("--also", metavar="VERSION", action="append", default=[], help="one more onnxruntime beside it")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    try:
        pins = {**pinned(), **({"onnxruntime": given.onnxruntime} if given.onnxruntime else {})}
        summary = set_up(folder, pins, given.sources.resolve() if given.sources else None)
        for version in given.also:
            add(folder, version)
        print(f"{summary}; it {plugins.build(folder)}")
    except (Failure, DeviceError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def set_up(folder: Path, pins: Mapping[str, str], sources: Path | None = None) -> str:
    """Make the folder ready with these versions of wheels; returns what is in it.

    Raises:
        Failure: a program is missing, a package cannot be had, or the folder holds something else.
    """
    wanted = {
        "packages": list(GUEST),
        "wheels": dict(pins),
        "cores": {name: cpuinfo(core) for name, core in CORES.items()},
    }
    known = ready(folder)
    if known is not None and known["recipe"] == wanted:
        return f"{folder} is set up: {known['summary']}"
    claim(folder, MARK)
    for part in ("fetched", "host", "root", "cores", "plugins", "site*"):
        for place in folder.glob(part):
            shutil.rmtree(place)
    unpack(fetch(folder, own_architecture(), ("qemu-user",), sources, package_list()), folder / "host")
    unpack(fetch(folder, "arm64", GUEST, sources, None), folder / "root")
    shutil.rmtree(folder / "fetched")
    wheels(folder, pins, folder / "site")
    write_cores(folder)
    qemu = emulated(folder, "cortex-a76")  # the richest core; failing on others is for identical.py to report
    summary = told(qemu, ["-c", PROBE])
    version = spoken([qemu.command[0], "--version"], qemu.environment).split()[2]
    mark = {"recipe": wanted, "summary": f"{summary}, qemu {version}"}
    (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    return f"{folder} is set up: {mark['summary']}"


def pinned() -> dict[str, str]:
    """The versions of the wheels that constraints.txt names."""
    text = CONSTRAINTS.read_text(encoding="utf-8")
    found = {name: re.search(rf"^{name}==([^\s;]+)", text, re.MULTILINE) for name in WHEELS}
    missing = [name for name, pin in found.items() if pin is None]
    if missing:
        raise Failure(f"{CONSTRAINTS} pins no {' and no '.join(missing)}: add the version that the tests run with.")
    return {name: pin[1] for name, pin in found.items() if pin is not None}


def add(folder: Path, version: str) -> None:
    """Have another onnxruntime beside the usual one; numpy is shared."""
    site = folder / f"site-{version}"
    if not site.is_dir():
        wheels(folder, {"onnxruntime": version}, site)


def wheels(folder: Path, pins: Mapping[str, str], site: Path) -> None:
    """Download and unpack the wheels that the emulated Python can use, into a new folder."""
    pythons = sorted((folder / "root" / "usr" / "bin").glob("python3.*[0-9]"))
    if not pythons:
        raise Failure("apt-get brought no Python for arm64: see what the package python3-minimal depends on.")
    version, newest = pythons[0].name.removeprefix("python"), glibc(folder)
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(newest, OLDEST_GLIBC - 1, -1)] + ["manylinux2014_aarch64"]
    options = [word for tag in tags for word in ("--platform", tag)]
    options += ["--python-version", version, "--only-binary", ":all:", "--no-deps", "--quiet"]
    named = [f"{name}=={pin}" for name, pin in pins.items()]  # what onnxruntime imports to run a model is numpy
    with tempfile.TemporaryDirectory(prefix="fetched-", dir=folder) as made:
        spoken([sys.executable, "-m", "pip", "download", *options, "--dest", made, *named])
        new = Path(made, "site")
        for wheel in sorted(Path(made).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(new)
        new.rename(site)


def glibc(folder: Path) -> int:
    """Minor version of the glibc 2.x of the emulated system, which its library states."""
    for library in folder.glob("root/usr/lib/*/libc.so.6"):
        if found := re.search(rb"stable release version 2\.(\d+)", library.read_bytes()):
            return int(found[1])
    raise Failure("apt-get brought no libc6 2.x for arm64: the emulated system needs glibc.")


if __name__ == "__main__":
    sys.exit(main())
