"""Products, recurrent layers and whole networks over sequences, for the tests of the forms of `edgepress.quantize`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from zoo import DYNAMO, LEGACY, NETS, export
from zoo.transformers import Attention, FeedForward

from edgepress import runtime
from edgepress.model import Model
from edgepress.quantize.forms.products import product

TRANSFORMERS = ("vit", "bert", "decoder", "decoder_gqa", "gpt2", "t5")
RECURRENT = ("lstm_tagger", "crnn", "gru_denoiser")
EXPORTERS = (LEGACY, DYNAMO)
INT8_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


def text(
    graph: str, *, opset: int = 17, arrays: Mapping[str, np.ndarray] | None = None, **constants: np.ndarray
) -> Model:
    """A model from the text of its graph and its constants (`arrays` and `constants` alike)."""
    imports = f'<ir_version: 8, opset_import: ["": {opset}]>'
    proto = onnx.parser.parse_model(f"{imports} tiny {graph}")
    for name, values in {**(arrays or {}), **constants}.items():
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    for position, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}.{position}"
    return Model.of(proto)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Seeded normal values, float32."""
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape) * scale, np.float32)


def outputs(model: Model, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a model answers."""
    return list(runtime.run(runtime.session(model.data), feed).values())


def noise(model: Model, other: Model, feed: Mapping[str, np.ndarray]) -> float:
    """The least signal to noise ratio of the outputs, dB."""
    pairs = zip(outputs(model, feed), outputs(other, feed), strict=True)
    return min(_ratio(wanted.astype(np.float64), found.astype(np.float64)) for wanted, found in pairs)


def _ratio(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / max(((wanted - found) ** 2).sum(), 1e-30)))


def fused(model: Model, *operators: str) -> int:
    """How many nodes of these kinds onnxruntime really runs; of all kinds if none is named."""
    seen = runtime.fused_operators(model.data)
    return sum(seen.get(name, 0) for name in operators or seen)


def same_interface(model: Model, other: Model) -> bool:
    """Whether inputs, outputs and their types are the same, and the file is legal."""
    onnx.checker.check_model(other.edit())
    return dict(model.inputs) == dict(other.inputs) and dict(model.outputs) == dict(other.outputs)


def products(model: Model) -> list[str]:
    """Names of all products with constant weights, however small."""
    return [node.name for node in model.nodes if not isinstance(product(model, node), str)]


@cache
def exported(name: str, exporter: str) -> tuple[Model, Mapping[str, np.ndarray]]:
    """A network of the zoo by its newest export of one exporter, with eight samples."""
    net = NETS[name]
    variant = max((each for each in net.variants if each.exporter == exporter), key=lambda each: each.opset)
    with tempfile.TemporaryDirectory() as folder:
        export(net, variant, Path(folder) / "net.onnx")
        model = Model.load(Path(folder) / "net.onnx")
    return model, dict(zip(model.inputs, net.samples(8).values(), strict=True))


class Block(nn.Module):
    """A transformer block behind LayerNorm, of any width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.ffn = Attention(width, 4), FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        return x


class Language(nn.Module):
    """Tokens, a block, and an output layer that is the table of tokens."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.tokens, self.block, self.norm = nn.Embedding(tokens, width), Block(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.block(self.tokens(x)))
        return y @ self.tokens.weight.T


@cache
def language(length: int, width: int = 256, tokens: int = 500) -> tuple[Model, Mapping[str, np.ndarray]]:
    """A transformer of realistic width with a tied table, and a sample of it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path, given = Path(folder) / "net.onnx", torch.arange(length)[None] * 7 % tokens
        module = Language(width, tokens).eval()
        torch.onnx.export(module, (given,), path, dynamo=False, opset_version=17, input_names=["x"])
        return Model.load(path), {"x": given.numpy()}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
