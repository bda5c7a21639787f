"""Feeds, sessions and slow oracles for the tests of the numeric core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgepress import runtime
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.inputs import wanted
from edgepress.calibrate.statistics import Gram, SplitGram
from edgepress.calibrate.stream import from_stream
from edgepress.calibrate.views import Part, parts
from edgepress.errors import Refusal
from edgepress.model import Model


def feed_of(model: Model, arrays: Mapping[str, np.ndarray]) -> Feed:
    """A feed over arrays (samples along the first axis)."""
    return Feed.over(from_stream([("arrays", arrays)], wanted(model), "arrays"))


def run(model: Model, inputs: Mapping[str, np.ndarray], tensors: Sequence[str] | None = None) -> list[np.ndarray]:
    """Outputs, or inner tensors, of a model in onnxruntime."""
    data = model.data if tensors is None else model.exposing(list(tensors))
    return list(runtime.run(runtime.session(data), inputs).values())


def chunks(x: np.ndarray, size: int = 32) -> list[Mapping[str, np.ndarray]]:
    """Feeds for the input x, in chunks."""
    return [{"x": x[start : start + size]} for start in range(0, len(x), size)]


def parts_of(model: Model, position: int = 0) -> tuple[Part, ...]:
    """The linear operators of a node that must have some."""
    found = parts(model, model.nodes[position])
    assert not isinstance(found, Refusal), found
    return found


def view_of(model: Model, position: int = 0) -> Part:
    """The linear operator of a node that must have one."""
    (part,) = parts_of(model, position)
    return part


def matrix_of(model: Model, view: Part) -> np.ndarray:
    """[W, b] of a node as stored; zeros where it has no bias."""
    return view.matrix(model.constants)


def split_of(rows: np.ndarray, targets: np.ndarray, held: int = 0) -> SplitGram:
    """Moments of rows (ones appended) with the last ``held`` rows held out."""
    whole = np.column_stack([rows, np.ones(len(rows))])
    cut = len(rows) - held
    fit = Gram.of(whole[:cut], targets[:cut])
    return SplitGram(fit, Gram.of(whole[cut:], targets[cut:]) if held else None)


def relative(found: np.ndarray, wanted_: np.ndarray) -> float:
    """Largest difference, relative to the largest wanted value."""
    return float(np.abs(found - wanted_).max() / max(1e-30, float(np.abs(wanted_).max())))
