"""Trained models: size, quality on test data, fusion, and the plain onnxruntime baseline."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from quantize_tools import Arrays, answers, kernel, parse, samples, sqnr, to_int8

from edgepress import runtime
from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.quantize import unfused
from edgepress.quantize.baseline import plain_static_int8

CALIBRATION = {
    "cifar10_resnet20_bn": "cifar10_resnet_calib.npz",
    "cifar10_resnet20_dynamo": "cifar10_resnet_calib.npz",
    "cifar10_resnet8_mlperf": "cifar10_resnet8_calib.npz",
    "fashion_vgg7bn_bn": "fashion_calib.npz",
    "kws_dscnn": "kws_dscnn_calib.npz",
    "mnist_lenet5caffe": "mnist_lenet_calib.npz",
    "mnist_lenet300100": "mnist_lenet_calib.npz",
}


@pytest.fixture(scope="module")
def loaders(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_share", shared / "load_share.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calibrated(shared: Path, name: str, count: int = 100) -> tuple[Model, Model, Arrays]:
    with np.load(shared / "calib" / CALIBRATION[name]) as archive:
        feed = Arrays({key: archive[key][:count] for key in archive.files if key != "label"})
    source = Model.load(shared / "models" / f"{name}.onnx")
    return source, normalize(source, [next(feed.chunks(2)).inputs]).model, feed


def evaluation(loaders: Any, shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    if name.startswith("cifar10"):
        data = loaders.load(shared / "data" / "cifar10_lossless.npz")
        make = loaders.resnet8_input if "resnet8" in name else loaders.norm_torch
        return make(data["x_test"]), data["y_test"]
    if name.startswith("kws"):
        data = loaders.load(shared / "data" / "kws_mfcc.npz")
        return loaders.kws_input(data["x_eval"], data["scale"], data["zero_point"]), data["y_eval"]
    fashion = name.startswith("fashion")
    data = loaders.load(shared / "data" / ("fashion_mnist.npz" if fashion else "mnist.npz"))
    make = loaders.fashion_input if fashion else loaders.mnist_input
    return make(data["x_test"][:1000]), data["y_test"][:1000]


@pytest.mark.parametrize(
    ("name", "ratio", "convolutions"),
    [
        ("cifar10_resnet20_bn", 0.26, 20),  # 18 of its own and two shortcuts
        ("cifar10_resnet20_dynamo", 0.26, 20),
        ("cifar10_resnet8_mlperf", 0.28, 8),
        ("fashion_vgg7bn_bn", 0.28, 5),
        ("kws_dscnn", 0.37, 8),
        ("mnist_lenet5caffe", 0.26, 1),
        ("mnist_lenet300100", 0.26, 0),
    ],
)
def test_small_fused_and_as_good(shared: Path, loaders: Any, name: str, ratio: float, convolutions: int) -> None:
    source, model, feed = calibrated(shared, name)
    int8 = to_int8(model, feed)
    assert int8.size <= ratio * source.size
    assert unfused(int8.data) == []
    assert runtime.fused_operators(int8.data).get("QLinearConv", 0) == convolutions
    inputs, labels = evaluation(loaders, shared, name)
    test = Arrays({next(iter(model.inputs)): inputs})
    before, after = (answers(each, test)[0].reshape(len(labels), -1).argmax(1) == labels for each in (model, int8))
    assert after.mean() >= before.mean() - 0.01


def test_detector_keeps_its_boxes(shared: Path, loaders: Any) -> None:
    pictures = np.stack([loaders.face_input(x) for x in loaders.load(shared / "data" / "faces_320x240.npz")["x"]])
    source = Model.load(shared / "models" / "ultraface_rfb320_opset9.onnx")
    feed, test = (Arrays({"input": part}, most=1) for part in (pictures[:8], pictures[8:12]))
    model = normalize(source, [next(feed.chunks(1)).inputs]).model
    int8 = to_int8(model, feed)
    assert int8.size <= 0.36 * source.size
    assert unfused(int8.data) == []
    noise = [
        sqnr(wanted, found)
        for chunk in test.chunks(1)
        for wanted, found in zip(answers(model, Arrays(chunk.inputs)), answers(int8, Arrays(chunk.inputs)), strict=True)
    ]
    assert min(noise) >= 30


@pytest.mark.parametrize("name", ["cifar10_resnet20_bn", "fashion_vgg7bn_bn"])
def test_closer_to_float_and_smaller_than_plain_onnxruntime(shared: Path, tmp_path: Path, name: str) -> None:
    _, model, feed = calibrated(shared, name, 64)
    plain, ours = plain_static_int8(model, feed, tmp_path), to_int8(model, feed)
    assert isinstance(plain, Model)
    assert ours.size < plain.size
    wanted = answers(model, feed)[0]
    assert sqnr(wanted, answers(ours, feed)[0]) > sqnr(wanted, answers(plain, feed)[0])


def test_baseline_is_quiet_leaves_nothing_and_quantizes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = parse("h = Conv(x, w1, b1) r = Relu(h) y = Conv(r, w2)", w1=kernel(16, 16, 3, 3), b1=kernel(16),
                  w2=kernel(16, 16, 3, 3))  # fmt: skip
    handlers = list(logging.getLogger().handlers)
    plain = plain_static_int8(model, samples(16, 14, 14), tmp_path)
    assert isinstance(plain, Model)
    assert runtime.fused_operators(plain.data)["QLinearConv"] == 2
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert not list(tmp_path.iterdir())


def test_baseline_declines_with_a_reason(tmp_path: Path) -> None:
    model = parse("h = Conv(x, w1) y = Relu(h)", w1=kernel(16, 16, 3, 3))
    empty = Arrays({"x": np.zeros((0, 16, 14, 14), np.float32)})
    declined = plain_static_int8(model, empty, tmp_path)
    assert isinstance(declined, Refusal)
    assert "does not take this model" in declined.reason
