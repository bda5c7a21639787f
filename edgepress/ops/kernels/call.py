"""What a kernel is told beside its tensors, and the two things every kernel needs: refusing and reading integers.

A kernel is a plain function ``kernel(call, *inputs) -> Tensor | tuple[Tensor, ...]``; an omitted optional
input is ``None``. It either computes what the ONNX specification says for ``call.opset`` or raises
``UnsupportedError``: it never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgepress.errors import UnsupportedError

Kernel = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


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


def integers(values: torch.Tensor | Sequence[int]) -> list[int]:
    """A shape-like tensor (or attribute) as Python integers."""
    listed = values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else values
    return [int(value) for value in listed]


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as a position from the front.

    Raises:
        UnsupportedError: the axis is outside the tensor.
    """
    require(-rank <= axis < rank, f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank
