"""Manifest: what a bundle holds and what it promises, as ``manifest.json``.

A bundle is a flat folder. The manifest names every other file in it with its size and hash; names are plain
(:func:`edgepress.bundle.check.plain`), so that nothing outside the folder can be meant, and are those the files have on
a device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepress.bundle import check
from edgepress.errors import InputError
from edgepress.model import Dimension
from edgepress.report import schema
from edgepress.report.bundle import Promise
from edgepress.report.result import dump

FORMAT = "edgepress-bundle/1"
KIND = FORMAT.partition("/")[0]

VECTORS = "vectors.npz"
MODEL = "model.onnx"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: its name, element type (numpy's name) and shape; None where the model states none."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: SHA-256 in hexadecimal, and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a bundle.

    Attributes:
        name: file name of the model that it was made from.
        source_sha256: of that file.
        edgepress: version that made the bundle.
        target: kind of processor that the model was made for; None if nobody says.
        onnxruntime: the oldest that loads the model.
        opsets: version of every operator set, by domain.
        ir_version: of the model.
        model: file name of the ONNX model.
        ort: file name of the model in onnxruntime's own format; None without.
        inputs: what the model takes.
        outputs: what it gives.
        promises: how near a device must come, one for each output in order.
        samples: how many test vectors there are.
        made_up: whether their inputs were made up, not samples.
        data: how the inputs of the vectors came about, in words.
        recipe: how pictures become inputs, as the user's recipe says; None without.
        computed_on: what the expected outputs were computed on: ``cpu``, ``target``, ``onnxruntime``.
        files: every other file of the bundle.
    """

    name: str
    source_sha256: str
    edgepress: str
    target: str | None
    onnxruntime: str
    opsets: Mapping[str, int]
    ir_version: int
    model: str
    ort: str | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    promises: tuple[Promise, ...]
    samples: int
    made_up: bool
    data: str
    recipe: Mapping[str, Any] | None
    computed_on: Mapping[str, str]
    files: Mapping[str, Entry]

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return dump(FORMAT, self)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a bundle.

        Raises:
            InputError: the folder is no bundle, one of a newer version, or its manifest is damaged.
        """
        try:
            raw = json.loads((folder / check.MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{folder} is no bundle ({check.MANIFEST} cannot be read): give a folder that edgepress bundle made."
            ) from error
        except (ValueError, RecursionError) as error:
            raise _damaged(folder, "it is not JSON") from error
        found = raw.get("format") if isinstance(raw, dict) else None
        if found != FORMAT:
            raise InputError(_other(folder, found))
        try:
            manifest = schema.decode(cls, raw)
        except (ValueError, TypeError) as error:
            raise _damaged(folder, str(error)) from error
        _check(manifest, folder)
        return manifest

    def check_files(self, folder: Path) -> None:
        """Compare every file with its size and hash.

        Raises:
            InputError: names the first that is missing, or another.
        """
        problem = check.damage(str(folder), {name: schema.encode(entry) for name, entry in self.files.items()})
        if problem is not None:
            raise InputError(f"{folder}: {problem}")


def entry(path: Path) -> Entry:
    """The entry of a file."""
    return Entry(check.sha256(str(path)), path.stat().st_size)


def strangers(folder: Path) -> list[str]:
    """Names in a folder that no bundle put there; all of them if it is no bundle (of any version)."""
    names = {path.name for path in folder.iterdir()}
    try:
        raw = json.loads((folder / check.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return sorted(names)
    if not isinstance(raw, dict) or not str(raw.get("format")).startswith(f"{KIND}/"):
        return sorted(names)
    return sorted(names - {*raw.get("files", ()), check.MANIFEST, check.SUMS, *check.LEFT})


def _other(folder: Path, found: object) -> str:
    if str(found).startswith(f"{KIND}/"):
        return f"{folder} is a bundle of another version ({found}): use a newer edgepress, or make it again."
    return f"{folder} is no bundle (its manifest says {found!r}): give a folder that edgepress bundle made."


def _check(manifest: Manifest, folder: Path) -> None:
    """What must hold beyond the types."""
    bad = [name for name in manifest.files if not check.plain(name)]
    if bad:
        raise _damaged(folder, f"{bad[0]!r} is no file name of a bundle")
    needed = [manifest.model, VECTORS, check.EXPECTED, *([manifest.ort] if manifest.ort else [])]
    missing = [name for name in needed if name not in manifest.files]
    if missing:
        raise _damaged(folder, f"it does not list {missing[0]!r}")
    if [item.output for item in manifest.promises] != [item.name for item in manifest.outputs]:
        raise _damaged(folder, "its promises are not those of its outputs")
    if manifest.samples < 1:
        raise _damaged(folder, "it has no samples")
    if not all(0 <= item.relative < 1 and 0 <= item.absolute < math.inf for item in manifest.promises):
        raise _damaged(folder, "it allows differences of any size")


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"The manifest of {folder} is damaged ({what}): copy or make the bundle again.")
