"""Devices by ssh, against a real OpenSSH server on the loopback: what works, every way to fail, and nothing left there.

Every test gets a folder on "the device" that must be empty in the end, and in which nothing may run any more.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pipeline_models import MLP
from sshd_tools import Loopback, children, loopback, processes, running, there, until

from edgepress.devices import Agent, Device, open_device, ssh_connection
from edgepress.devices.ssh import signalled
from edgepress.devices.ssh_connection import CAUSES
from edgepress.errors import DeviceError, ModelError

ROOT = Path(__file__).parents[1]
WORDS = [
    "a'b",
    'c"d',
    "$(id)",
    "`id`",
    "two\nlines",
    "",
    "-n",
    "--",
    "*",
    "~",
    "~/x",
    "back\\slash",
    "é µ",
    "a;b&c|d>e",
    "%s",
]
SHELLS = ("bash", "busybox", "dash", "ksh", "mksh", "zsh")
SLEEP = shutil.which("sleep") or ""  # some shells have one of their own
LONG = ["sh", "-c", '"$0" 1000 & "$0" 1000', SLEEP]

__all__ = ["loopback", "there"]


Opened = Callable[..., Device]


@pytest.fixture
def pi(loopback: Loopback, there: Path) -> Iterator[Opened]:
    """Opens the device, with settings."""
    opened: list[Device] = []

    def open_it(**settings: str) -> Device:
        opened.append(open_device(loopback.spec(**{"folder": str(there), "python": sys.executable, **settings})))
        return opened[-1]

    yield open_it
    for device in opened:
        device.close()


def meanwhile(program: str, there: Path, action: Callable[[int], None]) -> threading.Thread:
    """Do something to the processes of a program on the device, as soon as there is one."""

    def work() -> None:
        assert until(lambda: bool(running(program, there)))
        for pid in running(program, there):
            action(pid)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def script(path: Path, text: str) -> Path:
    """An executable file."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def feeds(count: int) -> list[Mapping[str, np.ndarray]]:
    """Samples of one row."""
    return [{"x": row[None]} for row in MLP.arrays(count)["x"]]


def outputs(device: Device) -> dict[str, np.ndarray]:
    """What a model answers on a device."""
    host = Agent(device)
    job = {
        "task": "outputs",
        "model": host.send("m.onnx", MLP.proto().SerializeToString()),
        "feeds": host.send_feeds("x.npz", feeds(5)),
        "to": "y.npz",
    }
    host.perform(job)
    content = host.fetch("y.npz")
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        with np.load(file) as archive:
            return {name: archive[name] for name in archive.files}


# --- what works -------------------------------------------------------------------------------------------------------


def test_programs_get_their_words_as_they_are(pi: Opened) -> None:
    code = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
    done = pi().run([sys.executable, "-c", code, *WORDS])
    assert (done.status, done.stdout.decode().split("\0"), done.stderr) == (0, WORDS, b"")


