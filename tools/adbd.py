"""Set up a real adb and the daemon of its other side for tests: `python tools/adbd.py [FOLDER]`, by default build/adbd.

Both are Debian packages, which are unpacked with all they need and not installed; ``tree/`` has them. The daemon is the
one that phones have, built for Linux; Debian has it since 13 (trixie). Elsewhere hand over apt sources that have it::

    deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] MIRROR trixie main

It listens to everybody and asks nobody, so the tests start it in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from debian import Failure, claim, fetch, own_architecture, unpack

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "build" / "adbd"
MARK = "edgepress-adbd.json"
PACKAGES = ("adb", "adbd")
TOOLS = Path("usr", "lib", "android-sdk", "platform-tools")


def main(arguments: Sequence[str] | None = None) -> int:
    """Set the folder up."""
    parser = argparse.ArgumentParser(description="Set up adb and adbd for tests.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT, help="where to (default build/adbd)")
    parser.add_argument("--sources", type=Path, help="apt sources to use instead of this machine's")
    given = parser.parse_args(arguments)
    try:
        set_up(given.folder.resolve(), given.sources.resolve() if given.sources else None)
    except Failure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{given.folder} has adb and adbd")
    return 0


def set_up(folder: Path, sources: Path | None = None) -> None:
    """Have both in ``folder/tree``; nothing is done if they are there.

    Raises:
        Failure: packages cannot be had, or the folder holds something else.
    """
    if ready(folder):
        return
    claim(folder, MARK)
    for part in ("tree", "fetched"):
        shutil.rmtree(folder / part, ignore_errors=True)
    unpack(fetch(folder, own_architecture(), PACKAGES, sources, None), folder / "tree")
    shutil.rmtree(folder / "fetched")


def ready(folder: Path) -> bool:
    """Whether both are there."""
    return all((folder / "tree" / TOOLS / name).is_file() for name in PACKAGES)


def command(folder: Path, name: str) -> list[str]:
    """The words that start one of the two, with the libraries it was built with."""
    tree = folder / "tree"
    loader = next(path for path in sorted(tree.glob("usr/lib*/ld-linux*.so.*")) if path.is_file())
    libraries = sorted(tree.glob("usr/lib/*-linux-gnu*"))
    paths = ":".join(str(path) for found in libraries for path in (found, found / "android"))
    return [str(loader), "--library-path", paths, str(tree / TOOLS / name)]


if __name__ == "__main__":
    sys.exit(main())
