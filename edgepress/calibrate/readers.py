"""Samples from the user's own code: ``module:function``.

The function is called without arguments and returns an iterable (often: is a generator) of dictionaries
``{input name: numpy array}``, or an object with ``get_next()`` that returns such a dictionary or None at
the end: an onnxruntime ``CalibrationDataReader`` works as it is. It must come to an end.

The module is imported as ``python -m`` would: the current folder comes first on the import path, for as long as the
function runs. This runs the user's code, on the user's word; nothing else in edgepress does.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepress.calibrate.inputs import Wanted
from edgepress.calibrate.layout import Source
from edgepress.calibrate.stream import from_stream
from edgepress.errors import DataError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_reader_name(source: str) -> bool:
    """Whether ``source`` looks like ``module:function``."""
    return _NAME.fullmatch(source) is not None


def from_reader(source: str, inputs: tuple[Wanted, ...]) -> Source:
    """Everything that ``module:function`` gives.

    Raises:
        DataError: it cannot be imported or called without arguments, or gives something else than dictionaries of
            arrays. Exceptions of the user's own code are passed on unchanged.
    """
    with _current_folder_first():
        function = _find(source)
        return from_stream(_numbered(_items(function(), source), source), inputs, source)


@contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the user's code may have changed the list itself
            sys.path.remove(folder)


def _find(source: str) -> Callable[[], Any]:
    module_name, _, path = source.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise DataError(
            f"{module_name!r} of {source!r} cannot be imported ({error}): run edgepress in the folder that holds it, "
            "or install it."
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise DataError(f"{module_name!r} has no {path!r}: check the name behind the colon of {source!r}.")
        found = getattr(found, name)
    if not callable(found):
        raise DataError(
            f"{source!r} is of type {type(found).__name__}, not a function: name a function that gives samples."
        )
    if not _takes_nothing(found):
        raise DataError(f"{source!r} needs arguments: name a function that can be called without any.")
    function: Callable[[], Any] = found
    return function


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # some built-in callables have no signature
        return True
    return True


def _items(given: Any, source: str) -> Iterable[Any]:
    if hasattr(given, "get_next"):
        return iter(given.get_next, None)
    if isinstance(given, (Mapping, str, bytes)) or not isinstance(given, Iterable):
        raise DataError(
            f"{source!r} gives type {type(given).__name__}: return an iterable of dictionaries or an object with "
            "get_next()."
        )
    return given


def _numbered(items: Iterable[Any], source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for position, item in enumerate(items):
        name = f"{source}, item {position}"
        if not isinstance(item, Mapping):
            raise DataError(f"{name} is of type {type(item).__name__}: give dictionaries of input name to numpy array.")
        yield name, item
