"""Set up an OpenSSH server for the tests of ssh devices: `python tools/sshd.py [FOLDER]`, by default build/sshd.

Debian packages are unpacked below FOLDER; nothing is installed, no server is started and no privileges are needed.
Where the system has an sshd, that one is used and nothing is done. The tests start it on a port of the loopback, with
keys of its own; `tests/sshd_tools.py` says how.

An sshd that root starts wants a user named sshd. Such a user is shown to it, and to nobody else, by nss_wrapper.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # also where another script or a test loads this one
from debian import Failure, claim, fetch, own_architecture, package_list, unpack

ROOT = Path(__file__).parents[1]
VARIABLE = "EDGEPRESS_SSHD"
MARK = "edgepress-sshd.json"
PACKAGES = ("openssh-server", "libnss-wrapper")
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"))


@dataclass(frozen=True, slots=True)
class Server:
    """An sshd, and the folder of its libraries where it is not the system's."""

    program: Path
    libraries: Path | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Set the folder up and say what is in it."""
    parser = argparse.ArgumentParser(description="Set up an OpenSSH server for tests.")
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder(), help="where to (default build/sshd)")
    given = parser.parse_args(arguments)
    try:
        print(set_up(given.folder.resolve()))
    except Failure as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def default_folder() -> Path:
    """EDGEPRESS_SSHD, or build/sshd in this repository."""
    return Path(os.environ.get(VARIABLE) or ROOT / "build" / "sshd")


def set_up(folder: Path) -> str:
    """Make the folder ready if the system has no sshd; returns what there is.

    Raises:
        Failure: a program is missing, a package cannot be had, or the folder holds something else.
    """
    known = found(folder)
    if known is not None:
        return f"{known.program} is there."
    claim(folder, MARK)
    for part in ("fetched", "root"):
        shutil.rmtree(folder / part, ignore_errors=True)
    unpack(fetch(folder, own_architecture(), PACKAGES, None, package_list()), folder / "root")
    shutil.rmtree(folder / "fetched")
    wrapper = next((folder / "root" / "usr" / "lib").rglob("libnss_wrapper.so"), None)
    program = folder / "root" / "usr" / "sbin" / "sshd"
    if wrapper is None or not program.is_file():
        raise Failure(f"{' and '.join(PACKAGES)} hold no sshd and no nss_wrapper: this script is too old for them.")
    mark = {"program": str(program.relative_to(folder)), "libraries": str(wrapper.parent.relative_to(folder))}
    (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    return f"{program} is there."


def found(folder: Path) -> Server | None:
    """The sshd of the system, or else that of the folder; None if there is none."""
    system = shutil.which("sshd", path=PLACES)
    if system is not None:
        return Server(Path(system).resolve())
    mark = folder / MARK
    noted: dict[str, str] = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {}
    if not noted:  # never set up, or still at it
        return None
    return Server(folder.resolve() / noted["program"], folder.resolve() / noted["libraries"])


if __name__ == "__main__":
    sys.exit(main())
