"""The overrides of one tensor: which keys there are, what they mean, and what int8 here has not.

    activations   QUInt8, or QInt8 (the same grid, shifted by 128); one scale
                  [low, high] = [-zero scale, (255 - zero) scale], or [rmin, rmax], or the symmetric range around it
    weights       symmetric QInt8 (-127..127, with reduce_range -64..64) or QInt4 (-8..7, with reduce_range -4..3)
                  scale = 2 max |r| / (greatest - least), r = rmin and rmax, or the weight itself

The keys and integers are those of ``onnxruntime.quantization`` 1.31 (``tensor_quant_overrides``, ``quant_utils``);
``quant_type`` is the name of a QuantType. Guarantee: what cannot be done as asked (16 bits, float8, ``convert``,
asymmetric weights, ranges of one end) is an InputError of one sentence that says what to do, never left out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress.errors import InputError
from edgepress.quantize.activations.ranges import Range

KEYS = ("quant_type", "axis", "scale", "zero_point", "symmetric", "reduce_range", "rmin", "rmax")
DECIDES = ("symmetric", "reduce_range", "rmin", "rmax")
"""Keys that say how to find a scale, so that none may be given beside them."""
SAID_ONCE = ("quant_type", "symmetric", "reduce_range")
ACTIVATION_TYPES = {"QUInt8": 0, "QInt8": 128}
"""Types of activations, and what their zero point is shifted by."""
WEIGHT_TYPES = {"QInt8": ((-127, 127), (-64, 64)), "QInt4": ((-8, 7), (-4, 3))}
"""Least and greatest integer of a type, and with ``reduce_range``."""
ALL_LEVELS = 255
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class WeightOverride:
    """What is wanted of one weight.

    Attributes:
        levels: how many values it may take (255: all of int8).
        axis: axis of its channels, not negative; None for one scale.
        scale: float32 ``[channels]``, or ``[1]`` without an axis; None: from the weight.
    """

    levels: int
    axis: int | None
    scale: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, for messages."""

    path: Path
    tensor: str

    def wrong(self, what: str) -> InputError:
        """The error that something is wrong here."""
        return InputError(f"{self.path}: the overrides of {self.tensor!r} {what}.")

    def entries(self, given: object) -> list[dict[str, Any]]:
        """The objects of the tensor, with known keys only."""
        if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
            raise self.wrong("are no list of objects: write [{...}], or one object per channel")
        for key in (key for entry in given for key in entry):
            if key == "convert":
                raise self.wrong("convert it to another type, which int8 here does not: take 'convert' out")
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5) or KEYS
                raise self.wrong(f"have a key {key!r} that is none: write {' or '.join(map(repr, near))}")
        return given


def activation(place: Place, entries: Sequence[dict[str, Any]]) -> Range | None:
    """The range of one activation; None if nothing but its type is given."""
    entry = entries[0]
    if len(entries) > 1 or "axis" in entry:
        raise place.wrong("are per channel, which activations cannot be: give one object without 'axis'")
    shift = ACTIVATION_TYPES[_type(place, entry, tuple(ACTIVATION_TYPES))]
    scaled, ranged = _scale(place, entries), _limits(place, entry)
    if _flag(place, entry, "reduce_range"):
        raise place.wrong("reduce the range, which is for weights: take 'reduce_range' out")
    if scaled is not None:
        scale, zero = float(scaled[0][0]), scaled[1][0] + shift
        if not 0 <= zero <= ALL_LEVELS:
            raise place.wrong(f"have zero point {zero - shift}: give one within {-shift}..{ALL_LEVELS - shift}")
        return Range(-zero * scale, (ALL_LEVELS - zero) * scale)
    if not _flag(place, entry, "symmetric"):
        return ranged
    if ranged is None:
        raise place.wrong("want symmetry without a range: give 'rmin' and 'rmax', too")
    reach = max(abs(ranged.low), abs(ranged.high))
    return Range(-reach, reach)


