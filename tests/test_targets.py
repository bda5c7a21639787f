"""Targets: the record of a CPU is found by its flags, widths cost like staircases, every rule comes from the record."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_tools import CONV, kernel, parse

from edgepress import targets
from edgepress.errors import InputError
from edgepress.model import Model
from edgepress.quantize.activations.grids import grid_of, grids
from edgepress.quantize.activations.ranges import Range
from edgepress.quantize.graph.regions import int8_units, per_channel, stays_float, typed, units
from edgepress.quantize.graph.swish import swish_reason
from edgepress.targets import SOFTMAX, TARGETS, FixedGrid, Target, detect, find

few = settings(deadline=None, max_examples=60, derandomize=True)
EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
QNN, VNNI, DOTPROD = TARGETS["qnn"], TARGETS["x64-vnni"], TARGETS["arm64-dotprod"]


# --- which target this machine is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "system", "flags", "name"),
    [
        ("x86_64", "Linux", "avx2 fma", "x64-avx2"),
        ("x86_64", "Linux", "avx2 avx512f avx512bw", "x64-avx2"),
        ("x86_64", "Linux", "avx2 avx512f avx512_vnni", "x64-vnni"),
        ("x86_64", "Linux", "avx2 avx_vnni", "x64-vnni"),
        ("x86_64", "Darwin", "", "x64-avx2"),
        ("AMD64", "Windows", "", "x64-avx2"),
        ("aarch64", "Linux", "fp asimd asimddp", "arm64-dotprod"),
        ("aarch64", "Linux", "fp asimd crc32", "arm64-nodot"),
        ("arm64", "Darwin", "", "arm64-dotprod"),
        ("ARM64", "Windows", "", "arm64"),
    ],
)
def test_detect(
    machine: str, system: str, flags: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = "Features" if machine == "aarch64" else "flags"
    file = tmp_path / "cpuinfo"
    if flags:
        file.write_text(f"processor\t: 0\n{word}\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr("edgepress.targets.cpu.CPUINFO", file)
    assert detect() is TARGETS[name]
    assert find("auto") is TARGETS[name]


CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu avx2 avx512_vnni
vmx flags\t: vnmi
processor\t: 1
flags\t\t: fpu other
"""


def test_flags_are_those_of_the_first_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr("edgepress.targets.cpu.CPUINFO", file)
    assert targets.cpu_flags() == set()
    file.write_text("processor\t: 0\nvendor_id\t: x\n")
    assert targets.cpu_flags() == set()
    file.write_text("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimddp\n")
    assert targets.cpu_flags() == {"fp", "asimd"}
    file.write_text(CPUINFO)
    assert targets.cpu_flags() == {"fpu", "avx2", "avx512_vnni"}


def test_this_machine_has_a_target() -> None:
    assert detect() in TARGETS.values() and not detect().artifact


@pytest.mark.parametrize("name", TARGETS)
def test_find(name: str) -> None:
    assert find(name) is TARGETS[name]
    assert TARGETS[name].name == name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("", ""),
        ("riscv", ""),
        ("AUTO", r" \(did you mean auto\?\)"),
        ("x64-vnni ", r" \(did you mean x64-vnni"),
        ("arm64_dotprod", r" \(did you mean arm64-dotprod"),
        ("x64", r" \(did you mean x64-"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str, meant: str) -> None:
    known = "x64-vnni, x64-avx2, arm64, arm64-dotprod, arm64-nodot, qnn"
    with pytest.raises(InputError, match=rf"no target '{name}'{meant}.*: choose auto or one of {known}\.$") as caught:
        find(name)
    assert ("did you mean" in str(caught.value)) == bool(meant)


# --- staircases -------------------------------------------------------------------------------------------------------


ANY = st.sampled_from(
    [*TARGETS.values(), Target("a", 1, 1, 1.0, 127), Target("b", 4, 32, 0.0, 64), Target("c", 8, 16, 0.5, 127)]
)


