"""Tensors made without reading activations: Constant, ConstantOfShape, EyeLike, Range, Shape and Size.

Shapes come as int64 tensors in host memory.
"""

from __future__ import annotations

import torch
from onnx import TensorProto

from edgepress.ops.kernels.call import Call, Host, Kernel, integers, number, require
from edgepress.ops.kernels.types import COMPUTED, from_numpy, from_proto


def constant(call: Call) -> torch.Tensor:
    """The value among the attributes."""
    for name, kind in (("value_float", torch.float32), ("value_int", torch.int64)):
        for said in (name, f"{name}s"):
            if said in call.attributes:
                return torch.tensor(call.attributes[said], dtype=kind)
    require("value" in call.attributes, f"Constant with {', '.join(call.attributes) or 'no value'}")
    return from_proto(call.attributes["value"])


def constant_of_shape(call: Call, shape: Host) -> torch.Tensor:
    """One value in every place, float 0 by default."""
    value = from_proto(call.attributes["value"]) if "value" in call.attributes else torch.zeros(1)
    require(value.numel() == 1, f"ConstantOfShape of {value.numel()} values")
    return value.reshape(()).repeat(integers(shape))


def eye_like(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Ones on one diagonal of a matrix of the input's shape."""
    require(x.ndim == 2, f"EyeLike of rank {x.ndim}")
    code = call.get("dtype", None)
    require(code is None or int(code) in COMPUTED, f"EyeLike of element type {code}")
    kind = x.dtype if code is None else COMPUTED[int(code)]
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
    return (columns - rows.unsqueeze(1) == int(call.get("k", 0))).to(kind)


def range_(call: Call, start: Host, limit: Host, delta: Host) -> torch.Tensor:
    """``start + i * delta`` for ``max(0, ceil((limit - start) / delta))`` values of ``i``."""
    kinds = {str(value.dtype).removeprefix("torch.") for value in (start, limit, delta)}
    require(len(kinds) == 1, f"operands of {' and '.join(sorted(kinds))}")
    kind = start.dtype if isinstance(start, torch.Tensor) else from_numpy(start).dtype
    first, last, step = number(start), number(limit), number(delta)
    require(step != 0, "Range with step 0")
    if (last - first) * step <= 0:
        return torch.zeros(0, dtype=kind)
    return torch.arange(first, last, step, dtype=_precise(call, kind)).to(kind)


def _precise(call: Call, kind: torch.dtype) -> torch.dtype:
    """Half precision is counted in ``stash_type``, float by default; the others in their own type."""
    if kind not in (torch.float16, torch.bfloat16):
        return kind
    code = int(call.get("stash_type", TensorProto.FLOAT))
    require(call.opset >= 27 and code in (TensorProto.FLOAT, TensorProto.DOUBLE), f"Range of {kind}")
    return COMPUTED[code]


def shape(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The sizes of the axes from ``start`` up to ``end`` (opset 15), clamped as Python slices are."""
    return torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end", None)], dtype=torch.int64)


def size(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64)


KERNELS: dict[str, Kernel] = {
    "constant": constant,
    "constant_of_shape": constant_of_shape,
    "eye_like": eye_like,
    "range": range_,
    "shape": shape,
    "size": size,
}
