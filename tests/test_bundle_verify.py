"""Verifying: a device that answers as promised passes, another does not; damaged bundles are refused before that."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bundle_models as models
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from sshd_tools import Loopback, loopback

from edgepress.bundle import Manifest, bundle, check, vectors, verify
from edgepress.cli import main
from edgepress.devices import Answer, Native, agent
from edgepress.errors import DeviceError, InputError, ModelError
from edgepress.report import bundle as page
from edgepress.report.bundle import Verification

__all__ = ["loopback"]

FILES = ["README.md", "check.py", "edgepress_agent.py", "example.cpp", "example.py", "expected.npz", "job.json",
         "manifest.json", "model.onnx", "vectors.npz", "SHA256SUMS"]  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with odd names, and promises of every kind."""
    folder = tmp_path_factory.mktemp("verify")
    bundle(models.saved(models.two(), folder / "two.onnx"), folder / "b")
    return folder / "b"


@pytest.fixture
def copy(two: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(two, tmp_path / "b"))


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest, and seal it again."""
    raw = json.loads((folder / check.MANIFEST).read_text(encoding="utf-8"))
    change(raw)
    (folder / check.MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    hashes = {name: entry["sha256"] for name, entry in raw["files"].items()}
    (folder / check.SUMS).write_text(check.sums(str(folder), hashes), encoding="utf-8")


def replaced(folder: Path, name: str, **arrays: np.ndarray) -> None:
    """Change some arrays of a file, and seal the bundle again."""
    with np.load(folder / name) as archive:
        np.savez(folder / name, **{**archive, **arrays})
    size, digest = (folder / name).stat().st_size, check.sha256(str(folder / name))
    changed(folder, lambda raw: raw["files"].update({name: {"sha256": digest, "bytes": size}}))


class Here:
    """A device that does jobs in this process, in place of a process of its own."""

    level = "measured"

    def __init__(
        self, folder: Path, version: str | None = None, change: Callable[[Any], Any] = lambda arrays: None
    ) -> None:
        self.folder, self.version, self.change = folder, version, change
        self.asked: list[Any] = []

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *problem: object) -> None:
        pass


class Agent:
    """What `verify` uses of the agent."""

    def __init__(self, device: Here) -> None:
        self.device = device

    def send(self, name: str, content: bytes) -> str:
        (self.device.folder / name).write_bytes(content)
        return name

    def send_feeds(self, name: str, feeds: Any) -> str:
        arrays: dict[str, Any] = {
            f"{number}/{key}": value for number, feed in enumerate(feeds) for key, value in feed.items()
        }
        np.savez(self.device.folder / name, **arrays)
        return name

    def perform(self, job: Any) -> Answer:
        self.device.asked.append(job)
        places = {key: str(self.device.folder / job[key]) for key in ("model", "feeds", "to") if key in job}
        report = agent.perform({**job, **places})
        if self.device.version is not None:
            report["machine"]["onnxruntime"] = self.device.version
        return Answer(report, "")

    def fetch(self, name: str) -> bytes:
        arrays: dict[str, Any] = dict(check.read(str(self.device.folder), name))
        self.device.change(arrays)
        np.savez(self.device.folder / name, **arrays)
        return (self.device.folder / name).read_bytes()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Here]:
    """Makes the device that the next verification gets."""

    def use(**settings: Any) -> Here:
        (tmp_path / "device").mkdir()
        device = Here(tmp_path / "device", **settings)
        module = sys.modules["edgepress.bundle.verify"]
        monkeypatch.setattr(module, "open_device", lambda spec: device)
        monkeypatch.setattr(module, "Agent", Agent)
        return device

    return use


# --- agreement and not ----------------------------------------------------------------------------------------------


def test_this_machine_keeps_what_it_promised(two: Path) -> None:
    found = verify(two)
    assert found.agrees and found.samples == 2 and found.device == "local"
    assert [(row.rule, row.differ, row.largest) for row in found.compared] == [
        ("close", 0, 0.0),
        ("equal", 0, 0.0),
        ("exact", 0, 0.0),
    ]
    assert found.machine["onnxruntime"]


@pytest.mark.parametrize(
    ("key", "change", "rows"),
    [
        ("1/0", lambda value: value * np.float32(1.00001), []),
        ("1/0", lambda value: value * np.float32(1.01), [0]),
        ("0/1", lambda value: value + 1, [1]),
        ("1/2", lambda value: value ^ 1, [2]),
        ("1/0", lambda value: value[:1], [0]),
        ("0/0", lambda value: value.astype(np.float64), [0]),
    ],
)
def test_other_answers_are_found(
    key: str, change: Callable[[Any], Any], rows: list[int], two: Path, here: Callable[..., Here]
) -> None:
    here(change=lambda arrays: arrays.update({key: change(arrays[key])}))
    found = verify(two)
    assert [place for place, row in enumerate(found.compared) if not row.agrees] == rows
    assert all(row.sample == int(key[0]) for row in found.compared if not row.agrees)


def test_an_answer_that_is_missing_is_found(two: Path, here: Callable[..., Here]) -> None:
    here(change=lambda arrays: arrays.pop("1/2"))
    (row,) = [row for row in verify(two).compared if not row.agrees]
    assert (row.output, row.problem, row.sample) == ("fifth", "it is missing", 1)


def test_weights_in_a_file_of_their_own_go_along(
    here: Callable[..., Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.external(tmp_path)
    for limit in ("ONE_FILE", "LARGE"):  # in place of 2 GiB and 256 MiB
        monkeypatch.setattr(f"edgepress.storage.{limit}", 1000)
    bundle(path, tmp_path / "b")
    monkeypatch.undo()
    assert (tmp_path / "b/model.onnx").stat().st_size < 1000 < (tmp_path / "b/model.onnx.data").stat().st_size
    assert "its weights" in (tmp_path / "b/README.md").read_text()
    device = here()
    assert verify(tmp_path / "b").compared[0].differ == 0
    assert (device.folder / "model.onnx.data").is_file()


def test_the_device_gets_the_threads(two: Path, here: Callable[..., Here]) -> None:
    device = here()
    verify(two, threads=2)
    assert [(job["task"], job["threads"]) for job in device.asked] == [("outputs", 2)]


def test_expected_outputs_that_were_tampered_with_are_exit_code_3(copy: Path, here: Callable[..., Here]) -> None:
    replaced(copy, "expected.npz", **{"0/1": np.array([9])})
    here()
    done = CliRunner().invoke(main, ["verify", str(copy)])
    assert done.exit_code == 3
    assert "do not hold on local: other answers at fourth" in done.stderr
    assert "agrees\tno" in done.stdout and "fourth.agrees\tno" in done.stdout and "fourth.sample\t0" in done.stdout


@pytest.mark.parametrize(("version", "enough"), [("1.13.1", False), ("1.14.0", True), ("", False)])
def test_an_older_onnxruntime_is_refused(version: str, enough: bool, two: Path, here: Callable[..., Here]) -> None:
    device = here(version=version)
    if enough:
        assert verify(two).machine["onnxruntime"] == version
        return
    with pytest.raises(DeviceError, match=r"the bundle needs 1\.14 or newer"):
        verify(two)
    assert [job["task"] for job in device.asked] == ["outputs"]


def test_a_model_that_does_not_run_there_is_too_new_if_so(
    two: Path, here: Callable[..., Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, done = here(version="1.13.1"), Agent.perform

    def fail(self: Agent, job: Any) -> Answer:
        if job["task"] == "outputs":
            raise ModelError("cannot load this model")
        return done(self, job)

    monkeypatch.setattr(Agent, "perform", fail)
    with pytest.raises(DeviceError, match="or newer"):
        verify(two)
    device.version = "1.14.0"
    with pytest.raises(ModelError, match="cannot load this model"):
        verify(two)


def test_answers_that_are_none_are_refused(
    two: Path, here: Callable[..., Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    here()
    monkeypatch.setattr(Agent, "fetch", lambda self, name: b"PK\x03\x04 and no more")
    with pytest.raises(DeviceError, match="answers that cannot be read"):
        verify(two)


# --- damage ---------------------------------------------------------------------------------------------------------


def never(spec: str) -> None:
    raise AssertionError("a damaged bundle came to a device")


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["edgepress.bundle.verify"], "open_device", never)


def missing(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def test_the_list_of_files_is_complete(two: Path) -> None:
    assert sorted(FILES) == sorted(path.name for path in two.iterdir())


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("spoil", [missing, flipped, truncated, linked, emptied], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(name: str, spoil: Callable[[Path], None], copy: Path) -> None:
    spoil(copy / name)
    if spoil is linked and name in ("manifest.json", "SHA256SUMS"):
        return  # read through the link, the same contents; neither is named by a manifest
    with pytest.raises(InputError, match=r"damaged|missing|bytes|contents|belong together|no bundle"):
        verify(copy)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "edgepress-bundle/2"}, "of another version .*use a newer edgepress"),
        ({"format": "edgepress-plan/1"}, "no bundle"),
        ({"files": {"../secret": {"sha256": "", "bytes": 1}}}, "'../secret' is no file name"),
        ({"files": {"/etc/passwd": {"sha256": "", "bytes": 1}}}, "is no file name"),
        ({"files": {}}, "does not list 'model.onnx'"),
        ({"model": "../model.onnx"}, "does not list '../model.onnx'"),
        ({"ort": "model.ort"}, "does not list 'model.ort'"),
        ({"samples": 0}, "no samples"),
        ({"samples": "2"}, "damaged"),
        ({"promises": []}, "promises are not those of its outputs"),
        ({"inputs": None}, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(change: dict[str, Any], words: str, copy: Path) -> None:
    changed(copy, lambda raw: raw.update(change))
    with pytest.raises(InputError, match=words):
        verify(copy)


def promised(raw: dict[str, Any], value: object) -> None:
    raw["promises"][0]["relative"] = value


def listed(raw: dict[str, Any], name: str, entry: object) -> None:
    raw["files"][name] = entry


@pytest.mark.usefixtures("no_device")
def test_promises_of_anything_are_refused(copy: Path) -> None:
    for value in ("inf", "nan", -1.0, 1.5):
        changed(copy, partial(promised, value=value))
        with pytest.raises(InputError, match="any size"):
            verify(copy)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    "content", ["", "[", "[]", "null", "{}", "[" * 5000, '{"format": "edgepress-bundle/1"}', "\x00"]
)
def test_a_manifest_that_is_none_is_refused(content: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(InputError):
        verify(copy)


@pytest.mark.usefixtures("no_device")
def test_vectors_that_are_not_those_of_the_manifest_are_refused(copy: Path) -> None:
    changed(copy, lambda raw: raw.update(samples=3))
    with pytest.raises(InputError, match=r"npz cannot be used"):
        verify(copy)
    changed(copy, lambda raw: raw.update(samples=2))
    replaced(copy, "vectors.npz", **{"0/stranger": np.zeros(1)})
    with pytest.raises(InputError, match=r"vectors\.npz cannot be used .*all of every sample"):
        verify(copy)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("name", ["vectors.npz", "expected.npz"])
def test_files_of_another_kind_are_refused_though_their_hashes_hold(name: str, copy: Path) -> None:
    for content in (b"", b"no zip", b"PK\x03\x04", np.random.default_rng(0).bytes(500)):
        (copy / name).write_bytes(content)
        entry = {"sha256": check.sha256(str(copy / name)), "bytes": len(content)}
        changed(copy, partial(listed, name=name, entry=entry))
        with pytest.raises(InputError, match=f"{name} cannot be used"):
            verify(copy)


@pytest.mark.usefixtures("no_device")
def test_settings_that_cannot_be_kept_are_refused(two: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.ort file"):
        verify(two, ort=True)
    with pytest.raises(InputError, match="--threads 1"):
        verify(two, threads=0)
    with pytest.raises(InputError, match="no bundle"):
        verify(tmp_path)
    with pytest.raises(InputError, match="no bundle"):
        verify(tmp_path / "nowhere")


# --- pages, and the whole way ---------------------------------------------------------------------------------------


def test_the_result_reads_back_and_is_printed(two: Path, here: Callable[..., Here]) -> None:
    here(change=lambda arrays: arrays.update({"1/0": arrays["1/0"] * np.nan}))
    found = verify(two)
    assert Verification.from_json(found.to_json()) == found
    assert json.loads(found.to_json())["agrees"] is False
    console = Console(width=100, record=True, file=io.StringIO())
    page.render_verification(found, console)
    text = " ".join(console.export_text().split())
    assert "do not hold on local" in text and "∞" in text and "in sample 1" in text and "differs" in text


def test_from_the_command_line_to_the_command_line(digits_model: Path, digits_npz: Path, tmp_path: Path) -> None:
    (option,) = (item for item in main.commands["bundle"].params if item.name == "samples")
    assert option.default == vectors.SAMPLES
    words = ["bundle", str(digits_model), "-o", str(tmp_path / "b"), "--data", str(digits_npz), "--samples", "3"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 3
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "b"), "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agrees"] is True and found["compared"][0]["values"] == 30
    assert CliRunner().invoke(main, ["verify", str(tmp_path)]).exit_code == 2


def test_the_bundle_alone_is_enough(two: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(two, tmp_path / "b"))
    with (folder / "job.json").open() as job:
        done = subprocess.run([sys.executable, "edgepress_agent.py"], stdin=job, cwd=folder, capture_output=True)
    assert done.returncode == 0 and json.loads(done.stdout)["outputs"] == [p.name for p in Manifest.load(two).outputs]
    done = subprocess.run([sys.executable, "-I", "check.py"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2  # there is none there
    done = subprocess.run([sys.executable, "-I", str(folder / "check.py")], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


# --- other kinds of devices -----------------------------------------------------------------------------------------


def test_a_device_without_python_answers_alike(two: Path, native: Native) -> None:
    found = verify(two, f"local?runner={native.runner}&library={native.library}")
    assert found.agrees and [row.differ for row in found.compared] == [0, 0, 0]
    assert found.machine["onnxruntime"] and "python" not in found.machine


def test_a_device_by_ssh_answers_alike(two: Path, loopback: Loopback) -> None:
    found = verify(two, loopback.spec(python=sys.executable))
    assert found.agrees and [row.differ for row in found.compared] == [0, 0, 0] and found.level == "measured"


# --- an emulated core -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def core() -> str:
    """An emulated Cortex-A72."""
    from edgepress.devices.emulated_cores import default_folder

    if not (default_folder() / "edgepress-arm.json").is_file():
        pytest.skip("no emulated ARM: make test-arm sets it up")
    return "emulated://cortex-a72"


def test_integers_are_the_same_bits_on_arm_and_floats_are_close(core: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=random.standard_normal((40, 4)).astype(np.float32))
    path = models.saved(models.integers_and_floats(), tmp_path / "both.onnx")
    bundle(path, tmp_path / "b", str(tmp_path / "x.npz"), samples=40)
    found = verify(tmp_path / "b", core)
    whole, broken = found.compared
    assert (whole.rule, whole.differ, whole.values, whole.agrees) == ("exact", 0, 160, True)
    assert broken.rule == "close" and broken.agrees
    assert broken.differ > 0 and 0 < broken.largest < broken.allowed  # other bits, near enough
    assert found.level == "counted" and "aarch64" in found.machine["os"]