def weight(place: Place, entries: Sequence[dict[str, Any]], shape: tuple[int, ...]) -> WeightOverride:
    """What is wanted of a weight of some shape."""
    first, axis = entries[0], _axis(place, entries, len(shape))
    size = 1 if axis is None else shape[axis]
    numbers = any(key in entry for entry in entries for key in ("scale", "zero_point", "rmin", "rmax"))
    if len(entries) != size and (numbers or len(entries) != 1):
        raise place.wrong(f"number {len(entries)} for {size} channels: give one object for each")
    for key in SAID_ONCE:
        if any(key in entry and entry[key] != first.get(key) for entry in entries):
            raise place.wrong(f"differ in {key!r} between channels: say it once, in the first")
    if not _flag(place, first, "symmetric", missing=True):
        raise place.wrong("want asymmetric weights, which int8 here has not: take 'symmetric' out")
    kind, reduced = _type(place, first, tuple(WEIGHT_TYPES)), _flag(place, first, "reduce_range")
    low, high = WEIGHT_TYPES[kind][reduced]
    scaled, limits = _scale(place, entries), [_limits(place, entry) for entry in entries]
    if scaled is not None and any(scaled[1]):
        raise place.wrong("have a zero point, which weights here have not: give 0")
    if None in limits and any(limits):
        raise place.wrong("have a range for some channels only: give one for each")
    levels = high - low + 1
    reach = [weight_scale(max(abs(item.low), abs(item.high)), levels) for item in limits if item is not None]
    ranged = np.array(reach, np.float32) if reach else None
    return WeightOverride(levels, axis, ranged if scaled is None else scaled[0])


def weight_scale(reach: float, levels: int) -> float:
    """The scale of a symmetric weight that reaches to ``reach``; 1 for a weight of zeros."""
    return 2 * reach / (levels - 1) or 1.0


def _axis(place: Place, entries: Sequence[dict[str, Any]], rank: int) -> int | None:
    if "axis" not in entries[0]:
        if len(entries) > 1:
            raise place.wrong("are several without an 'axis': say in the first which axis the channels are")
        return None
    given = [entry["axis"] for entry in entries if "axis" in entry]
    if not all(isinstance(axis, int) and not isinstance(axis, bool) and -rank <= axis < rank for axis in given):
        raise place.wrong(f"have an 'axis' outside the {rank} of the weight: give one within {-rank}..{rank - 1}")
    if len({axis % rank for axis in given}) > 1:
        raise place.wrong("differ in 'axis' between channels: say it once, in the first")
    return int(given[0]) % rank


def _type(place: Place, entry: Mapping[str, Any], known: Sequence[str]) -> str:
    """The type by any spelling of its name (``quint8``, ``QuantType.QUInt8``); the first of those known if none is."""
    given = entry.get("quant_type", known[0])
    name = str(given).rpartition(".")[2].lower()
    found = next((each for each in known if isinstance(given, str) and each.lower() == name), None)
    if found is None:
        raise place.wrong(f"want the type {given!r}, which it cannot have here: write {' or '.join(map(repr, known))}")
    return found


def _flag(place: Place, entry: Mapping[str, Any], key: str, *, missing: bool = False) -> bool:
    value = entry.get(key, missing)
    if not isinstance(value, bool):
        raise place.wrong(f"have a {key!r} that is neither true nor false: write one of them")
    return value


def _scale(place: Place, entries: Sequence[dict[str, Any]]) -> tuple[np.ndarray, list[int]] | None:
    """Scales and zero points; None if there are none."""
    held = [key in entry for entry in entries for key in ("scale", "zero_point")]
    if not any(held):
        return None
    if not all(held):
        raise place.wrong(
            "have a 'scale' or a 'zero_point' somewhere, but not everywhere: give both, for every channel"
        )
    extra = [key for key in DECIDES if any(key in entry for entry in entries)]
    if extra:
        raise place.wrong(f"have a 'scale' beside what decides it: take {' and '.join(map(repr, extra))} out")
    scales = [_number(place, entry, "scale", "above zero", lambda value: np.float32(value) > 0) for entry in entries]
    zeros = [_number(place, entry, "zero_point", "whole", float.is_integer) for entry in entries]
    return np.array(scales, np.float32), [int(zero) for zero in zeros]


def _limits(place: Place, entry: Mapping[str, Any]) -> Range | None:
    if "rmin" not in entry and "rmax" not in entry:
        return None
    if "rmin" not in entry or "rmax" not in entry:
        raise place.wrong("have only one of 'rmin' and 'rmax': give both")
    low, high = (_number(place, entry, key, "finite") for key in ("rmin", "rmax"))
    if low > high:
        raise place.wrong("have an 'rmin' above 'rmax': exchange them")
    return Range(low, high)


def _number(
    place: Place, entry: Mapping[str, Any], key: str, kind: str, holds: Callable[[float], object] = math.isfinite
) -> float:
    """A number that float32 can hold, alone or in a list of one (as numpy arrays are written)."""
    value = entry[key][0] if isinstance(entry[key], list) and len(entry[key]) == 1 else entry[key]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST or not holds(float(value)):
        raise place.wrong(f"have a {key!r} of {value!r}: give a number that is {kind}")
    return float(value)
