"""Convolutional classifiers, from plain to densely connected."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import ConvNorm, Head, Input, image, net


@net("cnn", "legacy13", "conv1:8 conv2:12 fc1:24", x=image(1))
class Plain(nn.Module):
    """LeNet: convolutions with biases, pooling, Flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3)
        self.fc1, self.fc2 = nn.Linear(12 * 9, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


@net("cnn_bn", "legacy17", "a.conv:8 b.conv:12 c.conv:16", x=image())
class BatchNormed(nn.Sequential):
    """Convolution, BatchNormalization, ReLU, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = ConvNorm(3, 8), ConvNorm(8, 12, stride=2), ConvNorm(12, 16)
        self.head = Head(16)


@net("cnn_preact", "dynamo20", "conv1:8 conv2:12 conv3:12", x=image())
class BeforeActivation(nn.Module):
    """BatchNormalization and LeakyReLU BEFORE each convolution; Tanh, ELU, Softplus as activations too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 12, 3)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(3), nn.BatchNorm2d(8), nn.BatchNorm2d(12)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.leaky_relu(self.norm1(x), 0.1))
        x = self.conv2(F.elu(self.norm2(x)))
        return self.head(F.softplus(self.conv3(torch.tanh(self.norm3(x)))))


@net("vgg", "legacy18", "a.conv:8 b.conv:8 c.conv:16 d.conv:16 fc1:32 fc2:24", x=image(3, 16))
class Vgg(nn.Module):
    """Pairs of convolutions, Flatten, Dropout, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = ConvNorm(3, 8), ConvNorm(8, 8), ConvNorm(8, 16), ConvNorm(16, 16)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 32), nn.Linear(32, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.d(self.c(self.pool(self.b(self.a(x))))))
        x = self.drop(torch.relu(self.fc1(torch.flatten(x, 1))))
        return self.fc3(self.drop(torch.relu(self.fc2(x))))


@net("prelu", "dynamo21", "a:8 b:12 c:12 fc1:16", x=image())
class Prelu(nn.Module):
    """PReLU with one slope, with a slope per channel, and on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 12, 3)
        self.p, self.q, self.r, self.s = nn.PReLU(), nn.PReLU(12), nn.PReLU(12), nn.PReLU(16)
        self.fc1, self.fc2 = nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.r(self.c(self.q(self.b(self.p(self.a(x))))))
        return self.fc2(self.s(self.fc1(x.mean((2, 3)))))


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = ConvNorm(inputs, outputs, 3, stride)
        self.b = ConvNorm(outputs, outputs, 3, act=nn.Identity())
        plain = inputs == outputs and stride == 1
        self.short = nn.Identity() if plain else ConvNorm(inputs, outputs, 1, stride, act=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(self.a(x)) + self.short(x))


@net("resnet", "legacy15", "one.a.conv:8 two.a.conv:16 three.a.conv:16", x=image())
class ResNet(nn.Sequential):
    """Basic residual blocks: the first convolution of each is free, streams stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8)
        self.one, self.two, self.three = Basic(8, 8, 1), Basic(8, 16, 2), Basic(16, 16, 1)
        self.head = Head(16)


class Padded(nn.Module):
    """A basic block whose shortcut is subsampled and padded with zero channels (ResNet option A)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = ConvNorm(inputs, outputs, 3, 2), ConvNorm(outputs, outputs, 3, act=nn.Identity())
        self.extra = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return torch.relu(self.b(self.a(x)) + short)


@net(
    "resnet_padded",
    "legacy17",
    "one.a.conv:8 two.a.conv:16 two.b.conv:8",
    gap="Pad along the channels is a wall, though channels that meet its zeros alone could go with them",
    x=image(),
)
class ResNetPadded(nn.Sequential):
    """Zero channels in the shortcut: what they are added to belongs to one convolution alone and is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = ConvNorm(3, 8), Basic(8, 8, 1), Padded(8, 16), Head(16)


class Bottleneck(nn.Module):
    """1x1, 3x3 (maybe grouped), 1x1, and a shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.a, self.b = ConvNorm(inputs, inner, 1), ConvNorm(inner, inner, 3, groups=groups)
        self.c = ConvNorm(inner, outputs, 1, act=nn.Identity())
        self.short = nn.Identity() if inputs == outputs else ConvNorm(inputs, outputs, 1, act=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.c(self.b(self.a(x))) + self.short(x))


@net("resnet_bottleneck", "dynamo18", "stem.conv:8 one.a.conv:8 one.b.conv:8 two.a.conv:8 two.b.conv:8", x=image())
class ResNetBottleneck(nn.Sequential):
    """Bottleneck blocks: both inner convolutions are free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = ConvNorm(3, 8), Bottleneck(8, 8, 24)
        self.two, self.head = Bottleneck(24, 8, 24), Head(24)


@net(
    "resnext",
    "legacy20",
    "stem.conv:8 one.a.conv:4 one.b.conv:4 two.a.conv:4 two.b.conv:4",
    x=image(),
    note="4 groups of 4: a channel of every group goes at once, so 16 channels make 4 decisions",
)
class ResNeXt(nn.Sequential):
    """Bottlenecks with a grouped 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = ConvNorm(3, 8), Bottleneck(8, 16, 24, 4)
        self.two, self.head = Bottleneck(24, 16, 24, 4), Head(24)


