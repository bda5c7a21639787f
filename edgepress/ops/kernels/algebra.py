"""Einsum: products of tensors summed over the letters that the result does not name."""

from __future__ import annotations

import torch

from edgepress.ops.kernels.call import Call, Kernel, alike, require


def einsum(call: Call, *operands: torch.Tensor) -> torch.Tensor:
    """The sum of products an equation states, as numpy.einsum."""
    alike(*operands)
    require(operands[0].dtype != torch.bool, "Einsum of bool")
    return torch.einsum(call.attributes["equation"].replace(" ", ""), *operands)


KERNELS: dict[str, Kernel] = {"einsum": einsum}
