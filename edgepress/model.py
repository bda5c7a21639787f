"""Model: an ONNX file as an immutable value.

A ``Model`` wraps one ``ModelProto`` that nobody may change. Readers see plain data (``Node``,
``TensorType``, numpy arrays); writers take ``edit()``, a private copy of the proto, change it and
wrap it with ``Model.of``. Protobuf is known here, in ``normalize``, in ``surgery``, in what writes files in
``quantize`` (``graph``, ``storage``, ``forms``) and in what looks into onnxruntime's graph in ``bundle`` only.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import helper, numpy_helper

from edgepress import runtime, storage
from edgepress.errors import ModelError
from edgepress.storage import write_atomically

__all__ = ["Dimension", "Model", "Node", "TensorType", "write_atomically"]

Dimension = int | str | None

METADATA_PREFIX = "edgepress."


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (numpy name, e.g. ``float32``) and shape; a dimension is a number, a symbol or unknown."""

    dtype: str
    shape: tuple[Dimension, ...] | None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the graph; ``inputs`` keeps ``""`` for an omitted optional input.

    Lists among the attributes are tuples; tensors and graphs among them are copies.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]


class Model:
    """One ONNX graph, read-only. Make one with :meth:`load` or :meth:`of`."""

    def __init__(
        self, proto: onnx.ModelProto, *, folder: Path | None = None, external: frozenset[Path] = frozenset()
    ) -> None:
        """Wrap ``proto``; the caller gives it away and must not change it any more.

        ``external`` are the files beside the model that weights were read from.
        """
        self._proto = proto
        self.folder = folder
        self.external = external

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> Model:
        """Wrap a proto made by edgepress itself."""
        return cls(proto)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read an ONNX file with its external data. The file is never written to.

        Raises:
            ModelError: no such file, not ONNX, truncated, or external data missing or outside the model's folder.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path} is not a file: give the path of an ONNX model.")
        try:
            # always the binary format: by default onnx picks one by the file's ending
            proto = onnx.load(path, format="protobuf", load_external_data=False)
        except DecodeError as error:
            raise ModelError(_unreadable(path)) from error
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
        if not proto.graph.node or not proto.graph.output or not (proto.opset_import or proto.ir_version < 3):
            raise ModelError(f"{path} holds no ONNX graph (empty, truncated, or another kind of file).")
        external = _load_external_data(proto, path)
        return _decoded(cls(proto, folder=path.parent, external=external), path)

    # --- the graph as plain data ------------------------------------------------------------------

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in file order; a node without a name is called ``<Op>_<position>``."""
        return tuple(_node(node, position) for position, node in enumerate(self._proto.graph.node))

    @cached_property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Initializers by name, as read-only numpy arrays; big weights of large models are decoded at every look-up."""
        if self.large:
            return _Decoded({item.name: item for item in self._proto.graph.initializer})
        return MappingProxyType({item.name: _array(item) for item in self._proto.graph.initializer})

    @cached_property
    def fits_one_file(self) -> bool:
        """Whether the model can be serialized as a whole (protobuf's 2 GiB)."""
        return storage.weight_bytes(self._proto) <= storage.ONE_FILE

    @cached_property
    def large(self) -> bool:
        """Whether the weights are so large that no second copy of them is kept."""
        return storage.weight_bytes(self._proto) > storage.LARGE

    @cached_property
    def inputs(self) -> Mapping[str, TensorType]:
        """Real graph inputs (initializers that are also listed as inputs are left out)."""
        weights = {item.name for item in self._proto.graph.initializer}
        values = (value for value in self._proto.graph.input if value.name not in weights)
        return MappingProxyType({value.name: _type(value) for value in values})

    @cached_property
    def outputs(self) -> Mapping[str, TensorType]:
        """Graph outputs."""
        return MappingProxyType({value.name: _type(value) for value in self._proto.graph.output})

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """Every tensor whose type the file states (value_info, inputs, outputs, initializers)."""
        stated = {value.name: _type(value) for value in self._proto.graph.value_info}
        weights = {
            item.name: TensorType(_dtype_name(item.data_type), tuple(item.dims))
            for item in self._proto.graph.initializer
        }
        return MappingProxyType({**stated, **self.inputs, **self.outputs, **weights})

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def _consumers(self) -> dict[str, tuple[Node, ...]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def producer(self, tensor: str) -> Node | None:
        """The node that makes ``tensor``; None for inputs and constants."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read ``tensor``, in graph order."""
        return self._consumers.get(tensor, ())

    def node(self, name: str) -> Node:
        """The node of that name (KeyError if there is none)."""
        return self._by_name[name]

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((entry.version for entry in self._proto.opset_import if entry.domain in ("", "ai.onnx")), 1)

    @cached_property
    def opsets(self) -> Mapping[str, int]:
        """Version of every operator set by domain ("" is the default one)."""
        found = ((entry.domain, int(entry.version)) for entry in self._proto.opset_import)
        return MappingProxyType(
            {"": 1, **{"" if domain == "ai.onnx" else domain: version for domain, version in found}}
        )

    @property
    def ir_version(self) -> int:
        """IR version of the file."""
        return int(self._proto.ir_version)

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return {entry.key: entry.value for entry in self._proto.metadata_props}

    @cached_property
    def parameters(self) -> int:
        """Number of floating-point weights held in initializers."""
        return sum(int(np.prod(t.dims)) for t in self._proto.graph.initializer if t.data_type in _FLOATS)

    # --- bytes --------------------------------------------------------------------------------------

    @property
    def data(self) -> bytes:
        """The model as one serialized ModelProto, weights inside.

        Raises:
            ModelError: it is over 2 GiB; :meth:`session` and :meth:`save` work at any size.
        """
        return self._serialized() if self.large else self._data

    @cached_property
    def _data(self) -> bytes:
        return self._serialized()

    def _serialized(self) -> bytes:
        if not self.fits_one_file:
            raise ModelError("The model is over 2 GiB, the limit of one ONNX file without external data.")
        try:
            return bytes(self._proto.SerializeToString(deterministic=True))
        except ValueError as error:  # protobuf's own limit, with other than weights
            raise ModelError("The model is over 2 GiB, the limit of one ONNX file without external data.") from error

    @cached_property
    def size(self) -> int:
        """Bytes of the model, external data included."""
        return sum(len(part) for part in self._parts())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of :attr:`data` (over 2 GiB: of the graph and the weights one after the other).

        It is the identity a plan is tied to.
        """
        found = hashlib.sha256()
        for part in self._parts():
            found.update(part)
        return found.hexdigest()

    def same(self, other: Model) -> bool:
        """Whether two models are equal byte for byte; nothing large is serialized for it."""
        if not self.large and not other.large:
            return self.data == other.data
        light, big = zip(*(one._detached() for one in (self, other)), strict=True)
        return bool(light[0] == light[1] and big[0] == big[1])  # messages are compared without a copy

    def _parts(self) -> Iterator[bytes]:
        return iter([self.data]) if self.fits_one_file else self._apart()

    def _apart(self) -> Iterator[bytes]:
        """The graph without big weights, then these one by one."""
        light, big = self._detached()
        yield light
        yield from map(storage.values, big)

    def _detached(self) -> tuple[bytes, list[onnx.TensorProto]]:
        light = storage.detached(self._proto, "").SerializeToString(deterministic=True)
        return bytes(light), [item for item in self._proto.graph.initializer if storage.is_big(item)]

    def session(self, *, threads: int = 1) -> runtime.Session:
        """Open the model in onnxruntime, whatever its size (:func:`edgepress.runtime.session`).

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        if not self.large:
            return runtime.session(self.data, threads=threads)
        light = storage.detached(self._proto, "weights")
        read = storage.read_names(self._proto.graph)
        kept = [item for item in light.graph.initializer if item.name in read]
        outside = {item.name for item in kept if item.data_location == onnx.TensorProto.EXTERNAL}
        idle = {item.name for item in light.graph.initializer} - {item.name for item in kept}
        inputs = [value for value in light.graph.input if value.name not in idle]  # old files list weights there too
        light.graph.ClearField("initializer")
        light.graph.ClearField("input")
        light.graph.input.extend(inputs)
        light.graph.initializer.extend(kept)  # onnxruntime drops what nobody reads, and then finds no place for it
        weights = {name: self.constants[name] for name in sorted(outside)}
        return runtime.session(light.SerializeToString(deterministic=True), threads=threads, weights=weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model beside the target first, then rename it, so that it is never half there.

        It is one file; above 2 GiB the weights go to a second one, ``path`` + ``.data``.
        """
        if self.fits_one_file:
            write_atomically(Path(path), self.data)
        else:
            storage.save(self._proto, Path(path))

    # --- making the next model ----------------------------------------------------------------------

    def edit(self) -> onnx.ModelProto:
        """A private copy of the proto, for passes that rewrite the graph."""
        private = onnx.ModelProto()
        private.CopyFrom(self._proto)
        return private

    def frame(self) -> onnx.ModelProto:
        """A private copy without the initializers: cheap, however large the weights are."""
        return storage.frame(self._proto)

    def outline(self) -> onnx.ModelProto:
        """A private copy whose big weights are inputs without values: for shape inference and checks, at any size."""
        return storage.outline(self._proto)

    def fill(self, frame: onnx.ModelProto, names: Collection[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Append the initializers ``names`` to a frame of this model, in file order; ``arrays`` are new values."""
        for item in self._proto.graph.initializer:
            if item.name in names:
                frame.graph.initializer.append(_revalued(item, arrays[item.name]) if item.name in arrays else item)

    def with_constants(self, arrays: Mapping[str, np.ndarray]) -> Model:
        """The same graph with the values of some initializers replaced (shapes may differ; stale shapes go)."""
        missing = arrays.keys() - self.constants.keys()
        if missing:
            raise KeyError(f"not initializers: {sorted(missing)}")
        proto = self.edit()
        for item in proto.graph.initializer:
            if item.name in arrays:
                item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[item.name]), item.name))
        if any(arrays[name].shape != self.constants[name].shape for name in arrays):
            del proto.graph.value_info[:]
        return Model.of(proto)

    def with_metadata(self, entries: Mapping[str, str]) -> Model:
        """The same model with some metadata entries set."""
        proto = self.edit()
        helper.set_model_props(proto, {**self.metadata, **entries})
        return Model.of(proto)

    def exposing(self, tensors: tuple[str, ...] | list[str]) -> bytes:
        """Serialized copy whose outputs are exactly ``tensors`` (graph inputs and constants are not allowed)."""
        proto = self.edit()
        del proto.graph.output[:]
        for name in tensors:
            known = self.types.get(name)
            # without a stated type onnxruntime infers one
            value = onnx.ValueInfoProto(name=name)
            if known is not None:
                code = helper.np_dtype_to_tensor_dtype(np.dtype(known.dtype))
                value = helper.make_tensor_value_info(name, code, None)
            proto.graph.output.append(value)
        return bytes(proto.SerializeToString())


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _revalued(item: onnx.TensorProto, array: np.ndarray) -> onnx.TensorProto:
    """The initializer with other values; what is noted on it stays."""
    made = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), item.name)
    made.doc_string = item.doc_string
    made.metadata_props.extend(item.metadata_props)
    return made


