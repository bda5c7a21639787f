"""Android devices through a stand-in for adb (``adb_stand_in.py``): no phone was at hand.

The device is a folder of this machine, its shell is this machine's, and so is the runner that does the jobs.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from runner_tools import HOME, Phone, put_on_path

from edgepress.devices import Agent, Native, open_device
from edgepress.devices.adb import STATES, Adb
from edgepress.errors import DeviceError, ModelError


@pytest.fixture
def phone(tmp_path: Path, native: Native, monkeypatch: pytest.MonkeyPatch) -> Phone:
    for name in ("bin", "phone"):
        (tmp_path / name).mkdir()
    put_on_path(tmp_path / "bin", tmp_path / "phone", monkeypatch)
    return Phone(tmp_path / "phone", native)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def wait_until(what: Callable[[], bool]) -> None:
    """Wait up to half a minute."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


# --- programs and files ---------------------------------------------------------------------------------------------

WORDS = ["a b", "$HOME", "`id`", "'", '"', "\\", ";", "&&", "*", "-n", "é", "", "#", "%s"]
SHOW = "import sys; print(sys.argv[1:]); sys.stderr.write(sys.stdin.read()); sys.exit(7)"


@pytest.mark.parametrize("old", [False, True])
def test_words_reach_a_program_as_they_are(phone: Phone, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    if old:
        monkeypatch.setenv("STAND_IN_OLD", "1")
    with open_device(phone.spec) as device:
        done = device.run([sys.executable, "-c", SHOW, *WORDS], stdin=b"line\nline\n")
    assert (done.status, done.stdout.decode().strip(), done.stderr) == (7, str(WORDS), b"line\nline\n")


def test_files_go_there_and_back_and_are_removed(phone: Phone, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 3 + b"\r\n")
    with open_device(phone.spec) as device:
        device.push(source, "data.bin")
        assert phone.files() == ["data.bin"]
        done = device.run(["cat", "data.bin"])
        device.pull("data.bin", back)
        assert back.read_bytes() == source.read_bytes() == done.stdout
        for name in ("../x", "-x", "a b", "a;b", ""):
            with pytest.raises(DeviceError, match="no file name"):
                device.push(source, name)
            with pytest.raises(DeviceError, match="no file name"):
                device.pull(name, back)
        with pytest.raises(DeviceError, match=r"none cannot be fetched from it .*No such file"):
            device.pull("none", back)
    assert list((phone.root / HOME).iterdir()) == []


def test_nothing_is_sent_before_it_is_used(phone: Phone) -> None:
    open_device(phone.spec).close()
    assert not (phone.root / "log").exists()


def test_a_program_that_a_signal_ends(phone: Phone) -> None:
    with open_device(phone.spec) as device:
        assert device.run(["sh", "-c", "kill -11 $$"]).status == -11
        assert device.run(["none-of-that-name"]).status == 127


def test_a_program_that_takes_too_long_is_ended(phone: Phone, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with open_device(phone.spec) as device:
        with pytest.raises(DeviceError, match=r"no answer within 0.7 s"):
            device.run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"], timeout=0.7)
        wait_until(lambda: not Path(f"/proc/{pid.read_text().strip()}/stat").exists())


INTERRUPTED = """
import sys
from edgepress.devices import open_device
with open_device(sys.argv[1]) as device:
    device.run(["sh", "-c", "echo $$ > " + sys.argv[2] + "; exec sleep 60"])
"""


def test_an_interrupted_command_leaves_nothing_there(phone: Phone, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, phone.spec, pid], stderr=subprocess.PIPE) as process:
        wait_until(lambda: pid.is_file() and pid.read_text().strip() != "")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert b"KeyboardInterrupt" in errors
    wait_until(lambda: not Path(f"/proc/{pid.read_text().strip()}/stat").exists())
    assert list((phone.root / HOME).iterdir()) == []


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_jobs_are_done_and_the_library_is_copied_once(phone: Phone, digits_model: Path, digits_npz: Path) -> None:
    with np.load(digits_npz) as archive:
        feeds = [{"image": archive["image"][:4]}]
    wanted = ort.InferenceSession(digits_model, providers=["CPUExecutionProvider"]).run(None, feeds[0])
    with open_device(phone.spec) as device:
        host = Agent(device)
        host.send("m.onnx", digits_model.read_bytes())
        host.send_feeds("f.npz", feeds)
        for _ in range(2):
            answer = host.perform({"task": "outputs", "model": "m.onnx", "feeds": "f.npz", "to": "o.npz"})
        with np.load(io.BytesIO(host.fetch("o.npz"))) as archive:
            assert archive["0/0"].tobytes() == wanted[0].tobytes()
        job = {"models": {"a": "m.onnx"}, "reference": "a", "feeds": "f.npz", "seconds": 0.0, "min_rounds": 1}
        assert host.perform({"task": "race", **job}).report["rounds"] >= 1
    assert answer.report["outputs"] == ["logits"]
    pushed = [Path(words[4]).name for words in phone.log() if words[2:3] == ["push"]]
    assert sorted(name for name in pushed if name != "run.in") == ["edgerun", "f.npz", "libonnxruntime.so", "m.onnx"]


def test_what_the_runner_says_is_wrong(phone: Phone) -> None:
    with open_device(phone.spec) as device:
        host = Agent(device)
        host.send("m.onnx", b"no model")
        host.send_feeds("f.npz", [{}])
        with pytest.raises(ModelError, match=r"On adb://.*: onnxruntime .* cannot load this model"):
            host.perform({"task": "memory", "model": "m.onnx", "feeds": "f.npz"})


BATTERY = """Current Battery Service state:
  AC powered: false
  level: 85
  temperature: 312"""
THERMAL = """IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
  Temperature{mValue=35.0, mType=3, mName=skin, mStatus=0}"""


def test_heat_and_name_are_asked_of_android(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_PATH", str(tmp_path / "android"))
    program(tmp_path / "android", "dumpsys", f'[ $1 = battery ] && echo "{BATTERY}" || echo "{THERMAL}"')
    program(tmp_path / "android", "getprop", "[ $1 = ro.product.model ] && echo Phone 9 || echo SC-1")
    with open_device(phone.spec) as device:
        assert isinstance(device, Adb)
        assert device.health() == {"temperature_c": 31.2, "throttled": True}
        report = Agent(device).perform({"task": "identify"}).report
        assert report["machine"]["cpu"] == "Phone 9 SC-1"
        assert report["after"]["throttled"] is True


def test_a_device_that_knows_nothing_about_itself(phone: Phone) -> None:
    with open_device(phone.spec) as device:
        assert isinstance(device, Adb)
        assert device.health() == {"temperature_c": None, "throttled": None} and device.called() == ""
        assert Agent(device).perform({"task": "identify"}).report["machine"]["cpu"]


def test_processors_to_stay_on(phone: Phone) -> None:
    with open_device(f"{phone.spec}&cpus=0") as device:
        assert Agent(device).perform({"task": "identify"}).report["machine"]["cores"] == 1


# --- which device ---------------------------------------------------------------------------------------------------


def test_a_serial_chooses_among_several(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_DEVICES", "R5CT10 device;emulator-5554 device;192.168.1.5:5555 device;x unauthorized")
    for serial in ("R5CT10", "emulator-5554", "192.168.1.5:5555"):
        with open_device(f"adb://{serial}?{phone.settings}") as device:
            device.run(["true"])
        assert phone.log()[-1][:2] == ["-s", serial]
    with pytest.raises(DeviceError, match="several Android devices are attached: write adb:// and R5CT10 or emulator"):
        open_device(phone.spec).run(["true"])
    monkeypatch.setenv("ANDROID_SERIAL", "emulator-5554")
    with open_device(phone.spec) as device:
        device.run(["true"])
    assert phone.log()[-1][:2] == ["-s", "emulator-5554"]


@pytest.mark.parametrize(
    ("listed", "serial", "words"),
    [
        ("", "", "no Android device is attached: plug one in"),
        ("phone device", "other", "no Android device other is attached: choose phone"),
        ("", "10.0.0.9:5555", "attached: connect it by adb connect 10.0.0.9:5555"),
        ("phone unauthorized", "", "phone cannot be used: .* unlock it and accept"),
        ("phone offline", "", "it is offline"),
        ("phone no permissions (user in plugdev group; are your udev rules wrong?)", "", "udev rule"),
        ("phone bootloader", "", "start Android"),
        ("phone host", "phone", "its state is host"),
    ],
)
def test_devices_that_cannot_be_used(
    phone: Phone, monkeypatch: pytest.MonkeyPatch, listed: str, serial: str, words: str
) -> None:
    monkeypatch.setenv("STAND_IN_DEVICES", listed.replace(";", ","))
    with pytest.raises(DeviceError, match=words) as told:
        open_device(f"adb://{serial}?{phone.settings}").run(["true"])
    assert "\n" not in str(told.value)


def test_every_state_has_advice() -> None:
    assert all(": " in text for text in STATES.values())


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "needs a runner: build it by cmake .*android.toolchain.cmake"),
        ("runner=RUNNER", "needs onnxruntime's library: unzip jni/arm64-v8a"),
        ("runner=RUNNER&library=/none", "there is no file /none here"),
        ("runner=RUNNER&library=LIBRARY&python=x", "no setting 'python'"),
        ("runner=RUNNER&library=LIBRARY&cpus=x", "no list of processors"),
    ],
)
def test_specs_that_lack_something(phone: Phone, query: str, words: str) -> None:
    named = query.replace("RUNNER", str(phone.native.runner)).replace("LIBRARY", str(phone.native.library))
    with pytest.raises(DeviceError, match=words):
        open_device(f"adb://?{named}")


