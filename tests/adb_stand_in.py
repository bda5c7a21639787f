"""A stand-in for adb: the device is a folder, its shell is this machine's. No phone was at hand.

``adb`` on the PATH starts this file; the folder and what is played are told by variables::

    STAND_IN_ROOT     the folder; /data/local/tmp of the device lies below it
    STAND_IN_DEVICES  what ``adb devices`` lists, "serial state" separated by semicolons ("phone device")
    STAND_IN_FULL     the disk is full after this many bytes of one file
    STAND_IN_CUT      the device goes at the first command that holds this text
    STAND_IN_OLD      as before Android 7: stderr in stdout, other line ends, no exit status
    STAND_IN_WRAP     words that programs which are pushed are started with (an emulator), and PATH for `uname` beside
    STAND_IN_PATH     a folder of programs that go first
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = "/data/local/tmp"


def main(words: list[str]) -> int:
    """Play adb."""
    root = Path(os.environ["STAND_IN_ROOT"])
    (root / HOME.lstrip("/")).mkdir(parents=True, exist_ok=True)
    with (root / "log").open("a") as log:
        log.write(json.dumps(words) + "\n")
    listed = dict(line.split(None, 1) for line in os.environ.get("STAND_IN_DEVICES", "phone device").split(";") if line)
    if words == ["devices"]:
        print("* daemon not running; starting now at tcp:5037", file=sys.stderr)
        print("List of devices attached")
        print("".join(f"{serial}\t{state}\n" for serial, state in listed.items()))
        return 0
    if words[0] != "-s" or listed.get(words[1]) != "device":
        print(f"error: device '{words[1]}' not found", file=sys.stderr)
        return 1
    if os.environ.get("STAND_IN_CUT") and os.environ["STAND_IN_CUT"] in " ".join(words[2:]):
        print("error: closed", file=sys.stderr)
        return 1
    if words[2] == "shell":
        return shell(root, words[3:])
    return (push if words[2] == "push" else pull)(root, *words[3:])


def push(root: Path, source: str, target: str) -> int:
    """Copy a file to the device; programs get an emulator in front if one is set."""
    place, content = root / target.lstrip("/"), Path(source).read_bytes()
    if len(content) > int(os.environ.get("STAND_IN_FULL", len(content))):
        print(f"adb: error: failed to copy '{source}' to '{target}': remote No space left on device", file=sys.stderr)
        return 1
    if os.environ.get("STAND_IN_WRAP") and place.name == "edgerun":
        place.with_name("edgerun.real").write_bytes(content)
        place.with_name("edgerun.real").chmod(0o755)
        content = f'#!/bin/sh\nexec {os.environ["STAND_IN_WRAP"]} ./edgerun.real "$@"\n'.encode()
    place.write_bytes(content)
    print(f"{source}: 1 file pushed, 0 skipped. 9.9 MB/s ({len(content)} bytes in 0.010s)")
    return 0


def pull(root: Path, source: str, target: str) -> int:
    """Copy a file from the device."""
    place = root / source.lstrip("/")
    if not place.is_file():
        print(f"adb: error: failed to stat remote object '{source}': No such file or directory", file=sys.stderr)
        return 1
    shutil.copyfile(place, target)
    return 0


def shell(root: Path, words: list[str]) -> int:
    """Run what the device's shell would be handed: all words joined by blanks."""
    text = " ".join(words).replace(HOME, f"{root}{HOME}")
    environment = {**os.environ, "PATH": f"{os.environ.get('STAND_IN_PATH', '')}:{os.environ['PATH']}"}
    old = "STAND_IN_OLD" in os.environ
    errors = subprocess.STDOUT if old else None
    done = subprocess.run(["sh", "-c", text], stdout=subprocess.PIPE, stderr=errors, env=environment, check=False)
    sys.stdout.buffer.write(done.stdout.replace(b"\n", b"\r\n") if old else done.stdout)
    return 0 if old else done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