def _node(proto: onnx.NodeProto, position: int) -> Node:
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    decoded = {key: _decode(value) for key, value in attributes.items()}
    name = proto.name or f"{proto.op_type}_{position}"
    return Node(name, proto.op_type, proto.domain, tuple(proto.input), tuple(proto.output), MappingProxyType(decoded))


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return tuple(_decode(item) for item in value)
    return copy.deepcopy(value) if isinstance(value, Message) else value


def _array(item: onnx.TensorProto) -> np.ndarray:
    array = numpy_helper.to_array(item)
    if array.flags.owndata or not array.flags.writeable:
        array.flags.writeable = False
        return array
    owned = array.copy()
    owned.flags.writeable = False
    return owned


class _Decoded(Mapping[str, np.ndarray]):
    """Initializers that are decoded when they are looked up; small ones are kept."""

    def __init__(self, items: Mapping[str, onnx.TensorProto]) -> None:
        self._items = items
        self._small = {name: _array(item) for name, item in items.items() if not storage.is_big(item)}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._small[name] if name in self._small else _array(self._items[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _dtype_name(code: int) -> str:
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(code))) if code else "unknown"


def _type(value: onnx.ValueInfoProto) -> TensorType:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return TensorType(value.type.WhichOneof("value") or "unknown", None)
    if not tensor.HasField("shape"):
        return TensorType(_dtype_name(tensor.elem_type), None)
    return TensorType(_dtype_name(tensor.elem_type), tuple(_dimension(d) for d in tensor.shape.dim))


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None


