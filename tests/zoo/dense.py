"""Pictures in, pictures out: segmentation, generation, restoration, detection."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import ConvNorm, Head, Input, image, net


class Double(nn.Module):
    """Two convolutions, each with a normalization of the caller's choice and ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: type[nn.Module] | None = None, groups: int = 0) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = (
            nn.GroupNorm(groups, outputs) if groups else (norm or nn.Identity)(outputs) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm2(self.b(torch.relu(self.norm1(self.a(x))))))


class Instance(nn.InstanceNorm2d):
    """InstanceNorm with scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)


@net(
    "unet_group",
    "legacy17",
    "one.a:2 one.b:2 two.a:3 two.b:3 bottom.a:4 bottom.b:4 up2:12 right2.a:3 right2.b:3 up1:8 right1.a:2 right1.b:2",
    x=image(),
    note="channels of one group of GroupNorm share their statistics: they go together",
)
class UNetGroup(nn.Module):
    """UNet with GroupNorm, ConvTranspose and Concat."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.bottom = Double(3, 8, groups=2), Double(8, 12, groups=3), Double(12, 16, groups=4)
        self.up2, self.right2 = nn.ConvTranspose2d(16, 12, 2, 2), Double(24, 12, groups=3)
        self.up1, self.right1 = nn.ConvTranspose2d(12, 8, 2, 2), Double(16, 8, groups=2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        bottom = self.bottom(F.max_pool2d(two, 2))
        up = self.right2(torch.cat([two, self.up2(bottom)], 1))
        return self.last(self.right1(torch.cat([one, self.up1(up)], 1)))


@net(
    "unet_instance",
    "dynamo20",
    "one.a:8 one.b:8 two.a:12 two.b:12 bottom.a:16 bottom.b:16 right2.a:12 right2.b:12 right1.a:8 right1.b:8",
    x=image(),
)
class UNetInstance(nn.Module):
    """UNet with InstanceNorm and bilinear Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.bottom = Double(3, 8, Instance), Double(8, 12, Instance), Double(12, 16, Instance)
        self.right2, self.right1 = Double(28, 12, Instance), Double(20, 8, Instance)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        up = F.interpolate(self.bottom(F.max_pool2d(two, 2)), scale_factor=2, mode="bilinear", align_corners=False)
        up = F.interpolate(self.right2(torch.cat([two, up], 1)), size=one.shape[2:], mode="nearest")
        return self.last(self.right1(torch.cat([one, up], 1)))


@net("superres", "legacy18", "a:12 b:12 c:12 up:6 ", x=Input((1, 8, 8), free={2: "height", 3: "width"}))
class SuperResolution(nn.Module):
    """Convolutions at low resolution, two pixel shuffles; any size of picture."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 1)
        self.up, self.last, self.shuffle = nn.Conv2d(12, 24, 3, padding=1), nn.Conv2d(6, 4, 1), nn.PixelShuffle(2)
        self.p = nn.PReLU(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.p(self.b(torch.relu(self.a(x)))))
        return self.shuffle(self.last(torch.relu(self.shuffle(self.up(x)))))


@net(
    "fpn",
    "legacy17",
    "c1.conv:8 c2.conv:12 c3.conv:16 smooth1+smooth2+smooth3:12 head:16",
    x=image(3, 16),
    note="lateral connections are summed: a stream; one head reads three levels, so their channels go together",
)
class Pyramid(nn.Module):
    """Feature pyramid with one detection head for all levels."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = ConvNorm(3, 8, stride=2), ConvNorm(8, 12, stride=2), ConvNorm(12, 16, stride=2)
        self.l1, self.l2, self.l3 = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(16, 12, 1)
        self.smooth1, self.smooth2, self.smooth3 = (nn.Conv2d(12, 12, 3, padding=1) for _ in range(3))
        self.head, self.scores, self.boxes = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 3, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.c1(x)
        two = self.c2(one)
        three = self.l3(self.c3(two))
        two = self.l2(two) + F.interpolate(three, scale_factor=2, mode="nearest")
        one = self.l1(one) + F.interpolate(two, scale_factor=2, mode="nearest")
        levels = [self.smooth1(one), self.smooth2(two), self.smooth3(three)]
        found = [torch.relu(self.head(level)) for level in levels]
        flat = [torch.cat([self.scores(y).sigmoid(), self.boxes(y)], 1).flatten(2) for y in found]
        return torch.cat(flat, 2).transpose(1, 2)


class Split(nn.Module):
    """YOLOv8's C2f: one convolution split in halves, bottlenecks on the second, all concatenated."""

    def __init__(self, channels: int, half: int, residual: bool) -> None:
        super().__init__()
        self.first = ConvNorm(channels, 2 * half, 1, act=nn.SiLU())
        self.a, self.b = ConvNorm(half, half, act=nn.SiLU()), ConvNorm(half, half, act=nn.SiLU())
        self.last, self.residual = ConvNorm(3 * half, channels, 1, act=nn.SiLU()), residual

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).chunk(2, 1)
        y = self.b(self.a(right))
        return self.last(torch.cat([left, right, right + y if self.residual else y], 1))