@few
@given(ANY, st.integers(0, 600))
def test_more_channels_never_cost_less(target: Target, channels: int) -> None:
    assert target.effective_width(channels) <= target.effective_width(channels + 1)
    assert target.effective_width(channels) >= channels - 1e-9
    assert target.effective_width(channels) < channels + target.block


@few
@given(ANY, st.integers(0, 40))
def test_whole_blocks_cost_what_they_are(target: Target, blocks: int) -> None:
    assert target.effective_width(blocks * target.block) == pytest.approx(blocks * target.block)


def test_the_staircase_by_hand() -> None:
    wanted = [0.65 * 16 + 0.35 * 8, 16, 0.65 * 32 + 0.35 * 24, 32]
    assert np.allclose([VNNI.effective_width(n) for n in (8, 16, 24, 32)], wanted)
    assert VNNI.effective_width(17) == VNNI.effective_width(24)
    assert [DOTPROD.effective_width(n) for n in (8, 17, 24, 68)] == [8, 24, 24, 72]
    assert [QNN.effective_width(n) for n in (8, 33)] == [32, 64]
    pure, linear = Target("pure", 4, 16, 0.0, 127), Target("linear", 4, 16, 1.0, 127)
    assert [pure.effective_width(n) for n in (1, 16, 17)] == [16, 16, 32]
    assert [linear.effective_width(n) for n in (1, 16, 17)] == [4, 16, 20]


# --- records ----------------------------------------------------------------------------------------------------------


@EVERY
def test_records_are_sensible(target: Target) -> None:
    assert target.block % target.multiple == 0 and 0 <= target.slope <= 1
    assert target.weight_limit in (64, 127)
    assert target.activation_bits[0] == 8 and set(target.activation_bits) <= {8, 16}
    assert target.artifact == target.whole == (target.family == "qnn")  # what must run anywhere is no artifact
    assert target.artifact or target.activation_bits == (8,)  # 16 bits run in float on a CPU
    assert SOFTMAX in target.fixed_grids
    assert target.timed_on(target) != target.artifact
    assert not target.timed_on(VNNI) or target.family == "x64"
    for grid in target.fixed_grids:
        assert grid.bits in target.activation_bits and target.fixed_grid(grid.op, grid.bits) is grid
        assert 0 <= grid.zero < 1 << grid.bits


def test_pairs_of_products_fit_16_bits_without_vnni() -> None:
    limit = TARGETS["x64-avx2"].weight_limit
    assert 2 * 255 * limit <= 32_767 < 2 * 255 * (limit + 1)


def test_unknown_arm_suits_both_kinds() -> None:
    unknown, kinds = TARGETS["arm64"], (DOTPROD, TARGETS["arm64-nodot"])
    assert all(unknown.multiple % kind.multiple == 0 for kind in kinds)
    assert unknown.weight_limit == min(kind.weight_limit for kind in kinds)
    for name in ("gemm_floor", "group_floor", "stem_multiple"):
        assert getattr(unknown, name) == max(getattr(kind, name) for kind in kinds), name
    assert unknown.swish_pays == all(kind.swish_pays for kind in kinds)


def test_required_grids_of_qnn() -> None:
    assert QNN.fixed_grid("Sigmoid", 16) == FixedGrid("Sigmoid", 16, 2**-16, 0)
    assert QNN.fixed_grid("Tanh", 16) == FixedGrid("Tanh", 16, 2**-15, 32_768)
    assert QNN.fixed_grid("Softmax", 16) is None is VNNI.fixed_grid("Sigmoid")


# --- rules: what stays float, per target ------------------------------------------------------------------------------


def stem(channels: int) -> Model:
    return parse(f"y = {CONV}(x, w)", x=f"N,{channels},14,14", w=kernel(16, channels, 3, 3))


