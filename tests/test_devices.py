"""Devices: how they are named, kinds that other packages add, this machine as one, and what the agent's errors say."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.devices import Agent, Device, Done, Spec, agent, check_name, open_device, parse, remote
from edgepress.devices.local import Local
from edgepress.devices.remote import ARCHIVE, NAME, failure, reported
from edgepress.errors import DeviceError, EdgepressError, ModelError, PluginError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/devices.md").read_text(encoding="utf-8")

# --- names ------------------------------------------------------------------------------------------------------------

WORD = st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,12}", fullmatch=True)
KIND = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,8}", fullmatch=True)
HOST = WORD | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
PORT = st.none() | st.integers(1, 65535)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SETTINGS = st.dictionaries(VALUES.filter(bool), VALUES, max_size=3)


@given(KIND, st.just("") | WORD, HOST, PORT, SETTINGS)
def test_a_spec_is_read_as_it_was_written(
    kind: str, user: str, host: str, port: int | None, settings: dict[str, str]
) -> None:
    place = f"[{host}]" if ":" in host else host
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='+/~')}" for name, value in settings.items())
    text = f"{kind}://{user and user + '@'}{place}{'' if port is None else f':{port}'}{query and '?' + query}"
    assert parse(text) == Spec(text, kind, user, host, port, settings)


@given(st.text(max_size=30) | st.text("ab:/@?&=[]-.%#10", max_size=30))
def test_any_text_is_a_spec_or_refused_in_a_sentence(text: str) -> None:
    try:
        spec = parse(text)
    except DeviceError as error:
        assert error.exit_code == 2
    else:
        assert spec.text == text and not spec.host.startswith("-") and not spec.user.startswith("-")


@pytest.mark.parametrize(
    "text",
    ["", "://", "ssh:", "ssh://-oProxyCommand=x", "ssh://-x@pi", "ssh://a:secret@pi", "ssh://pi/path",
     "ssh://pi:0", "ssh://pi:65536", "ssh://pi:x", "ssh://pi#x", "ssh://pi\n", "ssh://p i", "ssh://a@b@c", "ssh://$(id)",
     "local\n", "adb://a;b"],
)  # fmt: skip
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(DeviceError, match="names no device"):
        parse(text)


def test_hosts_keep_capitals_and_values_their_plus() -> None:
    spec = parse("adb://R58M12ABC?runner=c++/run&library=a%26b")
    assert (spec.host, dict(spec.settings)) == ("R58M12ABC", {"runner": "c++/run", "library": "a&b"})


@pytest.mark.parametrize("kind", ["local", "emulated://a72", "ssh://pi"])
@pytest.mark.parametrize("name", ["python", "folder", "identity", "runner"])
def test_a_nul_is_in_no_name(kind: str, name: str) -> None:
    with pytest.raises(DeviceError, match="holds a NUL"):
        open_device(f"{kind}?{name}=a%00b")


def test_home_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_device("local?python=~/bin/python").python == (f"{tmp_path}/bin/python",)
    with pytest.raises(DeviceError, match="there is no file ~no-such-user/x here"):
        open_device("local?runner=~no-such-user/x&library=y")
    with pytest.raises(DeviceError, match=f"{tmp_path}/arm holds no emulated ARM"):
        open_device("emulated://a72?folder=~/arm")


def test_a_setting_twice() -> None:
    with pytest.raises(DeviceError, match="a setting twice"):
        parse("local?python=a&python=b")


@pytest.mark.parametrize(
    ("text", "wanted"), [("0", (0,)), ("0,1", (0, 1)), ("4-7", (4, 5, 6, 7)), ("7,0-2,1", (0, 1, 2, 7)), ("3-3", (3,))]
)
def test_processors(text: str, wanted: tuple[int, ...]) -> None:
    assert parse(f"local?cpus={text}").cpus() == wanted
    assert parse("local").cpus() == ()


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "2-1", "0,,1", "0 1", "١", "99999"])
def test_no_processors(text: str) -> None:
    with pytest.raises(DeviceError, match="no list of processors"):
        parse(f"local?cpus={text}").cpus()


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "ä", "a\\b", "a:b", "a;b"])
def test_names_of_files_that_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="is no file name"):
        check_name(name)


def test_names_of_files_that_are_fine() -> None:
    assert [check_name(name) for name in ("m.onnx", "A_1-2.npz")] == ["m.onnx", "A_1-2.npz"]


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("shh://pi", r"did you mean ssh\?"),
        ("LOCAL", r"did you mean local\?"),
        ("pi", "choose one of local, ssh, adb, "),
    ],
)
def test_a_kind_that_there_is_not(text: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(text)


def block(language: str) -> str:
    """The only block of a language on the page."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


