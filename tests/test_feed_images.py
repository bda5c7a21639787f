"""Recipes and folders of pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_cases import TWO, model_of, relu_model
from PIL import Image

from edgepress import runtime
from edgepress.calibrate import open_feed
from edgepress.calibrate.recipe import Recipe
from edgepress.errors import DataError

FIELDS: dict[str, Any] = {
    "format": "edgepress-recipe/1",
    "name": "small",
    "size": [4, 6],
    "resize": None,
    "crop": "center",
    "layout": "NCHW",
    "color": "RGB",
    "scale": 1 / 255,
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.25, 2.0],
    "labels": "folders",
}
MODEL = relu_model("N", "3,4,6")


def recipe_file(folder: Path, **changes: Any) -> str:
    path = folder / "recipe.json"
    path.write_text(json.dumps({**FIELDS, **changes}), encoding="utf-8")
    return str(path)


def picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Five pictures in the classes cat, dog and emu; the order by path is that of `pixels`."""
    names = ("cat/a.png", "cat/b.PNG", "dog/sub/c.bmp", "emu/d.png", "emu/e.png")
    for name, array in zip(names, pixels, strict=True):
        picture(tmp_path / "pictures" / name, array)
    picture(tmp_path / "pictures" / "cat" / ".hidden.png", pixels[0])
    return tmp_path / "pictures"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
