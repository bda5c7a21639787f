"""Transformers and recurrent networks: every integer form of edgepress against float, interleaved.

    python benchmarks/transformers.py [--seconds 6] [--only networks layers tool] [--out benchmarks/results]

Networks are built by torch with seeded weights and written by its older exporter, batch 1: a BERT-like encoder (width
256, 4 layers, 64 tokens), a ViT-like one (width 192, 4 layers, 64 patches), one step of a decoder with 64 tokens behind
it, a bidirectional LSTM tagger and two GRU layers. Forms: ``static`` is int8 with fixed ranges, from 16 samples,
``dynamic``, ``blocked`` (4 bits) and ``lstm`` those of the modules of ``edgepress.quantize``, each of all nodes that it
can take; in all of these tables and weights of float layers are stored as int8. ``stored`` is that alone.

Latency: one thread, median of ratios inside rounds with its 95 % interval. Noise: SQNR of the outputs on samples not
used for ranges; the weights are random, so it compares forms, not networks. What a QDQ file asks for and onnxruntime
does not fuse is named below the table. Two more tables take one layer at a time:
chains of eight products of K x K, and one LSTM of 30 steps. They are where the rules of thumb of ``edgepress.quantize``
(least rows, least depth) come from.

``tool`` is what ``edgepress quantize`` makes of the same networks from 64 samples, with its own limits (20 dB, or
one point of the answers where it classifies): which form it takes, timed once more beside float.
"""

# ruff: noqa: D102, D107  (torch modules: the docstring of the class says what they are)

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgepress import runtime
from edgepress.bench import Ratio, Timing, compare, describe
from edgepress.errors import EdgepressError
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.ops.row import Role
from edgepress.ops.weighted import output_axis
from edgepress.pipeline import compress
from edgepress.plan import Quantization
from edgepress.quantize import activations_to_observe, observe, quantize, ranges, round_weights, unfused
from edgepress.quantize.forms.blocked import blocked
from edgepress.quantize.forms.dynamic import dynamic
from edgepress.quantize.forms.products import product
from edgepress.quantize.forms.recurrent import recurrent, recurrent_candidates
from edgepress.quantize.graph.regions import typed, units
from edgepress.quantize.storage.stored import storable, stored
from edgepress.quantize.storage.tables import share_transposed, table_candidates, tables
from edgepress.request import Request
from edgepress.targets import detect

Feed = dict[str, np.ndarray]
HERE = Path(__file__).resolve().parent
HEADS, LAYERS = 4, 4
ROWS, DEPTHS, UNITS = (1, 4, 16, 64), (64, 128, 256, 512), (16, 64, 128, 256)


# --- networks --------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention and feed-forward, each behind LayerNorm; keys and values of the past may come along."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        batch, time, width = y.shape
        q, k, v = (
            part(y).view(batch, time, HEADS, width // HEADS).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = q @ k.transpose(-1, -2) * (width // HEADS) ** -0.5
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Bert(nn.Module):
    """Tokens and positions, layers, a label for every token."""

    def __init__(self, width: int = 256, tokens: int = 2000, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Parameter(torch.randn(1, length, width))
        self.blocks, self.norm = nn.ModuleList(Block(width) for _ in range(LAYERS)), nn.LayerNorm(width)
        self.head = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(x) + self.places
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y))


class Vit(nn.Module):
    """Patches of a picture, layers, the mean."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.stem, self.places = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.randn(1, 64, width) * 0.3)
        self.blocks, self.norm = nn.ModuleList(Block(width) for _ in range(LAYERS)), nn.LayerNorm(width)
        self.head = nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y).mean(1))


class Decoder(nn.Module):
    """One step: one token, the keys and values of the ones before it, scores of the next by the table of tokens."""

    def __init__(self, width: int = 256, tokens: int = 2000) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(tokens, width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(LAYERS))

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        y = self.tokens(x)
        for place, block in enumerate(self.blocks):
            y = block(y, past[place])
        return self.norm(y) @ self.tokens.weight.T


class Tagger(nn.Module):
    """Tokens, a bidirectional LSTM, a linear layer at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.rnn = nn.Embedding(2000, 64), nn.LSTM(64, 128, bidirectional=True, batch_first=True)
        self.head = nn.Linear(256, 20)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(self.tokens(x))[0])
        return y


