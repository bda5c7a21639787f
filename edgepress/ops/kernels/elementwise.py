"""One output element from one input element: activations, arithmetic on one operand, Cast, and the do-nothings.

Formulas as in the ONNX operator reference. Constant operands (bounds of Clip) are read as numbers unless they
carry a gradient: the scalar kernels of torch are several times faster than the broadcasting ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto

from edgepress.ops.kernels.call import Call, Kernel, require

Unary = Callable[[torch.Tensor], torch.Tensor]

CAST_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}
"""ONNX element type -> torch element type, for the types Cast converts alike in torch and onnxruntime."""


def _unary(function: Unary) -> Kernel:
    def kernel(call: Call, x: torch.Tensor) -> torch.Tensor:
        return function(x)

    return kernel


def clip(
    call: Call, x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    """Clip to scalar bounds; where ``low > high`` the result is ``high``."""
    bounds = [bound for bound in (low, high) if bound is not None]
    require(all(bound.numel() == 1 for bound in bounds), "Clip with bounds that are not scalars")
    if not bounds:
        return x
    if any(bound.requires_grad for bound in bounds):
        return torch.clamp(x, None if low is None else low.reshape(()), None if high is None else high.reshape(()))
    return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())


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


def cast(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Convert between floats, integers and bool; float to integer truncates, anything but 0 is true."""
    code = int(call.attributes["to"])
    require(code in CAST_TYPES, f"Cast to {TensorProto.DataType.Name(code)}")
    return x.to(CAST_TYPES[code])


def identity(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The input itself."""
    return x


def dropout(
    call: Call, x: torch.Tensor, ratio: torch.Tensor | None = None, training: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Inference Dropout: the input itself and, from opset 12 on, a mask that is true everywhere."""
    require(training is None or not bool(training), "Dropout in training mode")
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
    "softplus": softplus,
    "gelu": gelu,
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "log": _unary(torch.log),
    "sqrt": _unary(torch.sqrt),
    "abs": _unary(torch.abs),
    "neg": _unary(torch.neg),
    "cast": cast,
    "identity": identity,
    "dropout": dropout,
}