DOCKER = """#!/bin/sh
[ "$1" = cp ] && exec cp "${2#*:}" "${3#*:}"
shift
[ "$1" = -i ] && shift
[ "$1" = -w ] && { cd "$2" || exit 1; shift 2; }
shift
exec "$@"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the documentation, as pip leaves it, and a docker whose containers are this machine."""
    site = tmp_path / "site"
    info = site / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (name, value), = re.findall(r'^(\w+) = "(.*)"$', block("toml"), re.MULTILINE)  # fmt: skip
    assert block("toml").startswith('[project.entry-points."edgepress.devices"]\n')
    (info / "entry_points.txt").write_text(f"[edgepress.devices]\n{name} = {value}\n")
    (site / "acme_devices.py").write_text(block("py"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("acme_devices", None)


def test_the_kind_of_the_documentation(installed: Path, tmp_path: Path) -> None:
    with open_device(f"container://bench?python={sys.executable}") as device:
        assert not list(tmp_path.glob("tmp.*"))
        assert Agent(device).perform({"task": "identify"}).report["machine"]["numpy"] == np.__version__
        assert len(list(tmp_path.glob("tmp.*"))) == 1
        (tmp_path / "a").write_bytes(b"content")
        device.push(tmp_path / "a", "a")
        device.pull("a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content"
        with pytest.raises(DeviceError, match="docker says"):
            device.pull("c", tmp_path / "c")
        assert device.run(["sh", "-c", "exit 3"]).status == 3
        with pytest.raises(DeviceError, match="no answer"):
            device.run(["sleep", "1000"], timeout=0.1)
    assert not list(tmp_path.glob("tmp.*"))


def test_a_kind_is_known_where_its_package_is(installed: Path) -> None:
    with pytest.raises(DeviceError, match=r"emulated, container\."):
        open_device("pi")


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('half there')", "Other = 3", "def Container(spec):\n    return 1 / 0"]
)
def test_a_broken_package_is_named(code: str, installed: Path) -> None:
    (installed / "acme_devices.py").write_text(code)
    with pytest.raises(PluginError, match="The device kind 'container' cannot be loaded"):
        open_device("container://x")


# --- this machine -----------------------------------------------------------------------------------------------------


def test_programs_here(tmp_path: Path) -> None:
    with open_device("local") as device:
        done = device.run(["sh", "-c", "cat; pwd -P >&2; exit 3"], stdin=b"in")
        folder = Path(done.stderr.decode().strip())
        assert (done.status, done.stdout) == (3, b"in") and folder.is_dir()
        (tmp_path / "a").write_bytes(b"content")
        device.push(tmp_path / "a", "a")
        device.pull("a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content" and [path.name for path in folder.iterdir()] == ["a"]
        assert device.run(["sh", "-c", "kill -9 $$"]).status == -signal.SIGKILL
        with pytest.raises(DeviceError, match="no answer within"):
            device.run(["sleep", "1000"], timeout=0.1)
        with pytest.raises(DeviceError, match="cannot be started"):
            device.run(["no-such-program"])
        with pytest.raises(DeviceError, match="cannot be fetched"):
            device.pull("c", tmp_path / "c")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("local://pi", "without a host"),
        ("local?user=x", "have no setting 'user'"),
        ("local?runner=x", "name runner and library together"),
        ("local?runner=x&library=y&python=z", "name runner and library together"),
        ("local?runner=x&library=y", "there is no file x here"),
    ],
)
def test_specs_of_this_machine_that_are_refused(text: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(text)


def test_jobs_stay_on_the_processors_named() -> None:
    one = sorted(os.sched_getaffinity(0))[0]
    with open_device(f"local?cpus={one}") as device:
        assert device.cpus == (one,)
        assert Agent(device).perform({"task": "identify"}).report["machine"]["cores"] == 1


@pytest.mark.parametrize("others", [(1000,), (9999,), "some"])
def test_processors_that_are_not_there(others: Any) -> None:
    """The system is content with one that is there, the agent is not."""
    named = (sorted(os.sched_getaffinity(0))[0], 1000) if others == "some" else others
    with (
        open_device(f"local?cpus={','.join(map(str, named))}") as device,
        pytest.raises(
            DeviceError, match=r"^local\?cpus=\S+: This device keeps no program on .*(1000|9999): choose among [0-9]"
        ),
    ):
        Agent(device).perform({"task": "identify"})


# --- the agent --------------------------------------------------------------------------------------------------------


class Stub:
    """A device whose programs answer what the test says, and which remembers what it was sent."""

    spec, level, native, cpus = "stub", "measured", None, ()

    def __init__(self, answer: Done, python: tuple[str, ...] | None = ("python",)) -> None:
        self.answer, self.python = answer, python
        self.pushed: list[str] = []
        self.jobs: list[Any] = []

    def push(self, source: Path, name: str) -> None:
        self.pushed.append(name)

    def run(self, words: Sequence[str], *, stdin: bytes = b"", timeout: float = 0.0) -> Done:
        if stdin:
            self.jobs.append(json.loads(stdin))
        return self.answer


class Noted(Local):
    """This machine, which remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[str] = []

    def push(self, source: Path, name: str) -> None:
        self.pushed.append(name)
        super().push(source, name)

    def __enter__(self) -> Noted:
        return self


FINE = Done(0, json.dumps({"format": agent.FORMAT}).encode(), b"")


def host(answer: Done = FINE, **fields: Any) -> tuple[Agent, Stub]:
    stub = Stub(answer)
    for name, value in fields.items():
        setattr(stub, name, value)
    device: Any = stub
    return Agent(device), stub


def test_what_is_there_is_not_sent_again() -> None:
    does, stub = host()
    for content in (b"a", b"a", b"b", b"a"):
        does.send("m", content)
    does.perform({"task": "identify"})
    does.perform({"task": "identify"})
    assert stub.pushed == ["m", "m", "m", NAME]


def test_the_processors_go_with_the_job() -> None:
    does, stub = host(cpus=(4, 5))
    does.perform({"task": "identify"})
    does.perform({"task": "identify", "cpus": [1]})
    assert [job["cpus"] for job in stub.jobs] == [[4, 5], [1]]
    does, stub = host()
    does.perform({"task": "identify"})
    assert "cpus" not in stub.jobs[0]


def test_nothing_to_run_models_with() -> None:
    does, _ = host(python=None)
    with pytest.raises(DeviceError, match=r"name one by \?python=PATH"):
        does.perform({"task": "identify"})


@pytest.mark.parametrize("task", ["race", "best", "memory", "profile"])
def test_no_times_where_they_mean_nothing(task: str) -> None:
    does, stub = host(level="counted")
    with pytest.raises(DeviceError, match="emulated cores tell no times"):
        does.perform({"task": task})
    assert not stub.jobs


def test_many_files_go_in_one_transfer() -> None:
    with Noted() as device:
        does, pushed = Agent(device), device.pushed
        files = {f"{number}.bin": bytes([number]) * number for number in range(9)}
        does.send_many(files)
        assert pushed == [ARCHIVE]
        does.send_many(files)
        does.send("3.bin", files["3.bin"])
        assert pushed == [ARCHIVE], "nothing is sent again"
        does.send_many({**files, "3.bin": b"new", "9.bin": b""})
        assert pushed == [ARCHIVE, "3.bin", "9.bin"], "a few are not worth an archive"
        assert {name: does.fetch(name) for name in files} == {**files, "3.bin": b"new"}
        listed = device.run(["ls", "-A"]).stdout.decode().split()
        assert listed == sorted([*files, "9.bin"]), "the archive is gone"


def test_archives_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_PACKED", 10)
    files = {name: bytes(size) for name, size in zip("abcdefgh", (4, 3, 3, 11, 2, 2, 2, 5), strict=True)}
    with Noted() as device:
        does = Agent(device)
        does.send_many(files)
        assert device.pushed == [ARCHIVE, "d", ARCHIVE, "h"]
        assert {name: does.fetch(name) for name in files} == files


def test_many_files_where_there_is_no_python() -> None:
    does, stub = host(python=None)
    does.send_many({name: b"" for name in "abcd"})
    assert stub.pushed == ["a", "b", "c", "d"] and not stub.jobs


def test_many_files_that_cannot_be_unpacked_are_not_taken_to_be_there() -> None:
    does, stub = host(Done(1, b"", b"Traceback\nOSError: [Errno 28] No space left on device"))
    for _ in range(2):
        with pytest.raises(DeviceError, match="the disk there is full"):
            does.send_many({name: b"" for name in "abcd"})
    assert stub.pushed == [ARCHIVE, ARCHIVE]
    with pytest.raises(DeviceError, match="is no file name"):
        does.send_many({"../a": b"", "b": b"", "c": b""})
    assert len(stub.pushed) == 2


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (agent.MODEL_FAILED, "warning\nno model", ModelError, "On pi: no model"),
        (agent.LACKS, "cannot import numpy.", DeviceError, "pi: cannot import numpy: install it there"),
        (agent.BAD_JOB, "There is no task 'x'", DeviceError, "pi: There is no task 'x'"),
        (1, "Traceback\nSyntaxError: invalid syntax", DeviceError, "older than 3.8"),
        (1, "Traceback\nOSError: [Errno 28] No space left on device", DeviceError, "the disk there is full"),
        (1, "Traceback\nnumpy._ArrayMemoryError: Unable to allocate", DeviceError, "its memory is full"),
        (1, "", DeviceError, "the agent ended with status 1"),
        (-9, "Killed", DeviceError, "signal 9: the device may have run out of memory"),
        (-4, "", DeviceError, "signal 4: this onnxruntime has no build for that processor"),
        (-11, "", DeviceError, "signal 11"),
    ],
)
def test_why_an_agent_ended(status: int, said: str, kind: type[EdgepressError], told: str) -> None:
    error = failure("pi", status, said)
    assert type(error) is kind and told in str(error) and error.exit_code == 2


def test_a_library_that_a_module_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an error names no module."""

    def fail() -> Any:
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.29' not found")

    monkeypatch.setattr(agent, "machine", fail)
    with pytest.raises(agent.Failure, match=r"cannot import libstdc\+\+\.so\.6: version") as told:
        agent.perform({"task": "identify"})
    assert told.value.code == agent.LACKS


@pytest.mark.parametrize("given", ["", "{", "[]", '{"task": "dance"}'])
def test_what_is_no_job(given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert agent.main() == agent.BAD_JOB
    assert len(capsys.readouterr().err.splitlines()) == 1


def bad_samples() -> dict[str, bytes]:
    """Files that hold no samples, by what is wrong with them."""
    array, named, none = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.savez(named, x=np.zeros(3))
    np.savez(none)
    return {
        "cut": named.getvalue()[:-30],
        "text": b"no samples",
        "empty": b"",
        "one array": array.getvalue(),
        "unnumbered": named.getvalue(),
        "none": none.getvalue(),
    }


@pytest.mark.parametrize("wrong", [*bad_samples(), "missing"])
def test_samples_that_cannot_be_read(wrong: str, tmp_path: Path) -> None:
    """No file is left open either: that is a warning, and warnings are errors."""
    if wrong != "missing":
        (tmp_path / "x.npz").write_bytes(bad_samples()[wrong])
    with pytest.raises(agent.Failure, match=r"x\.npz") as told:
        agent.samples(str(tmp_path / "x.npz"))
    assert told.value.code == agent.BAD_JOB and str(told.value).count("\n") == 0
    gc.collect()


def test_a_report_is_the_last_line() -> None:
    assert reported("pi", b"Welcome\n" + FINE.stdout + b"\n") == {"format": agent.FORMAT}
    for other in (b"", b"Welcome", b"{}", b"[]", b"\xff", FINE.stdout + b"\nBye"):
        with pytest.raises(DeviceError, match="pi sent no report"):
            reported("pi", other)


def test_the_names_are_those_of_the_documentation() -> None:
    device: Device
    with open_device("local") as device:
        for name in ("push", "run", "pull", "close", "python", "native", "cpus", "level", "spec"):
            assert hasattr(device, name)
