"""Small networks of many families, exported from torch (the exporter without onnxscript) or written as ONNX text."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from edgepress.model import Model

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Net:
    """A model, a batch of 3 for it, and how many elements training may change."""

    model: Model
    feed: Arrays
    trained: int


class Pre(nn.Module):
    """BatchNormalization before the activation before the convolution, as exporters cannot fold it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))) * 0.7)))
        return self.head(F.max_pool2d(x, 2).mean((2, 3)))


class Mobile(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project, with HardSwish and HardSigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.project, self.head = nn.Conv2d(12, 3, 1), nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> Any:
        y = F.hardswish(self.depth(F.hardswish(self.expand(x))))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((x + self.project(y)).mean((2, 3)))


class UNet(nn.Module):
    """GroupNorm, a skip over Concat, transposed convolution, bilinear Resize, PReLU and PixelShuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8)
        self.mid, self.up = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.slope, self.join = nn.PReLU(8), nn.Conv2d(16, 8, 3, padding=1)
        self.out, self.skip = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 1)

    def forward(self, x: torch.Tensor) -> Any:
        a = F.silu(self.norm(self.down(x)))
        b = self.slope(self.up(F.silu(self.mid(a))))
        c = self.join(torch.cat([a, b], 1))
        d = F.interpolate(self.skip(F.avg_pool2d(c, 2)), scale_factor=2.0, mode="bilinear")
        return F.pixel_shuffle(self.out(c) + d, 2)


class Block(nn.Module):
    """A transformer block: split qkv or a fused scaled dot product, GELU, two LayerNorms."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> Any:
        n, t, c = x.shape
        q, k, v = (part.reshape(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Patches, a class token, a positional embedding, one block."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, 8, 4, stride=4), Block(8, 2, fused=fused)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.block(x))[:, 0])


class Bert(nn.Module):
    """Token and position embeddings, one block, logits by the transposed token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.block, self.norm = Block(8, 2, fused=False), nn.LayerNorm(8)
        self.bias = nn.Parameter(torch.randn(11))

    def forward(self, ids: torch.Tensor) -> Any:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.norm(self.block(x)) @ self.tokens.weight.t() + self.bias


class Recurrent(nn.Module):
    """A bidirectional LSTM and a GRU behind it, or a plain RNN."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        self.first: nn.Module = nn.RNN(4, 5, batch_first=True) if plain else nn.LSTM(4, 5, bidirectional=True)
        self.second: nn.Module = nn.Identity() if plain else nn.GRU(10, 6)
        self.head = nn.Linear(5 if plain else 6, 3)

    def forward(self, x: torch.Tensor) -> Any:
        if self.plain:
            return self.head(self.first(x)[0])
        return self.head(self.second(self.first(x.transpose(0, 1))[0])[0][-1])


class Shuffle(nn.Module):
    """Split channels, grouped convolutions, shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depth = nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> Any:
        a, b = x.chunk(2, 1)
        b = self.last(self.depth(F.elu(self.first(b))))
        y = torch.cat([a, b], 1)
        n, c, h, w = y.shape
        return self.head(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)).mean((2, 3))


class RMS(nn.Module):
    """Root-mean-square normalization with a scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class Decoder(nn.Module):
    """Causal attention with rotary positions, then SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm1, self.norm2 = nn.Embedding(9, 8), RMS(8), RMS(8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 9, bias=False)

    def turned(self, x: torch.Tensor) -> Any:
        n, t, _ = x.shape
        x = x.view(n, t, 2, 4).transpose(1, 2)
        angle = torch.arange(t)[:, None] * torch.tensor([1.0, 0.01])
        angle = torch.cat([angle, angle], -1)
        return x * angle.cos() + torch.cat([-x[..., 2:], x[..., :2]], -1) * angle.sin()

    def forward(self, ids: torch.Tensor) -> Any:
        x = self.tokens(ids)
        h = self.norm1(x)
        n, t, c = h.shape
        scores = self.turned(self.q(h)) @ self.turned(self.k(h)).transpose(-1, -2) * 0.5
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -1e4)
        mixed = torch.softmax(scores, -1) @ self.v(h).view(n, t, 2, 4).transpose(1, 2)
        x = x + self.o(mixed.transpose(1, 2).reshape(n, t, c))
        h = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(h)) * self.up(h)))


class Conformer(nn.Module):
    """The convolution module of a Conformer between half feed-forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(6), nn.Conv1d(6, 12, 1)
        self.depth, self.batch = nn.Conv1d(6, 6, 5, padding=2, groups=6), nn.BatchNorm1d(6)
        self.out, self.up, self.down = nn.Conv1d(6, 6, 1), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> Any:
        x = x + 0.5 * self.down(F.silu(self.up(x)))
        h = F.glu(self.wide(self.norm(x).transpose(1, 2)), 1)
        return x + self.out(F.silu(self.batch(self.depth(h).tanh()))).transpose(1, 2)


class Style(nn.Module):
    """InstanceNorm, reflection padding, LeakyReLU, nearest Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, stride=2), nn.InstanceNorm2d(6, affine=True)
        self.out = nn.Conv2d(6, 3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = F.leaky_relu(self.norm(self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))), 0.2)
        return torch.tanh(self.out(F.interpolate(h, scale_factor=2.0)))


def exported(module: nn.Module, x: torch.Tensor, opset: int) -> Net:
    """The ONNX file torch makes of a module, any batch size, weights drawn."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(drawn + 0.5 if name.endswith("running_var") else drawn - 0.5)
    file: Any = io.BytesIO()  # the stubs know paths only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (x,),
            file,
            dynamo=False,
            do_constant_folding=False,  # a tie must not become two tensors
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )
    trained = sum(parameter.numel() for parameter in module.parameters())
    return Net(Model.of(onnx.load_from_string(file.getvalue())), {"x": x.numpy()}, trained)


def written(text: str, shapes: dict[str, tuple[int, ...]], x: tuple[int, ...], opset: int, **fixed: np.ndarray) -> Net:
    """A model from ONNX text with weights drawn and numbers as given."""
    head = f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
    proto = onnx.parser.parse_model(head + text)
    rng = np.random.default_rng(3)
    drawn = {name: (rng.random(shape) - 0.3).astype(np.float32) for name, shape in shapes.items()}
    for name, array in {**drawn, **fixed}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.input[:] = ["" if name == "none" else name for name in node.input]
    onnx.checker.check_model(proto)
    feed = {"x": rng.normal(size=x).astype(np.float32)}
    return Net(Model.of(proto), feed, sum(array.size for array in drawn.values()))


def branching() -> Net:
    """An If on the size of an axis, with weights read in the branches."""
    text = """g (float[N,4] x) => (float[N,3] y) {
        s = Shape <start = 1, end = 2> (x)  c = Equal (s, four)
        h = If (c) <
            then_branch = t () => (float[N,5] p) { a = MatMul (x, w)  b = Add (a, bias)  p = Sigmoid (b) },
            else_branch = e () => (float[N,5] q) { d = MatMul (x, v)  q = Tanh (d) } >
        y = Gemm (h, out)
    }"""
    shapes = {"w": (4, 5), "bias": (5,), "v": (4, 5), "out": (5, 3)}
    return written(text, shapes, (3, 4), 21, four=np.array([4]))


def looping() -> Net:
    """A recurrence as a Loop of three turns, with a stack of all states."""
    text = """g (float[N,4] x) => (float[N,4] y, float[T,N,4] all) {
        y, all = Loop (three, none, x) <
            body = b (int64 i, bool before, float[N,4] h) => (bool after, float[N,4] next, float[N,4] seen) {
                after = Identity (before)  a = MatMul (h, w)  b = Add (a, bias)  c = Mul (x, gate)
                d = Add (b, c)  next = Tanh (d)  seen = Mul (next, gate)
            } >
    }"""
    return written(text, {"w": (4, 4), "bias": (4,), "gate": (4,)}, (3, 4), 21, three=np.array(3))


def native() -> Net:
    """Attention, RMSNormalization and LayerNormalization as operators of their own."""
    text = """g (float[N,5,8] x) => (float[N,5,8] y) {
        n = RMSNormalization (x, scale)
        q = MatMul (n, wq)  k = MatMul (n, wk)  v = MatMul (n, wv)
        a = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (q, k, v)
        o = MatMul (a, wo)  r = Add (x, o)  y = LayerNormalization (r, gamma, beta)
    }"""
    square = {name: (8, 8) for name in ("wq", "wk", "wv", "wo")}
    return written(text, {"scale": (8,), **square, "gamma": (8,), "beta": (8,)}, (3, 5, 8), 23)


def grouped() -> Net:
    """GroupNormalization, Einsum, Celu, LpNormalization and a reduction in ONNX text."""
    text = """g (float[N,4,5,5] x) => (float[N,6] y) {
        c = Conv <kernel_shape = [3,3]> (x, w)  n = GroupNormalization <num_groups = 2> (c, gamma, beta)  e = Celu (n)
        m = ReduceL2 <keepdims = 0> (e, space)  p = Einsum <equation = "nc,cd->nd"> (m, mix)
        y = LpNormalization (p)
    }"""
    shapes = {"w": (8, 4, 3, 3), "gamma": (8,), "beta": (8,), "mix": (8, 6)}
    return written(text, shapes, (3, 4, 5, 5), 21, space=np.array([2, 3]))


def _image(size: int = 8) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def _steps(width: int) -> torch.Tensor:
    return torch.randn(3, 6, width, generator=torch.Generator().manual_seed(0))


def _ids(count: int) -> torch.Tensor:
    return torch.randint(0, count, (3, 6), generator=torch.Generator().manual_seed(0))


NETS: dict[str, Callable[[], Net]] = {
    "pre_activation_bn": lambda: exported(Pre(), _image(11), 13),
    "depthwise_se_hardswish": lambda: exported(Mobile(), _image(), 14),
    "unet": lambda: exported(UNet(), _image(), 17),
    "vit_split": lambda: exported(ViT(fused=False), _image(), 13),
    "vit_fused": lambda: exported(ViT(fused=True), _image(), 17),
    "bert_tied": lambda: exported(Bert(), _ids(11), 17),
    "lstm_gru": lambda: exported(Recurrent(plain=False), _steps(4), 14),
    "rnn": lambda: exported(Recurrent(plain=True), _steps(4), 14),
    "shuffle": lambda: exported(Shuffle(), torch.cat([_image(), _image(), _image()], 1)[:, :8], 13),
    "swiglu_rope": lambda: exported(Decoder(), _ids(9), 17),
    "conformer": lambda: exported(Conformer(), _steps(6), 17),
    "instance_norm": lambda: exported(Style(), _image(), 16),
    "if": branching,
    "loop": looping,
    "native_attention": native,
    "group_norm_einsum": grouped,
}


@cache
def net(name: str) -> Net:
    """The network of that name, made once."""
    return NETS[name]()
