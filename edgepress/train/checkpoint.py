"""Checkpoints: everything a run needs to go on, in one file without pickles, never half there.

An .npz of plain arrays: ``meta`` (JSON as bytes: format, identity of the run, where it stands), ``best`` (the best
model so far), and the arrays of the method: weights, what the optimizer remembers, the graph where it was cut. Random
numbers need no place in it: every draw follows from the seed and the number of the step. The file is written beside
its place and renamed; each member has a checksum.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.errors import DataError
from edgepress.model import write_atomically

FORMAT = "edgepress-checkpoint/1"
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a run stands.

    Attributes:
        meta: plain values: the step, rows of the report, and what else the loop remembers.
        arrays: of the method.
        best: the best model so far, serialized; empty for none.
    """

    meta: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    best: bytes

    def packed(self, identity: str) -> bytes:
        """The file."""
        meta = json.dumps({"format": FORMAT, "identity": identity, **self.meta}).encode()
        stream = io.BytesIO()
        own: dict[str, Any] = {f"method/{name}": array for name, array in self.arrays.items()}
        np.savez(stream, meta=_bytes(meta), best=_bytes(self.best), **own)
        return stream.getvalue()

    @classmethod
    def unpacked(cls, data: bytes, identity: str, path: Path) -> Saved:
        """Read :meth:`packed`.

        Raises:
            DataError: it is damaged, or of another run.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(arrays.pop("meta").tobytes())
            best = arrays.pop("best").tobytes()
            form, owner = meta["format"], meta["identity"]
        except _BROKEN as error:
            raise DataError(f"{path} is damaged: remove it, and train again from the start.") from error
        if form != FORMAT:
            raise DataError(f"{path} is of another version of edgepress: remove it, and train again from the start.")
        if owner != identity:
            raise DataError(
                f"{path} is of a run with another model, other samples or other options: give those, or remove it."
            )
        return cls(meta, {name.removeprefix("method/"): array for name, array in arrays.items()}, best)


def checkpoint_path(output: Path) -> Path:
    """Where the checkpoint of a run is kept, beside its output."""
    return output.with_suffix(".checkpoint.npz")


def save(path: Path, saved: Saved, identity: str) -> None:
    """Write a checkpoint.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, saved.packed(identity))


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
