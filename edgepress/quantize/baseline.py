"""The peer to beat: static int8 with onnxruntime's own tool, used as its documentation advises.

``quant_pre_process`` (shape inference and onnxruntime's optimizer), then ``quantize_static`` in QDQ format with uint8
activations, int8 weights per channel and MinMax calibration on the same samples. It gets the cleaned float model, so
the difference to edgepress is the quantization alone. It may decline: the reason comes back as a Refusal.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgepress.errors import ModelError, Refusal
from edgepress.model import Model
from edgepress.quantize.activations.ranges import Samples

CHUNK = 8

_WARNINGS, _ERRORS = 2, 3
"""Severities of onnxruntime's logger."""


def plain_static_int8(model: Model, feed: Samples, folder: Path) -> Model | Refusal:
    """The model quantized by plain onnxruntime.

    Args:
        model: the cleaned float model.
        feed: calibration samples.
        folder: where a temporary folder may be made.

    Returns:
        The int8 model; a Refusal if the tool cannot quantize it.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    known = (ValueError, RuntimeError, NotImplementedError, TypeError, KeyError, IndexError, AttributeError)
    errors = (*known, states.Fail, states.InvalidArgument, states.InvalidGraph, states.RuntimeException, ModelError)
    with tempfile.TemporaryDirectory(prefix="edgepress-", dir=folder) as name, _quiet():
        try:
            made = _quantized(model, feed, Path(name))
            made.session()  # below operator set 13 it writes what onnxruntime does not load
        except errors as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return Refusal("plain onnxruntime int8", f"its quantizer does not take this model: {first}")
    return made


def _quantized(model: Model, feed: Samples, folder: Path) -> Model:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, clean, target = (folder / name for name in ("float.onnx", "clean.onnx", "int8.onnx"))
    source.write_bytes(model.data)
    quant_pre_process(str(source), str(clean), skip_symbolic_shape=True)
    quantize_static(
        str(clean),
        str(target),
        _reader(feed),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return Model.of(onnx.load(target))


def _reader(feed: Samples) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Hands the samples over one chunk at a time."""

        def __init__(self) -> None:
            self.chunks = iter(feed.chunks(CHUNK))

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The inputs of the next chunk; None at the end."""
            chunk = next(self.chunks, None)
            return None if chunk is None else dict(chunk.inputs)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tool's advice off the terminal (and numpy's, where a mask is infinite), and the root logger as it was.

    The sessions that the tool opens itself warn by onnxruntime's own logger, of which warnings are the default.
    """
    import onnxruntime

    root = logging.getLogger()
    handlers, before = list(root.handlers), logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        logging.disable(before)
        root.handlers[:] = handlers
