"""Targets: the record of a CPU is found by its flags, and widths cost like staircases."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress import targets
from edgepress.errors import InputError
from edgepress.targets import TARGETS, Target, detect, find

few = settings(deadline=None, max_examples=60, derandomize=True)


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", {"avx2", "fma"}, "x64-avx2"),
        ("x86_64", {"avx2", "avx512f", "avx512bw"}, "x64-avx2"),
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, "x64-vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "x64-vnni"),
        ("AMD64", set(), "x64-avx2"),
        ("aarch64", {"asimd", "asimddp"}, "arm64"),
        ("arm64", set(), "arm64"),
        ("ARM64", set(), "arm64"),
    ],
)
def test_detect(machine: str, flags: set[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(targets, "cpu_flags", lambda: flags)
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
    monkeypatch.setattr(targets, "Path", lambda _: file)
    assert targets.cpu_flags() == set()
    file.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert targets.cpu_flags() == set()
    file.write_text(CPUINFO)
    assert targets.cpu_flags() == {"fpu", "avx2", "avx512_vnni"}


def test_this_machine_has_a_target() -> None:
    assert detect() in TARGETS.values()


@pytest.mark.parametrize("name", TARGETS)
def test_find(name: str) -> None:
    assert find(name) is TARGETS[name]
    assert TARGETS[name].name == name


@pytest.mark.parametrize("name", ["", "x64", "AUTO", "x64-vnni "])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"choose auto or one of x64-vnni, x64-avx2, arm64\."):
        find(name)


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
    vnni = TARGETS["x64-vnni"]
    wanted = [0.65 * 16 + 0.35 * 8, 16, 0.65 * 32 + 0.35 * 24, 32]
    assert np.allclose([vnni.effective_width(n) for n in (8, 16, 24, 32)], wanted)
    assert vnni.effective_width(17) == vnni.effective_width(24)
    pure, linear = Target("pure", 4, 16, 0.0, 127), Target("linear", 4, 16, 1.0, 127)
    assert [pure.effective_width(n) for n in (1, 16, 17)] == [16, 16, 32]
    assert [linear.effective_width(n) for n in (1, 16, 17)] == [4, 16, 20]


def test_records_are_sensible() -> None:
    for target in TARGETS.values():
        assert target.block % target.multiple == 0
        assert target.weight_limit in (64, 127)
        assert 0 <= target.slope <= 1
    assert 2 * 255 * TARGETS["x64-avx2"].weight_limit <= 32_767  # pairs of products are added in 16 bits there
