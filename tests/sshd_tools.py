"""A real OpenSSH server on the loopback, with keys of its own, for whoever runs the tests.

It is the system's, or that which `tools/sshd.py` has unpacked; tests that need it are skipped without one. Nothing of
the user is read or written: no key, no known host, no configuration. (Run by root it wants an empty folder /run/sshd,
which is made.)
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[1]
PATIENCE_S = 20.0
TALKATIVE = 'echo Welcome to the kitchen; printf %s Mind; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"'
"""What the login shell of this user prints stands before everything else."""


def tool() -> Any:
    """tools/sshd.py, which is no package."""
    spec = importlib.util.spec_from_file_location("sshd_tool", ROOT / "tools" / "sshd.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sshd_tool"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def until(holds: Callable[[], bool]) -> bool:
    """Wait for something that happens elsewhere; whether it has."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def processes(word: str) -> list[int]:
    """Processes that were started with this in a word of theirs, or run in a folder below it; not this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes().decode(errors="replace"), os.readlink(entry / "cwd")
            except OSError:  # ended meanwhile, or another user's
                continue
            if any(word in text for text in told):
                found.append(int(entry.name))
    return found


def running(program: str, folder: Path) -> list[int]:
    """Processes of a program in a folder below this one."""
    found = []
    for pid in processes(str(folder)):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if name == program and os.readlink(f"/proc/{pid}/cwd").startswith(str(folder)):
                found.append(pid)
    return found


def children(pid: int) -> list[int]:
    """Processes below one, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@dataclass(frozen=True)
class Loopback:
    """The server, and what a client of it needs."""

    folder: Path
    port: int
    server: subprocess.Popen[bytes]

    def spec(self, *, key: str = "key", known: str = "known", **settings: str) -> str:
        """A device on it: with one of the keys, and one of the lists of known hosts."""
        config = self.folder / f"config-{key}-{known}"
        config.write_text(
            f"UserKnownHostsFile {self.folder / known}\nGlobalKnownHostsFile none\nUpdateHostKeys no\n"
            f"IdentityFile {self.folder / key}\nIdentitiesOnly yes\nIdentityAgent none\n"
        )
        named = {"config": str(config), **settings}
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in named.items())
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}?{query}"

    @contextlib.contextmanager
    def user(self, command: str) -> Iterator[str]:
        """A key of somebody for whom the server runs this instead; the name of the key."""
        name, who = "other", self.folder / "authorized"
        if not (self.folder / name).exists():
            make_key(self.folder / name)
        before = who.read_text()
        public = (self.folder / f"{name}.pub").read_text()
        who.write_text(f'{before}command="{command}" {public}')
        try:
            yield name
        finally:
            who.write_text(before)

    def cut(self) -> None:
        """Kill the processes that serve connections, as if the network or the device's sshd went away."""
        for pid in children(self.server.pid):
            with contextlib.suppress(OSError):  # gone with the one before
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)


def make_key(path: Path) -> None:
    """A pair of keys without a pass phrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def keys(folder: Path) -> None:
    """Keys of the host and of users, and who is let in."""
    for name in ("host", "other-host", "key", "talkative", "stranger"):
        make_key(folder / name)
    public = {path.stem: path.read_text().strip() for path in folder.glob("*.pub")}
    (folder / "authorized").write_text(f'{public["key"]}\ncommand="{TALKATIVE}" {public["talkative"]}\n')


def known_hosts(folder: Path, port: int) -> None:
    """Lists of known hosts: with the key, with another one, with none."""
    for name, source in (("known", "host"), ("changed", "other-host")):
        kind, key, *_ = (folder / f"{source}.pub").read_text().split()
        (folder / name).write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "empty").write_text("")


def environment(server: Any, folder: Path) -> dict[str, str]:
    """Of an unpacked sshd: its libraries, and a user that it wants."""
    if server.libraries is None:
        return dict(os.environ)
    own = pwd.getpwuid(os.geteuid())
    user = f"{own.pw_name}:x:{own.pw_uid}:{own.pw_gid}::{folder}:/bin/sh"  # with no login settings of its own
    (folder / "passwd").write_text(f"{user}\nsshd:x:65532:65534::/:/usr/sbin/nologin\n")
    (folder / "shadow").write_text(f"{own.pw_name}:*:19000:0:99999:7:::\n")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(server.libraries),
        "LD_PRELOAD": "libnss_wrapper.so",
        "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
        "NSS_WRAPPER_SHADOW": str(folder / "shadow"),
        "NSS_WRAPPER_GROUP": "/etc/group",
    }


def configuration(server: Any, folder: Path, port: int) -> str:
    """What sshd is told."""
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        "PidFile none",
        "UsePAM no",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
    ]
    for option, name in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
        beside = server.program.parents[1] / "lib" / "openssh" / name  # since OpenSSH 9.8 and 10.0
        if server.libraries is not None and beside.is_file():
            lines.append(f"{option} {beside}")
    return "\n".join(lines) + "\n"


def start(server: Any, folder: Path) -> Loopback:
    """Start it on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    known_hosts(folder, port)
    (folder / "sshd_config").write_text(configuration(server, folder, port))
    command = [server.program, "-D", "-f", folder / "sshd_config", "-E", folder / "log"]
    process = subprocess.Popen(command, env=environment(server, folder), stdin=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0 or process.poll() is not None

    assert until(listens) and process.poll() is None, (folder / "log").read_text()
    return Loopback(folder, port, process)


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """The server, for all tests of a process."""
    sshd = tool()
    server = sshd.found(sshd.default_folder())
    if server is None:
        pytest.skip(f"no sshd on this system and none in {sshd.default_folder()}: make test-devices sets one up")
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh on this system: install the OpenSSH client")
    folder = tmp_path_factory.mktemp("sshd")
    keys(folder)
    running = start(server, folder)
    yield running
    running.server.terminate()
    running.server.wait()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Path]:
    """Where the device puts its folder; afterwards everything is gone."""
    folder = tmp_path / "there"
    folder.mkdir()
    yield folder
    assert until(lambda: not list(folder.iterdir())), f"files are left: {list(folder.iterdir())}"
    assert until(lambda: not processes(str(folder))), f"processes are left: {processes(str(folder))}"
