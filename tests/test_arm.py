"""int8 outputs are the same on every emulated ARM core; the tools that show it are right about what they see.

What needs the emulator is skipped unless `make test-arm` or tools/arm/setup.py has set it up (in build/arm, or in the
folder EDGEPRESS_ARM).
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from arm_tools import ROOT, TOOLS, tool

from edgepress.devices import emulated_cores
from edgepress.devices.emulated_cores import CORES, Crash

emulator, identical, integer, optimized = map(tool, ("emulator", "identical", "integer", "optimized"))
setup = tool("setup")


@pytest.fixture(scope="session")
def whole(digits_model: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded network, all of it in int8."""
    path = tmp_path_factory.mktemp("arm") / "digits.onnx"
    integer.integer(digits_model, str(digits_npz)).save(path)
    return path


def looked_at(path: Path, folder: Path) -> dict[str, int]:
    """The float operators of a model, from the graph that this machine runs."""
    samples = identical.samples_of(path, [], 1)
    emulator.run(emulator.here(), path, samples, optimized=folder / "optimized.onnx")
    graph = onnx.load(folder / "optimized.onnx")
    onnx.save(optimized.exposed(graph), folder / "exposed.onnx")
    inner = emulator.run(emulator.here(), folder / "exposed.onnx", samples, as_is=True, values=False)
    found: dict[str, int] = optimized.float_operators(graph, {name: item.type for name, item in inner.tensors.items()})
    return found


# --- what computes in float -----------------------------------------------------------------------------------------


def test_an_integer_network_has_floats_at_its_borders_only(whole: Path, tmp_path: Path) -> None:
    assert looked_at(whole, tmp_path) == {}
    assert looked_at(ROOT / "calibration" / "digits_cnn.onnx", tmp_path).keys() >= {"Conv", "Gemm"}


BORDERS = "xq = QuantizeLinear(x, s, z) yq = Relu(xq) y = DequantizeLinear(yq, s, z)"
BODIES = [
    ("xq = QuantizeLinear(x, s, z) y = DequantizeLinear(xq, s, z)", {}),
    ("xt = Transpose(x) xq = QuantizeLinear(xt, s, z) yd = DequantizeLinear(xq, s, z) y = Transpose(yd)", {}),
    ("xt = Sqrt(x) xq = QuantizeLinear(xt, s, z) y = DequantizeLinear(xq, s, z)", {"QuantizeLinear": 1, "Sqrt": 1}),
    (
        "xq = QuantizeLinear(x, s, z) yd = DequantizeLinear(xq, s, z) y = Softmax(yd)",
        {"DequantizeLinear": 1, "Softmax": 1},
    ),
    (
        "xq = QuantizeLinear(x, s, z) a = DequantizeLinear(xq, s, z) b = QuantizeLinear(a, t, z)"
        "y = DequantizeLinear(b, t, z)",
        {"DequantizeLinear": 1, "QuantizeLinear": 1},
    ),
]