def test_no_user(phone: Phone) -> None:
    with pytest.raises(DeviceError, match="have no user"):
        open_device(f"adb://me@phone?{phone.settings}")


# --- when it fails --------------------------------------------------------------------------------------------------


def test_without_adb(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="There is no adb here"):
        open_device(phone.spec).run(["true"])


def test_an_adb_that_does_not_work(phone: Phone, tmp_path: Path) -> None:
    program(tmp_path / "bin", "adb", "echo 'adb: failed to check server version: cannot connect to daemon' >&2; exit 1")
    with pytest.raises(DeviceError, match=r"adb does not work here \(failed to check server version"):
        open_device(phone.spec).run(["true"])
    (tmp_path / "bin" / "adb").write_bytes(b"\0")
    with pytest.raises(DeviceError, match="cannot be started"):
        open_device(phone.spec).run(["true"])


def test_a_full_disk(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_FULL", "1000000")
    with (
        open_device(phone.spec) as device,
        pytest.raises(DeviceError, match=r"libonnxruntime.so cannot .*disk is full"),
    ):
        Agent(device).perform({"task": "identify"})
    assert list((phone.root / HOME).iterdir()) == []


@pytest.mark.parametrize("moment", ["mkdir", "uname", "libonnxruntime.so", "chmod", "./edgerun", "pull"])
def test_a_device_that_goes_in_the_middle(phone: Phone, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setenv("STAND_IN_CUT", moment)
    with open_device(phone.spec) as device, pytest.raises(DeviceError, match=r"it has gone .*: plug it in again"):
        Agent(device).perform({"task": "identify"})


def test_a_command_that_is_cut_off_is_not_taken_for_one_that_ended(phone: Phone, tmp_path: Path) -> None:
    real = (tmp_path / "bin" / "adb").read_text().splitlines()[-1]
    program(tmp_path / "bin", "adb", f"[ $3 = shell ] && exit 0\n{real}")
    with pytest.raises(DeviceError, match="it did not answer, it has gone"):
        open_device(phone.spec).run(["true"])


def test_a_runner_for_another_system(phone: Phone, tmp_path: Path) -> None:
    content = phone.native.runner.read_bytes()
    loader = b"/lib64/ld-linux-x86-64.so.2"
    if loader not in content:
        pytest.skip("this machine is no x86-64 with glibc")
    other = tmp_path / "edgerun"
    other.write_bytes(content.replace(loader, b"/system/bin/linker64\0\0\0\0\0\0\0"))
    words = r"does not start there .*it is started by /system/bin/linker64"
    with (
        open_device(Phone(phone.root, Native(other, phone.native.library)).spec) as device,
        pytest.raises(DeviceError, match=words),
    ):
        Agent(device).perform({"task": "identify"})