def test_values_are_those_of_the_formula(
    color: str, layout: str, folder: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    channels = 1 if color == "L" else 3
    mean, std = FIELDS["mean"][:channels], FIELDS["std"][:channels]
    shown = {
        "RGB": pixels,
        "BGR": pixels[..., ::-1],
        "L": np.stack([np.asarray(Image.fromarray(item).convert("L")) for item in pixels])[..., None],
    }[color]
    expected = (shown.astype(np.float64) / 255 - mean) / std
    tail = f"{channels},4,6" if layout == "NCHW" else f"4,6,{channels}"
    model = relu_model("N", tail)
    feed = open_feed(str(folder), model, recipe=recipe_file(tmp_path, color=color, layout=layout, mean=mean, std=std))
    (chunk,) = feed.chunks()
    found = chunk.inputs["x"].transpose(0, 2, 3, 1) if layout == "NCHW" else chunk.inputs["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert feed.labels is not None and feed.labels.tolist() == [0, 0, 1, 2, 2]
    runtime.run(runtime.session(model.data), chunk.inputs)


@pytest.mark.parametrize(("batch", "chunks"), [("1", 5), ("2", 2)])
def test_models_of_fixed_batch(batch: str, chunks: int, folder: Path, tmp_path: Path) -> None:
    feed = open_feed(str(folder), relu_model(batch, "3,4,6"), recipe=recipe_file(tmp_path))
    assert [len(chunk.inputs["x"]) for chunk in feed.chunks()] == [int(batch)] * chunks


def test_a_model_without_batch_axis(folder: Path, tmp_path: Path) -> None:
    model = model_of("agraph (float[3,4,6] x) => (float[3,4,6] y) { y = Relu(x) }")
    feed = open_feed(str(folder), model, recipe=recipe_file(tmp_path))
    assert [chunk.inputs["x"].shape for chunk in feed.chunks()] == [(3, 4, 6)] * 5


def test_a_model_of_raw_pixels(folder: Path, pixels: np.ndarray, tmp_path: Path) -> None:
    raw = recipe_file(tmp_path, scale=1, mean=[0, 0, 0], std=[1, 1, 1], layout="NHWC")
    (chunk,) = open_feed(str(folder), relu_model("N", "4,6,3", "uint8"), recipe=raw).chunks()
    np.testing.assert_array_equal(chunk.inputs["x"], pixels)


@pytest.mark.parametrize(
    ("size", "resize", "shape", "box"),
    [
        ([4, 4], 8, (16, 24), (4, 2, 8, 6)),  # landscape: 8 x 12, centre
        ([4, 4], 8, (24, 16), (2, 4, 6, 8)),
        ([5, 5], 8, (8, 9), (2, 2, 7, 7)),  # odd margins round as torchvision rounds them (half to even)
        ([2, 6], 4, (8, 16), (1, 1, 7, 3)),
    ],
)
def test_resize_of_the_shorter_side_and_centre_crop(
    size: list[int], resize: int, shape: tuple[int, int], box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    picture(tmp_path / "a" / "x.png", array)
    height, width = shape
    scaled = (resize, resize * height // width) if height > width else (resize * width // height, resize)
    expected = np.asarray(Image.fromarray(array).resize(scaled, Image.Resampling.BILINEAR).crop(box))
    recipe = recipe_file(
        tmp_path, size=size, resize=resize, scale=1, mean=[0] * 3, std=[1] * 3, layout="NHWC", labels="none"
    )
    feed = open_feed(str(tmp_path / "a"), relu_model("N", f"{size[0]},{size[1]},3"), recipe=recipe)
    np.testing.assert_array_equal(next(feed.chunks()).inputs["x"][0], expected)


def test_pictures_without_labels(folder: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    picture(folder / "zebra.png", pixels[0])
    feed = open_feed(str(folder), MODEL, recipe=recipe_file(tmp_path, labels="none"))
    assert len(feed) == 6 and feed.labels is None
    assert feed.sample_hashes()[0] == feed.sample_hashes()[5]


def test_pictures_are_decoded_when_needed(folder: Path, tmp_path: Path) -> None:
    feed = open_feed(str(folder), MODEL, recipe=recipe_file(tmp_path))
    (folder / "emu" / "e.png").unlink()
    chunks = feed.chunks(4)
    next(chunks)
    with pytest.raises(DataError, match=r"e.png cannot be read as a picture"):
        next(chunks)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_kinds_of_pictures(mode: str, tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a" / "x.tiff"
    path.parent.mkdir()
    Image.fromarray(pixels[0]).convert(mode).save(path)
    feed = open_feed(str(tmp_path / "a"), MODEL, recipe=recipe_file(tmp_path, labels="none"))
    assert next(feed.chunks()).inputs["x"].shape == (1, 3, 4, 6)


def unreadable(folder: Path) -> None:
    (folder / "cat" / "a.png").write_bytes(b"hello")


def cut(folder: Path) -> None:
    path = folder / "cat" / "a.png"
    path.write_bytes(path.read_bytes()[:-30])


def deep(folder: Path) -> None:
    picture(folder / "cat" / "z.tiff", np.zeros((4, 6), np.uint16))


def loose(folder: Path) -> None:
    picture(folder / "z.png", np.zeros((4, 6, 3), np.uint8))


def also_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", x=np.ones((1, 3, 4, 6), np.float32))


def nothing(folder: Path) -> None:
    del folder


WRONG: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "unreadable": (unreadable, {}, r"a.png cannot be read as a picture"),
    "truncated": (cut, {}, r"a.png cannot be read as a picture"),
    "16 bits": (deep, {}, r"z.tiff has pixels of kind I;16"),
    "outside class folders": (loose, {}, r"z.png is in no class folder"),
    "other samples": (also_npz, {}, r"holds .npz files and pictures"),
    "smaller than the crop": (nothing, {"resize": 4, "size": [5, 6]}, r"5x6"),
    "wrong size": (
        nothing,
        {"size": [4, 4]},
        r"recipe 'small'.*shape \[5, 3, 4, 4\], but the model takes \[N, 3, 4, 6\]",
    ),
    "wrong layout": (nothing, {"layout": "NHWC"}, r"\[5, 4, 6, 3\], but"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_folders(name: str, folder: Path, tmp_path: Path) -> None:
    change, fields, message = WRONG[name]
    change(folder)
    size = fields.get("size", [4, 6]) if name == "smaller than the crop" else [4, 6]
    model = relu_model("N", f"3,{size[0]},{size[1]}")
    with pytest.raises(DataError, match=message) as caught:
        open_feed(str(folder), model, recipe=recipe_file(tmp_path, **fields))
    assert "\n" not in str(caught.value)


def test_pictures_need_a_recipe(folder: Path) -> None:
    with pytest.raises(DataError, match=r"--recipe and a recipe JSON, such as those in calibration/recipes"):
        open_feed(str(folder), MODEL)


def test_pictures_feed_one_input(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pictures feed one input, but the model has x, ids"):
        open_feed(str(folder), model_of(TWO), recipe=recipe_file(tmp_path))


def test_fractions_do_not_go_into_integers(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"uint8 \(the model's type\) cannot hold: .* use scale 1"):
        open_feed(str(folder), relu_model("N", "3,4,6", "uint8"), recipe=recipe_file(tmp_path))


def test_missing_pillow_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r'pip install "edgepress\[images\]"'):
        open_feed(str(folder), MODEL, recipe=recipe_file(tmp_path))


@pytest.mark.parametrize("kind", ["npz file", "npz folder"])
def test_a_recipe_is_for_pictures_only(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "a.npz", x=np.ones((1, 3, 4, 6), np.float32))
    source = tmp_path / "a" / "a.npz" if kind == "npz file" else tmp_path / "a"
    with pytest.raises(DataError, match="leave --recipe out"):
        open_feed(str(source), MODEL, recipe=recipe_file(tmp_path))


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "format"])
def test_a_missing_field_is_named(field: str) -> None:
    text = json.dumps({key: value for key, value in FIELDS.items() if key != field})
    with pytest.raises(DataError, match=f"the field '{field}' is missing"):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("size", 224),
        ("size", [224]),
        ("size", [0, 4]),
        ("size", [4.0, 4]),
        ("size", [True, 4]),
        ("resize", 0),
        ("resize", "256"),
        ("crop", "none"),
        ("layout", "CHW"),
        ("color", "YUV"),
        ("scale", 0),
        ("scale", "1/255"),
        ("scale", float("nan")),
        ("mean", 0.5),
        ("mean", [0.5]),
        ("mean", [0.5, None, 0.5]),
        ("std", [1, 0, 1]),
        ("std", [1, float("inf"), 1]),
        ("labels", "csv"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"the field '{field}' is .*: it must be"):
        Recipe.from_json(json.dumps({**FIELDS, field: value}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no field"),
        (json.dumps({**FIELDS, "format": "edgepress-recipe/2"}), "has no field"),
        (json.dumps({**FIELDS, "mode": "bicubic"}), "unknown field 'mode'"),
    ],
)
def test_files_that_are_no_recipes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        Recipe.load(tmp_path / "r.json")
    assert "r.json" in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a recipe"):
        Recipe.load(tmp_path / "no.json")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "calibration" / "recipes").glob("*.json")), ids=str
)
def test_the_recipes_that_come_along_are_valid(path: Path) -> None:
    assert Recipe.load(path).name == path.stem
