"""Train a small vision transformer on Fashion-MNIST and write it as ONNX, for the benchmark of criteria.

Network: 16 patches of 7x7 pixels, learned positions, BLOCKS blocks of attention and a two-layer perceptron, each behind
LayerNorm and added to the stream, and a linear layer on the mean of the tokens. Queries, keys and values are separate
layers. Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1, with the mean in place of the
class token. Input and output are those of fashion_vgg7bn: ``input`` [batch, 1, 28, 28], normalized by the same
function, and ``logits`` [batch, 10].

Training: all 60,000 images, AdamW, a warm-up and then a cosine to zero, mirror images. The data are looked for in
``../shared`` or the folder named by EDGEPRESS_SHARED, as ``benchmarks/zoo.py`` does.

File: torch's newer exporter; nodes are then named after their modules, and what the exporter says about the sources of
the network is removed. It is written only after onnxruntime gave the logits of torch on the whole test set.

One torch thread and fixed seeds: a second run on the same machine with the same torch writes the same bytes.

    python -m tools.train_vit [--out build/fashion_vit.onnx] [--epochs 12] [--seed 0]        (needs the extra dev)
"""

from __future__ import annotations

import argparse
import ast
import logging
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import zoo
from edgepress.groups import Grouping, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize

OUT = Path(__file__).parents[1] / "build" / "fashion_vit.onnx"
EPOCHS = 12
PATCH, WIDTH, HEADS, BLOCKS, INNER = 7, 64, 4, 4, 256
TOKENS = (28 // PATCH) ** 2
BATCH, RATE, DECAY, WARM_UP = 128, 2e-3, 5e-2, 0.05
OPSET, IR_VERSION = 18, 8
TOLERANCE = 1e-3  # of the largest logit; float32 sums in another order stay far below
SCOPES = "pkg.torch.onnx.name_scopes"


class Attention(nn.Module):
    """Multi-head attention; one layer each for queries, keys, values and the output."""

    def __init__(self) -> None:
        """Make the four layers."""
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [n, TOKENS, WIDTH] mixed by every head."""
        q, k, v = (self._heads(part(tokens)) for part in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        mixed: Tensor = self.o((weights @ v).transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        return mixed

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.view(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)


class Block(nn.Module):
    """Attention and two linear layers, each behind LayerNorm, each added to the stream."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention()
        self.fc1, self.fc2 = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        """The stream [n, TOKENS, WIDTH] after this block."""
        stream = stream + self.attention(self.norm1(stream))
        after: Tensor = stream + self.fc2(functional.gelu(self.fc1(self.norm2(stream))))
        return after


class Vit(nn.Module):
    """The network."""

    def __init__(self) -> None:
        """Make the layers; the places start small beside the patches."""
        super().__init__()
        self.patches, self.places = nn.Conv2d(1, WIDTH, PATCH, PATCH), nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(BLOCKS)), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [n, 10] of images [n, 1, 28, 28]."""
        stream = self.patches(image).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream).mean(1))
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images, float32 [n, 1, 28, 28] as the network takes them, and labels, int64 [n]."""

    image: np.ndarray
    label: np.ndarray


def fashion() -> tuple[Part, Part]:
    """The training set and the test set."""
    path = zoo.SHARED / "data" / "fashion_mnist.npz"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: set EDGEPRESS_SHARED to the folder of models and data.")
    share = zoo._shared()
    stored = share.load(path)
    train, test = (
        Part(share.fashion_input(stored[f"x_{name}"]), stored[f"y_{name}"].astype(np.int64))
        for name in ("train", "test")
    )
    return train, test


def trained(part: Part, epochs: int, seed: int) -> Vit:
    """Train a network; the result depends on the arguments alone."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = Vit()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * math.ceil(len(part.image) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    for rows in batches(len(part.image), epochs, seed):
        optimizer.zero_grad()
        logits = net(mirrored(torch.from_numpy(part.image[rows])))
        torch.autograd.backward(functional.cross_entropy(logits, torch.from_numpy(part.label[rows])))
        optimizer.step()
        schedule.step()
    return net.eval()


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: linear up over the share WARM_UP of the steps, times half a cosine."""
    return min(1.0, (step + 1) / max(WARM_UP * steps, 1.0)) * (1 + math.cos(math.pi * step / steps)) / 2


def batches(size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of one batch after another, shuffled in every epoch, whose last batch may be smaller."""
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(size)
        yield from (order[start : start + BATCH] for start in range(0, size, BATCH))


def mirrored(image: Tensor) -> Tensor:
    """Half of the images, by chance, left and right exchanged."""
    return torch.where(torch.rand(len(image), 1, 1, 1) < 0.5, image.flip(3), image)


def exported(net: Vit) -> onnx.ModelProto:
    """The network with a free batch axis, weights inside, as the module docstring says."""
    program = _program(net)
    if program is None:
        raise SystemExit("torch returned no model: its exporter changed.")
    proto = program.model_proto
    proto.ir_version = IR_VERSION
    rename(proto.graph)
    plain(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _program(net: Vit) -> torch.onnx.ONNXProgram | None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would say that torchvision is not there
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):  # of torch to itself
            warnings.simplefilter("ignore", kind)
        return torch.onnx.export(
            net,
            (torch.zeros(2, 1, 28, 28),),  # a batch of one would be taken for a fixed one
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )


def rename(graph: onnx.GraphProto) -> None:
    """Name nodes by module and operator, ``blocks.0.fc1.MatMul``, numbered where a module has several of a kind."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        said = {entry.key: entry.value for entry in node.metadata_props}
        scopes: list[str] = ast.literal_eval(said.get(SCOPES, "[]"))
        path = next((scope for scope in reversed(scopes[:-1]) if scope), "")  # the last is the function in the module
        name = f"{path}.{node.op_type}".lstrip(".")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def plain(proto: onnx.ModelProto) -> None:
    """Remove the remarks about sources: they hold paths of this machine."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")


def checked(proto: onnx.ModelProto, net: Vit, part: Part) -> float:
    """Accuracy of the file in onnxruntime.

    Raises:
        SystemExit: its logits are not those of torch.
    """
    found = zoo.evaluate(proto.SerializeToString(deterministic=True), part.image, batched=True)
    with torch.no_grad():
        wanted = np.concatenate([net(piece).numpy() for piece in torch.split(torch.from_numpy(part.image), 500)])
    off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not off <= TOLERANCE:
        raise SystemExit(f"onnxruntime is off by {off:.1e} of the largest logit: the export went wrong.")
    return float((found.argmax(1) == part.label).mean())


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Write beside the place, then rename: the file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(proto.SerializeToString(deterministic=True))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def grouping(path: Path) -> Grouping:
    """The channel groups that edgepress finds in a file."""
    sample = {"input": np.zeros((1, 1, 28, 28), np.float32)}
    return find_groups(normalize(Model.load(path), [sample]).model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, check, write, and say what came out."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_vit", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.epochs < 1:
        parser.error("--epochs must be at least 1.")
    train, test = fashion()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    net = trained(train, given.epochs, given.seed)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    proto = exported(net)
    accuracy = checked(proto, net, test)
    save(proto, given.out)
    found = grouping(given.out)
    print(f"test accuracy {accuracy:.4f}")
    print(f"trained in {seconds:.0f} s ({cpu:.0f} s of processor time)")
    print(f"{sum(weight.numel() for weight in net.parameters())} parameters, {given.out.stat().st_size} bytes")
    print(f"{len(found.prunable)} of {len(found.groups)} groups may shrink")
    print(*(f"  {group.name} {group.size}" for group in found.prunable), sep="\n")


if __name__ == "__main__":
    main()
