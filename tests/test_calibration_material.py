"""The embedded material is what calibration/README.md says it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

FOLDER = Path(__file__).parents[1] / "calibration"
RECIPES = sorted((FOLDER / "recipes").glob("*.json"))
FIELDS = {"format", "name", "size", "resize", "crop", "layout", "color", "scale", "mean", "std", "labels"}


def samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / name) as file:
        assert set(file.files) == {"image", "label"}
        return file["image"], file["label"]


def predictions(model: Path, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    logits: np.ndarray = session.run(["logits"], {"image": image})[0]
    chosen: np.ndarray = logits.argmax(1)
    return chosen


@pytest.mark.parametrize(("name", "count"), [("digits.npz", 1197), ("digits_test.npz", 600)])
def test_the_network_reads_the_digits(digits_model: Path, name: str, count: int) -> None:
    image, label = samples(name)
    assert image.shape == (count, 1, 8, 8) and image.dtype == np.float32
    assert label.shape == (count,) and label.dtype == np.int64
    assert (predictions(digits_model, image) == label).mean() >= 0.97


def test_one_image_gives_what_a_batch_gives(digits_model: Path) -> None:
    image, _ = samples("digits_test.npz")
    alone = [predictions(digits_model, image[i : i + 1])[0] for i in range(16)]
    assert alone == predictions(digits_model, image[:16]).tolist()


def test_the_samples_are_those_of_scikit_learn() -> None:
    digits = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (extra dev)").load_digits()
    images, labels = zip(samples("digits.npz"), samples("digits_test.npz"), strict=True)
    np.testing.assert_array_equal(np.concatenate(images)[:, 0] * 16, digits.images)
    np.testing.assert_array_equal(np.concatenate(labels), digits.target)


def test_no_image_is_in_both_parts() -> None:
    known = {image.tobytes() for image in samples("digits.npz")[0]}
    assert not known & {image.tobytes() for image in samples("digits_test.npz")[0]}


def test_the_graph_holds_the_kinds_of_layers_it_promises(digits_model: Path) -> None:
    model = onnx.load(digits_model)
    onnx.checker.check_model(model, full_check=True)
    count = Counter(node.op_type for node in model.graph.node)
    assert count.keys() >= {"Conv", "BatchNormalization", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert count["Conv"] == count["BatchNormalization"] == 6
    groups = [{a.name: helper.get_attribute_value(a) for a in n.attribute}.get("group") for n in model.graph.node]
    assert groups.count(64) == 1  # the depthwise convolution
    assert sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) >= 60_000
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert model.opset_import[0].version >= 17 and model.ir_version <= 10


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_their_fields(path: Path) -> None:
    recipe = json.loads(path.read_text(encoding="utf-8"))
    assert recipe.keys() == FIELDS
    assert recipe["format"] == "edgepress-recipe/1" and recipe["name"] == path.stem
    height, width = recipe["size"]
    assert recipe["resize"] is None or recipe["resize"] >= max(height, width)
    assert (recipe["crop"], recipe["layout"], recipe["labels"]) == ("center", "NCHW", "folders")
    channels = {"RGB": 3, "BGR": 3, "L": 1}[recipe["color"]]
    assert len(recipe["mean"]) == len(recipe["std"]) == channels
    assert recipe["scale"] == 1 / 255 and min(recipe["std"]) > 0


def test_the_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} == {"cifar10", "imagenet", "mnist"}
