"""Compare a torch walk through a model with onnxruntime, tensor by tensor.

The relative difference of a tensor is ``max|a - b| / max(1e-6, max|b|)`` over its finite elements; infinities and
NaNs must stand in the same places. onnxruntime runs the file with graph optimization off, so that it shows what the
file says rather than what a fusion makes of it, in slices of tensors that keep memory bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from edgepress import runtime
from edgepress.executor.values import Value
from edgepress.model import Model

Walk = Callable[[], Iterator[tuple[str, Value]]]

ROUNDINGS = 8
"""Rounding errors that a tensor may be away in any case: float16 has but three digits."""

SLICE_BYTES = 256 * 2**20
"""Most bytes of tensors that one onnxruntime run hands over."""


def first_difference(model: Model, inputs: Mapping[str, np.ndarray], walk: Walk, tolerance: float) -> str | None:
    """The first float tensor of ``walk`` that differs from onnxruntime by more than ``tolerance``; None if none does.

    Args:
        model: the model walked through.
        inputs: graph inputs by name.
        walk: starts a walk: every tensor made, in graph order.
        tolerance: largest relative difference allowed, or ``ROUNDINGS`` of the tensor's type where that is more.
    """
    with torch.inference_mode():
        sizes = [(name, value.nbytes) for name, value in walk() if _comparable(model, name, value)]
        for names in _slices(sizes):
            opened = runtime.session(model.exposing(names), optimize=False)
            expected = runtime.run(opened, inputs, names)
            for name, value in walk():
                if name not in expected:
                    continue
                found = _array(value)
                allowed = max(tolerance, ROUNDINGS * float(np.finfo(found.dtype).eps))
                if not relative_difference(found, expected.pop(name)) <= allowed:
                    return name
    return None


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """``max|a - b| / max(1e-6, max|b|)``; infinite when shapes or the places of non-finite values differ."""
    if a.shape != b.shape:
        return np.inf
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return np.inf
    difference = np.abs(a[finite].astype(np.float64) - b[finite])
    return float(difference.max(initial=0.0) / max(1e-6, np.abs(b[finite]).max(initial=0.0)))


def _comparable(model: Model, name: str, value: Value) -> bool:
    """Float, and of a type that can be declared as an output (float32 unless the file states another)."""
    dtype = _array(value).dtype
    return bool(np.issubdtype(dtype, np.floating)) and (dtype != np.float16 or name in model.types)


def _array(value: Value) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _slices(sizes: Iterable[tuple[str, int]]) -> list[list[str]]:
    slices: list[list[str]] = []
    room = 0
    for name, size in sizes:
        if not slices or size > room:
            slices.append([])
            room = SLICE_BYTES
        slices[-1].append(name)
        room -= size
    return slices
