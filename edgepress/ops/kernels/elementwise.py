"""One output element from one input element: activations, arithmetic on one operand, Cast, and the do-nothings.

Formulas as in the ONNX operator reference. Constant operands (bounds of Clip) are read as numbers unless they
carry a gradient: the scalar kernels of torch are several times faster than the broadcasting ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto

from edgepress.ops.kernels.call import Call, Kernel, require
from edgepress.ops.kernels.types import CAST_TYPES

Unary = Callable[[torch.Tensor], torch.Tensor]


def _unary(function: Unary) -> Kernel:
    def kernel(call: Call, x: torch.Tensor) -> torch.Tensor:
        return function(x)

    return kernel


def clip(
    call: Call, x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    """Clip to scalar bounds, attributes before opset 11; where ``low > high`` the result is ``high``."""
    if call.opset < 11:
        lowest, highest = _old_bounds(call, x)
        return torch.clamp(x, lowest, highest)
    bounds = [bound for bound in (low, high) if bound is not None]
    require(all(bound.numel() == 1 for bound in bounds), "Clip with bounds that are not scalars")
    if not bounds:
        return x
    if any(bound.requires_grad for bound in bounds):
        return torch.clamp(x, None if low is None else low.reshape(()), None if high is None else high.reshape(()))
    return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())


def _old_bounds(call: Call, x: torch.Tensor) -> tuple[float, float]:
    """Bounds of Clip before opset 11: attributes, by default the finite range of float (since opset 6)."""
    wide = x.dtype in (torch.float32, torch.float64)
    limit = torch.finfo(torch.float32).max if call.opset >= 6 and wide else math.inf
    return float(call.get("min", -limit)), float(call.get("max", limit))


def leaky_relu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x`` where ``x >= 0``, else ``alpha * x``."""
    return F.leaky_relu(x, float(call.get("alpha", 0.01)))


def prelu(call: Call, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """``x`` where ``x >= 0``, else ``slope * x``; ``slope`` broadcasts to the shape of ``x`` only.

    One slope, or one per channel ``[C, 1, ...]``, goes to torch's own kernel, 30 times faster than the general case.
    """
    require(np.broadcast_shapes(x.shape, slope.shape) == x.shape, "PRelu with a slope larger than its data")
    aligned = (1,) * (x.ndim - slope.ndim) + tuple(slope.shape)
    per_channel = x.ndim >= 2 and aligned == (1, x.shape[1]) + (1,) * (x.ndim - 2)
    if x.is_floating_point() and (slope.numel() == 1 or per_channel):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, x * slope)


def hard_sigmoid(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``clamp(alpha * x + beta, 0, 1)``."""
    return (x * float(call.get("alpha", 0.2)) + float(call.get("beta", 0.5))).clamp(0.0, 1.0)


def elu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x`` where ``x >= 0``, else ``alpha * (exp(x) - 1)``."""
    return F.elu(x, float(call.get("alpha", 1.0)))


def softplus(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``log(1 + exp(x))``; past 40 the sum is ``x`` to the last bit of float64."""
    return F.softplus(x, threshold=40.0)


def gelu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x * Phi(x)``, or its tanh approximation."""
    approximate = call.get("approximate", "none")
    require(approximate in ("none", "tanh"), f"Gelu approximated by {approximate!r}")
    return F.gelu(x, approximate=approximate)


def celu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x`` where ``x >= 0``, else ``alpha * (exp(x / alpha) - 1)``."""
    return F.celu(x, float(call.get("alpha", 1.0)))


def selu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``gamma * elu(x, alpha)``; the defaults are those of self-normalizing networks."""
    usual = (1.67326319217681884765625, 1.05070102214813232421875) if call.opset >= 6 else (1.6732, 1.0507)
    return F.elu(x, float(call.get("alpha", usual[0]))) * float(call.get("gamma", usual[1]))


def swish(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x * sigmoid(alpha * x)``."""
    alpha = float(call.get("alpha", 1.0))
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def thresholded_relu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x`` where ``x > alpha``, else 0."""
    return torch.where(x > float(call.get("alpha", 1.0)), x, torch.zeros_like(x))


def shrink(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x + bias`` below ``-lambd``, ``x - bias`` above ``lambd``, 0 between."""
    limit, bias = float(call.get("lambd", 0.5)), float(call.get("bias", 0.0))
    require(x.is_floating_point(), f"Shrink of {x.dtype}")
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


def is_inf(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Whether an element is infinite, of the signs asked for."""
    none = torch.zeros_like(x, dtype=torch.bool)
    above = torch.isposinf(x) if call.get("detect_positive", 1) else none
    below = torch.isneginf(x) if call.get("detect_negative", 1) else none
    return above | below


def cast(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Convert between floats, integers and bool; float to integer truncates, anything but 0 is true."""
    code = int(call.attributes["to"])
    require(code in CAST_TYPES, f"Cast to {TensorProto.DataType.Name(code)}")
    return x.to(CAST_TYPES[code])


def cast_like(call: Call, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Convert to the element type of ``target``."""
    require(target.dtype in CAST_TYPES.values(), f"CastLike to {target.dtype}")
    return x.to(target.dtype)


def identity(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The input itself."""
    return x


def dropout(
    call: Call, x: torch.Tensor, ratio: torch.Tensor | None = None, training: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Inference Dropout: the input itself and, from opset 12 on, a mask that is true everywhere."""
    require(training is None or not bool(training), "Dropout in training mode")
    require(call.opset >= 7 or bool(call.get("is_test", 0)), "Dropout in training mode (is_test = 0)")
    if call.outputs == 1:
        return x
    require(call.opset >= 12, "the mask of Dropout, which is not defined for inference before opset 12")
    return x, torch.ones_like(x, dtype=torch.bool)


KERNELS: dict[str, Kernel] = {
    "relu": _unary(torch.relu),
    "clip": clip,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "sigmoid": _unary(torch.sigmoid),
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": _unary(F.hardswish),
    "tanh": _unary(torch.tanh),
    "elu": elu,
    "celu": celu,
    "selu": selu,
    "softplus": softplus,
    "softsign": _unary(F.softsign),
    "gelu": gelu,
    "mish": _unary(F.mish),
    "swish": swish,
    "thresholded_relu": thresholded_relu,
    "shrink": shrink,
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "log": _unary(torch.log),
    "sqrt": _unary(torch.sqrt),
    "reciprocal": _unary(torch.reciprocal),
    "abs": _unary(torch.abs),
    "neg": _unary(torch.neg),
    "sign": _unary(torch.sign),
    "ceil": _unary(torch.ceil),
    "floor": _unary(torch.floor),
    "round": _unary(torch.round),
    "sin": _unary(torch.sin),
    "cos": _unary(torch.cos),
    "tan": _unary(torch.tan),
    "asin": _unary(torch.asin),
    "acos": _unary(torch.acos),
    "atan": _unary(torch.atan),
    "sinh": _unary(torch.sinh),
    "cosh": _unary(torch.cosh),
    "asinh": _unary(torch.asinh),
    "acosh": _unary(torch.acosh),
    "atanh": _unary(torch.atanh),
    "not": _unary(torch.logical_not),
    "is_nan": _unary(torch.isnan),
    "is_inf": is_inf,
    "cast": cast,
    "cast_like": cast_like,
    "identity": identity,
    "dropout": dropout,
}
