"""Samples from a folder of pictures, decoded with Pillow as a recipe says, one at a time when they are needed.

Class sub-folders give the labels: their names are sorted as text and numbered from 0. Rotation tags (EXIF) are not
applied, as in torchvision's and Keras's loaders. Pillow is loaded only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepress.calibrate.inputs import Wanted, integer_range, is_float
from edgepress.calibrate.layout import Source, arrange
from edgepress.calibrate.recipe import Recipe
from edgepress.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})


def pictures(folder: Path) -> list[Path]:
    """All pictures below a folder by name, hidden files and folders left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not _hidden(path.relative_to(folder)) and path.is_file())


def from_images(folder: Path, inputs: tuple[Wanted, ...], recipe: Recipe) -> Source:
    """The pictures of a folder as samples of a model with one input.

    Raises:
        DataError: Pillow is missing, several inputs, pictures outside the class folders, or a size that the model
            does not take.
    """
    if len(inputs) > 1:
        names = ", ".join(item.name for item in inputs)
        raise DataError(f"{folder}: pictures feed one input, but the model has {names}: save an .npz with those keys.")
    _pillow()
    paths = pictures(folder)
    column = ImageColumn(tuple(paths), recipe, inputs[0].dtype)
    labels = _labels(folder, paths) if recipe.labels == "folders" else None
    return arrange({inputs[0].name: column}, labels, inputs, f"{folder} (recipe {recipe.name!r})")


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """Pictures as the column of one input; decoded at every read."""

    paths: Sequence[Path]
    recipe: Recipe
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """``[pictures, channels, height, width]`` or ``[pictures, height, width, channels]``."""
        return (len(self.paths), *self.recipe.shape)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The pictures at ``indices`` as the recipe says.

        Raises:
            DataError: a picture that cannot be read or is too small, or values that the model's type cannot hold.
        """
        rows = np.empty((len(indices), *self.recipe.shape), self.dtype)
        for row, index in enumerate(indices.tolist()):
            rows[row] = self._typed(normalized(pixels(self.paths[index], self.recipe), self.recipe))
        return rows

    def _typed(self, values: np.ndarray) -> np.ndarray:
        if is_float(self.dtype):
            return values.astype(self.dtype)
        low, high = integer_range(self.dtype)
        if not (values == np.rint(values)).all() or values.min() < low or values.max() > high:
            raise DataError(
                f"The recipe {self.recipe.name!r} gives values that {self.dtype} (the model's type) cannot hold: for a "
                "model that takes raw pixels use scale 1, mean 0 and std 1."
            )
        return values.astype(self.dtype)


def pixels(path: Path, recipe: Recipe) -> np.ndarray:
    """A picture resized and cropped, uint8 ``[height, width, channels]``, channels in the recipe's order.

    Raises:
        DataError: it cannot be read, has more than 8 bits per channel, or is smaller than the crop.
    """
    image_module = _pillow()
    try:
        with image_module.open(path) as opened:
            if opened.mode not in _EIGHT_BIT:
                raise DataError(f"{path} has pixels of kind {opened.mode}: convert it to 8 bits per channel.")
            picture = _fitted(opened.convert("L" if recipe.color == "L" else "RGB"), recipe, path)
    except (OSError, SyntaxError, ValueError, EOFError, image_module.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: remove it or save it again.") from error
    array = np.asarray(picture)
    array = array[:, :, None] if array.ndim == 2 else array
    return array[:, :, ::-1] if recipe.color == "BGR" else array


def normalized(values: np.ndarray, recipe: Recipe) -> np.ndarray:
    """``(pixel * scale - mean) / std`` in float32, in the recipe's layout."""
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    result: np.ndarray = (values.astype(np.float32) * np.float32(recipe.scale) - mean) / std
    return result.transpose(2, 0, 1) if recipe.layout == "NCHW" else result


def _fitted(picture: Image, recipe: Recipe, path: Path) -> Image:
    """Resize and crop; the long side and the corner are rounded as torchvision rounds them."""
    bilinear = _pillow().Resampling.BILINEAR
    height, width = recipe.size
    if recipe.resize is None:
        return picture.resize((width, height), bilinear)
    short, long = sorted(picture.size)
    longer = int(recipe.resize * long / short)
    tall = picture.size[0] < picture.size[1]
    picture = picture.resize((recipe.resize, longer) if tall else (longer, recipe.resize), bilinear)
    if picture.size[0] < width or picture.size[1] < height:
        raise DataError(
            f"{path}: resized to {picture.size[1]}x{picture.size[0]} it is smaller than the crop of {height}x{width}: "
            f"raise 'resize' in the recipe {recipe.name!r}."
        )
    left, top = round((picture.size[0] - width) / 2), round((picture.size[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _labels(folder: Path, paths: Sequence[Path]) -> np.ndarray:
    classes = sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and not _hidden(Path(sub.name)))
    number = {name: position for position, name in enumerate(classes)}
    for path in paths:
        if path.parent == folder:
            raise DataError(f'{path} is in no class folder: move it into one, or set "labels": "none" in the recipe.')
    return np.array([number[path.relative_to(folder).parts[0]] for path in paths], np.int64)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError('Pictures need Pillow: pip install "edgepress[images]".') from error
    return Image
