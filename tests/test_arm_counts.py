"""Emulated cores answer as this machine does, have no instructions but their own, and need as many as they did.

All of it is skipped unless `make test-arm` or tools/arm/setup.py has set the emulator up.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from arm_tools import tool

from edgepress import targets
from edgepress.devices import Agent, Answer, open_device
from edgepress.devices.counting.cycles import cycles
from edgepress.devices.emulated import Emulated, Place
from edgepress.devices.emulated_cores import Crash
from edgepress.errors import DeviceError, ModelError

emulator, reference = map(tool, ("emulator", "reference"))

CRASHES = "1.21.0"
"""Has instructions of newer cores in code for all (onnxruntime issues 23957 and 24112)."""

SAMPLES = 4
CLOSE = 1e-5


@pytest.fixture(scope="module")
def networks() -> Any:
    return reference.items()


@pytest.fixture(scope="module")
def asked(networks: Any) -> tuple[bytes, list[dict[str, np.ndarray]], list[str], list[list[np.ndarray]]]:
    """All networks as one, a few samples, the names of its outputs, and what onnxruntime answers here."""
    whole, stacked = reference.together(networks)
    feeds = [{name: values[number] for name, values in stacked.items()} for number in range(SAMPLES)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    return whole, feeds, [output.name for output in session.get_outputs()], [session.run(None, feed) for feed in feeds]


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_a_core_answers_as_this_machine(arm: Path, asked: Any, core: str) -> None:
    """Integer networks bit for bit where nothing saturates here, float ones up to the order of sums."""
    whole, feeds, names, wanted = asked
    exact = targets.detect().weight_limit == 127
    with Emulated(f"emulated://{core}", Place(core, arm)) as device:
        agent = Agent(device)
        files = {"model": agent.send("whole.onnx", whole), "feeds": agent.send_feeds("feeds.npz", feeds)}
        answer = agent.perform({"task": "outputs", "to": "outputs.npz", **files})
        assert answer.report["outputs"] == names
        with np.load(io.BytesIO(agent.fetch("outputs.npz"))) as archive:
            found = [[archive[f"{number}/{place}"] for place in range(len(names))] for number in range(SAMPLES)]
    for answers, right in zip(found, wanted, strict=True):
        for name, one, other in zip(names, answers, right, strict=True):
            if "_int8/" not in name:
                assert np.abs(one - other).max() <= CLOSE * np.abs(other).max(), name
            elif exact:
                assert np.array_equal(one, other), name


def identified(arm: Path, core: str) -> Answer:
    """What a core says of itself, and one run of a model, with the onnxruntime that crashes."""
    if not (arm / f"site-{CRASHES}").is_dir():
        pytest.skip(f"no onnxruntime {CRASHES} beside the usual one: make test-arm adds it")
    with Emulated(f"emulated://{core}", Place(core, arm, CRASHES)) as device:
        agent = Agent(device)
        agent.send("digits.onnx", reference.DIGITS.read_bytes())
        agent.send_feeds("feeds.npz", [{"image": np.zeros((1, 1, 8, 8), np.float32)}])
        return agent.perform({"task": "outputs", "model": "digits.onnx", "feeds": "feeds.npz", "to": "outputs.npz"})


def test_an_onnxruntime_with_instructions_of_newer_cores_is_caught(arm: Path) -> None:
    """As on a real Raspberry Pi 4."""
    with pytest.raises(Crash, match="emulated://cortex-a72: Illegal instruction"):
        identified(arm, "cortex-a72")


def test_it_runs_on_a_newer_core(arm: Path) -> None:
    assert identified(arm, "cortex-a76").report["machine"]["onnxruntime"] == CRASHES


@pytest.fixture(scope="module")
def counting(arm: Path) -> Path:
    if not (arm / "plugins" / "classes.so").is_file():
        pytest.skip("no C compiler built the plugins that count")
    return arm


@pytest.mark.parametrize("core", reference.CORES)
def test_runs_have_as_many_instructions_as_before(counting: Path, networks: Any, core: str) -> None:
    known, versions = reference.figures(), emulator.versions(counting)
    if known["versions"] != versions:
        pytest.skip(f"figures are of {known['versions']}, this is {versions}: tools/arm/reference.py --write")
    found = reference.counted(counting, core, networks)
    assert reference.differences(known["counts"][core], found, core) == []
    assert found["digits"].fp_fma * 4 == pytest.approx(4.0e6, rel=0.01)  # multiply-adds of the network
    assert (found["digits_int8"].int_dot > 0) == (core == "cortex-a76")


def test_what_differs_is_named() -> None:
    known = reference.figures()["counts"]["cortex-a53"]
    kinds = {kind: known["dense"][kind] for kind in known["dense"] if kind != "total"}
    same = reference.Counts(known["dense"]["total"], **kinds)
    more = reference.Counts(known["dense"]["total"] + 600, **{**kinds, "fp_fma": kinds["fp_fma"] + 1})
    assert reference.differences(known, {"dense": same}, "c") == []
    assert [line.split(":")[0] for line in reference.differences(known, {"dense": more}, "c")] == [
        "c dense fp_fma",
        "c dense total",
    ]


def test_cycles_are_estimated_from_the_same_instructions(counting: Path, networks: Any) -> None:
    models = {name: networks[name][0] for name in ("digits", "digits_int8")}
    feed = {name: values[0] for name, values in networks["digits"][1].items()}
    with Emulated("emulated://cortex-a76", Place("cortex-a76", counting)) as device:
        try:
            found = cycles(Agent(device), models, feed)
        except DeviceError as error:
            if "llvm-mca" not in str(error):
                raise
            pytest.skip(str(error))
    known = reference.figures()
    for name, one in found.items():
        assert one.model.endswith("neoverse-n1") and one.covered >= 0.95
        if known["versions"] == emulator.versions(counting):
            assert one.instructions == pytest.approx(known["counts"]["cortex-a76"][name]["total"], rel=0.02)
        assert one.instructions / 4 < one.cycles < one.instructions  # a core that finishes one to four a cycle
    assert 2 < found["digits"].cycles / found["digits_int8"].cycles < 5


def test_a_model_that_cannot_be_loaded_is_told(arm: Path) -> None:
    with open_device(f"emulated://a53?folder={arm}") as device:
        agent = Agent(device)
        job = {"task": "outputs", "model": agent.send("m.onnx", b"no model"), "feeds": "x", "to": "y"}
        with pytest.raises(ModelError, match=r"On emulated://a53.*cannot load this model"):
            agent.perform(job)
