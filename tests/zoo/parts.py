"""What the networks of the zoo are made of: inputs, the table of networks, common layers."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

LEGACY, DYNAMO = "legacy", "dynamo"
OPSETS = {LEGACY: (13, 15, 17, 18, 20), DYNAMO: (15, 17, 18, 20, 21, 23)}
"""What torch 2.13 writes. Its older exporter ends at opset 20; its newer one starts at 18 and converts if it can."""


@dataclass(frozen=True)
class Variant:
    """One way of exporting a network."""

    exporter: str
    opset: int

    def __str__(self) -> str:
        return f"{self.exporter}{self.opset}"


@dataclass(frozen=True)
class Input:
    """A network input: shape without the batch axis, and how to make samples of it.

    Attributes:
        shape: sizes after the batch axis.
        tokens: number of tokens, for int64 indices; 0 for float32 values.
        free: axes besides the batch that are left symbolic, with their names.
    """

    shape: tuple[int, ...]
    tokens: int = 0
    free: Mapping[int, str] = field(default_factory=dict)

    def samples(self, count: int, seed: int) -> np.ndarray:
        """Correlated samples: a few smooth patterns in random amounts, and a little noise; or token runs."""
        fixed, random = np.random.default_rng(7), np.random.default_rng(seed)
        if self.tokens:
            return self._tokens(count, fixed, random)
        size = int(np.prod(self.shape))
        patterns = fixed.standard_normal((6, size))
        for axis in range(1, len(self.shape)):  # smooth along space or time
            rolled = patterns.reshape(6, *self.shape)
            patterns = (rolled + np.roll(rolled, 1, axis + 1) + np.roll(rolled, 2, axis + 1)).reshape(6, size) / 3**0.5
        mixed = random.standard_normal((count, 6)) @ patterns / 6**0.5
        noisy = mixed + 0.1 * random.standard_normal((count, size))
        return noisy.reshape(count, *self.shape).astype(np.float32)

    def longer(self, more: int) -> Input:
        """The same with longer free axes."""
        sizes = (size + more * (axis in self.free) for axis, size in enumerate(self.shape, 1))
        return replace(self, shape=tuple(sizes))

    def _tokens(self, count: int, fixed: np.random.Generator, random: np.random.Generator) -> np.ndarray:
        """Runs through a fixed random cycle of tokens, with some of them replaced."""
        cycle, size = fixed.permutation(self.tokens), int(np.prod(self.shape))
        runs = cycle[(random.integers(0, self.tokens, (count, 1)) + np.arange(size)) % self.tokens]
        other = random.integers(0, self.tokens, (count, size))
        return np.where(random.random((count, size)) < 0.2, other, runs).reshape(count, *self.shape).astype(np.int64)


@dataclass(frozen=True)
class Net:
    """One network of the zoo.

    Attributes:
        name: its name.
        family: the file it stands in.
        make: builds it.
        inputs: its inputs, in the order of ``forward``.
        groups: per exporter what must be prunable: ``producers:channels`` (see :func:`expected`), each counted.
        gaps: per exporter why something of it is not found yet.
        quick: the export the quick test takes.
        first: smallest opset per exporter; an exporter that is not named cannot write this network.
        batch: whether the batch axis is symbolic.
        rigid: the newer exporter writes it with fixed lengths only.
        note: what torch cannot do with it, or why it is here.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    inputs: Mapping[str, Input]
    groups: Mapping[str, Counter[str]]
    gaps: Mapping[str, str]
    quick: Variant
    first: Mapping[str, int]
    batch: bool
    rigid: bool
    note: str

    @property
    def seed(self) -> int:
        """Seed of weights and samples."""
        return zlib.crc32(self.name.encode())

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every export that torch must be able to write."""
        return tuple(
            Variant(exporter, opset)
            for exporter, first in self.first.items()
            for opset in OPSETS[exporter]
            if opset >= first
        )

    def module(self) -> nn.Module:
        """The network with seeded weights, ready for inference."""
        torch.manual_seed(self.seed)
        return randomize(self.make()).eval()

    def samples(self, count: int, seed: int = 0, longer: int = 0) -> dict[str, np.ndarray]:
        """Seeded inputs by name; ``longer`` is added to their free axes."""
        inputs = {name: given.longer(longer) for name, given in self.inputs.items()}
        return {name: given.samples(count, seed + place) for place, (name, given) in enumerate(inputs.items())}


NETS: dict[str, Net] = {}
"""Every network by name."""


def expected(groups: str) -> Counter[str]:
    """Read ``"stem:8 gate+up:24*2"``: modules whose outputs share channels, how many, and how often."""
    found: Counter[str] = Counter()
    for word in groups.split():
        key, _, times = word.partition("*")
        producers, _, size = key.partition(":")
        found["+".join(sorted(producers.split("+"))) + f":{size}"] += int(times or 1)
    return found


def net(
    name: str,
    quick: str,
    groups: str,
    *,
    legacy: int | None = 13,
    dynamo: int | None = 18,
    batch: bool = True,
    rigid: bool = False,
    dynamo_groups: str | None = None,
    gap: str = "",
    dynamo_gap: str = "",
    note: str = "",
    **inputs: Input,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Put a network into the table.

    Args:
        name: its name.
        quick: the export of the quick test, such as ``legacy17``.
        groups: what must be prunable.
        legacy: smallest opset torch's older exporter writes it at; None: never.
        dynamo: the same for the newer exporter.
        batch: whether the batch axis is symbolic.
        rigid: the newer exporter unrolls it, with fixed lengths.
        dynamo_groups: what must be prunable where the newer exporter makes another graph of it.
        gap: why something of it is not found yet.
        dynamo_gap: the same for the newer exporter alone.
        note: a remark.
        inputs: its inputs, in the order of ``forward``.
    """
    exporter = LEGACY if quick.startswith(LEGACY) else DYNAMO
    variant = Variant(exporter, int(quick.removeprefix(exporter)))
    first = {kind: opset for kind, opset in ((LEGACY, legacy), (DYNAMO, dynamo)) if opset is not None}

    def enter(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        if name in NETS:
            raise ValueError(f"two networks are called {name!r}")
        family = make.__module__.rpartition(".")[2]
        wanted = {LEGACY: expected(groups), DYNAMO: expected(groups if dynamo_groups is None else dynamo_groups)}
        gaps = {LEGACY: gap, DYNAMO: dynamo_gap or gap}
        NETS[name] = Net(name, family, make, inputs, wanted, gaps, variant, first, batch, rigid, note)
        return make

    return enter


def image(channels: int = 3, size: int = 16) -> Input:
    """A square picture."""
    return Input((channels, size, size))


def signal(channels: int, length: int = 32, free: bool = True) -> Input:
    """Channels over time; the length is symbolic."""
    return Input((channels, length), free={2: "time"} if free else {})


def sequence(features: int, length: int = 12, free: bool = True) -> Input:
    """Vectors in a row; the length is symbolic."""
    return Input((length, features), free={1: "time"} if free else {})


def text(tokens: int, length: int = 12, free: bool = True) -> Input:
    """Token indices; the length is symbolic."""
    return Input((length,), tokens, free={1: "time"} if free else {})


@torch.no_grad()
def randomize(module: nn.Module) -> nn.Module:
    """He-scaled weights, and normalization that matters: random statistics, scales and shifts."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.normal_(part.weight, std=(1.5 / part.weight[0].numel()) ** 0.5)
        for name, parameter in part.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.normal_(parameter, std=0.1)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        scale = getattr(part, "weight", None)
        if scale is not None and scale.ndim == 1:
            nn.init.uniform_(scale, 0.05, 0.4) if isinstance(part, nn.PReLU) else nn.init.uniform_(scale, 0.5, 1.5)
    return module


class ConvNorm(nn.Sequential):
    """Convolution (``conv``), BatchNormalization (``norm``) and an activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU() if act is None else act


class Head(nn.Sequential):
    """Global average pooling and a classifier (``fc``)."""

    def __init__(self, features: int, classes: int = 10) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(features, classes)
