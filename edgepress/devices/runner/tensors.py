"""Files of tensors for the native runner, which reads no .npz.

All numbers are little-endian::

    8 bytes   EDGETEN1
    uint32    number of samples; for each of them
      uint32    number of tensors; for each of them
        uint32    length of the name, then the name in UTF-8
        uint32    type, numbered as ONNX numbers them
        uint32    rank, then int64 per dimension
        uint64    length of the values in bytes, then the values in C order

The names of inputs are those of the model, those of outputs their positions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from edgepress.errors import DataError, DeviceError

MAGIC = b"EDGETEN1"

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}
"""ONNX's numbers (TensorProto.DataType) of the types that numpy has."""

_NAMES = {number: name for name, number in TYPES.items()}

Sample = Mapping[str, np.ndarray]


def pack(samples: Sequence[Sample]) -> bytes:
    """The file of these samples.

    Raises:
        DataError: a tensor is of a type that the runner does not know.
    """
    parts = [MAGIC, struct.pack("<I", len(samples))]
    for sample in samples:
        parts.append(struct.pack("<I", len(sample)))
        for name, value in sample.items():
            parts += _packed(name, np.asarray(value))
    return b"".join(parts)


def _packed(name: str, value: np.ndarray) -> list[bytes]:
    kind = TYPES.get(value.dtype.name)
    if kind is None:
        raise DataError(
            f"Input {name!r} holds {value.dtype}: on a device without Python it may hold {', '.join(TYPES)}."
        )
    values, label = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(), name.encode()
    shape = struct.pack(f"<I{value.ndim}q", value.ndim, *value.shape)
    return [
        struct.pack("<I", len(label)),
        label,
        struct.pack("<I", kind),
        shape,
        struct.pack("<Q", len(values)),
        values,
    ]


def unpack(content: bytes) -> list[dict[str, np.ndarray]]:
    """The samples of a file.

    Raises:
        DeviceError: it is no such file, or not a whole one.
    """
    try:
        return _Reader(content).samples()
    except (struct.error, ValueError, KeyError):
        raise DeviceError("The device sent a file of outputs that is not whole: is its disk full?") from None


class _Reader:
    """Reads from the front."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def samples(self) -> list[dict[str, np.ndarray]]:
        if self.taken(len(MAGIC)) != MAGIC:
            raise ValueError("no file of tensors")
        found = [dict(self.tensor() for _ in range(self.number("<I"))) for _ in range(self.number("<I"))]
        if self.place != len(self.content):
            raise ValueError("more than a file of tensors")
        return found

    def tensor(self) -> tuple[str, np.ndarray]:
        name = self.taken(self.number("<I")).decode()
        kind = np.dtype(_NAMES[self.number("<I")]).newbyteorder("<")
        shape = [self.number("<q") for _ in range(self.number("<I"))]
        values = np.frombuffer(self.taken(self.number("<Q")), kind).reshape(shape)
        return name, values.astype(kind.newbyteorder("="))

    def number(self, form: str) -> int:
        (found,) = struct.unpack(form, self.taken(struct.calcsize(form)))
        return int(found)

    def taken(self, length: int) -> bytes:
        part = self.content[self.place : self.place + length]
        if len(part) != length:
            raise ValueError("cut off")
        self.place += length
        return part
