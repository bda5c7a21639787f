"""The coded file of a model whose weights are on their grids: real bytes."""

from __future__ import annotations

from edgepress import codec
from edgepress.model import Model

SUFFIX = ".epz"
"""Ending of a coded file."""


def coded(model: Model) -> bytes:
    """The entropy-coded file, from which the same model is decoded."""
    return bytes(codec.encode(model.data))