def _decoded(model: Model, path: Path) -> Model:
    """The model, after checking that its nodes and weights can be decoded."""
    try:
        _ = model.nodes
        for _ in model.constants.values():
            pass
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is damaged ({error}): export or copy it again.") from error
    return model


CODED = b"EPZ"
"""How coded files begin (``codec.decoder``)."""


def _unreadable(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(len(CODED)) == CODED:
            return f"{path} is a coded file: make an ONNX file of it first, edgepress decode {path} -o MODEL.onnx."
    return f"{path} is not an ONNX file or is truncated: export or copy it again."


def _load_external_data(proto: onnx.ModelProto, path: Path) -> frozenset[Path]:
    """Load weights kept beside the model, refusing any path that leaves the model's folder; returns their files."""
    folder = path.parent.resolve()
    files = set()
    for tensor in onnx.external_data_helper._get_all_tensors(proto):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        target = (folder / location).resolve()
        if Path(location).is_absolute() or folder not in target.parents:
            raise ModelError(f"{path} keeps weights at {location!r}, outside its folder: move them beside the model.")
        if not target.is_file():
            raise ModelError(f"{path} keeps weights in {location!r}, which is missing: copy it beside the model.")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise ModelError(f"{path}: the weights in {location!r} cannot be read: copy the file again.") from error
        tensor.ClearField("data_location")  # as in a file that never had external data: the same hash
        del tensor.external_data[:]
        files.add(target)
    return frozenset(files)