@net(
    "yolo",
    "dynamo18",
    "stem.conv:8 enter.conv:12 one.first.conv:6 one.a.conv:6 one.last.conv:12 down.conv:16 "
    "two.first.conv:8*2 two.a.conv:8 two.b.conv:8 two.last.conv:16 squeeze.conv:8 wide.conv:16",
    x=image(3, 16),
    note="the second half of the first split is a residual stream; boxes end in a softmax over bins",
)
class Yolo(nn.Module):
    """C2f blocks, spatial pyramid pooling, boxes decoded by a softmax over bins."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.enter = ConvNorm(3, 8, stride=2, act=nn.SiLU()), ConvNorm(8, 12, act=nn.SiLU())
        self.one, self.down = Split(12, 6, True), ConvNorm(12, 16, stride=2, act=nn.SiLU())
        self.two, self.squeeze = Split(16, 8, False), ConvNorm(16, 8, 1, act=nn.SiLU())
        self.wide = ConvNorm(32, 16, 1, act=nn.SiLU())
        self.boxes, self.scores, self.bins = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 3, 1), nn.Conv2d(4, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(self.two(self.down(self.one(self.enter(self.stem(x))))))
        pools = [x]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        x = self.wide(torch.cat(pools, 1))
        boxes, scores = self.boxes(x).flatten(2), self.scores(x).flatten(2)
        bins = boxes.view(-1, 4, 4, boxes.shape[2]).transpose(1, 2).softmax(1)
        return torch.cat([self.bins(bins)[:, 0], scores.sigmoid()], 1)


@net("deeplab", "legacy15", "stem.conv:8 low.conv:12 one:8 two:8 four:8 pooled:8 skip:6 mix.conv:16", x=image(3, 16))
class DeepLab(nn.Module):
    """Atrous spatial pyramid pooling; the whole picture's mean is stretched over it; a skip from below."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.low, self.skip = ConvNorm(3, 8), ConvNorm(8, 12, stride=2), nn.Conv2d(8, 6, 1)
        self.one, self.pooled = nn.Conv2d(12, 8, 1), nn.Conv2d(12, 8, 1)
        self.two, self.four = (nn.Conv2d(12, 8, 3, padding=n, dilation=n) for n in (2, 4))
        self.mix, self.last = ConvNorm(38, 16), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.stem(x)
        x = self.low(low)
        mean = F.adaptive_avg_pool2d(x, 1)
        stretched = F.interpolate(torch.relu(self.pooled(mean)), size=x.shape[2:], mode="bilinear", align_corners=False)
        parts = [torch.relu(part(x)) for part in (self.one, self.two, self.four)]
        wide = F.interpolate(torch.cat([*parts, stretched], 1), scale_factor=2, mode="bilinear", align_corners=True)
        return self.last(self.mix(torch.cat([wide, torch.relu(self.skip(low))], 1)))


