"""Vectors: inputs of a model and what it answers to them here, as two .npz files.

Inputs are samples as :func:`edgepress.calibrate.open_feed` reads them, spread evenly over all there are, or made up
from the types the model states. Answers are onnxruntime's at ``ORT_ENABLE_ALL`` in one thread. Arrays are named as the
agent of :mod:`edgepress.devices` names them: ``"<number>/<input>"`` and ``"<number>/<position of the output>"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepress import runtime
from edgepress.calibrate import open_feed
from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.normalize.parity import reference

SAMPLES = 16

Feed = Mapping[str, np.ndarray]

MADE_UP = (
    "Made up: seeded normal numbers, integers 0 or 1. They show that a device computes what this machine computes, "
    "not how good the model is."
)


@dataclass(frozen=True)
class Inputs:
    """The inputs of the vectors, and how they came about, in words."""

    feeds: tuple[Feed, ...]
    made_up: bool
    words: str


def inputs(model: Model, data: str | None, recipe: str | None, samples: int) -> Inputs:
    """Inputs for test vectors.

    Args:
        model: what they are for.
        data: source of samples; None makes some up.
        recipe: JSON file that says how to read pictures.
        samples: most vectors; a vector is one run of the model.

    Raises:
        DataError: the samples cannot be used.
        ModelError: the model does not run on made-up inputs.
    """
    if data is None:
        return Inputs(reference(model, ()).feeds[:samples], True, MADE_UP)
    feed = open_feed(data, model, recipe=recipe)
    runs = feed.runs(1)
    count = min(samples, runs)
    numbers = range(0, runs, runs // count)[:count]
    feeds = tuple(chunk.inputs for chunk in feed.chunks(1, numbers))
    source = Path(data).name or data
    return Inputs(feeds, False, f"{count} of {runs} runs of {source}, spread evenly. {_how(recipe)}")


def _how(recipe: str | None) -> str:
    if recipe is not None:
        return "Pictures became inputs as the recipe says: value = (pixel * scale - mean) / std."
    return "The arrays are fed as they are: whatever scaling the model was trained with is in them already."


def answers(path: Path, model: Model, feeds: Sequence[Feed]) -> list[list[np.ndarray]]:
    """What the model answers to every input, its outputs in order.

    Raises:
        ModelError: it cannot be run, gives something else than tensors of numbers, or not twice the same.
    """
    opened = runtime.session(path)
    found = [_answer(opened, model, feed) for feed in feeds]
    again = _answer(opened, model, feeds[0])
    if any(one.tobytes() != other.tobytes() for one, other in zip(found[0], again, strict=True)):
        raise ModelError(
            "The model does not answer twice the same to one input, so there is nothing to compare a device with: "
            "take random operators out, or give them a seed."
        )
    return found


def _answer(opened: runtime.Session, model: Model, feed: Feed) -> list[np.ndarray]:
    values: Mapping[str, object] = runtime.run(opened, feed, list(model.outputs))
    found = []
    for name, value in values.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise ModelError(f"Output {name!r} is no tensor of numbers: make the model give one there, or drop it.")
        found.append(value)
    return found


def save_inputs(path: Path, feeds: Sequence[Feed]) -> None:
    """Write inputs the way the agent reads them."""
    _save(path, {f"{number}/{name}": array for number, feed in enumerate(feeds) for name, array in feed.items()})


def save_answers(path: Path, found: Sequence[Sequence[np.ndarray]]) -> None:
    """Write answers the way the agent writes them."""
    _save(path, {f"{number}/{place}": array for number, row in enumerate(found) for place, array in enumerate(row)})


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)
