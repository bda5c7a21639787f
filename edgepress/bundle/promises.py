"""Promises: how near a device must come to each output, by what onnxruntime runs behind it here.

    exact   all is integer, of operators that agree between CPUs bit by bit (:mod:`edgepress.bundle.exact`)
    equal   whole numbers (labels, indices) that float arithmetic decides
    close   float arithmetic: a share of the span of the expected values, and a step where they are rounded at the end

The share is that of edgepress's own parity check for float32, more for half precision. Behind float arithmetic and a
rounding to integers it is larger again: where a float lands next to a half, CPUs round it to neighbouring integers, and
what follows differs by whole steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgepress import runtime
from edgepress.bundle.exact import Graph, exposed
from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.normalize.parity import HALF_LIMIT, LIMIT
from edgepress.report.bundle import Promise

QUANTIZED_LIMIT = 0.05
"""Share of the span behind floats that are rounded to integers."""

STEP = 1.0
"""What an output of rounded values may differ by beside that."""

_SMALL = ("int8", "uint8")


def promises(path: Path, model: Model, answers: Sequence[np.ndarray]) -> tuple[Promise, ...]:
    """One promise for each output.

    Args:
        path: the model as a file.
        model: the same, read.
        answers: what it answers to some input, for the types.
    """
    graph = _graph(path, model)
    return tuple(_promise(name, answer, graph) for name, answer in zip(model.outputs, answers, strict=True))


def _promise(name: str, answer: np.ndarray, graph: Graph | None) -> Promise:
    inexact = {"the model": 1} if graph is None else graph.inexact(name)
    if not inexact:
        return Promise(
            name, "exact", 0.0, 0.0, "nothing behind it computes in float, and integer sums are exact on every CPU"
        )
    why = _why(inexact) if graph else "what onnxruntime makes of this model could not be looked into"
    whole = answer.dtype.kind in "biu"
    if whole and not _rounded(name, answer, graph):
        return Promise(name, "equal", 0.0, 0.0, f"whole numbers, though {why}: near a tie a CPU may decide otherwise")
    absolute = STEP if whole else 0.0
    if graph is None or graph.quantized(name):
        more = "and values are rounded to integers on the way"
        return Promise(name, "close", QUANTIZED_LIMIT, absolute, f"{why}, {more}")
    half = graph.half(name) or answer.dtype == np.float16
    return Promise(name, "close", HALF_LIMIT if half else LIMIT, absolute, why)


def _rounded(name: str, answer: np.ndarray, graph: Graph | None) -> bool:
    """Whether whole numbers are rounded values, not labels or indices."""
    return answer.dtype.kind != "b" and (str(answer.dtype) in _SMALL if graph is None else graph.rounded(name))


def _why(inexact: Mapping[str, int]) -> str:
    named = list(inexact)
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f"CPUs may round {', '.join(named[:3])}{more} otherwise"


def _graph(path: Path, model: Model) -> Graph | None:
    """What onnxruntime runs; None if that cannot be looked into."""
    if not model.fits_one_file:
        return None
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        written = Path(folder) / "optimized.onnx"
        runtime.session(path, optimized_to=written)
        graph = onnx.load(written, format="protobuf")
    try:
        inner = runtime.session(exposed(graph).SerializeToString(), optimize=False)
    except ModelError:  # it has tensors that cannot be outputs
        return None
    return Graph(graph, {value.name: value.type for value in inner.get_outputs()})
