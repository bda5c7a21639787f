"""Storage: what a ModelProto is without the weight of its weights, and how it is kept in files.

    frame(proto)      no initializers at all: the nodes, inputs, outputs and everything around them
    outline(proto)    big weights are declared as inputs: all that shape inference and graph checks need
    detached(proto)   big weights are marked as kept elsewhere; a session or a second file gets their values

They cost no memory for the weights and work above 2 GiB, where protobuf cannot serialize a model any more.

    save(proto, path)   one file; above ``ONE_FILE`` bytes ``path`` and ``path + ".data"``, with ONNX's external data

Files are written beside their place and then renamed, the weights first: a file is never half there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import helper, numpy_helper

from edgepress.errors import OutputError

M = TypeVar("M", bound=Message)

ONE_FILE = 2**31 - 2**20
"""Bytes of the largest model that is serialized as a whole: protobuf's 2 GiB, less a margin for all but weights."""

SMALL = 1024
"""Elements of a float initializer that always stays with the graph (Resize scales and the like)."""

SMALL_INTEGER = 2**16
"""The same for integers: shapes, sizes, indices."""

LARGE = 2**28
"""Bytes of weights from which a model is held once only: nothing decoded or serialized is kept beside the proto."""

ALIGNMENT = 4096
"""External weights start at multiples of it, so that they can be mapped into memory."""

_BYTES: dict[int, int] = {kind: numpy_type.itemsize for kind, numpy_type in (
    (kind, helper.tensor_dtype_to_np_dtype(kind)) for kind in (
        onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
    )
)}  # fmt: skip
"""Bytes of one element, for the types that big weights have; others stay where they are."""


_INTEGERS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def is_big(item: onnx.TensorProto) -> bool:
    """Whether an initializer is a weight that may be kept apart from the graph."""
    limit = SMALL_INTEGER if item.data_type in _INTEGERS else SMALL
    return item.data_type in _BYTES and int(np.prod(item.dims)) > limit


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all big weights of the main graph."""
    return sum(_size(item) for item in proto.graph.initializer if is_big(item))


def frame(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without any initializer."""
    copy = _without(proto, "graph")
    copy.graph.CopyFrom(_without(proto.graph, "initializer"))
    return copy


def outline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every big weight is an input of its type and shape."""
    listed = {value.name for value in proto.graph.input}
    copy = _without_weights(proto)
    for item in filter(is_big, proto.graph.initializer):
        if item.name not in listed:
            copy.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))
    return copy


def refilled(light: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """A rewritten outline with the big weights of the original in place of their declarations."""
    big = [item for item in original.graph.initializer if is_big(item)]
    listed = {value.name for value in original.graph.input}
    declared = {item.name for item in big} - listed
    made = _without(light, "graph")
    made.graph.CopyFrom(_without(light.graph, "input"))
    made.graph.input.extend(value for value in light.graph.input if value.name not in declared)
    made.graph.initializer.extend(big)
    return made


def lightly(rewrite: Callable[[onnx.ModelProto], onnx.ModelProto], proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let a tool that serializes the model rewrite it; a large model is rewritten as an outline."""
    if weight_bytes(proto) <= LARGE:
        return rewrite(proto)
    return refilled(rewrite(outline(proto)), proto)


def detached(proto: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """A copy in which every big weight is external data of file ``location``, in order, aligned."""
    copy = _without_weights(proto)
    kept = {item.name: item for item in copy.graph.initializer}
    del copy.graph.initializer[:]
    offset = 0
    for item in proto.graph.initializer:
        if not is_big(item):
            copy.graph.initializer.append(kept[item.name])
            continue
        made = copy.graph.initializer.add(name=item.name, data_type=item.data_type, dims=item.dims)
        made.metadata_props.extend(item.metadata_props)
        if item.doc_string:
            made.doc_string = item.doc_string
        made.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(_size(item)))):
            made.external_data.add(key=key, value=value)
        offset = _aligned(offset + _size(item))
    return copy


def read_names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor that a node of the graph or of a body inside it reads, and the graph outputs."""
    found = {value.name for value in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found |= read_names(body)
    return found


def values(item: onnx.TensorProto) -> bytes:
    """The values of a big weight, as ONNX stores them raw."""
    return item.raw_data or bytes(numpy_helper.to_array(item).tobytes())


def data_path(path: Path) -> Path:
    """Where the weights of a model over ``ONE_FILE`` bytes are kept."""
    return path.with_name(f"{path.name}.data")


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model whose serialized form may be over 2 GiB, as two files.

    Raises:
        OutputError: the folder does not exist, cannot be written to, or is full.
    """
    weights = data_path(path)
    light = detached(proto, weights.name).SerializeToString(deterministic=True)
    big = (values(item) for item in proto.graph.initializer if is_big(item))
    with _beside(weights, _aligned_parts(big)) as commit_weights, _beside(path, [light]) as commit_model:
        commit_weights()
        commit_model()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by way of a temporary file beside it.

    Raises:
        OutputError: the folder does not exist, cannot be written to, or is full.
    """
    with _beside(path, [data]) as commit:
        commit()


@contextlib.contextmanager
def _beside(path: Path, parts: Iterable[bytes]) -> Iterator[Callable[[], None]]:
    """Write a temporary file beside ``path``; yields what puts it in place. It is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _fill(temporary, parts)
        yield lambda: (temporary.replace(path), None)[1]
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}; choose another output path with -o.") from error
    finally:
        with contextlib.suppress(OSError):  # never made, or its folder is not a folder
            temporary.unlink()


def _fill(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)


def _aligned_parts(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, each filled up with zeros to the alignment."""
    for part in parts:
        yield part
        yield bytes(_aligned(len(part)) - len(part))


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _size(item: onnx.TensorProto) -> int:
    return int(np.prod(item.dims)) * _BYTES[item.data_type]


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without its big weights, which are never copied on the way."""
    copy = frame(proto)
    copy.graph.initializer.extend(item for item in proto.graph.initializer if not is_big(item))
    return copy


def _without(message: M, skip: str) -> M:
    """A copy of a message that lacks one field."""
    copy: M = type(message)()
    for field, value in message.ListFields():
        if field.name == skip:
            continue
        if isinstance(value, Message):
            getattr(copy, field.name).CopyFrom(value)
        elif isinstance(value, (str, bytes, int, float)):
            setattr(copy, field.name, value)
        else:
            getattr(copy, field.name).extend(value)
    return copy
