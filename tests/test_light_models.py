"""Networks that others made: those inside the onnx package with random weights, and real trained ones.

The heavy ones of the onnx package (vgg19, alexnet, zfnet512, resnet50, densenet121) are left to
``benchmarks/architectures.py``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from zoo.light import LIGHT, SMALL, light, pictures
from zoo.proof import Analyzed, analyze, exactness

from edgepress.executor import Executor
from edgepress.model import Model

TOLERANCE = 1e-5
SHARED = (
    "cifar10_resnet20_bn",
    "cifar10_resnet20_dynamo",
    "cifar10_resnet20_folded",
    "cifar10_resnet56_bn",
    "cifar10_resnet56_folded",
    "cifar10_resnet8_mlperf",
    "cifar10jpeg_resnet20_bn",
    "cifar10jpeg_resnet20_folded",
    "cifar10jpeg_vgg16q_folded",
    "fashion_vgg7bn_bn",
    "fashion_vgg7bn_folded",
    "fashion_vggw_bn",
    "imagenet_mobilenetv1_025_bn",
    "imagenet_mobilenetv1_025_folded",
    "kws_dscnn",
    "mnist8_opset8",
    "mnist_lenet300100",
    "mnist_lenet5caffe",
    "ultraface_rfb320_opset9",
    "ultraface_slim320_opset9",
)
CHANNELS = {
    "inception_v1": 7024,  # all but the 256 in front of LRN, which mixes channels
    "shufflenet": 7
    + 8 * 17
    + 3 * 34,  # a channel of every group at once; where 34 channels per group cannot be shuffled: none
    "squeezenet": 2944,
}
"""Prunable channels."""


@cache
def analyzed(name: str) -> Analyzed:
    """A network of the onnx package, normalized and with groups."""
    model = light(name)
    return analyze(model, [pictures(model, 1, 5)])


def test_the_networks_are_there() -> None:
    assert len(LIGHT) == 9
    assert set(SMALL) <= set(LIGHT)


@pytest.mark.parametrize("name", SMALL)
def test_cuts_of_light_models_equal_silence(name: str) -> None:
    found = analyzed(name)
    exact = exactness(found, [pictures(found.model, 1, 6)], 0, parts=2)
    assert exact.groups == min(60, len(found.grouping.prunable))
    assert exact.worst <= TOLERANCE
    assert exact.moved > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_channels_of_light_models_are_found(name: str) -> None:
    assert sum(group.size for group in analyzed(name).grouping.prunable) == CHANNELS[name]


@pytest.mark.parametrize("name", SMALL)
def test_torch_agrees_with_onnxruntime_on_light_models(name: str) -> None:
    assert Executor(analyzed(name).model).parity(pictures(analyzed(name).model, 1, 6)) is None


@pytest.mark.parametrize("name", SHARED)
def test_trained_models(name: str, shared: Path) -> None:
    original = Model.load(shared / "models" / f"{name}.onnx")
    feeds = [pictures(original, 1, seed) for seed in (5, 6)]
    found = analyze(original, feeds[:1])
    exact = exactness(found, feeds[1:], 0, parts=2)
    assert exact.groups
    assert exact.worst <= TOLERANCE
    assert exact.moved > 1e-3
    assert Executor(found.model).parity(feeds[1]) is None
