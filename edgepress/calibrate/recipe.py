"""Recipe: how pictures become model inputs, as a small JSON file.

``value = (pixel * scale - mean) / std`` with pixels 0..255, after a resize of the shorter side to ``resize``
and a centre crop to ``size`` (or, with ``resize`` null, a resize straight to ``size``); bilinear, as torchvision's
``Resize`` and ``CenterCrop`` do on pictures. All fields must be there and no others::

    {"format": "edgepress-recipe/1", "name": "imagenet", "size": [224, 224], "resize": 256, "crop": "center",
     "layout": "NCHW", "color": "RGB", "scale": 0.00392156862745098,
     "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "labels": "folders"}
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from edgepress.errors import DataError

FORMAT = "edgepress-recipe/1"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How pictures become model inputs.

    Attributes:
        name: for reports.
        size: height and width of the model's input, in pixels.
        resize: the shorter side before the crop, in pixels; None resizes straight to ``size``.
        crop: always ``center``.
        layout: axes of one batch.
        color: channels and their order; ``L`` is grey.
        scale: multiplies pixel values 0..255.
        mean: subtracted after scaling, one per channel in the order of ``color``.
        std: divides at the end, one per channel.
        labels: ``folders``: each sub-folder is a class, numbered in the order of their names; ``none``: no labels.
    """

    name: str
    size: tuple[int, int]
    resize: int | None
    crop: Literal["center"]
    layout: Literal["NCHW", "NHWC"]
    color: Literal["RGB", "BGR", "L"]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Literal["folders", "none"]

    @property
    def channels(self) -> int:
        """Number of color channels."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one sample."""
        height, width = self.size
        return (self.channels, height, width) if self.layout == "NCHW" else (height, width, self.channels)

    @classmethod
    def from_json(cls, text: str, *, source: str = "The recipe") -> Recipe:
        """Read a recipe.

        Raises:
            DataError: not JSON, another format, a field missing, unknown or of the wrong kind (named).
        """
        try:
            raw = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{source} is not JSON{where}: see calibration/recipes for examples.") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise DataError(f'{source} has no field "format": "{FORMAT}": see calibration/recipes for examples.')
        _check_fields(raw, source)
        fields: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in raw.items() if key != "format"
        }
        return cls(**fields)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe file (DataError as in :meth:`from_json`)."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read as a recipe: give a JSON file as in calibration/recipes."
            ) from error
        return cls.from_json(text, source=str(path))


def _check_fields(raw: dict[str, Any], source: str) -> None:
    names = {item.name for item in dataclasses.fields(Recipe)}
    unknown = sorted(raw.keys() - names - {"format"})
    missing = sorted(names - raw.keys())
    if unknown:
        raise DataError(f"{source}: unknown field {unknown[0]!r}: the fields are {', '.join(sorted(names))}.")
    if missing:
        raise DataError(f"{source}: the field {missing[0]!r} is missing: add it (see calibration/recipes).")
    for name, (good, wish) in _rules(raw).items():
        if not good:
            raise DataError(f"{source}: the field {name!r} is {raw[name]!r}: it must be {wish}.")


def _rules(raw: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    """For every field whether it is right, and what it must be."""
    channels = 1 if raw["color"] == "L" else 3
    numbers = f"a list of {channels} numbers, one per channel of {raw['color']}"
    return {
        "name": (isinstance(raw["name"], str) and raw["name"] != "", "a text"),
        "size": (_list_of(raw["size"], 2, _is_length), "a list of height and width in pixels"),
        "resize": (raw["resize"] is None or _is_length(raw["resize"]), "a number of pixels, or null"),
        "crop": (raw["crop"] == "center", '"center"'),
        "layout": (raw["layout"] in ("NCHW", "NHWC"), '"NCHW" or "NHWC"'),
        "color": (raw["color"] in ("RGB", "BGR", "L"), '"RGB", "BGR" or "L"'),
        "scale": (_is_number(raw["scale"]) and raw["scale"] != 0, "a number that is not 0"),
        "mean": (_list_of(raw["mean"], channels, _is_number), numbers),
        "std": (_list_of(raw["std"], channels, _is_number) and 0 not in raw["std"], numbers + ", none of them 0"),
        "labels": (raw["labels"] in ("folders", "none"), '"folders" or "none"'),
    }


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _list_of(value: object, length: int, rule: Any) -> bool:
    return isinstance(value, list) and len(value) == length and all(rule(item) for item in cast("list[object]", value))
