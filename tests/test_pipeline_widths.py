"""Widths in the pipeline, on the embedded digits network: files hold what is asked for, and plans are replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numeric_tools import feed_of

from edgepress.levels import INT8, bounds
from edgepress.pipeline import apply, compress
from edgepress.pipeline.candidates import Candidate, Judge, candidate
from edgepress.pipeline.context import Context
from edgepress.pipeline.integers import Maker, distance, integers
from edgepress.pipeline.lonely import worst_alone
from edgepress.pipeline.lowbit import mixed
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.plan import Plan, Quantization
from edgepress.quantize import unfused
from edgepress.quantize.graph.regions import has_float32_weight
from edgepress.request import Request, plan_path

ROOT = Path(__file__).parents[1] / "calibration"
MODEL, DATA = ROOT / "digits_cnn.onnx", ROOT / "digits.npz"


def request_of(**changes: Any) -> Request:
    made = Request(MODEL, None, str(DATA), dry_run=True, prune=False, workers=1, threads=1, bench_seconds=0.01,
                   target="x64-vnni")  # fmt: skip
    return dataclasses.replace(made, **changes)


@cache
def opened(workers: int = 1) -> tuple[Context, Judge, Candidate]:
    """The embedded network, a part of the samples without labels (divergence is finer than accuracy), and the judge."""
    request = request_of(workers=workers, max_drop=0.05)
    found = read(request)
    model = clean(found).model
    with np.load(DATA) as arrays:
        feed = feed_of(model, {"image": arrays["image"][:320]})
    context, _ = context_of(request, model, feed)
    judged = Judge(context, limit_of(request, model, feed), found.model.size)
    return context, judged, candidate("cleaned", "cleaned", model, (), judged(model), context.grouping.sizes)


@cache
def forms(bits: str, workers: int = 1) -> tuple[Candidate, ...]:
    """Integer forms at one width."""
    context, judged, cleaned = opened(workers)
    return tuple(integers(context, cleaned, judged, request_of(bits=bits, workers=workers)))


@cache
def low(share: float | None, workers: int = 1) -> tuple[Candidate, ...]:
    """Mixed-width forms: the smallest acceptable ones, or for a share of the original file."""
    context, judged, cleaned = opened(workers)
    wide = min(forms("8", workers), key=lambda item: (item.quantization is None, distance(item.verdict)))
    goal = None if share is None else int(share * judged.original_bytes)
    return tuple(mixed(context, cleaned, judged, request_of(bits="auto", workers=workers), wide, goal))


def smallest(found: Iterable[Candidate]) -> Candidate:
    return min((item for item in found if item.verdict.acceptable), key=lambda item: item.size)


def test_mixed_widths_keep_the_limit_in_fewer_bytes_than_int8() -> None:
    eight, mixed_ = smallest(forms("8")), smallest(low(None))
    assert mixed_.size < 0.65 * eight.size
    assert mixed_.verdict.acceptable
    assert mixed_.quantization is not None and len(set(mixed_.quantization.levels.values())) > 1
    assert unfused(mixed_.model.data) == []


def test_every_width_by_its_name_is_in_the_file() -> None:
    context, _, cleaned = opened()
    names = {node.name for node in cleaned.model.nodes if has_float32_weight(cleaned.model, node)}
    sizes = []
    for bits, levels in (("8", INT8), ("4", 16), ("2", 4)):
        found = next(item for item in forms(bits) if item.quantization and not item.quantization.float_nodes)
        assert found.quantization is not None
        said = found.quantization.levels
        assert said == ({} if levels == INT8 else dict.fromkeys(names, levels))
        low_, high = bounds(levels)
        made = Maker(context, cleaned, opened()[1]).material(found.quantization)
        assert made.weights.keys() == names
        for item in made.weights.values():
            assert low_ <= item.values.min() <= item.values.max() <= high
        assert max(len(np.unique(item.values)) for item in made.weights.values()) > levels // 2
        sizes.append(smallest_size(forms(bits)))
    assert sizes[0] > 1.6 * sizes[1] > 1.6 * sizes[2]


def smallest_size(found: tuple[Candidate, ...]) -> int:
    return min(item.size for item in found)


@pytest.mark.parametrize("share", [0.2, 0.12])
def test_a_file_size_is_met(share: float) -> None:
    goal = share * opened()[1].original_bytes
    found = low(share)
    assert found and min(item.size for item in found) <= goal
    assert max(item.size for item in found) > 0.85 * goal  # and made use of


def test_more_bytes_are_closer_to_the_original() -> None:
    narrow, wide = (min(distance(item.verdict) for item in low(share)) for share in (0.12, 0.2))
    assert wide < 0.7 * narrow


def test_the_same_bytes_for_any_number_of_workers() -> None:
    first, second = (low(0.12, workers) for workers in (1, 3))
    assert [item.model.data for item in first] == [item.model.data for item in second]
    assert [item.quantization for item in first] == [item.quantization for item in second]


@pytest.mark.parametrize(
    "changes", [{"bits": "3", "codebooks": True}, {"bits": "4", "fixed_point": True}], ids=["codebooks", "fixed point"]
)
def test_a_plan_is_replayed_to_the_same_bytes(
    changes: dict[str, Any], quick: None, digits_part: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.onnx"
    compress(request_of(output=output, data=str(digits_part), dry_run=False, max_drop=50, **changes))
    again = tmp_path / "again.onnx"
    apply(MODEL, plan_path(output), str(digits_part), again, workers=3)
    assert again.read_bytes() == output.read_bytes()
    plan = Plan.load(plan_path(output))
    assert plan.quantization is not None
    assert (plan.quantization.scales == "power-of-two") == bool(changes.get("fixed_point"))


def test_no_layer_is_tried_alone_where_none_is_int8() -> None:
    context, judged, cleaned = opened()
    maker = Maker(context, cleaned, judged)
    settings = Quantization(weight_limit=127)
    assert worst_alone(context, cleaned.model, maker.material(settings), settings, []) == ()


def test_candidates_have_names_of_their_own() -> None:
    found = [*forms("8"), *forms("4"), *low(None)]
    names = [item.name for item in found]
    assert len({item.name for item in found}) == len(names)
