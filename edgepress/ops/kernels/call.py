"""What a kernel is told beside its tensors, and what every kernel needs: refusing, reading integers and numbers.

A kernel is a plain function ``kernel(call, *inputs) -> Tensor | tuple[Tensor, ...]``; an omitted optional
input is ``None``. It either computes what the ONNX specification says for ``call.opset`` or raises
``UnsupportedError``: it never guesses. Inputs that decide shapes, axes or counts may be tensors or numpy arrays
(``Host``) and are read by :func:`integers` and :func:`number`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgepress.errors import UnsupportedError

Kernel = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
Host = torch.Tensor | np.ndarray
"""An input that decides a shape, an axis or a count."""


@dataclass(frozen=True)
class Call:
    """One node as its kernel sees it.

    Attributes:
        attributes: the node's attributes as plain Python values; absent ones are not there.
        opset: version of the default operator set of the model.
        outputs: number of outputs the node lists, trailing unnamed ones included.
    """

    attributes: Mapping[str, Any]
    opset: int
    outputs: int

    def get(self, name: str, default: Any) -> Any:
        """The attribute, or the default of the specification."""
        return self.attributes.get(name, default)

    def sizes(self, name: str, length: int, default: int) -> tuple[int, ...]:
        """A list attribute with one integer per axis (``length`` of them), ``default`` everywhere when absent."""
        values = self.attributes.get(name)
        if values is None:
            return (default,) * length
        require(len(values) == length, f"{name} has {len(values)} entries, the data needs {length}")
        return tuple(int(value) for value in values)


def require(holds: bool, reason: str) -> None:
    """Refuse unless ``holds``.

    Raises:
        UnsupportedError: with ``reason``; the executor adds the node's name.
    """
    if not holds:
        raise UnsupportedError(reason)


def integers(values: Host | Sequence[int]) -> list[int]:
    """A shape-like tensor, array or attribute as Python integers."""
    listed = values.reshape(-1).tolist() if isinstance(values, (torch.Tensor, np.ndarray)) else values
    return [int(value) for value in listed]


def number(value: Host) -> int | float:
    """The one element of a tensor or array as a Python number.

    Raises:
        UnsupportedError: it does not hold one element.
    """
    count = value.numel() if isinstance(value, torch.Tensor) else value.size
    require(count == 1, f"{count} values where one is needed")
    found: int | float = value.item()
    return found


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as a position from the front.

    Raises:
        UnsupportedError: the axis is outside the tensor.
    """
    require(-rank <= axis < rank, f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def alike(*operands: torch.Tensor) -> None:
    """Refuse operands of different element types.

    Raises:
        UnsupportedError: torch would promote one of them, ONNX would not.
    """
    kinds = sorted({str(operand.dtype) for operand in operands})
    require(len(kinds) <= 1, f"operands of {' and '.join(kinds)}")


def inside(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Positions along an axis of ``size`` entries as ``0 .. size - 1``; negative ones count from the end.

    Raises:
        UnsupportedError: a position is outside (left to torch under ``torch.func``, where no value can be looked at).
    """
    wanted = positions.to(torch.int64)
    legal = transformed() or bool(((wanted >= -size) & (wanted < size)).all())
    require(legal, f"an index outside {size} entries")
    return torch.where(wanted < 0, wanted + size, wanted)


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad) is at work: fused kernels may have no rule for it."""
    return torch._C._functorch.peek_interpreter_stack() is not None
