"""What a real adb and adbd do with :class:`Adb`; started in a network namespace of its own, prints what it saw as JSON.

adbd_driver.py SET-UP SCRATCH RUNNER LIBRARY MODEL
"""

from __future__ import annotations

import fcntl
import importlib
import io
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgepress.devices import Agent, adb, open_device
from edgepress.errors import DeviceError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
adbd: Any = importlib.import_module("adbd")  # the tool that sets it up

SERIAL = "127.0.0.1:5555"
WORDS = ["a b", "$HOME", "`id`", "'", '"', "\\", ";", "&&", "*", "-n", "é", "", "#", "%s"]
SHOW = "import sys; print(sys.argv[1:]); sys.stderr.write(sys.stdin.read()); sys.exit(7)"


def main(set_up: str, scratch: str, runner: str, library: str, model: str) -> int:
    """Print what was seen."""
    folder = Path(scratch)
    loopback_up()
    adb.HOME = str(folder / "device")
    Path(adb.HOME).mkdir()
    program = folder / "bin" / "adb"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(adbd.command(Path(set_up), "adb"))} "$@"\n')
    program.chmod(0o755)
    os.environ.update(PATH=f"{program.parent}:{os.environ['PATH']}", HOME=scratch)
    os.environ.pop("ANDROID_SERIAL", None)
    spec = f"adb://{SERIAL}?runner={runner}&library={library}"
    with started(adbd.command(Path(set_up), "adbd"), folder) as daemon, served(program, folder):
        found = seen(spec, Path(model).read_bytes())
        found["gone"] = gone(spec, daemon)
    print(json.dumps(found))
    return 0


def loopback_up() -> None:
    """A new namespace has its loopback down: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background."""
    with (folder / "log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def served(program: Path, folder: Path) -> Iterator[None]:
    """adb's server, connected to the daemon."""
    with started([str(program), "nodaemon", "server"], folder):
        for _ in range(100):
            told = subprocess.run([program, "connect", SERIAL], capture_output=True, text=True, check=False).stdout
            if "connected to" in told:
                break
            time.sleep(0.1)
        yield


def seen(spec: str, model: bytes) -> dict[str, Any]:
    """Programs, files, jobs."""
    feed = {"image": np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)}
    wanted = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)[0]
    with open_device(spec) as device:
        done = device.run([sys.executable, "-c", SHOW, *WORDS], stdin=b"line\nline\n")
        host = Agent(device)
        host.send("m.onnx", model)
        host.send_feeds("f.npz", [feed])
        answer = host.perform({"task": "outputs", "model": "m.onnx", "feeds": "f.npz", "to": "o.npz"})
        with np.load(io.BytesIO(host.fetch("o.npz"))) as archive:
            same = archive["0/0"].tobytes() == wanted.tobytes()
        found = {
            "words": [done.status, done.stdout.decode() == f"{WORDS}\n", done.stderr.decode()],
            "signal": device.run(["sh", "-c", "kill -11 $$"]).status,
            "outputs": [answer.report["outputs"], same],
            "late": said(lambda: device.run(["sleep", "60"], timeout=1.0)),
            "missing": said(lambda: device.pull("none", Path("none"))),
            "other": said(lambda: open_device(spec.replace(SERIAL, "nobody")).run(["true"])),
        }
    return {**found, "left": [path.name for path in Path(adb.HOME).glob("edgepress*")]}


def gone(spec: str, daemon: subprocess.Popen[bytes]) -> str:
    """The daemon ends in the middle of a program."""
    with open_device(spec) as device:
        device.run(["true"])
        threading.Timer(1.0, daemon.send_signal, [signal.SIGKILL]).start()
        return said(lambda: device.run(["sleep", "20"], timeout=15.0))


def said(action: Callable[[], object]) -> str:
    """The error of an action."""
    try:
        action()
    except DeviceError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
