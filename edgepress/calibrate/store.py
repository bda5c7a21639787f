"""Saved statistics: one .npz file, readable without pickle, that other such files can be merged with.

The samples are cut into ``run.UNITS`` units, whoever observes them. A file holds some units each by itself, and those
from the first one on, as far as they are there without a gap, merged into one: sums are always bracketed alike, so
shards may be made anywhere and merged in any order. Together they are the file that one run writes, byte for byte.

The member ``outline`` is JSON: what was observed (:class:`Header`), then by probe and unit an outline of its statistic
(:mod:`edgepress.calibrate.coding`), which names the other members. They are stored, not compressed, so a file cannot
unpack to more than its size.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

import numpy as np

from edgepress.calibrate.coding import BY_NAME, SHAPES, arrays_of, outline, read_back
from edgepress.calibrate.rows import open_npz
from edgepress.calibrate.run import CHUNK, SLOPE_CHUNK, UNITS, Units, merged_units
from edgepress.errors import DataError, PluginError, Refusal
from edgepress.model import write_atomically

FORMAT = "edgepress-statistics/1"

OUTLINE = "outline"

AGAIN = "make it again with edgepress calibrate"

CUTTING = (UNITS, CHUNK, SLOPE_CHUNK)
"""How this version cuts the samples: units, samples of a chunk, samples of a chunk with gradients."""

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, SyntaxError, TokenError)
"""What reading a damaged file may end with."""


@dataclass(frozen=True, slots=True)
class Header:
    """What statistics are of.

    Attributes:
        version: of edgepress.
        model: SHA-256 of the normalized model.
        data: identity of the samples (``Feed.sha256``).
        samples: how many there are.
        seed: of their order, of the choice of positions and of draws.
        positions: output positions observed in each sample.
        score: the scores they were observed for, as the user names them.
        labels: whether gradients are of labels where the score does not say.
        losses: what gradients were taken of.
        groups: names of the groups that can be scored.
        refusals: why the others cannot.
        sizes: symbolic dimensions of the model and what they are in the samples.
        cutting: see ``CUTTING``.
    """

    version: str
    model: str
    data: str
    samples: int
    seed: int
    positions: int
    score: str
    labels: bool
    losses: tuple[str, ...]
    groups: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    sizes: Mapping[str, int]
    cutting: tuple[int, ...] = CUTTING

    def difference(self, other: Header) -> str:
        """The first field in which two headers differ, in words; empty if they are equal."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != getattr(other, field.name):
                return _DIFFERENCES.get(field.name, f"another list of {field.name}")
        return ""


_DIFFERENCES = {
    "version": "another version of edgepress",
    "model": "another model",
    "data": "other samples",
    "samples": "other samples",
    "seed": "another seed",
    "positions": "another number of positions",
    "score": "other scores",
    "labels": "other gradients (--labels)",
    "losses": "other gradients",
    "cutting": "another version of edgepress",
}


@dataclass(frozen=True)
class Statistics:
    """Statistics of some units of the samples.

    Attributes:
        header: what they are of.
        held: the units they cover, rising; some may be without samples.
        units: statistics by unit; that of the first one covers all that follow it without a gap.
    """

    header: Header
    held: tuple[int, ...]
    units: Units

    @classmethod
    def of(cls, header: Header, held: Iterable[int], units: Units) -> Statistics:
        """Merge what can be merged without another unit coming between.

        Args:
            header: what they are of.
            held: the units they cover.
            units: statistics by unit; those of the first may cover further ones already.
        """
        numbers = tuple(sorted(held))
        start = _leading(numbers)
        first = {number: found for number, found in units.items() if number < start}
        rest = {number: found for number, found in units.items() if number >= start}
        return cls(header, numbers, {**({0: merged_units(first)} if first else {}), **rest})

    @property
    def missing(self) -> tuple[int, ...]:
        """The units that are not covered."""
        return tuple(sorted(set(range(UNITS)) - set(self.held)))

    @property
    def whole(self) -> Mapping[str, Any]:
        """The statistics of all samples by name of their probe."""
        return self.units.get(0, {})

    def joined(self, other: Statistics) -> Statistics:
        """Both; no unit may be covered twice.

        Raises:
            ValueError: they do not fit each other.
        """
        units = {number: self.units.get(number, {}) for number in sorted({*self.units, *other.units})}
        for number, found in other.units.items():
            units[number] = {**units[number], **found}
        return Statistics.of(self.header, (*self.held, *other.held), units)


