"""Arithmetic on two or more operands with numpy broadcasting (ONNX "multidirectional" broadcasting).

Integer division truncates and Pow keeps the type of its base, as the ONNX reference says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

from edgepress.ops.kernels.call import Call, Kernel, require

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _binary(function: Binary) -> Kernel:
    def kernel(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        require(a.dtype == b.dtype, f"operands of {a.dtype} and {b.dtype}")
        return function(a, b)

    return kernel


def _variadic(function: Binary) -> Kernel:
    def kernel(call: Call, *operands: torch.Tensor) -> torch.Tensor:
        require(len({operand.dtype for operand in operands}) == 1, "operands of different element types")
        return reduce(function, operands)

    return kernel


def div(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a / b``; integers are divided towards zero."""
    require(a.dtype == b.dtype, f"operands of {a.dtype} and {b.dtype}")
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(call: Call, base: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """``base ** exponent`` in the type of ``base``."""
    if base.is_floating_point():
        # a constant exponent as a number: x ** 2 by the scalar kernel is a multiplication
        if exponent.numel() == 1 and exponent.ndim <= base.ndim and not exponent.requires_grad:
            return torch.pow(base, exponent.item())
        return torch.pow(base, exponent.to(base.dtype))
    if exponent.is_floating_point():
        return torch.pow(base.double(), exponent.double()).to(base.dtype)
    require(bool((exponent >= 0).all()), "integers to a negative integer power")
    return torch.pow(base, exponent).to(base.dtype)


KERNELS: dict[str, Kernel] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "div": div,
    "pow": power,
    "sum": _variadic(torch.add),
    "min": _variadic(torch.minimum),
    "max": _variadic(torch.maximum),
}
