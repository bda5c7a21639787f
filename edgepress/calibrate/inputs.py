"""What a model wants to be fed: names, element types and shapes of its inputs, and the checks against them.

Element types: data that already has the model's type is passed as it is; a float type is cast to another
float type (float64 to float32 rounds, as numpy and every training framework do); an integer type
to another integer type if every value fits. Integers are never turned into floats: a uint8 picture fed raw
to a model trained on scaled pixels is the classic silent calibration error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.errors import DataError
from edgepress.model import Dimension, Model, TensorType

LABELS = ("label", "labels")
"""Names under which labels come along with the inputs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One input of the model; ``shape`` is None when the model does not state its rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None

    @property
    def fixed_batch(self) -> int | None:
        """First dimension if it is a number, None if it is a symbol or unknown."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def mismatch(self, shape: Sequence[int]) -> bool:
        """Whether ``shape`` (of a complete input) contradicts the model; a free first dimension takes any number."""
        if self.shape is None:
            return False
        return len(shape) != len(self.shape) or not _agree(self.shape, shape)

    def check_dtype(self, dtype: np.dtype[Any], where: str) -> None:
        """Raise DataError unless data of that type may be fed to this input."""
        if is_float(self.dtype) == is_float(dtype):
            return
        clash = f"{where}: {self.name!r} holds {dtype}, but the model takes {self.dtype}"
        if is_float(self.dtype):
            raise DataError(
                f"{clash}: scale the values exactly as in training (for pictures often /255, mean and std) and save "
                f"them as {self.dtype}."
            )
        raise DataError(f"{clash}: save whole numbers as {self.dtype}.")

    def cast(self, array: np.ndarray, where: str) -> np.ndarray:
        """``array`` in the model's element type.

        Raises:
            DataError: an integer does not fit into the model's integer type.
        """
        if array.dtype == self.dtype:
            return array
        if not is_float(self.dtype):
            low, high = integer_range(self.dtype)
            if array.size and (int(array.min()) < low or int(array.max()) > high):
                raise DataError(
                    f"{where}: {self.name!r} holds numbers outside {low}..{high}, which {self.dtype} (the model's "
                    "type) cannot hold: check how the data was made."
                )
        # An overflow to infinity is found (and named by sample) by the check for finite values.
        with np.errstate(over="ignore"):
            return array.astype(self.dtype)

    def describe(self) -> str:
        """The shape in words, as ``[N, 3, 32, 32]``."""
        return "any shape" if self.shape is None else show(self.shape)


def wanted(model: Model) -> tuple[Wanted, ...]:
    """The inputs of ``model`` in its own order.

    Raises:
        DataError: the model has no inputs, or one that is no tensor of numbers.
    """
    if not model.inputs:
        raise DataError("The model has no inputs, so there is nothing to feed: give a model that takes data.")
    return tuple(_wanted(name, kind) for name, kind in model.inputs.items())


def is_batched(inputs: Sequence[Wanted]) -> bool:
    """Whether every input leaves its first dimension free (the batch)."""
    return all(item.shape != () and item.fixed_batch is None for item in inputs)


def check_names(found: Iterable[str], inputs: Sequence[Wanted], where: str) -> None:
    """Raise DataError unless ``found`` is exactly the inputs, with or without labels under one name."""
    expected = [item.name for item in inputs]
    names = list(found)
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected and name not in LABELS]
    listing = f"expected {', '.join(expected)}; found {', '.join(names) or 'nothing'}"
    if missing and unknown:
        near = difflib.get_close_matches(unknown[0], missing, n=1, cutoff=0.5)
        guess = near[0] if near else missing[0]
        raise DataError(f"{where}: wrong input names ({listing}): rename {unknown[0]!r}, perhaps to {guess!r}.")
    if missing:
        raise DataError(f"{where}: the input {missing[0]!r} is missing ({listing}): add it.")
    if unknown:
        raise DataError(
            f"{where}: {unknown[0]!r} is no input of the model ({listing}): remove it, or call it 'label' if it "
            "holds labels."
        )
    if len(label_names(names, inputs)) > 1:
        raise DataError(f"{where}: both 'label' and 'labels' are there: keep one of them.")


def label_names(found: Iterable[str], inputs: Sequence[Wanted]) -> list[str]:
    """The names in ``found`` that hold labels (a model input may itself be called ``label``)."""
    taken = {item.name for item in inputs}
    return [name for name in found if name in LABELS and name not in taken]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a type holds floating-point numbers (bfloat16 is numpy kind ``V``)."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest number of an integer or bool type."""
    if dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def show(shape: Sequence[Dimension]) -> str:
    """A shape as text, ``?`` for an unknown dimension."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _agree(stated: Sequence[Dimension], shape: Sequence[int]) -> bool:
    return all(not isinstance(want, int) or want == size for want, size in zip(stated, shape, strict=True))


def _wanted(name: str, kind: TensorType) -> Wanted:
    try:
        dtype = np.dtype(kind.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf" and not is_float(dtype):
        raise DataError(f"The model's input {name!r} is of type {kind.dtype}: only tensors of numbers can be fed.")
    # Some exporters write 0 or -1 for "any".
    shape = kind.shape and tuple(None if isinstance(size, int) and size < 1 else size for size in kind.shape)
    return Wanted(name, dtype, shape)
