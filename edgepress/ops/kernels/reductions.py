"""Reductions, Softmax and its relatives, running sums and products.

The axes of a reduction are an attribute or an input depending on the opset; none at all means every axis, or no
reduction when ``noop_with_empty_axes`` is set (the pointwise steps around it remain: ReduceSumSquare squares).
Over no elements a sum is 0, a product 1 and, from opset 20 on, a maximum the least value of its type; a mean is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edgepress.ops.kernels.call import Call, Host, Kernel, axis_of, integers, number, require

Reducer = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _reduction(reducer: Reducer, *, empty: Callable[[torch.dtype], float] | None = None) -> Kernel:
    """A kernel from a function of data, axes and keepdims; ``empty`` is what a type's extreme over nothing is."""

    def kernel(call: Call, x: torch.Tensor, axes: Host | None = None) -> torch.Tensor:
        given = call.get("axes", None) if axes is None else axes
        chosen = [axis_of(axis, x.ndim) for axis in integers(given)] if given is not None else []
        if not chosen and not call.get("noop_with_empty_axes", 0):
            chosen = list(range(x.ndim))
        keep = bool(call.get("keepdims", 1))
        if empty is not None and x.numel() == 0:
            require(call.opset >= 20, "a reduction over no elements before opset 20")
            return torch.full_like(torch.sum(x, chosen, keep), empty(x.dtype), dtype=x.dtype) if chosen else x
        return reducer(x, chosen, keep)

    return kernel


def _plain(function: Reducer) -> Reducer:
    """A reduction that leaves data alone without axes; torch reads "no axes" as "all axes"."""
    return lambda x, axes, keep: function(x, axes, keep) if axes else x


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype) if axes else x


def _mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require(x.numel() > 0, "ReduceMean over no elements")
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(torch.sum(x, axes, keep, dtype=torch.int64), count, rounding_mode="trunc").to(x.dtype)


def _prod(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _l2(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if not x.is_floating_point():
        return _sum(x * x, axes, keep).double().sqrt().to(x.dtype)
    # its gradient is 0 where the norm is
    return torch.linalg.vector_norm(x, 2, axes, keep) if axes else x.abs()


def _log_sum_exp(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require(x.is_floating_point(), f"ReduceLogSumExp of {x.dtype}")
    return torch.logsumexp(x, axes, keep) if axes else x


def _log_sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require(x.is_floating_point(), f"ReduceLogSum of {x.dtype}")
    return _sum(x, axes, keep).log()


def _least(kind: torch.dtype) -> float:
    return -math.inf if kind.is_floating_point else _limits(kind)[0]


def _greatest(kind: torch.dtype) -> float:
    return math.inf if kind.is_floating_point else _limits(kind)[1]


def _limits(kind: torch.dtype) -> tuple[int, int]:
    return (0, 1) if kind == torch.bool else (torch.iinfo(kind).min, torch.iinfo(kind).max)


def _extreme(pick: str) -> Kernel:
    """ArgMax or ArgMin: where the first, or with ``select_last_index`` the last, extreme element is."""

    def kernel(call: Call, x: torch.Tensor) -> torch.Tensor:
        axis, keep = axis_of(int(call.get("axis", 0)), x.ndim), bool(call.get("keepdims", 1))
        function = torch.argmax if pick == "max" else torch.argmin
        if call.get("select_last_index", 0):
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)
        return function(x, axis, keep)

    return kernel


def _along(function: Callable[[torch.Tensor, int], torch.Tensor]) -> Kernel:
    """A function of one axis, the last by default; before opset 13 of all axes from ``axis`` (1) on, as one."""

    def kernel(call: Call, x: torch.Tensor) -> torch.Tensor:
        if call.opset >= 13:
            return function(x, axis_of(int(call.get("axis", -1)), x.ndim))
        axis = axis_of(int(call.get("axis", 1)), x.ndim)
        rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return function(rows, 1).reshape(x.shape)

    return kernel


def _hardmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    first = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, torch.ones_like(x))


def _running(function: Callable[..., torch.Tensor], start: int) -> Kernel:
    """CumSum or CumProd: along one axis, ``exclusive`` of the element itself, ``reverse`` from the end."""

    def kernel(call: Call, x: torch.Tensor, axis: Host) -> torch.Tensor:
        along = axis_of(int(number(axis)), x.ndim)
        x = x.flip(along) if call.get("reverse", 0) else x
        y = function(x, along, dtype=x.dtype)
        if call.get("exclusive", 0) and x.shape[along]:
            first = torch.full_like(y.narrow(along, 0, 1), start)
            y = torch.cat([first, y.narrow(along, 0, x.shape[along] - 1)], along)
        return y.flip(along) if call.get("reverse", 0) else y

    return kernel


KERNELS: dict[str, Kernel] = {
    "reduce_mean": _reduction(_plain(_mean)),
    "reduce_sum": _reduction(_sum),
    "reduce_max": _reduction(_plain(torch.amax), empty=_least),
    "reduce_min": _reduction(_plain(torch.amin), empty=_greatest),
    "reduce_prod": _reduction(_prod),
    "reduce_l1": _reduction(lambda x, axes, keep: _sum(x.abs(), axes, keep)),
    "reduce_l2": _reduction(_l2),
    "reduce_log_sum": _reduction(_log_sum),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_sum_square": _reduction(lambda x, axes, keep: _sum(x * x, axes, keep)),
    "arg_max": _extreme("max"),
    "arg_min": _extreme("min"),
    "softmax": _along(torch.softmax),
    "log_softmax": _along(torch.log_softmax),
    "hardmax": _along(_hardmax),
    "cum_sum": _running(torch.cumsum, 0),
    "cum_prod": _running(torch.cumprod, 1),
}
