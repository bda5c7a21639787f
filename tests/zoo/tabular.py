"""Networks on vectors and sets of indices: linear layers, embeddings, gates between towers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Input, net, text


def vector(features: int) -> Input:
    """A plain vector."""
    return Input((features,))


@net("mlp", "legacy13", "a:32 b:24", x=vector(16))
class Mlp(nn.Module):
    """Three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@net("mlp_norm", "dynamo18", "a:32 b:24", x=vector(16))
class MlpNorm(nn.Module):
    """BatchNormalization of vectors, weights without biases, SELU; a fixed scale and shift in front."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 32, bias=False), nn.Linear(32, 24, bias=False), nn.Linear(24, 5)
        self.norm1, self.norm2 = nn.BatchNorm1d(32), nn.BatchNorm1d(24)
        self.register_buffer("mean", torch.linspace(-1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.get_buffer("mean")) * 0.5
        return self.c(F.selu(self.norm2(self.b(torch.relu(self.norm1(self.a(x)))))))


@net("mlp_residual", "legacy20", "one.0:20 two.0:20", x=vector(12))
class MlpResidual(nn.Module):
    """Residual blocks of two linear layers; the input is part of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12)) for _ in range(2))
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.one(x)
        return self.fc(x + self.two(x))


@net("mlp_fixed", "legacy15", "a:32 b:24", x=vector(16), batch=False, note="a fixed batch")
class MlpFixed(Mlp):
    """The plain network with a batch that is fixed."""


@net("two_tower", "legacy17", "tokens:12 left1:16 right1:16", x=text(40, free=False), y=text(40, free=False))
class TwoTower(nn.Module):
    """One embedding for queries and items, a tower each, and the dot product of what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 12)
        self.left1, self.left2 = nn.Linear(12, 16), nn.Linear(16, 10)
        self.right1, self.right2 = nn.Linear(12, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        left = self.left2(torch.relu(self.left1(self.tokens(x).mean(1))))
        right = self.right2(torch.relu(self.right1(self.tokens(y).mean(1))))
        return (left * right).sum(1)


@net("bag", "legacy17", "tokens:16 fc1:20", x=text(50, free=False))
class Bag(nn.Module):
    """Text classifier: the sum of weighted embeddings, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.fc1, self.fc2 = nn.Embedding(50, 16), nn.Linear(16, 20), nn.Linear(20, 4)
        self.weights = nn.Parameter(torch.rand(12, 1) + 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1((self.tokens(x) * self.weights).sum(1))))


@net("wide_deep", "dynamo20", "tokens:8 deep1:24 deep2:12", x=vector(10), y=text(20, 3, free=False))
class WideDeep(nn.Module):
    """Numbers and flattened embeddings into a deep part; the wide part is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.wide = nn.Embedding(20, 8), nn.Linear(10, 1)
        self.deep1, self.deep2, self.deep3 = nn.Linear(34, 24), nn.Linear(24, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        deep = torch.cat([x, self.tokens(y).flatten(1)], 1)
        deep = self.deep3(torch.relu(self.deep2(torch.relu(self.deep1(deep)))))
        return torch.sigmoid(deep + self.wide(x))


@net(
    "dlrm",
    "legacy18",
    "bottom1:16 top1:20",
    x=vector(10),
    y=text(20, 3, free=False),
    note="vectors are multiplied with each other: their channels are contracted without a weight",
)
class Dlrm(nn.Module):
    """Products of all pairs of vectors (numbers, embeddings) into a top network."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.bottom1, self.bottom2 = nn.Embedding(20, 8), nn.Linear(10, 16), nn.Linear(16, 8)
        self.top1, self.top2 = nn.Linear(24, 20), nn.Linear(20, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        dense = torch.relu(self.bottom2(torch.relu(self.bottom1(x))))
        every = torch.cat([dense[:, None], self.tokens(y)], 1)
        products = (every @ every.transpose(1, 2)).flatten(1)
        return torch.sigmoid(self.top2(torch.relu(self.top1(torch.cat([dense, products], 1)))))


@net("film", "dynamo21", "b:16 condition:12", x=vector(10), y=vector(6), note="a, scale and shift add up: a stream")
class Film(nn.Module):
    """Feature-wise modulation: a second input scales and shifts the channels of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Sequential(nn.Linear(10, 16)), nn.Linear(16, 16), nn.Linear(16, 4)
        self.condition, self.scale, self.shift = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(12, 16)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        inner = torch.relu(self.condition(y))
        x = torch.relu(self.a(x) * (1 + self.scale(inner)) + self.shift(inner))
        return self.c(torch.tanh(self.b(x)))


@net(
    "experts",
    "legacy17",
    "gate1:8 experts.0.0:12 experts.1.0:12 experts.2.0:12 experts.0.2+experts.1.2+experts.2.2:14 mixed:16",
    x=vector(10),
    note="the experts' outputs are stacked, weighted and summed: their channels go together",
)
class Experts(nn.Module):
    """A dense mixture of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate1, self.gate2 = nn.Linear(10, 8), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 14)) for _ in range(3))
        self.mixed, self.fc = nn.Linear(14, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate2(torch.tanh(self.gate1(x))).softmax(-1)
        parts = torch.stack([expert(x) for expert in self.experts], 1)
        return self.fc(torch.relu(self.mixed((weights[:, :, None] * parts).sum(1))))


class Carry(nn.Module):
    """A gate chooses between a layer and its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.a(x)) + (1 - gate) * x


@net(
    "highway",
    "legacy13",
    "stem+one.a+one.gate:12 fc1:16",
    x=vector(10),
    note="gated, not added: channels of three layers go together",
)
class Highway(nn.Module):
    """A highway layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.fc1, self.fc2 = nn.Linear(10, 12), Carry(12), nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.one(torch.relu(self.stem(x))))))


@net("variational", "legacy17", "a:20 mean:6 c:20", x=vector(16), note="the spread is an output, the mean is not")
class Variational(nn.Module):
    """The inference half of a variational autoencoder: two heads on one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.mean, self.spread = nn.Linear(16, 20), nn.Linear(20, 6), nn.Linear(20, 6)
        self.c, self.d = nn.Linear(6, 20), nn.Linear(20, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.a(x))
        return self.d(torch.relu(self.c(self.mean(x)))), self.spread(x)


@net("set", "dynamo18", "a:16 b:20 c:12", x=Input((7, 5), free={1: "points"}))
class PointNet(nn.Module):
    """Points of a cloud, one network for each, the maximum over all, concatenated back to every point."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 16), nn.Linear(16, 20), nn.Linear(36, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.relu(self.a(x))
        whole = self.b(each).amax(1, keepdim=True).expand(-1, x.shape[1], -1)
        return self.d(torch.relu(self.c(torch.cat([each, whole], -1))))
