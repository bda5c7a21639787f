"""The coded file of a model whose weights are on their grids: real bytes, and a graph that costs few of them."""

from __future__ import annotations

from edgepress import codec
from edgepress.model import METADATA_PREFIX, Model
from edgepress.quantize.storage.slim import slim

SUFFIX = ".epz"
"""Ending of a coded file."""


def coded(model: Model) -> bytes:
    """The entropy-coded file, from which the same model is decoded."""
    return bytes(codec.encode(model.data))


def lean(model: Model) -> Model:
    """The same model with short inner names, and without notes of edgepress: beside weights of a few kB they count."""
    proto = slim(model).edit()
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return Model.of(proto)