def save(path: Path, statistics: Statistics) -> int:
    """Write statistics; returns the bytes of the file.

    Raises:
        PluginError: one is of a kind that cannot be saved.
        OutputError: the place cannot be written to.
    """
    arrays: dict[str, np.ndarray] = {}
    numbers = count()
    entries: dict[str, dict[str, Any]] = {}
    for unit, found in sorted(statistics.units.items()):
        for name, value in found.items():
            kind = type(value)
            if kind not in SHAPES:
                raise PluginError(
                    f"The probe {name!r} observes a {kind.__name__}, which cannot be saved: score from --data."
                )
            drawn = outline(value, str(next(numbers)), arrays)
            entries.setdefault(name, {})[str(unit)] = {"kind": kind.__name__, "value": drawn}
    header = outline(statistics.header, "", {})
    text = json.dumps({"format": FORMAT, "header": header, "held": statistics.held, "statistics": entries})
    data = npz({OUTLINE: np.frombuffer(text.encode(), np.uint8), **arrays})
    write_atomically(path, data)
    return len(data)


def load(path: Path) -> Statistics:
    """Read statistics.

    Raises:
        DataError: the file is of another kind, damaged, or of another version.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}: give one that edgepress calibrate or edgepress merge wrote.")
    with open_npz(path) as members, zipfile.ZipFile(path) as archive:
        if OUTLINE not in members:
            raise DataError(f"{path} does not hold statistics: give a file that edgepress calibrate or merge wrote.")
        try:
            _check_sizes(members.values(), path.stat().st_size)
            read = _once(archive, members)
            return _statistics(json.loads(read(OUTLINE).tobytes()), read)
        except _DAMAGE as error:
            raise DataError(f"{path} is damaged or of another version ({_cause(error)}): {AGAIN}.") from error


def merge(paths: Sequence[Path]) -> Statistics:
    """Read several files and merge them.

    Raises:
        DataError: a file cannot be read, is of another model, other samples or scores, or holds a unit that another one
            holds.
    """
    merged = load(paths[0])
    owners = {unit: paths[0] for unit in merged.held}
    for path in paths[1:]:
        new = load(path)
        different = merged.header.difference(new.header)
        if different:
            raise DataError(f"{path} is of {different} than {paths[0]}: merge files of one calibration.")
        both = next((unit for unit in new.held if unit in owners), None)
        if both is not None:
            raise DataError(
                f"{owners[both]} and {path} both hold part {both + 1} of {UNITS} of the samples: name every shard once."
            )
        owners |= dict.fromkeys(new.held, path)
        try:
            merged = merged.joined(new)
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{path} does not fit {paths[0]} ({_cause(error)}): {AGAIN}.") from error
    return merged


def parts_text(units: Sequence[int]) -> str:
    """Units for people, counted from 1, as in ``1-4, 9``."""
    runs: list[list[int]] = []
    for unit in units:
        if runs and runs[-1][1] == unit:
            runs[-1][1] = unit + 1
        else:
            runs.append([unit + 1, unit + 1])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file: the same bytes for the same arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(cast(Any, stream), array, allow_pickle=False)
    return buffer.getvalue()


def finite(statistics: Mapping[str, Any]) -> None:
    """Check observed statistics.

    Raises:
        DataError: one of them holds NaN or infinite values.
    """
    for name, value in statistics.items():
        if not all(np.isfinite(array).all() for array in arrays_of(value)):
            raise DataError(f"The model gives NaN or infinite values at {name!r}: mend the model or the samples.")


def _statistics(raw: Any, read: Callable[[str], np.ndarray]) -> Statistics:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    header = read_back(Header, raw["header"], read)
    held = read_back(tuple[int, ...], raw["held"], read)
    if header.cutting != CUTTING or list(held) != sorted(set(held) & set(range(UNITS))):
        raise ValueError("it cuts the samples in another way")
    merged, units = _leading(held), dict[int, dict[str, Any]]()
    for name, entries in raw["statistics"].items():
        for number, entry in entries.items():
            unit = int(number)
            if unit not in held or 0 < unit < merged:
                raise ValueError(f"it holds part {unit + 1}, which it should not")
            units.setdefault(unit, {})[name] = read_back(BY_NAME[entry["kind"]], entry["value"], read)
    return Statistics(header, held, units)


def _leading(held: Sequence[int]) -> int:
    """How many units there are from the first one on without a gap."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], enumerate(held))))


def _check_sizes(members: Iterable[zipfile.ZipInfo], size: int) -> None:
    """No memory is taken for what a file merely claims to hold."""
    every = list(members)
    stored = all(info.compress_type == zipfile.ZIP_STORED for info in every)
    if not stored or sum(info.file_size for info in every) > size:
        raise ValueError("its arrays are not as edgepress stores them")


def _once(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> Callable[[str], np.ndarray]:
    """Reads the array of a name, each of them once."""
    left = dict(members)

    def read(name: str) -> np.ndarray:
        with archive.open(left.pop(name)) as stream:
            layout, file = np.lib.format, cast(Any, stream)
            layout.read_magic(file)
            shape, fortran, dtype = layout.read_array_header_1_0(file)
            data = bytearray(stream.read())  # a buffer of its own, which arrays may write to
        if dtype.kind not in "fu":
            raise ValueError(f"array {name!r} holds {dtype}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    return read


def _cause(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
