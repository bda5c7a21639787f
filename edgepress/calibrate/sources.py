"""Open what the user named after ``--data``: files, folders, or a function.

==============================  ==========================================================================
``samples.npz``                 one array per input, perhaps ``label``
``samples.npy``                 the one input of the model
folder of .npz or of .npy       the same, in parts
``test_data_set_*``             ONNX test sets: one of them, or a folder that holds several
folder of pictures              with ``--recipe``, a JSON file that says how to read them
``module:function``             the user's own code, see ``edgepress.calibrate.readers``
==============================  ==========================================================================

There is no random data: whatever cannot be read is an error.
"""

from __future__ import annotations

from pathlib import Path

from edgepress.calibrate.arrays import from_npy, from_npy_folder, from_npz
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.images import from_images, pictures
from edgepress.calibrate.inputs import Wanted, wanted
from edgepress.calibrate.layout import Source
from edgepress.calibrate.readers import from_reader, is_reader_name
from edgepress.calibrate.recipe import Recipe
from edgepress.calibrate.stream import from_stream
from edgepress.calibrate.testsets import read_test_sets, test_sets
from edgepress.errors import DataError
from edgepress.model import Model

KINDS = "an .npz or .npy file, a folder of those, of test_data_set_* or of pictures, or module:function"


def open_feed(source: str, model: Model, *, recipe: str | None = None) -> Feed:
    """Open samples for ``model``, and read all of them once to find what is wrong before work starts.

    Args:
        source: what the user named (see the module).
        model: the model that the samples are for.
        recipe: path of a recipe JSON, for a folder of pictures only.

    Raises:
        DataError: the samples cannot be used; the message says what to do.
    """
    inputs = wanted(model)
    path = Path(source)
    if path.is_dir():
        return Feed.over(_from_folder(path, inputs, recipe))
    if recipe is not None:
        raise DataError(f"{source} is not a folder of pictures, which alone takes a recipe: leave --recipe out.")
    if path.is_file():
        return Feed.over(_from_file(path, inputs))
    if is_reader_name(source):
        return Feed.over(from_reader(source, inputs))
    raise DataError(f"There is no file or folder {source!r}: give {KINDS}.")


def _from_file(path: Path, inputs: tuple[Wanted, ...]) -> Source:
    if path.suffix.lower() == ".npz":
        return from_npz([path], inputs, str(path))
    if path.suffix.lower() == ".npy":
        return from_npy(path, inputs)
    raise DataError(f"{path} is of a kind that cannot be read: give {KINDS}.")


def _from_folder(folder: Path, inputs: tuple[Wanted, ...], recipe: str | None) -> Source:
    npz, npy = sorted(folder.glob("*.npz")), sorted(folder.glob("*.npy"))
    sets, images = test_sets(folder), pictures(folder)
    kinds = [
        name
        for name, found in ((".npz files", npz), (".npy files", npy), ("ONNX test sets", sets), ("pictures", images))
        if found
    ]
    if not kinds:
        raise DataError(f"{folder} holds no samples: give {KINDS}.")
    if len(kinds) > 1:
        raise DataError(f"{folder} holds {' and '.join(kinds)}: put one kind of samples into a folder of its own.")
    if images:
        return from_images(folder, inputs, _recipe(folder, recipe))
    if recipe is not None:
        raise DataError(f"{folder} holds {kinds[0]}, which take no recipe: leave --recipe out.")
    if sets:
        return from_stream(read_test_sets(sets, inputs), inputs, str(folder))
    return from_npz(npz, inputs, str(folder)) if npz else from_npy_folder(npy, inputs, str(folder))


def _recipe(folder: Path, recipe: str | None) -> Recipe:
    if recipe is None:
        raise DataError(
            f"{folder} holds pictures: say how to read them with --recipe and a recipe JSON, such as those in "
            "calibration/recipes."
        )
    return Recipe.load(Path(recipe))
