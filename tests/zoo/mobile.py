"""Convolutional networks for small machines: depthwise layers, gates, shuffles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.parts import ConvNorm, Head, image, net


class Excite(nn.Module):
    """Squeeze-and-excitation: a gate per channel from the means of all channels."""

    def __init__(self, channels: int, inner: int, gate: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act, gate
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(self.pool(x)))))


class Inverted(nn.Module):
    """Expand, depthwise, maybe excite, project, and a shortcut where shapes allow."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, act: type[nn.Module], gate: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.expand, self.dw = ConvNorm(inputs, inner, 1, act=act()), ConvNorm(inner, inner, 3, stride, inner, act())
        self.se = nn.Identity() if gate is None else Excite(inner, 4, gate, nn.ReLU())
        self.project = ConvNorm(inner, outputs, 1, act=nn.Identity())
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.se(self.dw(self.expand(x))))
        return x + y if self.residual else y


@net(
    "mobilenet_v2",
    "legacy13",
    "stem.conv:8 one.expand.conv:16 two.expand.conv:24 three.expand.conv:24 three.project.conv:16 last.conv:32",
    x=image(),
)
class MobileNetV2(nn.Sequential):
    """Inverted residuals with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = ConvNorm(3, 8, stride=2), Inverted(8, 16, 12, 1, nn.ReLU6)
        self.two, self.three = Inverted(12, 24, 12, 1, nn.ReLU6), Inverted(12, 24, 16, 2, nn.ReLU6)
        self.last, self.head = ConvNorm(16, 32, 1), Head(32)


@net(
    "mobilenet_v3",
    "dynamo20",
    "one.expand.conv+one.se.fc2:16 one.se.fc1:4 two.expand.conv+two.se.fc2:24 two.se.fc1:4 "
    "three.expand.conv:24 three.project.conv:16 last.conv:24 fc1:32",
    x=image(),
)
class MobileNetV3(nn.Module):
    """Inverted residuals with HardSwish and gates of HardSigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, stride=2, act=nn.Hardswish())
        self.one = Inverted(8, 16, 8, 1, nn.Hardswish, nn.Hardsigmoid())
        self.two = Inverted(8, 24, 8, 1, nn.Hardswish, nn.Hardsigmoid())
        self.three = Inverted(8, 24, 16, 2, nn.Hardswish)
        self.last, self.act = ConvNorm(16, 24, 1, act=nn.Hardswish()), nn.Hardswish()
        self.fc1, self.fc2 = nn.Linear(24, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.three(self.two(self.one(self.stem(x)))))
        return self.fc2(self.act(self.fc1(x.mean((2, 3)))))


@net(
    "efficientnet",
    "legacy17",
    "stem.conv+stem_se.fc2:8 stem_se.fc1:4 one.expand.conv+one.se.fc2:24 one.se.fc1:4 "
    "two.expand.conv+two.se.fc2:24 two.se.fc1:4 last.conv:24",
    x=image(),
)
class EfficientNet(nn.Module):
    """MBConv blocks with SiLU and gates; the first has no expansion, so its gate stands on the stem's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, stride=2, act=nn.SiLU())
        self.stem_dw = ConvNorm(8, 8, groups=8, act=nn.SiLU())
        self.stem_se = Excite(8, 4, nn.Sigmoid(), nn.SiLU())
        self.project = ConvNorm(8, 12, 1, act=nn.Identity())
        self.one = Inverted(12, 24, 12, 1, nn.SiLU, nn.Sigmoid())
        self.two = Inverted(12, 24, 12, 1, nn.SiLU, nn.Sigmoid())
        self.last, self.head = ConvNorm(12, 24, 1, act=nn.SiLU()), Head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.stem_se(self.stem_dw(self.stem(x))))
        return self.head(self.last(self.two(self.one(x))))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle as everybody writes it: Reshape, Transpose, Reshape."""
    batch, channels, height, width = x.shape
    return (
        x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(batch, channels, height, width)
    )


