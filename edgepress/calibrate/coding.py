"""Statistics as an outline that JSON can hold and arrays with names, and back.

    SplitGram(Gram(...), None)  ->  {"fit": {"inner": "7.fit.inner", "cross": ..., "rows": 96}, "held": null}

Any frozen dataclass of arrays, whole numbers, texts, None, and of tuples, mappings and dataclasses of these will do:
the annotations of its fields say how it is read back. Statistics are made of the classes in ``SHAPES`` and no others.

Guarantees: what is read back is equal bit for bit, the order of an array in memory (which sums of products depend on)
included; whatever does not fit the annotations or ``SHAPES`` is a ValueError.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from edgepress.calibrate.features import Features
from edgepress.calibrate.slopes import Gates, Outer, Slopes
from edgepress.calibrate.statistics import Gram, Moments, SplitGram

SHAPES: Mapping[type, Mapping[str, str]] = {
    Gram: {"inner": "cc", "cross": "oc", "energy": "o"},
    SplitGram: {},
    Moments: {"total": "c", "square": "c"},
    Outer: {"total": "oo"},
    Slopes: {"fisher": "oc", "stream": "oc"},
    Gates: {"total": "s", "absolute": "s", "square": "s"},
    Features: {"rows": "sc"},
}
"""Statistics that can be saved, with the shapes of their arrays: a letter is one length within a value."""

BY_NAME = {kind.__name__: kind for kind in SHAPES}

Read = Callable[[str], np.ndarray]


def outline(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON can hold of a value; its arrays are put into ``arrays``.

    Args:
        value: a dataclass, or what one may hold.
        place: what the names of its arrays begin with.
        arrays: where they go, by name.
    """
    if isinstance(value, np.ndarray):
        arrays[place] = value
        return place
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: outline(getattr(value, name), f"{place}.{name}", arrays) for name in names}
    if isinstance(value, Mapping):  # its keys may be long, and say nothing to anybody here
        return {key: outline(item, f"{place}.{number}", arrays) for number, (key, item) in enumerate(value.items())}
    if isinstance(value, tuple):
        return [outline(item, f"{place}.{number}", arrays) for number, item in enumerate(value)]
    return value


def read_back(kind: Any, raw: Any, read: Read) -> Any:
    """A value from its outline.

    Args:
        kind: its class, or the annotation of a field.
        raw: the outline.
        read: gives an array by its name.

    Raises:
        ValueError: it is not a value of that kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, raw, read)
    if origin is types.UnionType:
        return None if raw is None else read_back(arguments[0], raw, read)
    if origin is tuple:
        return tuple(read_back(arguments[0], item, read) for item in _checked(raw, list))
    if origin is not None:
        return {key: read_back(arguments[1], item, read) for key, item in _checked(raw, dict).items()}
    return _array(read(_checked(raw, str))) if kind is np.ndarray else _checked(raw, kind)


def arrays_of(value: Any) -> list[np.ndarray]:
    """All arrays of a value."""
    found: dict[str, np.ndarray] = {}
    outline(value, "", found)
    return list(found.values())


def _dataclass(kind: Any, raw: Any, read: Read) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    if _checked(raw, dict).keys() != set(names):
        raise ValueError(f"the fields of a {kind.__name__} are {', '.join(names)}")
    hints = get_type_hints(kind)
    made = kind(**{name: read_back(hints[name], raw[name], read) for name in names})
    lengths: dict[str, int] = {}
    for name, letters in SHAPES.get(kind, {}).items():
        shape = getattr(made, name).shape
        fits = len(shape) == len(letters)
        if not fits or any(lengths.setdefault(*pair) != pair[1] for pair in zip(letters, shape, strict=True)):
            raise ValueError(f"{name} of a {kind.__name__} has shape {list(shape)}")
    return made


def _array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError("an array holds other than finite numbers of 64 bits")
    return array


def _checked(raw: Any, kind: Any) -> Any:
    if not isinstance(raw, kind) or (isinstance(raw, bool) and kind is not bool):
        raise ValueError(f"{str(raw)[:40]!r} is no {kind.__name__}")
    if kind is int and not 0 <= raw < 2**63:
        raise ValueError("a count is below zero or has more than 63 bits")
    return raw
