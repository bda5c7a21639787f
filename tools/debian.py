"""Debian packages, unpacked below a folder: nothing is installed and no privileges are needed.

apt-get works on package lists of its own, so that those of the machine are not written and may lack the architecture.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = ("apt-get", "apt-config", "dpkg", "dpkg-deb", "tar")


class Failure(Exception):
    """Something is missing or cannot be used; the message says what to do."""


def claim(folder: Path, mark: str) -> None:
    """Mark the folder as ours, by a file, before anything is written to it.

    Raises:
        Failure: there is something in it that was not made this way, or this is no Debian.
    """
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise Failure(f"{program} is missing: what is set up is made of Debian packages, use Debian or Ubuntu.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / mark).is_file():
        raise Failure(f"{folder} is not empty and was not made by this script: name another folder.")
    (folder / mark).write_text("{}\n", encoding="utf-8")


def own_architecture() -> str:
    """This machine's, as Debian names it."""
    return spoken(["dpkg", "--print-architecture"])


def package_list() -> Path:
    """The list of packages that this machine has."""
    return Path(spoken(["apt-config", "shell", "S", "Dir::State::status/f"]).removeprefix("S='").removesuffix("'"))


def fetch(
    folder: Path, architecture: str, names: Sequence[str], sources: Path | None, installed: Path | None
) -> list[Path]:
    """Download packages with all they depend on, except what the package list ``installed`` says is there."""
    home = folder / "fetched" / ("whole" if installed is None else "missing")
    for part in ("state/lists/partial", "cache/archives/partial"):
        (home / part).mkdir(parents=True, exist_ok=True)
    (home / "status").write_bytes(b"" if installed is None else installed.read_bytes())
    settings = {
        "Dir::State": home / "state",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "APT::Update::Post-Invoke::": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
        **({} if sources is None else {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-"}),
    }
    command = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    spoken([*command, "update"])
    try:
        spoken([*command, "--yes", "--download-only", "install", *names])
    except Failure as error:
        hint = "if the apt sources of this machine have no packages for it, hand over others by --sources"
        raise Failure(f"apt-get finds no {' '.join(names)} for {architecture}: {hint}. {error}") from error
    return sorted((home / "cache" / "archives").glob("*.deb"))


def unpack(packages: Sequence[Path], folder: Path) -> None:
    """Unpack packages over each other, the way a merged /usr has them."""
    for part in ("bin", "lib", "sbin"):
        (folder / "usr" / part).mkdir(parents=True)
        (folder / part).symlink_to(f"usr/{part}")
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
            options = ("--extract", "--keep-directory-symlink", "--no-same-owner", "--exclude=./usr/share/*")
            status = subprocess.run(
                ["tar", *options, "--directory", folder], stdin=files.stdout, check=False
            ).returncode
        if status or files.returncode:
            raise Failure(f"{package} cannot be unpacked: remove it and run this again.")


def spoken(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        Failure: it fails; the message is its last words.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise Failure(f"{Path(command[0]).name} failed: {' '.join(words[-4:])}")
    return done.stdout.strip()
