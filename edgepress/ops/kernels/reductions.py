"""ReduceMean, ReduceSum, ReduceMax, Softmax and LogSoftmax.

The axes of a reduction are an attribute or an input depending on the opset; none at all means every axis, or
nothing to do when ``noop_with_empty_axes`` is set. Reductions over no elements are refused where ONNX gives no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edgepress.ops.kernels.call import Call, Kernel, axis_of, integers, require

Reducer = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _reduction(reducer: Reducer) -> Kernel:
    def kernel(call: Call, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        given = call.get("axes", None) if axes is None else axes
        chosen = [axis_of(axis, x.ndim) for axis in integers(given)] if given is not None else []
        if not chosen and not call.get("noop_with_empty_axes", 0):
            chosen = list(range(x.ndim))
        # torch reads "no axes" as "all axes"
        return reducer(x, chosen, bool(call.get("keepdims", 1))) if chosen else x

    return kernel


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require(x.numel() > 0, "ReduceMean over no elements")
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(torch.sum(x, axes, keep, dtype=torch.int64), count, rounding_mode="trunc").to(x.dtype)


def _max(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require(x.numel() > 0, "ReduceMax over no elements")
    return torch.amax(x, axes, keep)


def softmax(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``exp(x) / sum(exp(x))`` along one axis, the last by default (the opset 13 meaning)."""
    return torch.softmax(x, axis_of(int(call.get("axis", -1)), x.ndim))


def log_softmax(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The logarithm of :func:`softmax`."""
    return torch.log_softmax(x, axis_of(int(call.get("axis", -1)), x.ndim))


KERNELS: dict[str, Kernel] = {
    "reduce_mean": _reduction(_mean),
    "reduce_sum": _reduction(_sum),
    "reduce_max": _reduction(_max),
    "softmax": softmax,
    "log_softmax": log_softmax,
}
