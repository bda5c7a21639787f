"""Coded files on disk: an ONNX file in, a coded file out, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgepress.codec import decoder
from edgepress.codec.encoder import Coded, encoded
from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.storage import write_atomically


def encode_file(model: Path, output: Path) -> Coded:
    """Code an ONNX file; weights that it keeps in other files are taken in.

    Raises:
        ModelError: no ONNX model, or one of over 2 GiB.
        OutputError: the coded file cannot be written.
    """
    loaded = Model.load(model)
    if not loaded.fits_one_file:
        raise ModelError(f"{model} is larger than 2 GiB, which a coded file cannot hold: split it or keep it as it is.")
    data = loaded.edit().SerializeToString(deterministic=True) if loaded.external else model.read_bytes()
    made = encode_bytes(data, model)
    write_atomically(output, made.data)
    return made


def encode_bytes(data: bytes, name: Path) -> Coded:
    """As ``encoder.encoded``, with errors of edgepress.

    Raises:
        ModelError: no protocol buffers.
    """
    try:
        return encoded(data)
    except decoder.CodedFileError as error:
        raise ModelError(f"{name} cannot be encoded: it is damaged, export or copy it again.") from error


def decode_file(coded: Path, output: Path, change: Callable[[Model], Model] | None = None) -> int:
    """Decode a coded file; returns the bytes that were written.

    Args:
        coded: the file.
        output: where to write the ONNX file.
        change: what is done to the model before it is written; None: nothing, every byte is that of the original.

    Raises:
        ModelError: no coded file, a damaged one, or one of a newer version.
        OutputError: the ONNX file cannot be written.
    """
    model = read_coded(coded)
    if change is not None:
        model = change(_parsed(model, coded)).edit().SerializeToString(deterministic=True)
    write_atomically(output, model)
    return len(model)


def read_coded(coded: Path) -> bytes:
    """The ONNX file that a coded file holds.

    Raises:
        ModelError: no coded file, a damaged one, or one of a newer version.
    """
    if not coded.is_file():
        raise ModelError(f"{coded} is not a file: give the path of a coded file.")
    try:
        return decoder.decode(coded.read_bytes())
    except OSError as error:
        raise ModelError(f"{coded} cannot be read ({error.strerror}): check its permissions.") from error
    except decoder.CodedFileError as error:
        raise ModelError(f"{coded}: {error}") from error


def _parsed(data: bytes, coded: Path) -> Model:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return Model.of(onnx.load_from_string(data))
    except DecodeError as error:
        raise ModelError(f"{coded} holds no ONNX model: decode it without --form.") from error
