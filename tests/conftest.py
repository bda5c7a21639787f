"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from edgepress.request import Request, plan_path
from edgepress.targets import detect

if TYPE_CHECKING:  # the whole flow loads torch, which most tests do without
    from edgepress.devices import Native
    from edgepress.report import Report

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Compressed:
    """A finished compression, and what its input was like before."""

    request: Request
    report: Report
    model_before: bytes
    mtime_before: int

    @property
    def output(self) -> Path:
        """The model that was written."""
        assert self.request.output is not None
        return self.request.output

    @property
    def plan(self) -> Path:
        """The plan beside it."""
        return plan_path(self.output)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The oracle of some tests is onnxruntime on weights that saturate where the CPU of this machine lacks VNNI."""
    if item.get_closest_marker("whole_range") is not None and detect().weight_limit < 127:
        pytest.skip("onnxruntime saturates sums of int8 weights above 64 on a CPU without VNNI")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real models and data (`../shared`, or EDGEPRESS_SHARED); the test is skipped without it."""
    folder = Path(os.environ.get("EDGEPRESS_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no real models at {folder}: set EDGEPRESS_SHARED to the folder that holds models/ and data/")
    return folder


@pytest.fixture(scope="session")
def arm() -> Path:
    """Folder of the emulated ARM cores (`build/arm`, or EDGEPRESS_ARM); the test is skipped without it."""
    from arm_tools import tool  # few tests need it

    emulator = tool("emulator")
    folder: Path = emulator.default_folder()
    if emulator.ready(folder) is None:
        pytest.skip(f"no emulated ARM in {folder}: make test-arm sets it up")
    return folder


@pytest.fixture(scope="session")
def digits_model() -> Path:
    """The embedded network: input `image` [batch, 1, 8, 8], output `logits` [batch, 10]."""
    return ROOT / "calibration" / "digits_cnn.onnx"


@pytest.fixture(scope="session")
def digits_npz() -> Path:
    """The embedded samples for calibration: `image` [1197, 1, 8, 8], `label` [1197]."""
    return ROOT / "calibration" / "digits.npz"


@pytest.fixture(scope="session")
def digits_part(digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 samples for calibration, with labels: enough for a limit of one point, and quick."""
    path = tmp_path_factory.mktemp("digits") / "part.npz"
    with np.load(digits_npz) as arrays:
        np.savez(path, image=arrays["image"][:400], label=arrays["label"][:400])
    return path


@pytest.fixture(scope="session")
def compressed(digits_model: Path, digits_part: Path, tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    """One compression of the embedded network that many tests look at."""
    from edgepress.pipeline import compress

    folder = tmp_path_factory.mktemp("compressed")
    model = onnx.load(digits_model)
    onnx.helper.set_model_props(model, {"author": "somebody", "stage": "17"})
    onnx.save(model, folder / "digits.onnx")
    before = (folder / "digits.onnx").read_bytes(), (folder / "digits.onnx").stat().st_mtime_ns
    request = Request(
        folder / "digits.onnx", folder / "out.onnx", str(digits_part), threads=1, workers=2, bench_seconds=0.05
    )
    return Compressed(request, compress(request), *before)


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """The native runner, built for this machine once, and a library for it."""
    import runner_tools

    return runner_tools.native(tmp_path_factory.mktemp("runner"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line has no option for it: time in a fraction of a second, as far as a test needs it.

    Sessions need not be opened anew for that, nor layers be timed at many widths.
    """
    timing = importlib.import_module("edgepress.bench.timing")
    patient = timing.compare

    def hasty(*arguments: Any, **settings: Any) -> Any:
        return patient(*arguments, **{**settings, "seconds": 0.01, "min_rounds": 5})

    monkeypatch.setattr(timing, "compare", hasty)
    monkeypatch.setattr("edgepress.devices.agent.FEWEST_OPENINGS", 1)
    monkeypatch.setattr("edgepress.planner.timing.SECONDS", 0.5)
