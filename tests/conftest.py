"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real models and data (`../shared`, or EDGEPRESS_SHARED); the test is skipped without it."""
    folder = Path(os.environ.get("EDGEPRESS_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no real models at {folder}: set EDGEPRESS_SHARED to the folder that holds models/ and data/")
    return folder


@pytest.fixture(scope="session")
def digits_model() -> Path:
    """The embedded network: input `image` [batch, 1, 8, 8], output `logits` [batch, 10]."""
    return ROOT / "calibration" / "digits_cnn.onnx"


@pytest.fixture(scope="session")
def digits_npz() -> Path:
    """The embedded samples for calibration: `image` [1197, 1, 8, 8], `label` [1197]."""
    return ROOT / "calibration" / "digits.npz"