@net("autoencoder", "dynamo23", "a:8 b:12 squeeze:16 grow:12 c:12 d:8", x=image(1, 16))
class Autoencoder(nn.Module):
    """Strided convolutions down to a code, back by a linear layer, reshaped, and ConvTranspose."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.squeeze, self.grow = nn.Linear(192, 16), nn.Linear(16, 192)
        self.c, self.d = nn.ConvTranspose2d(12, 12, 4, 2, 1), nn.ConvTranspose2d(12, 8, 3, 1, 1)
        self.e, self.norm = nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        code = self.squeeze(torch.relu(self.b(torch.relu(self.a(x)))).flatten(1))
        x = torch.relu(self.grow(torch.tanh(code))).view(-1, 12, 4, 4)
        x = torch.relu(self.norm(self.c(x)))
        return torch.sigmoid(self.e(torch.relu(self.d(x))))


@net("generator", "legacy17", "one.conv:8 two.conv:4 three.conv:8", x=Input((12, 1, 1)))
class Generator(nn.Module):
    """DCGAN: a stack of ConvTranspose, one of them grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = self.block(12, 16, 4, 1, 0, 1), self.block(16, 8, 4, 2, 1, 2)
        self.three, self.last = self.block(8, 8, 4, 2, 1, 1), nn.Conv2d(8, 3, 3, padding=1)

    @staticmethod
    def block(inputs: int, outputs: int, kernel: int, stride: int, pad: int, groups: int) -> nn.Sequential:
        """ConvTranspose (``conv``), BatchNormalization, ReLU."""
        found = nn.Sequential()
        convolution = nn.ConvTranspose2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
        found.add_module("conv", convolution)
        found.add_module("norm", nn.BatchNorm2d(outputs))
        found.add_module("act", nn.ReLU())
        return found

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.three(self.two(self.one(x)))))


class Mirror(nn.Module):
    """Reflecting padding, convolution, InstanceNorm without parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3)
        self.norm = nn.InstanceNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.pad(x)))


class MirrorPair(nn.Module):
    """Two of them and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = Mirror(channels, channels), Mirror(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


@net("style", "legacy13", "one.a.conv:12 two.a.conv:12 shrink.conv:8", x=image(3, 12))
class Style(nn.Module):
    """Style transfer: mirrored borders, InstanceNorm, residual blocks, nearest Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = Mirror(3, 12), MirrorPair(12), MirrorPair(12)
        self.shrink, self.last = Mirror(12, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(torch.relu(self.stem(x))))
        x = torch.relu(self.shrink(F.interpolate(x, scale_factor=2, mode="nearest")))
        return torch.tanh(self.last(x))


@net(
    "focus",
    "legacy17",
    "stem.conv:12 inner:6 unshuffled.conv:16",
    x=image(3, 16),
    note="space to depth in both spellings",
)
class Focus(nn.Module):
    """Four shifted copies of the picture as channels (YOLOv5), later a pixel unshuffle of inner channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.unshuffle = ConvNorm(12, 12), nn.Conv2d(12, 6, 1), nn.PixelUnshuffle(2)
        self.unshuffled, self.head = ConvNorm(24, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., i::2, j::2] for i in range(2) for j in range(2)], 1)
        return self.head(self.unshuffled(self.unshuffle(torch.relu(self.inner(self.stem(x))))))


class Scaled(nn.Module):
    """Two convolutions, a tenth of which is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.b(torch.relu(self.a(x)))


@net("edsr", "dynamo20", "one.a:12 two.a:12 last_a:4", x=image(3, 8), note="last_a: four sub-pixels to a channel")
class Edsr(nn.Module):
    """Residual super-resolution with scaled shortcuts and a global skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 12, 3, padding=1), Scaled(12), Scaled(12)
        self.body, self.last_a = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        self.last_b, self.up = nn.Conv2d(4, 3, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x - 0.4)
        return self.last_b(self.up(self.last_a(first + self.body(self.two(self.one(first)))))) + 0.4
