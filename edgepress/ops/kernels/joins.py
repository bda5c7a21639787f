"""Arithmetic, comparison and choice on two or more operands with numpy broadcasting (ONNX "multidirectional").

Integer division truncates and Pow keeps the type of its base, as the ONNX reference says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

from edgepress.ops.kernels.call import Call, Kernel, alike, require

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _binary(function: Binary) -> Kernel:
    def kernel(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        alike(a, b)
        return function(a, b)

    return kernel


def _variadic(function: Binary) -> Kernel:
    def kernel(call: Call, *operands: torch.Tensor) -> torch.Tensor:
        alike(*operands)
        return reduce(function, operands)

    return kernel


def div(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a / b``; integers are divided towards zero."""
    alike(a, b)
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


def modulo(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What is left of ``a / b``: the sign of ``b``, with ``fmod`` that of ``a``."""
    alike(a, b)
    if call.get("fmod", 0):
        return torch.fmod(a, b)
    require(call.opset >= 28 or not a.is_floating_point(), "Mod of floats without fmod before opset 28")
    return torch.remainder(a, b)


def mean(call: Call, *operands: torch.Tensor) -> torch.Tensor:
    """The sum of the operands divided by their number."""
    alike(*operands)
    return reduce(torch.add, operands) / len(operands)


def where(call: Call, condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``x`` where the condition holds, else ``y``."""
    alike(x, y)
    return torch.where(condition, x, y)


def swiglu(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a * sigmoid(alpha * a) * b`` of two tensors of one shape."""
    alike(a, b)
    require(a.shape == b.shape, f"SwiGLU of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return a * torch.sigmoid(float(call.get("alpha", 1.0)) * a) * b


KERNELS: dict[str, Kernel] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "div": div,
    "pow": power,
    "mod": modulo,
    "sum": _variadic(torch.add),
    "mean": mean,
    "min": _variadic(torch.minimum),
    "max": _variadic(torch.maximum),
    "where": where,
    "equal": _binary(torch.eq),
    "greater": _binary(torch.gt),
    "greater_or_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "less_or_equal": _binary(torch.le),
    "and": _binary(torch.logical_and),
    "or": _binary(torch.logical_or),
    "xor": _binary(torch.logical_xor),
    "swiglu": swiglu,
}