class Fire(nn.Module):
    """Squeeze, then two convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


@net(
    "squeezenet",
    "legacy13",
    "stem:8 a.squeeze:4 a.one:8 a.three:8 b.squeeze:4 b.one:12 b.three:12",
    x=image(),
)
class SqueezeNet(nn.Module):
    """Fire modules; the classifier is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 2), Fire(8, 4, 8), Fire(16, 4, 12)
        self.last = nn.Conv2d(24, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.max_pool2d(self.a(torch.relu(self.stem(x))), 3, 2, ceil_mode=True))
        return F.softmax(self.last(x).mean((2, 3)), dim=1)


class DenseLayer(nn.Module):
    """BatchNormalization, ReLU and convolution twice; the result is appended."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 12, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(inner)))], 1)


@net(
    "densenet",
    "legacy17",
    "stem:8 a.conv1:12 a.conv2:6 b.conv1:12 b.conv2:6 transition:10 c.conv1:12 c.conv2:6",
    x=image(),
)
class DenseNet(nn.Module):
    """Every layer's output is read by all that follow; BatchNormalization stands on the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), DenseLayer(8, 6), DenseLayer(14, 6)
        self.norm, self.transition, self.c = nn.BatchNorm2d(20), nn.Conv2d(20, 10, 1), DenseLayer(10, 6)
        self.last, self.head = nn.BatchNorm2d(16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transition(torch.relu(self.norm(self.b(self.a(self.stem(x))))))
        return self.head(torch.relu(self.last(self.c(F.avg_pool2d(x, 2)))))


class Mixed(nn.Module):
    """Four branches side by side, one of them behind average pooling."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one, self.pool = ConvNorm(inputs, 6, 1), ConvNorm(inputs, 4, 1)
        self.three_a, self.three_b = ConvNorm(inputs, 6, 1), ConvNorm(6, 8, 3)
        self.five_a = ConvNorm(inputs, 4, 1)
        self.five_b, self.five_c = nn.Conv2d(4, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 6, (5, 1), padding=(2, 0))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(F.avg_pool2d(x, 3, 1, 1))
        wide = torch.relu(self.five_c(torch.relu(self.five_b(self.five_a(x)))))
        return torch.cat([self.one(x), self.three_b(self.three_a(x)), wide, pooled], 1)


MIXED = "one.conv:6 pool.conv:4 three_a.conv:6 three_b.conv:8 five_a.conv:4 five_b:6 five_c:6"


@net(
    "inception",
    "dynamo23",
    "stem.conv:8 " + " ".join(f"{block}.{word}" for block in "ab" for word in MIXED.split()),
    x=image(),
)
class Inception(nn.Sequential):
    """Two Inception blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = ConvNorm(3, 8, stride=2), Mixed(8), Mixed(24), Head(24)


@net("conv3d", "legacy18", "a:6 b:8 fc1:12", x=Input((2, 6, 8, 8)))
class Volumes(nn.Module):
    """Three-dimensional convolutions with BatchNormalization and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 6, 3, padding=1), nn.Conv3d(6, 8, 3, padding=1)
        self.norm, self.fc1, self.fc2 = nn.BatchNorm3d(6), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(torch.relu(self.norm(self.a(x))), 2)
        return self.fc2(torch.relu(self.fc1(torch.relu(self.b(x)).mean((2, 3, 4)))))


@net("keywords", "dynamo18", "stem.conv:12 one.conv:12 two.conv:12", x=Input((1, 20, 10)))
class Keywords(nn.Sequential):
    """Depthwise-separable keyword spotter: a channel runs through the depthwise layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 12, 5, 2)
        self.one_dw, self.one = ConvNorm(12, 12, 3, groups=12), ConvNorm(12, 12, 1)
        self.two_dw, self.two = ConvNorm(12, 12, 3, groups=12), ConvNorm(12, 12, 1)
        self.head = Head(12, 8)


@net(
    "siamese",
    "legacy17",
    "a.conv:8 b.conv:12 fc:16",
    dynamo_groups="a.conv:8*2 b.conv:12 fc:16",
    x=image(1, 12),
    y=image(1, 12),
    note="the newer exporter folds BatchNormalization for either call and so copies the weights of a and b",
)
class Siamese(nn.Module):
    """One encoder on two pictures; the distance of what it says, weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = ConvNorm(1, 8), ConvNorm(8, 12, stride=2)
        self.fc, self.last = nn.Linear(12, 16), nn.Linear(16, 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x)).mean((2, 3)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(self.last((self.encode(x) - self.encode(y)).abs()))


@net("repvgg", "legacy15", "", x=image(), note="every convolution adds to its neighbours and to the shortcut")
class RepVgg(nn.Module):
    """Sums of a 3x3, a 1x1 and a normalized identity: all of it one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = ConvNorm(3, 8, act=nn.Identity()), ConvNorm(3, 8, 1, act=nn.Identity())
        self.five, self.zero = ConvNorm(8, 8, act=nn.Identity()), ConvNorm(8, 8, 1, act=nn.Identity())
        self.norm, self.head = nn.BatchNorm2d(8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.three(x) + self.one(x))
        return self.head(torch.relu(self.five(x) + self.zero(x) + self.norm(x)))
