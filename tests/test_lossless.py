"""Whole flow: unneeded channels that were planted are removed, and the outputs stay equal within 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numeric_tools import run
from planted import KINDS, Planted, cnn, everything, everything_free, mlp

from edgepress import pipeline
from edgepress.model import Model
from edgepress.pipeline.analysis import analyze
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.narrowing import lossless
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.plan import Plan
from edgepress.request import Request


def found_lossless(folder: Path, model: Model, samples: np.ndarray) -> Candidate | None:
    """What compress does to find and remove free channels."""
    model.save(folder / "model.onnx")
    np.savez(folder / "samples.npz", x=samples)
    request = Request(
        folder / "model.onnx", None, str(folder / "samples.npz"), width_multiple=1, quantize=False, dry_run=True
    )
    opened = read(request)
    assert opened.feed is not None
    cleaned = clean(opened).model
    context, refusals = context_of(request, cleaned, opened.feed)
    assert not refusals
    return lossless(
        context, analyze(context), Judge(context, limit_of(request, cleaned, opened.feed), opened.model.size)
    )


def worst(model: Model, other: Model, x: np.ndarray) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(run(model, {"x": x}), run(other, {"x": x}), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [mlp, cnn])
def test_planted_channels_go_and_outputs_stay(build: Callable[[str], Planted], kind: str, tmp_path: Path) -> None:
    planted = build(kind)
    found = found_lossless(tmp_path, planted.model, planted.samples(320))
    if not planted.free:
        assert found is None
        return
    assert found is not None
    (cut,) = found.cuts
    assert len(cut.removed) == planted.free
    for family, expected in planted.families.items():
        assert len(family & set(cut.removed)) == expected
    assert found.model.constants["w1"].shape[0] == planted.model.constants["w1"].shape[0] - planted.free
    assert worst(planted.model, found.model, planted.samples(200, seed=99)) < 1e-5


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, 16, 16)).astype(np.float32)


def test_everything_at_once_in_two_layers(tmp_path: Path) -> None:
    model = Model.of(everything())
    found = found_lossless(tmp_path, model, pictures(400, 0))
    assert found is not None
    assert [len(cut.removed) for cut in found.cuts] == everything_free()
    assert found.verdict.state == "within" and found.verdict.sqnr > 90
    assert worst(model, found.model, pictures(300, 99)) < 1e-5


@pytest.mark.parametrize("labelled", [False, True])
def test_compress_with_no_loss_allowed_writes_the_lossless_model(labelled: bool, tmp_path: Path) -> None:
    model = Model.of(everything())
    x = pictures(400, 0)
    model.save(tmp_path / "model.onnx")
    labels = {"label": run(model, {"x": x})[0].argmax(1)} if labelled else {}
    np.savez(tmp_path / "samples.npz", x=x, **labels)
    request = Request(
        tmp_path / "model.onnx",
        tmp_path / "small.onnx",
        str(tmp_path / "samples.npz"),
        max_drop=0.0,
        target="qnn",  # nothing is timed: the smallest is taken, whatever odd widths cost on this CPU
        quantize=False,
        width_multiple=1,
        threads=1,
    )
    report = pipeline.compress(request)
    quality = next(variant.quality for variant in report.variants if variant.name == report.chosen)
    assert quality is not None
    assert quality.state == "within"
    assert (quality.measure, quality.drop) == ("accuracy" if labelled else "agreement", 0.0)
    small = Model.load(tmp_path / "small.onnx")
    assert worst(model, small, pictures(300, 99)) < 1e-5
    cuts = Plan.load(tmp_path / "small.plan.json").cuts
    assert [len(cut.removed) for cut in cuts] == everything_free()
