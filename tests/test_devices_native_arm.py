"""The native runner for arm64, on emulated cores: a phone as far as one can be had without one.

adb is a stand-in, its device a folder where programs are started by qemu. Skipped unless tools/arm/native.py has set it
up.
"""

from __future__ import annotations

import importlib
import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from quantize_tools import LIMIT
from runner_tools import Phone, put_on_path

from edgepress.devices import Agent, Answer, Native, emulated_cores, open_device
from edgepress.devices.counting.marks import Counts, counts_in
from edgepress.devices.runner import elf
from edgepress.errors import DeviceError

ROOT = Path(__file__).parents[1]
Put = Callable[..., Phone]


@pytest.fixture(scope="module")
def folder() -> Path:
    """Of the emulator, with the runner in it."""
    place = emulated_cores.default_folder()
    place = place if place.is_absolute() else ROOT / place
    if not (place / "native" / "edgerun").is_file():
        pytest.skip(f"no runner for arm64 in {place}: python tools/arm/native.py builds it")
    return place.resolve()


@pytest.fixture
def put(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Have a phone of such cores attached."""

    def phone(core: str, plugin: str = "", native: Native | None = None) -> Phone:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "phone").mkdir(exist_ok=True)
        put_on_path(tmp_path / "bin", tmp_path / "phone", monkeypatch)
        (tmp_path / "bin" / "uname").write_text("#!/bin/sh\necho aarch64\n")
        (tmp_path / "bin" / "uname").chmod(0o755)
        words = emulated_cores.command(folder, core, folder / "plugins" / f"{plugin}.so" if plugin else None)[:-1]
        libraries = emulated_cores.environment(folder)["LD_LIBRARY_PATH"]
        monkeypatch.setenv("STAND_IN_WRAP", shlex.join(["env", "-i", f"LD_LIBRARY_PATH={libraries}", *words]))
        return Phone(tmp_path / "phone", native or Native(*(folder / "native" / name for name in NAMES)))

    return phone


NAMES = ("edgerun", "libonnxruntime.so")
KERNELS = ("fp_fma", "int_dot", "int_mmla", "int_widen_mla")
"""Classes of instructions that only kernels have: copying and comparing texts takes some of the others."""


@pytest.fixture(scope="module")
def models(digits_model: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The embedded network in float and all of it in int8."""
    if str(ROOT / "tools" / "arm") not in sys.path:
        sys.path.append(str(ROOT / "tools" / "arm"))
    path = tmp_path_factory.mktemp("arm") / "int8.onnx"
    importlib.import_module("integer").integer(digits_model, str(digits_npz), LIMIT).save(path)
    return {"float": digits_model.read_bytes(), "int8": path.read_bytes()}


@pytest.fixture(scope="module")
def images(digits_npz: Path) -> np.ndarray:
    with np.load(digits_npz) as archive:
        return np.asarray(archive["image"][:6])


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_outputs_are_those_of_this_machine(put: Put, models: dict[str, bytes], images: np.ndarray, core: str) -> None:
    with open_device(put(core).spec) as device:
        host = Agent(device)
        host.send_feeds("f.npz", [{"image": images[:2]}, {"image": images[2:]}])
        found: dict[str, list[np.ndarray]] = {}
        for name, model in models.items():
            host.send(f"{name}.onnx", model)
            answer = host.perform({"task": "outputs", "model": f"{name}.onnx", "feeds": "f.npz", "to": "o.npz"})
            with np.load(io.BytesIO(host.fetch("o.npz"))) as archive:
                found[name] = [archive["0/0"], archive["1/0"]]
    about = answer.report["machine"]
    assert about["machine"] == "aarch64" and about["part"] == f"{emulated_cores.CORES[core].part:#x}"
    assert ("asimddp" in about["flags"]) == (core == "cortex-a76")
    for name, model in models.items():
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        wanted = [session.run(None, {"image": part})[0] for part in (images[:2], images[2:])]
        for here, there in zip(wanted, found[name], strict=True):
            if name == "int8":
                assert here.tobytes() == there.tobytes()
            np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5)


def counted(phone: Phone, models: dict[str, bytes], image: np.ndarray) -> tuple[Answer, dict[str, Counts]]:
    with open_device(phone.spec) as device:
        host = Agent(device)
        host.send_feeds("f.npz", [{"image": image}])
        names = {name: host.send(f"{name}.onnx", model) for name, model in models.items()}
        answer = host.perform({"task": "count", "models": names, "feeds": "f.npz", "warmup": 2, "runs": 2})
    return answer, counts_in(answer.stderr, answer.report["names"])


def test_counted_instructions_are_the_same_but_for_some_bookkeeping(
    put: Put, folder: Path, models: dict[str, bytes], images: np.ndarray
) -> None:
    if not (folder / "plugins" / "classes.so").is_file():
        pytest.skip("the plugin that counts was not built")
    runs = [counted(put("cortex-a76", "classes"), models, images[:1]) for _ in range(2)]
    found = [counts for _, counts in runs]
    for name in models:
        assert len({tuple(getattr(counts[name], kind) for kind in KERNELS) for counts in found}) == 1
        totals = [counts[name].total for counts in found]
        assert max(totals) - min(totals) < 1e-3 * min(totals)
    assert found[0]["float"].fp_fma > 20 * found[0]["int8"].fp_fma and found[0]["float"].int_dot == 0
    assert found[0]["int8"].int_dot > 1000
    _, without = counted(put("cortex-a53", "classes"), models, images[:1])
    assert without["int8"].int_dot == 0 and without["float"].fp_fma == found[0]["float"].fp_fma


def test_files_of_this_machine_are_refused(put: Put, folder: Path, native: Native) -> None:
    if elf.built(native.runner).machine != "x86-64":
        pytest.skip("this machine is no x86-64")
    mixed = Native(folder / "native" / "edgerun", native.library)
    for pair, words in [(native, "are built for x86-64, adb://.* is aarch64"), (mixed, "for aarch64, .* for x86-64")]:
        with open_device(put("cortex-a76", native=pair).spec) as device, pytest.raises(DeviceError, match=words):
            Agent(device).perform({"task": "identify"})