class Unit(nn.Module):
    """Half of the channels pass, half go through three convolutions; then both are shuffled."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        half = channels // 2
        self.a, self.dw = ConvNorm(half, inner, 1), ConvNorm(inner, inner, 3, groups=inner, act=nn.Identity())
        self.b = ConvNorm(inner, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return shuffle(torch.cat([left, self.b(self.dw(self.a(right)))], 1), 2)


@net(
    "shufflenet_v2",
    "legacy15",
    "one.a.conv:10 two.a.conv:10 stem.conv:8 stem.conv+one.b.conv:4 stem.conv+one.b.conv+two.b.conv:4 last.conv:24",
    x=image(),
    note="shuffles tie place i of one half to place i of the other; the half that is only read by one.a is free",
)
class ShuffleNetV2(nn.Sequential):
    """Two units with Split, Concat and channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = ConvNorm(3, 16, stride=2), Unit(16, 10), Unit(16, 10)
        self.last, self.head = ConvNorm(16, 24, 1), Head(24)


class Grouped(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1, and a shortcut."""

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.a, self.dw = ConvNorm(channels, inner, 1, groups=groups), ConvNorm(inner, inner, 3, groups=inner)
        self.b = ConvNorm(inner, channels, 1, groups=groups, act=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.b(self.dw(shuffle(self.a(x), self.groups))))


@net("shufflenet_v1", "legacy18", "one.a.conv:3 last.conv:24", x=image())
class ShuffleNetV1(nn.Sequential):
    """Grouped 1x1 convolutions with a shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = ConvNorm(3, 16, stride=2), Grouped(16, 12, 2)
        self.last, self.head = ConvNorm(16, 24, 1), Head(24)


class Ghost(nn.Module):
    """Half of the outputs are cheap depthwise copies of the other half."""

    def __init__(self, inputs: int, outputs: int, act: nn.Module) -> None:
        super().__init__()
        half = outputs // 2
        self.main, self.cheap = ConvNorm(inputs, half, 1, act=act), ConvNorm(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        return torch.cat([y, self.cheap(y)], 1)


@net("ghostnet", "dynamo18", "one.main.conv:8 three.main.conv:8", x=image(), note="two is a stream")
class GhostNet(nn.Module):
    """Ghost modules: a channel goes with its cheap copy; a residual block of two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = ConvNorm(3, 12, stride=2), Ghost(12, 16, nn.ReLU())
        self.two, self.three, self.head = Ghost(16, 12, nn.Identity()), Ghost(12, 16, nn.ReLU()), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.two(self.one(x))
        return self.head(self.three(x))


class Block(nn.Module):
    """ConvNeXt: depthwise 7x7, LayerNorm over channels (channels last), two linear layers, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(channels), nn.Linear(channels, 24), nn.Linear(24, channels)
        self.act, self.gamma = nn.GELU(), nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc2(self.act(self.fc1(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


@net("convnext", "legacy17", "one.fc1:24 two.fc1:24", x=image())
class ConvNeXt(nn.Module):
    """Two ConvNeXt blocks; the stream stands behind LayerNorm and stays."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 12, 4, 4), Block(12), Block(12)
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.two(self.one(self.stem(x))).mean((2, 3))))


@net("eca", "legacy17", "b.conv:16", x=image(), note="a convolution runs ALONG the channels of a: they must stay")
class Eca(nn.Module):
    """Efficient channel attention: the gate comes from neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = ConvNorm(3, 12), ConvNorm(12, 16), Head(16)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = self.along(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return self.head(self.b(x * torch.sigmoid(gate)[:, :, None, None]))


@net(
    "cbam",
    "dynamo18",
    "a.conv+fc2:12 fc1:4 b.conv:16",
    x=image(),
    note="the gates that are added come from one layer, so they are no stream; spatial attention reads all of c",
)
class Cbam(nn.Module):
    """Channel gates from mean and maximum by one shared network; the spatial gate reads the gated picture."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = ConvNorm(3, 12), ConvNorm(12, 16), ConvNorm(16, 16), Head(16)
        self.fc1, self.fc2, self.spatial = nn.Linear(12, 4), nn.Linear(4, 12), nn.Conv2d(2, 1, 3, padding=1)

    def gate(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))) + self.gate(x.amax((2, 3))))[:, :, None, None]
        x = self.c(self.b(x))
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(x * torch.sigmoid(self.spatial(maps)))
