"""Build the native runner for emulated ARM cores: `python tools/arm/native.py [FOLDER]`, by default build/arm.

The folder is one that tools/arm/setup.py has filled. A cross compiler is fetched from Debian's packages and unpacked to
``cross/``; nothing is installed. ``native/`` then has ``edgerun`` for arm64, and ``libonnxruntime.so`` out of the wheel
in ``site/``. Running it again does nothing until the runner's source or the library changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from emulator import MARK, default_folder, ready

from edgepress.devices.runner import FOLDER

sys.path.append(str(Path(__file__).parents[1]))  # the folder of scripts that serve more than one set-up
from debian import Failure, claim, fetch, own_architecture, package_list, spoken, unpack

PACKAGES = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
COMPILER = "aarch64-linux-gnu-gcc"
OPTIONS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
DIGEST = "sources.sha256"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build it and say where it is."""
    parser = argparse.ArgumentParser(description="Build the native runner for emulated ARM cores.")
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder(), help="where to (default build/arm)")
    parser.add_argument("--sources", type=Path, help="apt sources to use instead of this machine's")
    given = parser.parse_args(arguments)
    try:
        print(build(given.folder.resolve(), given.sources.resolve() if given.sources else None))
    except Failure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def build(folder: Path, sources: Path | None = None) -> str:
    """Have the runner and the library in ``folder/native``; returns what to say about it.

    Raises:
        Failure: the folder is not set up, packages cannot be had, or the compiler fails.
    """
    if ready(folder) is None:
        raise Failure(f"{folder} holds no emulated ARM: set it up by python tools/arm/setup.py {folder}")
    place, library = folder / "native", found_library(folder)
    wanted = digest(library)
    if (place / DIGEST).is_file() and (place / DIGEST).read_text(encoding="ascii") == wanted:
        return f"{place} has the runner"
    tree = cross_compiler(folder, sources)
    place.mkdir(exist_ok=True)
    libraries = os.pathsep.join(sorted(str(path) for path in (tree / "usr" / "lib").glob("*-linux-gnu*")))
    environment = {"PATH": f"{tree / 'usr' / 'bin'}{os.pathsep}{os.environ['PATH']}", "LD_LIBRARY_PATH": libraries}
    new, compiler = place / "edgerun.new", tree / "usr" / "bin" / COMPILER
    spoken([compiler, f"--sysroot={tree}", *OPTIONS, FOLDER / "edgerun.c", "-o", new, "-ldl"], environment)
    new.replace(place / "edgerun")
    shutil.copyfile(library, place / "libonnxruntime.so")
    (place / DIGEST).write_text(wanted, encoding="ascii")
    return f"{place} has the runner, built by {spoken([compiler, '--version'], environment).splitlines()[0]}"


def found_library(folder: Path) -> Path:
    """The library of onnxruntime for arm64, in the wheel."""
    found = sorted((folder / "site" / "onnxruntime" / "capi").glob("libonnxruntime.so.*"))
    if not found:
        raise Failure(f"The onnxruntime in {folder / 'site'} has no libonnxruntime.so: its wheels since 1.22 have it.")
    return found[0]


def digest(library: Path) -> str:
    """Of what the folder is made from."""
    parts = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    return hashlib.sha256(b"\0".join([*parts, library.name.encode()])).hexdigest()


def cross_compiler(folder: Path, sources: Path | None) -> Path:
    """The unpacked compiler, fetched if it is not there."""
    tree = folder / "cross"
    if not (tree / "usr" / "bin" / COMPILER).exists():
        if tree.exists():
            shutil.rmtree(tree)
        claim(tree, MARK)
        unpack(fetch(tree, own_architecture(), PACKAGES, sources, package_list()), tree)
        shutil.rmtree(tree / "fetched")
    return tree


if __name__ == "__main__":
    sys.exit(main())
