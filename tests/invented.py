"""An invented report: every field filled, numbers that cannot be mistaken for each other."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgepress.bench import Latency, Machine, Ratio
from edgepress.errors import Refusal
from edgepress.report import CLEANED, ORIGINAL, PLAIN_INT8, LayerRow, Quality, Report, StageRow, Variant
from edgepress.report.verdict import sentence

MACHINE = Machine(
    "Invented CPU 9000", 4, "performance", 3100.5, 0.25, "1.31.1", "2.4.2", "3.11.9", "Linux 6 x86_64", True
)


def quality(**changes: Any) -> Quality:
    base = Quality(
        measure="accuracy", samples=10761, before=83.70, after=83.40, drop=0.30, low=-0.02, high=0.62, agreement=97.1,
        kl=0.0042, sqnr_db=21.3, state="probably within", settle_samples=28000, limit=0.50, source="hold-out",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def times(name: str, p50: float, rounds: int = 200) -> Latency:
    return Latency(name, p50, p50 * 1.1, p50 * 1.7, 12.5, p50 * 3, rounds)


def ratio(name: str, median: float, low: float, high: float, noise: Any = "faster") -> Ratio:
    return Ratio(name, ORIGINAL, median, low, high, noise)


def variants() -> tuple[Variant, ...]:
    original = Variant(
        ORIGINAL,
        "original",
        1_116_000,
        40_800_000,
        269_034,
        None,
        {1: times(ORIGINAL, 0.412)},
        {},
        {"Conv": 19},
        "kept",
    )
    plain = Variant(
        PLAIN_INT8, "plain int8", 344_000, 40_800_000, 269_034, quality(after=83.66, drop=0.04, low=-0.1, high=0.2),
        {1: times(PLAIN_INT8, 0.193)}, {1: ratio(PLAIN_INT8, 0.465, 0.46, 0.47)}, {"QLinearConv": 19}, "slower",
    )  # fmt: skip
    best = Variant(
        "pruned-int8", "pruned int8", 202_000, 27_900_000, 181_250, quality(), {1: times("pruned-int8", 0.1717)},
        {1: ratio("pruned-int8", 1 / 2.40, 1 / 2.41, 1 / 2.38)}, {"QLinearConv": 18, "Gemm": 1}, "written",
    )  # fmt: skip
    return original, plain, best


def report(**changes: Any) -> Report:
    original, plain, best = variants()
    base = Report(
        model="resnet20.onnx", output="resnet20.edge.onnx", variants=(original, plain, best), chosen="pruned-int8",
        verdict=sentence(original, best), budgets={"mac_ratio": None, "speedup": 2.0},
        layers=(
            LayerRow("conv1", "Conv", 16, 16, "float32", "3 input channels"),
            LayerRow("layer1.0.conv1", "Conv", 16, 8, "int8", "", 3.5, 11, 1152, 620, 0.31, 0.004, 0.017, 19.4),
            LayerRow("linear", "Gemm", 10, 10, "float32", "1.08 times slower in int8",
                     8.0, 255, 640, 680, 0.34, 0.002, 0.003, 31.0),
        ),
        weight_bits=5.107,
        refusals=(
            *(Refusal(f"layer{n}", "shares a residual sum with its neighbors") for n in range(1, 10)),
            Refusal("linear", "its outputs are the answer of the model"),
        ),
        notes=("The clock was not fixed.",),
        stages=(StageRow("read", 0.04, 120.5, "19 Conv + 1 Gemm"), StageRow("verify", 3.2, 300.0, "200 rounds")),
        machine=MACHINE, data={"source": "c.npz", "fit": 512, "hold_out": 10761, "labelled": True},
        plan="resnet20.edge.plan.json", command="edgepress compress resnet20.onnx --data c.npz",
        next="edgepress bench resnet20.onnx resnet20.edge.onnx", versions={"edgepress": "0.1.0"}, seed=7, threads=(1,),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def nothing_won() -> Report:
    """The honest outcome: only the cleaned fp32 model was within the limit."""
    original, plain, _ = variants()
    cleaned = dataclasses.replace(
        original, name=CLEANED, label="cleaned fp32", file_bytes=1_090_000,
        latency={1: times(CLEANED, 0.411)}, ratio={1: ratio(CLEANED, 0.998, 0.98, 1.01, "no difference")},
    )  # fmt: skip
    return report(
        variants=(original, plain, cleaned),
        chosen=CLEANED,
        verdict=sentence(original, cleaned),
        layers=(),
        weight_bits=None,
    )