def test_a_program_has_status_and_two_streams(pi: Opened) -> None:
    done = pi().run(["sh", "-c", "printf out; printf err >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, b"out", b"err")


@pytest.mark.parametrize("status", [0, 1, 126, 127, 255])
def test_a_status_is_the_program_s_own(status: int, pi: Opened) -> None:
    assert pi().run(["sh", "-c", f"exit {status}"]).status == status


def test_megabytes_go_in_and_come_out(pi: Opened) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    assert pi().run(["cat"], stdin=content).stdout == content


def test_a_program_may_leave_its_input_unread(pi: Opened) -> None:
    assert pi().run(["true"], stdin=bytes(3_000_000)).status == 0


def test_files_come_back_as_they_went(pi: Opened, there: Path, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(1_000_000)
    (tmp_path / "a").write_bytes(content)
    with pi() as device:
        device.push(tmp_path / "a", "m.bin")
        device.pull("m.bin", tmp_path / "b")
        (folder,) = there.iterdir()
        assert (tmp_path / "b").read_bytes() == content
        assert not [path for path in (*folder.iterdir(), *tmp_path.iterdir()) if path.name.endswith(".part")]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert device.run(["pwd", "-P"]).stdout.decode().strip() == str(folder.resolve())


def test_temporary_files_of_programs_lie_in_the_folder(pi: Opened, there: Path) -> None:
    made = pi().run(["mktemp"]).stdout.decode().strip()
    assert Path(made).parent.parent.resolve() == there.resolve()


def test_nothing_is_sent_before_it_is_used(pi: Opened, there: Path) -> None:
    device = pi()
    assert not list(there.iterdir())
    device.close()


def test_without_a_folder_it_is_the_usual_one(loopback: Loopback) -> None:
    with open_device(loopback.spec()) as device:
        folder = Path(device.run(["pwd", "-P"]).stdout.decode().strip())
        assert folder.is_dir() and folder.name.startswith("edgepress-")
    assert not folder.exists()


def test_home_is_the_one_there(loopback: Loopback, pi: Opened, tmp_path: Path) -> None:
    home = Path(pi().run(["sh", "-c", 'printf %s "$HOME"']).stdout.decode())
    name = f"edgepress-test-{os.getpid()}"
    (home / name).mkdir()
    try:
        script(home / name / "python", f'exec "{sys.executable}" "$@"')
        with pi(folder=f"~/{name}", python=f"~/{name}/python") as device:
            assert device.run(["pwd"]).stdout.decode().startswith(f"{home}/{name}/edgepress-")
            assert Agent(device).perform({"task": "identify"}).report["machine"]["python"]
    finally:
        shutil.rmtree(home / name)


def test_used_again_after_it_was_closed(pi: Opened) -> None:
    device = pi()
    first = device.run(["pwd"]).stdout
    device.close()
    device.close()
    assert device.run(["pwd"]).stdout != first


def test_no_ssh_stays_on_this_machine(loopback: Loopback, pi: Opened) -> None:
    with pi() as device:
        device.run(["true"])
        assert processes(f"{loopback.folder}/config")
    assert not processes(f"{loopback.folder}/config")


def everything_there_works(loopback: Loopback, command: str, there: Path, tmp_path: Path) -> None:
    """Words, signals, files, ends by time and by accident, for a user for whom the server runs this command."""
    with loopback.user(command) as key, open_device(loopback.spec(key=key, folder=str(there))) as device:
        code = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
        assert device.run([sys.executable, "-c", code, *WORDS]).stdout.decode().split("\0") == WORDS
        assert device.run(["sh", "-c", "kill -9 $$"]).status == -9
        (tmp_path / "a").write_bytes(b"content")
        device.push(tmp_path / "a", "a")
        assert device.run(["cat", "a"]).stdout == b"content"
        with pytest.raises(DeviceError, match="no answer within 1 s"):
            device.run(LONG, timeout=1)
        assert until(lambda: not running(SLEEP, there))
        thread = meanwhile(SLEEP, there, lambda pid: loopback.cut())
        with pytest.raises(DeviceError, match="the connection broke"):
            device.run(LONG, timeout=60)
        thread.join()
        assert until(lambda: not running(SLEEP, there) and not list(there.iterdir()))


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_any_shell_will_do(shell: str, loopback: Loopback, there: Path, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(shutil.which(shell) or "")
    command = f'PATH={tmp_path}:$PATH; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"'
    everything_there_works(loopback, command, there, tmp_path)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid on this system")
def test_a_server_that_makes_no_process_group(loopback: Loopback, there: Path, tmp_path: Path) -> None:
    everything_there_works(loopback, 'sh -c \\"$SSH_ORIGINAL_COMMAND\\"; exit', there, tmp_path)  # as dropbear does


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_model_answers_as_on_this_machine(pi: Opened) -> None:
    found = outputs(pi())
    with open_device("local") as device:
        wanted = outputs(device)
    assert found.keys() == wanted.keys() and len(wanted) == 5
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_models_are_timed_against_each_other(pi: Opened) -> None:
    host = Agent(pi())
    models = {name: host.send(f"{name}.onnx", MLP.proto(seed).SerializeToString()) for seed, name in enumerate("ab")}
    job = {
        "task": "race",
        "models": models,
        "reference": "a",
        "feeds": host.send_feeds("x.npz", feeds(2)),
        "seconds": 0.01,
        "min_rounds": 3,
    }
    report = host.perform(job).report
    assert set(report["models"]) == {"a", "b"} and report["rounds"] >= 3
    assert all(ms > 0 for row in report["models"].values() for visit in row["visits"] for ms in visit)


def test_many_files_go_through_one_connection_as_one(pi: Opened) -> None:
    host = Agent(pi())
    files = {f"{number}.onnx": bytes([number]) * 1000 for number in range(50)}
    host.send_many(files)
    assert {name: host.fetch(name) for name in ("0.onnx", "49.onnx")} == {"0.onnx": bytes(1000), "49.onnx": b"1" * 1000}
    assert host.device.run(["ls"]).stdout.decode().split() == sorted(files)


def test_a_job_stays_on_the_processors_named(pi: Opened) -> None:
    own = sorted(os.sched_getaffinity(0))[-1]
    assert Agent(pi(cpus=str(own))).perform({"task": "identify"}).report["machine"]["cores"] == 1


def test_what_a_login_shell_prints_is_none_of_the_answer(loopback: Loopback, there: Path, tmp_path: Path) -> None:
    with open_device(loopback.spec(key="talkative", folder=str(there), python=sys.executable)) as device:
        assert device.run(["printf", "hi"]).stdout == b"hi"
        assert Agent(device).perform({"task": "identify"}).report["machine"]["onnxruntime"]
        (tmp_path / "a").write_bytes(b"\0content")
        device.push(tmp_path / "a", "a")
        device.pull("a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"\0content"


def test_a_device_without_python_has_a_runner(loopback: Loopback, tmp_path: Path) -> None:
    for name in ("runner", "library"):
        (tmp_path / name).write_bytes(b"")
    named = {"runner": str(tmp_path / "runner"), "library": str(tmp_path / "library")}
    device = open_device(loopback.spec(**named))
    assert device.python is None and device.native is not None
    assert (str(device.native.runner), str(device.native.library)) == (named["runner"], named["library"])


# --- no connection ----------------------------------------------------------------------------------------------------


def refused(spec: str) -> str:
    """What the user is told when a device is used that cannot be; one line, and nothing is there."""
    with open_device(spec) as device, pytest.raises(DeviceError) as found:
        device.run(["true"])
    assert found.value.exit_code == 2 and "\n" not in str(found.value)
    return str(found.value)


def test_an_unknown_host_key(loopback: Loopback) -> None:
    assert "its host key is not known here: connect once by ssh" in refused(loopback.spec(known="empty"))


def test_another_host_key(loopback: Loopback) -> None:
    assert "its host key is not the one known here" in refused(loopback.spec(known="changed"))


def test_a_key_that_is_not_let_in(loopback: Loopback) -> None:
    assert "it lets nobody in with these keys" in refused(loopback.spec(key="stranger"))


def test_the_key_may_be_named(loopback: Loopback, there: Path) -> None:
    spec = loopback.spec(key="stranger", identity=str(loopback.folder / "key"), folder=str(there))
    with open_device(spec) as device:
        assert device.run(["true"]).status == 0


def test_a_name_that_nobody_knows() -> None:
    assert "nobody knows that name" in refused("ssh://no-such-device.invalid")


def test_no_server_at_that_port(loopback: Loopback) -> None:
    spec = loopback.spec().replace(f":{loopback.port}", ":1")
    assert "no ssh server listens there" in refused(spec)


def test_a_configuration_that_is_not_there() -> None:
    assert "ssh cannot connect (Can't open user config file" in refused("ssh://pi?config=no-such-file")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ssh: connect to host pi port 22: Connection timed out", "it does not answer"),
        ("ssh: connect to host pi port 22: No route to host", "it does not answer"),
        ("ssh: connect to host pi port 22: Network is unreachable", "it does not answer"),
        ("Connection timed out during banner exchange", "it does not answer"),
    ],
)
def test_what_takes_too_long_to_try(said: str, advice: str, loopback: Loopback, tmp_path: Path) -> None:
    program = script(tmp_path / "ssh", f'echo "{said}" >&2; exit 255')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        assert advice in refused("ssh://pi")


def test_no_ssh_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="install the OpenSSH client"):
        open_device("ssh://pi")


def test_an_ssh_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "ssh", "exec sleep 1000")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(ssh_connection, "START_S", 0.2)
    monkeypatch.setattr(ssh_connection, "CLOSE_S", 0.2)
    assert "no answer within 0.2 s" in refused("ssh://pi")


def test_every_cause_has_one_advice() -> None:
    assert len({advice for _, advice in CAUSES}) == len(CAUSES)


def test_a_folder_that_cannot_be_made(loopback: Loopback) -> None:
    assert "no folder can be made there" in refused(loopback.spec(folder="/no/such/place"))


# --- a Python that will not do ----------------------------------------------------------------------------------------


def answer(device: Device) -> str:
    """What the user is told when the device cannot do a job."""
    with device, pytest.raises(DeviceError) as found:
        Agent(device).perform({"task": "identify"})
    assert "\n" not in str(found.value)
    return str(found.value)


def test_no_python_there(pi: Opened) -> None:
    assert "there is no program /nowhere/python there: name another by ?python=PATH" in answer(
        pi(python="/nowhere/python")
    )


def test_a_python_without_numpy(pi: Opened, tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'exec "{sys.executable}" -S "$@"')
    assert "cannot import numpy: install it there" in answer(pi(python=str(python)))


def test_a_python_without_onnxruntime(pi: Opened, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (site / folder.name).symlink_to(folder)
    python = script(tmp_path / "python", f'PYTHONPATH="{site}" exec "{sys.executable}" -S "$@"')
    assert "cannot import onnxruntime: install it there" in answer(pi(python=str(python)))


@pytest.mark.parametrize(
    "said",
    [
        "SyntaxError: future feature annotations is not defined",  # Python 3.6
        "SyntaxError: invalid syntax",  # Python 2.7
    ],
)
def test_a_python_that_is_too_old(said: str, pi: Opened, tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'echo "{said}" >&2; exit 1')
    assert "its Python is older than 3.8" in answer(pi(python=str(python)))


def test_a_python_that_says_something_first(pi: Opened, tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'echo Hello; exec "{sys.executable}" "$@"')
    assert Agent(pi(python=str(python))).perform({"task": "identify"}).report["machine"]["numpy"] == np.__version__


@pytest.mark.parametrize(("says", "told"), [("echo {}", "it says '{}'"), ("true", "it says nothing")])
def test_something_else_than_a_report(says: str, told: str, pi: Opened, tmp_path: Path) -> None:
    assert f"sent no report ({told})" in answer(pi(python=str(script(tmp_path / "python", says))))


def test_a_program_for_another_machine(pi: Opened, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_bytes(b"\x7fELF" + bytes(60))
    python.chmod(0o755)
    assert "python" in answer(pi(python=str(python)))


def test_a_model_that_this_onnxruntime_does_not_know(pi: Opened) -> None:
    proto = MLP.proto()
    proto.ir_version = 99
    host = Agent(pi())
    job = {"task": "outputs", "model": host.send("m.onnx", proto.SerializeToString()), "to": "y.npz",
           "feeds": host.send_feeds("x.npz", feeds(1))}  # fmt: skip
    with pytest.raises(ModelError, match=r"On ssh://.*: onnxruntime [\d.]+ cannot load this model: .*[Vv]ersion"):
        host.perform(job)


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_file_on_a_full_disk(pi: Opened, there: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(bytes(100_000))
    device = pi()
    device.run(["ln", "-s", "/dev/full", "m.onnx.part"])
    with pytest.raises(DeviceError, match=r"No space left on device.*make room there"):
        device.push(tmp_path / "m.onnx", "m.onnx")
    (folder,) = there.iterdir()
    assert not [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def test_outputs_on_a_full_disk(pi: Opened) -> None:
    device = pi()
    device.run(["ln", "-s", "/dev/full", "y.npz"])
    with pytest.raises(DeviceError, match="the disk there is full"):
        outputs(device)


def test_a_disk_that_is_really_full(loopback: Loopback, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        (tmp_path / "m.onnx").write_bytes(bytes(100_000))
        with open_device(loopback.spec(folder=str(place))) as device:
            with pytest.raises(DeviceError, match="make room there, or name another folder"):
                device.push(tmp_path / "m.onnx", "m.onnx")
            device.run(["sh", "-c", "cat /dev/zero > filler"])
            with pytest.raises(DeviceError, match=r"the disk there is full|cannot be written"):
                device.push(tmp_path / "m.onnx", "m.onnx")
        assert not list(place.iterdir())
        (place / "filler").write_bytes(bytes(1 << 16))
        assert "ssh://" in refused(loopback.spec(folder=str(place)))
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_file_that_is_not_there(pi: Opened, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"y\.npz cannot be fetched .*No such file"):
        pi().pull("y.npz", tmp_path / "y")
    assert not (tmp_path / "y").exists()


# --- ends that nobody planned -----------------------------------------------------------------------------------------


def test_a_time_out_ends_the_program_there(pi: Opened, there: Path) -> None:
    device = pi()
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        device.run(LONG, timeout=1)
    assert until(lambda: not running(SLEEP, there))
    assert device.run(["echo", "on"]).stdout == b"on\n"


def test_a_program_that_a_signal_ends(pi: Opened, there: Path) -> None:
    device = pi()
    thread = meanwhile(SLEEP, there, killed)
    assert device.run([SLEEP, "1000"], timeout=60).status == -signal.SIGKILL
    thread.join()
    assert device.run(["sh", "-c", "kill -ILL $$"]).status == -signal.SIGILL


def test_statuses_of_shells() -> None:
    told = {0: 0, 1: 1, 128: 128, 129: -1, 137: -9, 192: -64, 193: 193, 255: 255, 265: -9, 393: -9}
    assert {status: signalled(status) for status in told} == told


def race(host: Agent) -> None:
    """A job that does not end by itself."""
    model, samples = host.send("a.onnx", MLP.proto().SerializeToString()), host.send_feeds("x.npz", feeds(1))
    host.perform(
        {"task": "race", "models": {"a": model}, "reference": "a", "feeds": samples, "seconds": 600.0, "min_rounds": 3}
    )


def test_an_agent_that_is_killed(pi: Opened, there: Path) -> None:
    device = pi()
    thread = meanwhile(sys.executable, there, killed)
    with pytest.raises(DeviceError, match="ended by signal 9: the device may have run out of memory"):
        race(Agent(device))
    thread.join()
    assert device.run(["true"]).status == 0


def test_a_connection_that_is_cut_in_the_middle(loopback: Loopback, pi: Opened, there: Path) -> None:
    device = pi()
    thread = meanwhile(sys.executable, there, lambda pid: loopback.cut())
    with pytest.raises(DeviceError, match="the connection broke"):
        race(Agent(device))
    thread.join()
    assert until(lambda: not list(there.iterdir()))  # before anybody closes anything
    with pytest.raises(DeviceError, match="the connection broke"):
        device.run(["true"])


def silent(device: Device) -> None:
    """A program whose end nobody hears of."""
    with pytest.raises(DeviceError, match="the connection broke"):
        device.run(LONG, timeout=60)


def test_a_network_that_falls_silent(
    loopback: Loopback, pi: Opened, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connection, "BEAT_S", 0.1)
    monkeypatch.setattr(ssh_connection, "LOST_S", 1)
    device = pi()
    assert device.run(["sleep", "2.5"]).status == 0  # beats come
    ours = children(os.getpid())
    thread = threading.Thread(target=silent, args=(device,))
    thread.start()
    assert until(lambda: bool(running(SLEEP, there)))
    sleeping = [pid for pid in ours if Path(f"/proc/{pid}/comm").read_text() == "ssh\n"]
    for pid in sleeping:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert until(lambda: not list(there.iterdir())) and until(lambda: not running(SLEEP, there))
    finally:
        for pid in sleeping:
            os.kill(pid, signal.SIGCONT)
        thread.join()


def test_the_watch_clears_up_when_its_shell_is_killed(pi: Opened, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connection, "LOST_S", 1)
    device = pi()
    monkeypatch.setattr(ssh_connection, "CLOSE_S", 0.2)
    device.run(["true"])
    for pid in processes(str(there)):
        if b"mark=$1\ncase" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == pid:
            killed(pid)
    assert until(lambda: not list(there.iterdir()))


USER = """
import sys
from edgepress.devices import open_device
with open_device(sys.argv[1]) as device:
    device.run(["true"])
    print("there", flush=True)
    device.run([sys.argv[2], "1000"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_here_that_is_ended(number: int, loopback: Loopback, there: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, str(tmp_path / "user.py"), loopback.spec(folder=str(there)), SLEEP]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as user:
        assert user.stdout is not None and user.stdout.readline() == b"there\n"
        assert until(lambda: bool(running(SLEEP, there)))
        user.send_signal(number)
        user.wait()
    assert until(lambda: not list(there.iterdir()))
    assert until(lambda: not processes(f"{loopback.folder}/config"))


def test_a_folder_that_somebody_removed(pi: Opened, there: Path) -> None:
    device = pi()
    device.run(["true"])
    for folder in there.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(DeviceError, match="somebody has removed"):
        device.run(["true"])


def test_words_that_no_command_line_can_hold(pi: Opened) -> None:
    with pytest.raises(DeviceError, match="NUL"):
        pi().run(["echo", "a\0b"])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("ssh://", "names no host"),
        ("ssh://pi?pyton=x", "have no setting 'pyton'"),
        ("ssh://pi?python=", "python is empty"),
        ("ssh://pi?runner=x", "name runner and library together"),
        ("ssh://pi?cpus=a", "is no list of processors"),
    ],
)
def test_specs_that_are_refused(spec: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(spec)