class Gru(nn.Module):
    """Two GRU layers over features, gains for them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(40, 128, num_layers=2, batch_first=True), nn.Linear(128, 40)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.head(self.rnn(x)[0]))


@dataclass(frozen=True)
class Net:
    """A network and how to make a feed of it."""

    make: Callable[[], nn.Module]
    feed: Callable[[np.random.Generator], Feed]


def _tokens(length: int) -> Callable[[np.random.Generator], Feed]:
    return lambda rng: {"x": rng.integers(0, 2000, (1, length))}


def _normal(*shape: int) -> Callable[[np.random.Generator], Feed]:
    return lambda rng: {"x": rng.standard_normal(shape).astype(np.float32)}


def _step(rng: np.random.Generator) -> Feed:
    past = rng.standard_normal((LAYERS, 2, 1, HEADS, 64, 64)).astype(np.float32)
    return {"x": rng.integers(0, 2000, (1, 1)), "past": past}


NETS = {
    "encoder, 64 tokens": Net(Bert, _tokens(64)),
    "vit, 64 patches": Net(Vit, _normal(1, 3, 32, 32)),
    "decoder, 1 token": Net(Decoder, _step),
    "lstm tagger, 50 steps": Net(Tagger, _tokens(50)),
    "gru, 100 steps": Net(Gru, _normal(1, 100, 40)),
}


def build(net: Net, feeds: list[Feed]) -> Model:
    """The network as edgepress sees it: exported, then normalized."""
    torch.manual_seed(0)
    arguments = tuple(torch.from_numpy(array) for array in feeds[0].values())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, module = Path(folder) / "net.onnx", net.make().eval()
        torch.onnx.export(module, arguments, path, dynamo=False, opset_version=17, input_names=list(feeds[0]))
        return normalize(Model.load(path), feeds[:1]).model


# --- forms -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """One feed."""

    inputs: Feed


@dataclass(frozen=True)
class Samples:
    """Feeds, one at a time, as ``observe`` reads them."""

    feeds: list[Feed]

    def chunks(self, size: int, /) -> Iterator[Chunk]:
        """One chunk for each feed, whatever the size asked for."""
        return (Chunk(feed) for feed in self.feeds)


def static(model: Model, feeds: list[Feed]) -> Model:
    """Int8 with fixed ranges."""
    settings, model = Quantization(), typed(model)
    seen = observe(model, Samples(feeds), activations_to_observe(model))
    weighted = [unit.node for unit in units(model) if unit.role is Role.WEIGHTED]
    rounded = {
        node.name: round_weights(model.constants[node.inputs[1]], output_axis(node.op, node.attributes), 127)
        for node in weighted
    }
    return quantize(model, ranges(seen, settings), rounded, settings, detect())


def rest(model: Model) -> Model:
    """Tables and weights of what is still float as int8, equal ones once."""
    gathered = [name for name, reason in table_candidates(model).items() if not reason]
    weights = [name for name, reason in storable(model).items() if not reason and name not in gathered]
    return share_transposed(tables(stored(model, weights), gathered))


def forms(model: Model, feeds: list[Feed]) -> dict[str, Model]:
    """Every form the network has, by name."""
    products = [node.name for node in model.nodes if not isinstance(product(model, node), str)]
    layers = [name for name, reason in recurrent_candidates(model).items() if not reason]
    made = {"float": model}
    try:
        made["static"] = rest(static(model, feeds))
    except EdgepressError as error:
        sys.stderr.write(f"static: {error}\n")
    made["dynamic"] = rest(dynamic(model, products))
    made["blocked"] = rest(blocked(model, products))
    if layers:
        made["lstm"] = rest(recurrent(model, layers))
        made["lstm + dynamic"] = rest(dynamic(recurrent(model, layers), products))
    made["stored"] = rest(model)
    return made


def noise(model: Model, other: Model, feeds: list[Feed]) -> float:
    """SQNR over all outputs and feeds, dB."""
    opened = runtime.session(model.data), runtime.session(other.data)
    signal = lost = 0.0
    for feed in feeds:
        wanted, found = (runtime.run(each, feed) for each in opened)
        signal += sum(float((values.astype(np.float64) ** 2).sum()) for values in wanted.values())
        lost += sum(float(((wanted[name] - found[name]).astype(np.float64) ** 2).sum()) for name in wanted)
    return float(10 * np.log10(signal / max(lost, 1e-30)))


def measure(name: str, net: Net, seconds: float) -> list[dict[str, Any]]:
    """One row for every form of a network."""
    rng = np.random.default_rng(0)
    feeds = [net.feed(rng) for _ in range(24)]
    model = build(net, feeds)
    made = forms(model, feeds[:16])
    timing = compare({key: each.data for key, each in made.items()}, feeds[16:], seconds=seconds, reference="float")
    return [
        {
            "net": name,
            "form": key,
            "ms": timing.latency(key).p50,
            **_ratio(timing.ratio(key)),
            "bytes": each.size,
            "size": each.size / model.size,
            "sqnr": None if key == "float" else noise(model, each, feeds[16:]),
            "operators": runtime.fused_operators(each.data),
            "unfused": unfused(each.data),
        }
        for key, each in made.items()
    ]


def _ratio(found: Ratio | None) -> dict[str, Any]:
    return {"ratio": None} if found is None else {"ratio": found.median, "low": found.low, "high": found.high}


# --- one layer at a time ---------------------------------------------------------------------------------


def chain(depth: int, rows: int) -> Model:
    """Eight products of depth x depth in a row."""
    rng = np.random.default_rng(depth)
    names = ["x", *(f"h{place}" for place in range(1, 8)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"p{i}") for i in range(8)]
    weights = [(rng.standard_normal((depth, depth)) * depth**-0.5).astype(np.float32) for _ in range(8)]
    return _model(nodes, {f"w{i}": values for i, values in enumerate(weights)}, [rows, depth], [rows, depth])


def layer(units: int) -> Model:
    """An LSTM of 30 steps with as many inputs as units."""
    rng = np.random.default_rng(units)
    weights = {
        name: (rng.standard_normal((1, 4 * units, units)) * units**-0.5).astype(np.float32) for name in ("w", "r")
    }
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="p0", hidden_size=units)
    return _model([node], weights, [30, 1, units], [30, 1, 1, units])


def _model(nodes: list[Any], weights: Mapping[str, np.ndarray], given: list[int], made: list[int]) -> Model:
    inputs, outputs = ([helper.make_tensor_value_info(name, 1, shape)] for name, shape in (("x", given), ("y", made)))
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, constants)
    return Model.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def layers(seconds: float) -> list[dict[str, Any]]:
    """Ratios of single layers."""
    rows = []
    for depth in DEPTHS:
        for count in ROWS:
            model = chain(depth, count)
            names = [node.name for node in model.nodes]
            made = {"float": model, "dynamic": dynamic(model, names), "blocked": blocked(model, names, min(128, depth))}
            timing = _timed(made, (count, depth), seconds)
            rows += [{"op": "MatMul", "rows": count, "depth": depth, "form": k, **_of(timing, k)} for k in made]
    for units_ in UNITS:
        model = layer(units_)
        made = {"float": model, "lstm": recurrent(model, ["p0"])}
        timing = _timed(made, (30, 1, units_), seconds)
        rows += [{"op": "LSTM", "rows": 30, "depth": units_, "form": key, **_of(timing, key)} for key in made]
    return rows


def _of(timing: Timing, key: str) -> dict[str, Any]:
    return {"ms": timing.latency(key).p50, **_ratio(timing.ratio(key))}


def _timed(made: Mapping[str, Model], shape: tuple[int, ...], seconds: float) -> Timing:
    feed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return compare({key: each.data for key, each in made.items()}, [feed], seconds=seconds, reference="float")


# --- the tool --------------------------------------------------------------------------------------------


SAMPLES = 64
"""What ``edgepress quantize`` is given."""


def tool(seconds: float) -> list[dict[str, Any]]:
    """What the tool makes of every network."""
    return [_quantized(name, net, seconds) for name, net in NETS.items()]


def _quantized(name: str, net: Net, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    feeds = [net.feed(rng) for _ in range(SAMPLES + 8)]
    model, load = build(net, feeds), describe().load_1m or 0.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "net.onnx").write_bytes(model.data)
        (place / "samples").mkdir()
        for number, feed in enumerate(feeds[:SAMPLES]):
            np.savez(place / "samples" / f"{number:03}.npz", **feed)  # type: ignore[arg-type]
        data, output = str(place / "samples"), place / "small.onnx"
        report = compress(Request(place / "net.onnx", output, data, prune=False, threads=1, bench_seconds=seconds))
        made = Model.load(output)
    both = {"float": model.data, "tool": made.data}
    timing = compare(both, feeds[SAMPLES:], seconds=seconds, reference="float")
    row = {
        "net": name,
        "form": report.taken.label,
        "ms": timing.latency("tool").p50,
        **_ratio(timing.ratio("tool")),
        "bytes": made.size,
        "size": made.size / model.size,
        "sqnr": noise(model, made, feeds[SAMPLES:]),
        "weighed": {item.label: item.ratio[1].median for item in report.variants if item.ratio},
        "operators": runtime.fused_operators(made.data),
        "load": load,
    }
    sys.stderr.write(f"{name}: {row['form']} {row['ratio']:.3f} {row['size']:.3f}\n")
    return row


# --- tables ----------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """The networks as Markdown."""
    lines = ["| network | form | ms | latency (95 %) | size | SQNR dB |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratio = "1" if row["ratio"] is None else f"{row['ratio']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
        loss = "" if row["sqnr"] is None else f"{row['sqnr']:.1f}"
        lines.append(f"| {row['net']} | {row['form']} | {row['ms']:.3f} | {ratio} | {row['size']:.3f} | {loss} |")
    left = [f"- {row['net']}, {row['form']}: {line}" for row in rows for line in row["unfused"]]
    left = ["", "Asked for, but not fused by onnxruntime:", "", *left] if left else []
    return "\n".join([*lines, *left]) + "\n"


def layer_table(rows: list[dict[str, Any]]) -> str:
    """The single layers as Markdown: latency as a share of float."""
    found = {(row["op"], row["form"], row["rows"], row["depth"]): row["ratio"] for row in rows}
    lines = ["| rows | " + " | ".join(f"K = {depth}" for depth in DEPTHS) + " |", "|" + "---|" * (1 + len(DEPTHS))]
    for count in ROWS:
        both = [[found["MatMul", form, count, depth] for form in ("dynamic", "blocked")] for depth in DEPTHS]
        lines.append(f"| {count} | " + " | ".join(f"{a:.2f} / {b:.2f}" for a, b in both) + " |")
    shares = ", ".join(f"{found['LSTM', 'lstm', 30, units]:.2f} with {units} units" for units in UNITS)
    return "Products, dynamic / blocked:\n\n" + "\n".join(lines) + f"\n\nDynamicQuantizeLSTM: {shares}.\n"


def tool_table(rows: list[dict[str, Any]]) -> str:
    """What the tool took, and what it weighed."""
    lines = ["| network | taken | latency (95 %) | size | SQNR dB | load | weighed |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        weighed = ", ".join(f"{label} {ratio:.2f}" for label, ratio in row["weighed"].items())
        ratio = f"{row['ratio']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
        middle = f"{row['size']:.3f} | {row['sqnr']:.1f} | {row['load']:.1f}"
        lines.append(f"| {row['net']} | {row['form']} | {ratio} | {middle} | {weighed} |")
    return "What `edgepress quantize` takes:\n\n" + "\n".join(lines) + "\n"


def page(found: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    machine, rows = found["machine"], found["networks"]
    loads = sorted(row["load"] for row in (*rows, *found["tool"]))
    where = f"{machine['cpu']}, {machine['cores']} cores, onnxruntime {machine['onnxruntime']}"
    where += f", load {loads[0]:.1f} to {loads[-1]:.1f}"
    head = f"# Transformers and recurrent networks\n\nLatency as a share of float, one thread ({where}).\n\n"
    return head + "\n".join([tool_table(found["tool"]), table(rows), layer_table(found["layers"])])


def networks(seconds: float) -> list[dict[str, Any]]:
    """Rows of every form of every network."""
    rows = []
    for name, net in NETS.items():
        load = describe().load_1m or 0.0
        found = [{**row, "load": load} for row in measure(name, net, seconds)]
        sys.stderr.write(table(found))
        rows += found
    return rows


def main() -> None:
    """Measure everything, or what is named, and write JSON and tables."""
    sections: dict[str, Callable[[float], list[dict[str, Any]]]] = {
        "networks": networks,
        "layers": lambda seconds: layers(seconds / 3),
        "tool": tool,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="timing per network; a third of it per layer")
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections), help="others stay as they are")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    kept = chosen.out / "transformers.json"
    found = json.loads(kept.read_text()) if set(chosen.only) != set(sections) else {}
    found |= {"machine": asdict(describe())} | {name: sections[name](chosen.seconds) for name in chosen.only}
    kept.write_text(json.dumps(found, indent=1) + "\n")
    (chosen.out / "transformers.md").write_text(page(found))
    sys.stdout.write(page(found))


if __name__ == "__main__":
    main()
