"""Attention in the forms in which it is exported, and what stands around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Input, image, net, sequence, text

WIDTH, HEADS, INNER = 16, 4, 24


def apart(x: Tensor, heads: int) -> Tensor:
    """[batch, time, heads * size] to [batch, heads, time, size]."""
    batch, time, width = x.shape
    return x.view(batch, time, heads, width // heads).transpose(1, 2)


def together(x: Tensor) -> Tensor:
    """The way back."""
    batch, heads, time, size = x.shape
    return x.transpose(1, 2).reshape(batch, time, heads * size)


class Attention(nn.Module):
    """Multi-head attention with separate projections, written out or by torch's fused function."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS, fused: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.fused, self.causal = heads, fused, causal
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        q, k, v = apart(self.q(x), self.heads), apart(self.k(memory), self.heads), apart(self.v(memory), self.heads)
        if self.fused:
            return self.o(together(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.causal:
            past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            scores = scores.masked_fill(~past, -1e4)
        return self.o(together(scores.softmax(-1) @ v))


class FeedForward(nn.Sequential):
    """Two linear layers (``fc1``, ``fc2``) with an activation between them."""

    def __init__(self, width: int = WIDTH, inner: int = INNER, act: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, inner), act or nn.GELU(), nn.Linear(inner, width)


class Layer(nn.Module):
    """Attention and feed-forward, each behind LayerNorm, each added to the stream."""

    def __init__(self, fused: bool = False, causal: bool = False, act: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.ffn = Attention(fused=fused, causal=causal), FeedForward(act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def layer(path: str) -> str:
    """What is prunable in a layer: its heads and the neurons of its feed-forward network."""
    return f"{path}.attention.q+{path}.attention.k+{path}.attention.v:{HEADS} {path}.ffn.fc1:{INNER} "


class MixerLayer(nn.Module):
    """Two linear layers over patches, then two over channels."""

    def __init__(self, channels: int, patches: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.fc1, self.fc2 = nn.Linear(patches, 20), nn.Linear(20, patches)
        self.fc3, self.fc4 = nn.Linear(channels, 24), nn.Linear(24, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(F.gelu(self.fc1(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.fc4(F.gelu(self.fc3(self.norm2(x))))


@net("mixer", "legacy17", "one.fc1:20 one.fc3:24 two.fc1:20 two.fc3:24", x=image(3, 16))
class Mixer(nn.Module):
    """MLP-Mixer: linear layers over patches, then over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.fc = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12), nn.Linear(12, 10)
        self.one, self.two = MixerLayer(12, 16), MixerLayer(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.two(self.one(x))).mean(1))


class Vit(nn.Module):
    """Patches, positions, layers, mean."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 16, WIDTH) * 0.3)
        self.one, self.two = Layer(fused), Layer(fused)
        self.norm, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.place
        return self.fc(self.norm(self.two(self.one(x))).mean(1))


@net("vit", "legacy17", layer("one") + layer("two"), x=image(3, 16))
def vit() -> nn.Module:
    """Attention written out."""
    return Vit(fused=False)


@net("vit_fused", "dynamo23", layer("one") + layer("two"), legacy=15, x=image(3, 16))
def vit_fused() -> nn.Module:
    """Attention by torch's fused function: an operator of its own from opset 23 on."""
    return Vit(fused=True)


class Joint(nn.Module):
    """Attention whose three projections are one linear layer, as in ViT and GPT-2."""

    def __init__(self, causal: bool = False, fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.o, self.causal, self.fused = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), causal, fused

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            return self.o(together(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)))
        scores = q @ k.transpose(-1, -2) * (width // HEADS) ** -0.5
        if self.causal:
            scores = scores + torch.full((time, time), -1e4).triu(1)
        return self.o(together(scores.softmax(-1) @ v))


@net("vit_cls", "legacy18", f"attention.qkv:{HEADS} ffn.fc1:{INNER} fc1:20", x=image(3, 16))
class VitToken(nn.Module):
    """A class token in front, one linear layer for queries, keys and values, a head on the token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH) * 0.3)
        self.place = nn.Parameter(torch.randn(1, 17, WIDTH) * 0.3)
        self.attention, self.ffn = Joint(), FeedForward()
        self.norm1, self.norm2, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = x + self.attention(self.norm1(x))
        x = self.norm(x + self.ffn(self.norm2(x)))[:, 0]
        return self.fc2(torch.tanh(self.fc1(x)))


@net("bert", "legacy17", layer("one") + layer("two"), x=text(30), y=text(2))
class Bert(nn.Module):
    """Embeddings of tokens, positions and segments; the output projection is the token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.parts = nn.Embedding(30, WIDTH), nn.Embedding(16, WIDTH), nn.Embedding(2, WIDTH)
        self.norm, self.one, self.two, self.last = nn.LayerNorm(WIDTH), Layer(), Layer(), nn.LayerNorm(WIDTH)
        self.dense, self.bias = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(30) * 0.1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        stream = self.norm(self.tokens(x) + self.places(place) + self.parts(y))
        stream = self.last(F.gelu(self.dense(self.two(self.one(stream)))))
        return stream @ self.tokens.weight.T + self.bias


class Root(nn.Module):
    """Root mean square normalization, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotary(time: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, [time, size]."""
    angles = torch.outer(torch.arange(time).float(), 100.0 ** (-torch.arange(0, size, 2) / size)).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate halves of the last axis, as Llama does."""
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


class Grouped(nn.Module):
    """Causal attention with rotary positions; several query heads share a key head."""

    def __init__(self, width: int, heads: int, shared: int, fused: bool) -> None:
        super().__init__()
        size = width // heads
        self.heads, self.shared, self.fused = heads, shared, fused
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * size, bias=False) for _ in range(2))
        cosine, sine = rotary(32, size)
        self.register_buffer("cosine", cosine)
        self.register_buffer("sine", sine)

    def forward(self, x: Tensor) -> Tensor:
        time, repeat = x.shape[1], self.heads // self.shared
        cosine, sine = self.get_buffer("cosine")[:time], self.get_buffer("sine")[:time]
        q = rotate(apart(self.q(x), self.heads), cosine, sine)
        k = rotate(apart(self.k(x), self.shared), cosine, sine).repeat_interleave(repeat, 1)
        v = apart(self.v(x), self.shared).repeat_interleave(repeat, 1)
        if self.fused:
            return self.o(together(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + torch.full((time, time), -1e4).triu(1)
        return self.o(together(scores.softmax(-1) @ v))


class Gated(nn.Module):
    """SwiGLU: one half of the neurons gates the other."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a root mean square normalization."""

    def __init__(self, heads: int, shared: int, fused: bool, root: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = root(WIDTH), root(WIDTH)
        self.attention, self.ffn = Grouped(WIDTH, heads, shared, fused), Gated(WIDTH, INNER)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Decoder(nn.Module):
    """A Llama in small: RMSNorm, rotary positions, shared key heads, SwiGLU, a tied or separate output."""

    def __init__(self, heads: int, shared: int, fused: bool, tied: bool, root: type[nn.Module] = Root) -> None:
        super().__init__()
        self.tokens, self.last = nn.Embedding(30, WIDTH), root(WIDTH)
        self.blocks = nn.Sequential(*(DecoderLayer(heads, shared, fused, root) for _ in range(2)))
        self.out = nn.Linear(WIDTH, 30, bias=False)
        if tied:
            self.out.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.last(self.blocks(self.tokens(x))))


def decoder_groups(shared: int) -> str:
    """Key heads go with their query heads; gate and value neurons go together."""
    names = [f"blocks.{number}" for number in range(2)]
    return " ".join(
        f"{b}.attention.q+{b}.attention.k+{b}.attention.v:{shared} {b}.ffn.gate+{b}.ffn.up:{INNER}" for b in names
    )


@net("decoder", "legacy17", decoder_groups(4), legacy=15, x=text(30))
def decoder() -> nn.Module:
    """As many key heads as query heads, a tied output."""
    return Decoder(4, 4, fused=False, tied=True)


@net("decoder_gqa", "dynamo20", decoder_groups(2), legacy=15, x=text(30))
def decoder_gqa() -> nn.Module:
    """Two query heads to a key head, fused attention."""
    return Decoder(4, 2, fused=True, tied=False)


@net("decoder_rms", "dynamo23", decoder_groups(2), legacy=None, x=text(30), note="nn.RMSNorm: new exporter only")
def decoder_rms() -> nn.Module:
    """torch's own RMSNorm: an operator of its own from opset 23 on."""
    return Decoder(4, 2, fused=True, tied=True, root=nn.RMSNorm)


@net(
    "gpt2",
    "legacy18",
    f"attention.qkv:{HEADS} ffn.fc1:{INNER}",
    legacy=15,
    x=text(30),
)
class Gpt2(nn.Module):
    """One linear layer for queries, keys and values, a causal mask, GELU by tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(30, WIDTH), nn.Embedding(32, WIDTH)
        self.attention, self.ffn = Joint(causal=True), FeedForward(act=nn.GELU(approximate="tanh"))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        stream = stream + self.attention(self.norm1(stream))
        stream = self.norm(stream + self.ffn(self.norm2(stream)))
        return F.linear(stream, self.tokens.weight)


@net(
    "t5",
    "legacy15",
    layer("encoder") + layer("decoder") + f"cross.q+cross.k+cross.v:{HEADS}",
    legacy=15,
    x=Input((10,), 30, {1: "source"}),
    y=Input((7,), 30, {1: "target"}),
)
class EncoderDecoder(nn.Module):
    """An encoder, a causal decoder, and cross attention between them; one embedding for both and the output."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.encoder = nn.Embedding(30, WIDTH), Layer(act=nn.ReLU())
        self.decoder, self.cross = Layer(causal=True, act=nn.ReLU()), Attention()
        self.norm1, self.norm2, self.norm3 = Root(WIDTH), Root(WIDTH), Root(WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        memory = self.norm1(self.encoder(self.tokens(x)))
        stream = self.tokens(y)
        stream = stream + self.cross(self.norm2(stream), memory)
        return F.linear(self.norm3(self.decoder(stream)) * WIDTH**-0.5, self.tokens.weight)


@net("einsum", "legacy17", f"q+k+v:{HEADS} fc1:{INNER}", x=sequence(10))
class EinsumAttention(nn.Module):
    """Attention whose products are Einsums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.norm = nn.Linear(10, WIDTH), nn.Linear(WIDTH, 5), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, time, width = x.shape
        q, k, v = (part(x).view(batch, time, HEADS, width // HEADS) for part in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(0.5).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, time, width)
        x = self.norm(x + self.o(mixed))
        return self.last(x + self.fc2(torch.relu(self.fc1(x))))


@net(
    "torch_encoder",
    "dynamo20",
    f"layer.self_attn:{HEADS} layer.linear1:{INNER}",
    legacy=15,
    x=sequence(WIDTH, free=False),
    note="torch's own layer runs a fused kernel in inference that the older exporter writes without dynamic lengths",
)
class TorchEncoder(nn.Module):
    """``nn.TransformerEncoderLayer``: projections in one parameter, LayerNorm after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, batch_first=True)
        self.fc = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x))


@net("swin", "legacy17", "attention.qkv:4 ffn.fc1:24 merge:20", x=image(3, 16))
class Swin(nn.Module):
    """Attention within shifted windows, then four neighbours merged by one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1, self.norm2 = nn.Conv2d(3, WIDTH, 2, 2), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.ffn = Joint(), FeedForward()
        self.norm3, self.merge, self.fc = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        batch, size, _, width = x.shape
        moved = torch.roll(self.norm1(x), (-2, -2), (1, 2)).view(batch, size // 4, 4, size // 4, 4, width)
        windows = self.attention(moved.transpose(2, 3).reshape(-1, 16, width))
        back = windows.view(batch, size // 4, size // 4, 4, 4, width).transpose(2, 3).reshape(batch, size, size, width)
        x = x + torch.roll(back, (2, 2), (1, 2))
        x = x + self.ffn(self.norm2(x))
        corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
        return self.fc(self.merge(self.norm3(torch.cat(corners, -1))).mean((1, 2)))


@net("gmlp", "dynamo21", "up:12 out:20", x=sequence(10, free=False), note="up makes two halves, one gates the other")
class Gmlp(nn.Module):
    """Spatial gating: one half of the neurons, mixed along the sequence, gates the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.along, self.down = nn.Linear(10, 24), nn.Linear(12, 12), nn.Linear(12, 10)
        self.norm, self.out, self.fc = nn.LayerNorm(10), nn.Linear(10, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.gelu(self.up(self.norm(x))).chunk(2, -1)
        x = x + self.down(left * self.along(right.transpose(1, 2)).transpose(1, 2))
        return self.fc(F.gelu(self.out(x)).mean(1))


@net("linear_attention", "dynamo18", "v:16 fc1:24", x=sequence(10), note="no weight contracts the channels of q and k")
class LinearAttention(nn.Module):
    """Attention without softmax: keys times values first; one head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(10, WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.fc1, self.fc2, self.last = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        x = self.norm(x + self.o(q @ (k.transpose(1, 2) @ v) / 12))
        return self.last(x + self.fc2(torch.relu(self.fc1(x))))


@net("pooling", "legacy18", "k:20 v:16 fc1:16", x=sequence(10))
class AttentionPooling(nn.Module):
    """One learned query pools the sequence: the key layer contracts with it."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.v, self.query = nn.Linear(10, 20), nn.Linear(10, 16), nn.Linear(20, 1)
        self.fc1, self.fc2 = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.query(torch.tanh(self.k(x))).softmax(1)
        return self.fc2(torch.relu(self.fc1((weights * torch.relu(self.v(x))).sum(1))))


@net("geglu", "legacy13", "inner:24", x=sequence(10))
class GeGlu(nn.Module):
    """Both halves of a gated layer from ONE linear layer, split in two."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.out = nn.LayerNorm(10), nn.Linear(10, 48), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inner(self.norm(x)).chunk(2, -1)
        return self.out(value * F.gelu(gate))
