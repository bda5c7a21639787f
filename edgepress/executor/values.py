"""What flows along the edges of a graph: tensors, and numbers that stay on the host.

A *host value* is a numpy array that depends on shapes and constants only. It is never a tensor of the device, so
reading it never waits for the device and never touches a tensor that ``torch.func`` follows. :class:`Place` says where
tensors live and in which float type; :func:`array_of` goes the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from edgepress.errors import UnsupportedError
from edgepress.ops.kernels.types import from_numpy, to_numpy

Value: TypeAlias = "torch.Tensor | np.ndarray"
Tensors = Mapping[str, torch.Tensor]

_NUMPY: dict[torch.dtype, np.dtype] = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.int16: np.dtype(np.int16),
    torch.int8: np.dtype(np.int8),
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(np.bool_),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where tensors live.

    Attributes:
        device: the device of parameters and activations.
        dtype: the working type every float tensor is brought to; None keeps the types of the file.
    """

    device: torch.device
    dtype: torch.dtype | None = None

    @property
    def plain(self) -> bool:
        """Tensors are left as kernels make them."""
        return self.dtype is None and self.device.type == "cpu"

    def tensor(self, value: Value) -> torch.Tensor:
        """The value as a tensor of this place; shares memory where it can."""
        made = value if isinstance(value, torch.Tensor) else from_numpy(value)
        if self.dtype is not None:
            made = self.floats(made)
        return made if made.device == self.device else made.to(self.device)

    def constant(self, array: np.ndarray) -> torch.Tensor:
        """An initializer as a tensor: floats in this place, whole numbers on the host, where shapes are computed."""
        made = from_numpy(array)
        return self.tensor(made) if made.is_floating_point() else made

    def floats(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in the working type, if it is a float one."""
        if self.dtype is None or tensor.dtype == self.dtype or not tensor.is_floating_point():
            return tensor
        return tensor.to(self.dtype)


HOST = Place(torch.device("cpu"))
"""Where shape arithmetic is computed, in the types of the file."""


def array_of(value: Value, dtype: np.dtype | None = None) -> np.ndarray:
    """The value as a numpy array, of another type if ``dtype`` says so.

    Raises:
        UnsupportedError: a gradient is asked for through it, or it differs from sample to sample under ``vmap``.
    """
    array = value if isinstance(value, np.ndarray) else _to_numpy(value)
    return array if dtype is None or array.dtype == dtype else array.astype(dtype)


def truth(value: Value) -> bool:
    """A condition as a Python bool.

    Raises:
        UnsupportedError: it does not hold one element, or differs from sample to sample under ``vmap``.
    """
    if isinstance(value, torch.Tensor):
        value = array_of(value.detach())
    if value.size != 1:
        raise UnsupportedError(f"a condition of shape {value.shape}")
    return bool(value.reshape(()))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise UnsupportedError("a gradient through shape arithmetic, where numbers are read on the host")
    try:
        return to_numpy(tensor.detach().cpu())
    except RuntimeError:  # inside a transform of torch.func: the numbers can be read, the memory cannot
        pass
    try:
        listed = tensor.reshape(-1).tolist()
        return np.array(listed, dtype=_NUMPY[tensor.dtype]).reshape(tuple(tensor.shape))
    except RuntimeError as error:
        raise UnsupportedError(
            "a shape, count or condition that is read from the data, which may differ between samples"
        ) from error
