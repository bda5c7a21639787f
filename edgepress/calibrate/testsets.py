"""ONNX test sets: folders ``test_data_set_0``, ``test_data_set_1``, ... with ``input_0.pb``, ``input_1.pb``, ...

Source: the layout of onnx's own backend tests. ``input_k.pb`` is a serialized TensorProto; if all of them carry
names of inputs those count, otherwise ``k`` is the position of the input in the model.
Reference outputs (``output_k.pb``) are not used: edgepress compares with the original model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from edgepress.calibrate.inputs import Wanted
from edgepress.errors import DataError

_NUMBER = re.compile(r"(\d+)")


def test_sets(folder: Path) -> list[Path]:
    """The test sets of a folder, in the order of their numbers: itself, or its sub-folders; empty if there are none."""
    if _inputs(folder):
        return [folder]
    return sorted((sub for sub in folder.iterdir() if sub.is_dir() and _inputs(sub)), key=_natural)


def read_test_sets(folders: Sequence[Path], inputs: Sequence[Wanted]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Each test set as (its path, arrays by input name).

    Raises:
        DataError: a file that is no tensor, or more files than the model has inputs.
    """
    for folder in folders:
        tensors = [_tensor(path) for path in _inputs(folder)]
        names = [name for name, _ in tensors]
        expected = [item.name for item in inputs]
        if len(tensors) > len(expected):
            raise DataError(
                f"{folder} has {len(tensors)} inputs, but the model has {len(expected)} ({', '.join(expected)}): "
                "give test sets of this model."
            )
        by_name = set(names) <= set(expected) and len(set(names)) == len(names)
        yield str(folder), dict(zip(names if by_name else expected, (array for _, array in tensors), strict=False))


def _inputs(folder: Path) -> list[Path]:
    return sorted(folder.glob("input_*.pb"), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts ``input_10`` behind ``input_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBER.split(path.name)]


def _tensor(path: Path) -> tuple[str, np.ndarray]:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise DataError(f"{path} keeps its values in another file: save them inside the tensor.")
        return tensor.name, numpy_helper.to_array(tensor)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its permissions.") from error
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not an ONNX tensor or is truncated: copy or save it again.") from error
