"""Schema: frozen dataclasses to JSON values and back, by their type annotations.

JSON knows no infinity: ``inf``, ``-inf`` and ``nan`` are written as those strings. Keys of a mapping by
thread count become strings and come back as integers. For every dataclass of ``report`` and ``bench``
``decode(type(x), encode(x)) == x`` (NaN apart).
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def encode(value: object) -> Any:
    """``value`` as what :mod:`json` can write without NaN or infinity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def decode(kind: type[T], raw: Any) -> T:
    """Read a dataclass of type ``kind`` back; unknown keys are passed over (a later version may add some).

    Raises:
        ValueError: a field is missing or of the wrong kind.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"{kind.__name__} is not an object")
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if field.name not in raw:
            raise ValueError(f"{kind.__name__} has no {field.name!r}")
        values[field.name] = _value(hints[field.name], raw[field.name], f"{kind.__name__}.{field.name}")
    return kind(**values)


def _value(hint: Any, raw: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin in (Union, types.UnionType):
        return _union(arguments, raw, where)
    if origin is Literal:
        return _checked(raw, raw in arguments, where)
    if origin is tuple:
        _checked(raw, isinstance(raw, list), where)
        return tuple(_value(arguments[0], item, where) for item in raw)
    if origin is not None:  # a mapping
        _checked(raw, isinstance(raw, dict), where)
        key, item = arguments
        return {key(name): _value(item, value, where) for name, value in raw.items()}
    if dataclasses.is_dataclass(hint):
        return decode(cast(Any, hint), raw)
    return _scalar(hint, raw, where)


def _union(choices: tuple[Any, ...], raw: Any, where: str) -> Any:
    if raw is None:
        return _checked(raw, type(None) in choices, where)
    real = [choice for choice in choices if choice is not type(None)]
    if len(real) == 1:
        return _value(real[0], raw, where)
    return _checked(raw, isinstance(raw, tuple(real)), where)


def _scalar(hint: type, raw: Any, where: str) -> Any:
    if hint is float:
        if isinstance(raw, str):
            return _checked(float(raw), raw in ("inf", "-inf", "nan"), where)
        return float(_checked(raw, isinstance(raw, (int, float)) and not isinstance(raw, bool), where))
    return _checked(raw, isinstance(raw, hint) and (hint is bool or not isinstance(raw, bool)), where)


def _checked(value: T, holds: bool, where: str) -> T:
    if not holds:
        raise ValueError(f"{where} has a wrong value")
    return value
