"""The one place that talks to onnxruntime.

Every session of edgepress is made here, so that threads, optimisation level and log level are
always said, never inherited. ``ORT_ENABLE_ALL`` is the only level that is ever timed or shipped for:
below it QDQ graphs run 5-100 times slower than the same graph at ALL.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgepress.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime as ort

    Session = ort.InferenceSession  # for annotations of modules that do not know onnxruntime

Arrays = Mapping[str, np.ndarray]


def session(
    model: bytes | str | Path,
    *,
    threads: int = 1,
    optimized_to: Path | None = None,
    optimize: bool = True,
    weights: Arrays | None = None,
) -> ort.InferenceSession:
    """Open a CPU session on a model, given as bytes or as a path.

    Args:
        model: a serialized ModelProto or a path (needed for models with external data).
        threads: intra-op threads; inter-op is always 1.
        optimized_to: if given, onnxruntime writes its optimized graph there.
        optimize: False turns graph optimisation off (for parity checks of unusual graphs only).
        weights: values of the initializers that ``model`` marks as external data; they are used as they lie in memory,
            so that models above 2 GiB need no files.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _refusals() as error:
        raise ModelError(f"onnxruntime {ort.__version__} cannot load this model: {_first_line(error)}") from error


def run(opened: ort.InferenceSession, feed: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Run a session once; returns the outputs by name.

    Raises:
        ModelError: onnxruntime gave up while running (inputs of another shape or type, an operator that fails).
    """
    names = list(outputs) if outputs is not None else [output.name for output in opened.get_outputs()]
    try:
        return dict(zip(names, opened.run(names, dict(feed)), strict=True))
    except _refusals() as error:
        raise ModelError(f"onnxruntime cannot run this model on these inputs: {_first_line(error)}") from error


def fused_operators(model: bytes | str | Path, *, threads: int = 1) -> dict[str, int]:
    """Count the operators of the graph onnxruntime really runs (after its own fusions)."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        path = Path(folder) / "optimized.onnx"
        session(model, threads=threads, optimized_to=path)
        graph = onnx.load(path, load_external_data=False).graph
    return dict(sorted(Counter(node.op_type for node in graph.node).items()))


def _refusals() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model or inputs it cannot use."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    return (
        states.Fail,
        states.InvalidArgument,
        states.InvalidGraph,
        states.InvalidProtobuf,
        states.NoSuchFile,
        states.NotImplemented,
        states.RuntimeException,
        states.EPFail,
        states.NoModel,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
