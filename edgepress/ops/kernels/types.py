"""Element types: ONNX codes, torch and numpy, and arrays that become tensors.

numpy has no bfloat16 of its own (``ml_dtypes`` adds one), torch has: the bits are the same.
"""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from edgepress.ops.kernels.call import require

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

COMPUTED: dict[int, torch.dtype] = {**CAST_TYPES, TensorProto.BFLOAT16: torch.bfloat16}
"""ONNX element type -> torch element type, for the types kernels compute in."""

ARRAYS = frozenset(np.dtype(name) for name in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"))
"""numpy element types that are tensors as they are."""


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor, sharing memory where numpy lets torch write to it.

    Raises:
        UnsupportedError: an element type that kernels do not compute in.
    """
    whole = np.require(array, requirements=["C", "W"])
    if whole.dtype.name == "bfloat16":
        return torch.from_numpy(whole.view(np.int16)).view(torch.bfloat16)
    require(whole.dtype in ARRAYS, f"values of type {whole.dtype.name}")
    return torch.from_numpy(whole)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor in host memory as an array of the same element type; the inverse of :func:`from_numpy`."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    return tensor.numpy()


def from_proto(value: TensorProto) -> torch.Tensor:
    """An attribute that holds a tensor.

    Raises:
        UnsupportedError: an element type that kernels do not compute in.
    """
    return from_numpy(np.array(numpy_helper.to_array(value)))