@pytest.mark.parametrize(("body", "wanted"), BODIES)
def test_what_is_between_the_borders_is_named(body: str, wanted: dict[str, int]) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 21]>
        g (float[2,2] x) => (float[2,2] y) <float s = {{0.5}}, float t = {{0.25}}, uint8 z = {{3}}> {{ {body} }}"""
    graph = onnx.parser.parse_model(text)
    session = ort.InferenceSession(optimized.exposed(graph).SerializeToString())
    types = {value.name: value.type for value in session.get_outputs()}
    assert optimized.float_operators(graph, types) == wanted


def test_the_first_node_that_differs_is_named() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { a = Abs(x) b = Neg(a) y = Exp(b) }'
    )
    graph = onnx.parser.parse_model(text)
    assert optimized.first_difference(graph, {"a": "1", "b": "2", "y": "3"}, {"a": "1", "b": "4", "y": "5"}) == "Neg b"
    assert optimized.first_difference(graph, {"a": "1", "b": "2", "y": "3"}, {"a": "1", "b": "2", "y": "3"}) is None


# --- comparing ------------------------------------------------------------------------------------------------------


def outcome(*hashes: str, floats: dict[str, int] | None = None, crashes: dict[str, str] | None = None) -> Any:
    same = identical.Difference(0, 1, 0.0)
    named = {str(place): value for place, value in enumerate(hashes)}
    return identical.Result("m", 1, {}, floats or {}, named, crashes or {}, same, same, ())


def test_only_integer_models_must_agree() -> None:
    assert not outcome("a", "a").failed
    assert outcome("a", "b").failed
    assert not outcome("a", "b", floats={"Conv": 1}).failed
    assert outcome("a", floats={"Conv": 1}, crashes={"cortex-a53": "Illegal instruction"}).failed


def test_bits_are_compared_not_values() -> None:
    some, other = (np.array(values, np.float32) for values in ([0.0, 1.0, np.nan, 2.0], [-0.0, 1.0, np.nan, 2.5]))
    graph = onnx.ModelProto()
    found = identical.difference(emulator.Run({}, {"y": some}), emulator.Run({}, {"y": other}), graph)
    assert (found.differing, found.elements, found.largest) == (2, 4, 0.5)
    assert str(identical.difference(emulator.Run({}, {"y": some}), emulator.Run({}, {"y": some}), graph)).startswith(
        "id"
    )


@pytest.mark.parametrize(
    ("status", "errors", "words"),
    [
        (-4, "qemu: uncaught target signal 4 (Illegal instruction) - core dumped", "Illegal instruction"),
        (132, "", "Illegal instruction"),
        (-11, "qemu: uncaught target signal 11 (Segmentation fault)", "SIGSEGV"),
        (-9, "", "SIGKILL"),
        (-40, "", "signal 40"),
    ],
)
def test_a_crash_is_told_in_a_sentence(status: int, errors: str, words: str) -> None:
    assert words in (emulated_cores.cause(status, errors) or "")


def test_a_program_that_ends_by_itself_has_not_crashed() -> None:
    assert emulated_cores.cause(1, "Traceback\nFail: no kernel") is None
    assert emulated_cores.cause(255, "") is None


def test_what_cannot_be_used_is_said(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert identical.main([str(whole), "--arm", str(tmp_path)]) == 2
    assert "tools/arm/setup.py" in capsys.readouterr().err
    (tmp_path / "mine").write_text("keep me")
    assert setup.main([str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err and (tmp_path / "mine").is_file()


# --- on emulated cores ----------------------------------------------------------------------------------------------


def test_an_integer_network_answers_the_same_on_every_core(
    arm: Path, whole: Path, digits_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    cores = ",".join(CORES)
    words = [str(whole), "--data", str(digits_npz), "--samples", "32", "--cores", cores, "--arm", str(arm)]
    assert identical.main([*words, "--write", str(page)]) == 0
    (cells,) = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| dig")]
    assert cells[3:6] == ["none", ", ".join(CORES), "identical"]
    assert page.read_text(encoding="utf-8") == capsys.readouterr().out


def test_the_cores_are_arm_and_differ(arm: Path) -> None:
    words = ["-c", "import platform; print(platform.machine(), open('/proc/cpuinfo').read().count('asimddp'))"]
    told = {name: emulator.told(emulator.emulated(arm, name), words) for name in CORES}
    assert told == {name: f"aarch64 {4 if 'a55' in name or 'a76' in name else 0}" for name in CORES}


DOT_PRODUCT = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write((0x2E809400).to_bytes(4, "little"))  # udot v0.2s, v0.8b, v0.8b
code.write((0xD65F03C0).to_bytes(4, "little"))  # ret
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("done")
"""


def test_a_core_has_its_instructions_and_no_others(arm: Path) -> None:
    assert emulator.told(emulator.emulated(arm, "cortex-a76"), ["-c", DOT_PRODUCT]) == "done"
    for name in ("cortex-a53", "cortex-a72"):
        with pytest.raises(Crash, match=f"{name}: Illegal instruction"):
            emulator.told(emulator.emulated(arm, name), ["-c", DOT_PRODUCT])


def runs_dot_products(machine: Any, model: Path, log: Path) -> bool:
    """Whether a core that runs a model comes to sdot or udot instructions."""
    traced = dataclasses.replace(machine, command=(machine.command[0], "-d", "in_asm", "-D", log, *machine.command[1:]))
    emulator.run(traced, model, identical.samples_of(model, [], 1))
    with log.open(errors="replace") as lines:
        words = [int(found[1], 16) for line in lines if (found := re.match(r"0x[0-9a-f]+: +([0-9a-f]{8})\b", line))]
    log.unlink()  # tens of megabytes
    assert len(words) > 100_000
    return any(word & 0x9FE0FC00 == 0x0E809400 or word & 0x9FC0F400 == 0x0F80E000 for word in words)


def test_the_cores_run_different_kernels(arm: Path, whole: Path, tmp_path: Path) -> None:
    """Otherwise it would be no wonder that they agree."""
    found = {name: runs_dot_products(emulator.emulated(arm, name), whole, tmp_path / "log") for name in CORES}
    assert found == {"cortex-a53": False, "cortex-a55": True, "cortex-a72": False, "cortex-a76": True}


def test_setting_up_again_does_nothing(arm: Path) -> None:
    before = (arm / emulator.MARK).stat().st_mtime_ns
    done = subprocess.run([sys.executable, TOOLS / "setup.py", arm], capture_output=True, text=True, check=True)
    assert json.loads((arm / emulator.MARK).read_text())["summary"] in done.stdout
    assert (arm / emulator.MARK).stat().st_mtime_ns == before
