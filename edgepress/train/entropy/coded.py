"""The coded file of a model whose weights are on their grids: real bytes."""

from __future__ import annotations

from edgepress import codec
from edgepress.model import Model


def coded(model: Model) -> bytes | None:
    """The entropy-coded file; None where this version has no coder."""
    encode = getattr(codec, "encode", None)
    return None if encode is None else bytes(encode(model.data))


def coded_size(model: Model) -> int | None:
    """Bytes of the coded file."""
    found = coded(model)
    return None if found is None else len(found)