def grouped(groups: int) -> Model:
    body = f"h = Relu(x) y = Conv<kernel_shape=[3,3], group={groups}>(h, w)"
    return parse(body, x="N,64,14,14", w=kernel(64, 64 // groups, 3, 3))


def head(rows: int, width: int) -> Model:
    return parse("y = Gemm(x, w)", x=f"{rows},{width}", outputs="float[M,K] y", w=kernel(width, width))


MODELS = {
    "stem of 3": stem(3),
    "stem of 4": stem(4),
    "32 a group": grouped(2),
    "16 a group": grouped(4),
    "8 a group": grouped(8),
    "depthwise": grouped(64),
    "Gemm of 4 k": head(1, 64),
    "Gemm of 65 k": head(1, 256),
    "Gemm of 262 k": head(1, 512),
    "Gemm of 524 k": head(8, 256),
}
FLOAT = {
    "x64-vnni": {"stem of 3", "16 a group", "8 a group", "Gemm of 4 k"},
    "x64-avx2": {"stem of 3", "16 a group", "8 a group", "Gemm of 4 k"},
    "arm64": {"stem of 3", "8 a group", "Gemm of 4 k", "Gemm of 65 k", "Gemm of 262 k"},
    "arm64-dotprod": {"stem of 3", "8 a group", "Gemm of 4 k", "Gemm of 65 k"},
    "arm64-nodot": {"stem of 3", "8 a group", "Gemm of 4 k", "Gemm of 65 k", "Gemm of 262 k"},
    "qnn": set(),
}


@EVERY
@pytest.mark.parametrize("name", MODELS)
def test_what_stays_float(target: Target, name: str) -> None:
    reasons = stays_float(MODELS[name], target)
    assert bool(reasons) == (name in FLOAT[target.name]), reasons


@EVERY
def test_what_no_kernel_takes_stays_float_on_every_target(target: Target) -> None:
    model = parse("h = Gemm<alpha=0.5>(x, w) y = MatMul(h, h)", x="64,64", outputs="float[A,B] y", w=kernel(64, 64))
    assert list(stays_float(model, target).values()) == [
        "it scales or transposes its input",
        "its weights or bias are computed, not constant",
    ]


@EVERY
def test_scales_per_channel(target: Target) -> None:
    model = parse(
        f"h = {CONV}(x, w) m = MatMul(h, v) f = Flatten(m) y = Gemm(f, u)",
        outputs="float[N,M] y", w=kernel(16, 16, 3, 3), v=kernel(14, 14), u=kernel(3136, 4),
    )  # fmt: skip
    found = {node.op: per_channel(node, target) for node in model.nodes if node.op != "Flatten"}
    assert found == {"Conv": True, "MatMul": not target.whole, "Gemm": not target.whole}


SWISH = {
    "HardSwish": "s = HardSwish(h)",
    "SiLU": "g = Sigmoid(h) s = Mul(h, g)",
    "HardSwish as two": "g = HardSigmoid(h) s = Mul(g, h)",
}


@EVERY
@pytest.mark.parametrize("form", SWISH)
def test_networks_of_swish_are_slower_in_int8_on_x64(target: Target, form: str) -> None:
    model = parse(f"h = {CONV}(x, w) {SWISH[form]} y = {CONV}(s, v)", w=kernel(16, 16, 3, 3), v=kernel(16, 16, 3, 3))
    reason = swish_reason(model, target)
    assert (f"1 HardSwish or SiLU behind 2 convolutions: int8 is slower than float on {target.name}" == reason) == (
        target.family == "x64"
    )
    assert bool(reason) == (target.family == "x64")


@pytest.mark.parametrize("gate", ["g = Sigmoid(x) s = Mul(h, g)", "s = Relu(h)", "s = Sigmoid(h)"])
def test_other_gates_are_no_swish(gate: str) -> None:
    model = parse(f"h = {CONV}(x, w) {gate} y = {CONV}(s, w)", w=kernel(16, 16, 3, 3))
    assert swish_reason(model, VNNI) == ""
    assert swish_reason(parse("y = HardSwish(x)"), VNNI) == ""


# --- targets that want everything quantized ---------------------------------------------------------------------------


def whole_network() -> Model:
    return typed(
        parse(
            f"a = {CONV}(x, w) r = Relu(a) t = Tanh(r) c = Add(t, k) s = Sub(c, x) h = Sigmoid(s)"
            " p = GlobalAveragePool(h) f = Flatten(p) y = Gemm(f, u)",
            x="1,16,14,14",
            outputs="float[N,M] y",
            w=kernel(16, 16, 3, 3),
            u=kernel(16, 4),
            arrays={"k": np.array([[[[-0.5]]]])},
        )
    )


def int8(model: Model, target: Target | None) -> set[str]:
    weighted = [node.name for node in model.nodes if node.op in ("Conv", "Gemm")]
    return {name.split("/")[-1].split(".")[0] for name in int8_units(model, weighted, target=target)}


def test_everything_runs_in_int8_where_the_target_wants_it() -> None:
    model = whole_network()
    everything = {"Conv", "Tanh", "Add", "Sub", "Sigmoid", "GlobalAveragePool", "Flatten", "Gemm"}
    assert int8(model, QNN) == everything
    assert int8(model, VNNI) == int8(model, None) < everything - {"Tanh", "Sub", "Add"}
    assert "/net/Conv.0" not in int8_units(model, [], target=QNN)  # without int8 weights it cannot


def test_what_cannot_carry_a_grid_stays_float_there_too() -> None:
    model = whole_network()
    assert "/net/Sub.4" not in int8_units(model, [], ["s"], QNN)


def test_bool_and_integer_tensors_stay_float_there_too() -> None:
    model = parse("s = Shape(x) t = Sub(s, s) y = Reshape(x, s)", x="1,2,3,4")
    assert [unit.closed for unit in units(typed(model), QNN)] == [False, False, True]


@pytest.mark.parametrize("bits", QNN.activation_bits)
def test_grids_where_everything_is_quantized(bits: int) -> None:
    model, top = whole_network(), (1 << bits) - 1
    names = {node.name for node in model.nodes if node.op in ("Conv", "Gemm")}
    inside, found = int8_units(model, names, target=QNN), units(model, QNN)
    seen = {name: Range(-1.0, 3.0) for name in ("x", "r", "c", "s", "p", "y")}
    made = grids(model, found, inside, seen, {}, fixed=QNN.fixed_grids, bits=bits)
    assert set(made) == {"x", "r", "t", "k", "c", "s", "h", "p", "f", "y"}  # the Gemm's result too
    assert {grid.bits for grid in made.values()} == {bits}
    assert {grid.dtype for grid in made.values()} == {np.uint8 if bits == 8 else np.uint16}
    assert made["x"] == grid_of(Range(-1.0, 3.0), bits=bits)
    assert made["x"].scale == np.float32(4 / top) and made["x"].zero == round(top / 4)
    assert made["k"] == grid_of(Range(-0.5, -0.5), bits=bits)  # a constant's own range
    assert made["h"].scale == np.float32(2.0**-bits) and made["h"].zero == 0
    assert made["t"].scale == np.float32(2.0 ** (1 - bits)) and made["t"].zero == 1 << (bits - 1)


def test_grids_of_cpus_are_read_off_the_samples_but_for_softmax() -> None:
    model = typed(parse("h = Softmax(x) s = Sigmoid(h) y = Conv<kernel_shape=[1,1]>(s, w)", w=kernel(16, 16, 1, 1)))
    conv, sigmoid = model.nodes[2].name, model.nodes[1].name
    made = grids(model, units(model), {conv, sigmoid}, {"s": Range(0.4, 0.8), "y": Range(0, 1)}, {})
    assert (made["h"].scale, made["h"].zero) == (np.float32(1 / 256), 0)
    assert made["s"] == grid_of(Range(0.4, 0.8))
