"""Emulated cores and the counting of instructions, as far as no emulator is needed."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgepress.devices import Agent, open_device
from edgepress.devices.counting import CLASSES, Counts, counts
from edgepress.devices.counting.blocks import length, runs_in
from edgepress.devices.counting.classes import NAMES, ROWS, class_of, header
from edgepress.devices.counting.cycles import COVERED, estimates, hot
from edgepress.devices.counting.marks import CYCLE, PREFIX, RUNS, counts_in
from edgepress.devices.counting.pipeline import Pipeline, pipeline, words
from edgepress.devices.emulated import Emulated, Place
from edgepress.devices.emulated_cores import CORES, PROCESSORS, Crash, core_name, cpuinfo
from edgepress.devices.local import Local
from edgepress.errors import DeviceError

# --- classes --------------------------------------------------------------------------------------------------------

ENCODED = [
    (0x4E22CC20, "fp_fma"),  # fmla v0.4s, v1.4s, v2.4s
    (0x4EE5CC83, "fp_fma"),  # fmls v3.2d, v4.2d, v5.2d
    (0x4E420C20, "fp_fma"),  # fmla v0.8h, v1.8h, v2.8h
    (0x4FA01890, "fp_fma"),  # fmla v16.4s, v4.4s, v0.s[3]
    (0x4FC05890, "fp_fma"),  # fmls v16.2d, v4.2d, v0.d[1]
    (0x4F301890, "fp_fma"),  # fmla v16.8h, v4.8h, v0.h[7]
    (0x1F020C20, "simd_other"),  # fmadd s0, s1, s2, s3: one lane
    (0x6E22DC20, "simd_other"),  # fmul v0.4s, v1.4s, v2.4s
    (0x4E829420, "int_dot"),  # sdot v0.4s, v1.16b, v2.16b
    (0x2E809500, "int_dot"),  # udot v0.2s, v8.8b, v0.8b
    (0x4FA0E090, "int_dot"),  # sdot v16.4s, v4.16b, v0.4b[1]
    (0x6FA0E890, "int_dot"),  # udot v16.4s, v4.16b, v0.4b[3]
    (0x4E829C20, "int_dot"),  # usdot v0.4s, v1.16b, v2.16b
    (0x4F82F020, "int_dot"),  # usdot v0.4s, v1.16b, v2.4b[0]
    (0x4F02F820, "int_dot"),  # sudot v0.4s, v1.16b, v2.4b[2]
    (0x4E82A420, "int_mmla"),  # smmla v0.4s, v1.16b, v2.16b
    (0x6E82A420, "int_mmla"),  # ummla v0.4s, v1.16b, v2.16b
    (0x4E82AC20, "int_mmla"),  # usmmla v0.4s, v1.16b, v2.16b
    (0x4F62F020, "simd_other"),  # bfdot v0.4s, v1.8h, v2.2h[1]
    (0x0E628020, "int_widen_mla"),  # smlal v0.4s, v1.4h, v2.4h
    (0x6E228020, "int_widen_mla"),  # umlal2 v0.8h, v1.16b, v2.16b
    (0x0E22C020, "int_widen_mla"),  # smull v0.8h, v1.8b, v2.8b
    (0x6E62C020, "int_widen_mla"),  # umull2 v0.4s, v1.8h, v2.8h
    (0x0F722020, "int_widen_mla"),  # smlal v0.4s, v1.4h, v2.h[3]
    (0x2F42A020, "int_widen_mla"),  # umull v0.4s, v1.4h, v2.h[0]
    (0x4E606820, "int_widen_mla"),  # sadalp v0.4s, v1.8h
    (0x6EA06820, "int_widen_mla"),  # uadalp v0.2d, v1.4s
    (0x4EA29420, "simd_other"),  # mla v0.4s, v1.4s, v2.4s
    (0x4F00E400, "simd_other"),  # movi v0.16b, #0
    (0x1E380020, "simd_other"),  # fcvtzs w0, s1
    (0x4E040C20, "simd_other"),  # dup v0.4s, w1
    (0x04A20020, "sve_sme"),  # add z0.s, z1.s, z2.s
    (0x4CDFA800, "ld_vec"),  # ld1 {v0.4s, v1.4s}, [x0], #32
    (0x4D40C800, "ld_vec"),  # ld1r {v0.4s}, [x0]
    (0x4C007020, "st_vec"),  # st1 {v0.16b}, [x1]
    (0x4D008020, "st_vec"),  # st1 {v0.s}[2], [x1]
    (0xAD410440, "ld_vec"),  # ldp q0, q1, [x2, #32]
    (0x6DBC27E8, "st_vec"),  # stp d8, d9, [sp, #-64]!
    (0x3CC10420, "ld_vec"),  # ldr q0, [x1], #16
    (0x3CA26820, "st_vec"),  # str q0, [x1, x2]
    (0xBC5FC020, "ld_vec"),  # ldur s0, [x1, #-4]
    (0x3C1FF020, "st_vec"),  # stur b0, [x1, #-1]
    (0x5C000200, "ld_vec"),  # ldr d0, #64
    (0x58000200, "ld_int"),  # ldr x0, #64
    (0xA8C17BFD, "ld_int"),  # ldp x29, x30, [sp], #16
    (0xA9BF7BFD, "st_int"),  # stp x29, x30, [sp, #-16]!
    (0x69400440, "ld_int"),  # ldpsw x0, x1, [x2]
    (0xB8627820, "ld_int"),  # ldr w0, [x1, x2, lsl #2]
    (0x39800020, "ld_int"),  # ldrsb x0, [x1]
    (0xB9800420, "ld_int"),  # ldrsw x0, [x1, #4]
    (0xF9000420, "st_int"),  # str x0, [x1, #8]
    (0x39000020, "st_int"),  # strb w0, [x1]
    (0xF9800000, "ld_int"),  # prfm pldl1keep, [x0]
    (0xC85F7C20, "ld_int"),  # ldxr x0, [x1]
    (0xC8027C20, "st_int"),  # stxr w2, x0, [x1]
    (0xC8DFFC20, "ld_int"),  # ldar x0, [x1]
    (0x889FFC20, "st_int"),  # stlr w0, [x1]
    (0xB8200041, "ld_int"),  # ldadd w0, w1, [x2]
    (0xF8E08041, "ld_int"),  # swpal x0, x1, [x2]
    (0xF8BFC020, "ld_int"),  # ldapr x0, [x1]
    (0x99004020, "st_int"),  # stlur w0, [x1, #4]
    (0x99404020, "ld_int"),  # ldapur w0, [x1, #4]
    (0x14000004, "branch"),  # b #16
    (0x94000004, "branch"),  # bl #16
    (0x54FFFF81, "branch"),  # b.ne #-16
    (0xB4000040, "branch"),  # cbz x0, #8
    (0x37180040, "branch"),  # tbnz w0, #3, #8
    (0xD65F03C0, "branch"),  # ret
    (0xD63F0060, "branch"),  # blr x3
    (0xD4000001, "branch"),  # svc #0
    (0xD5033BBF, "branch"),  # dmb ish
    (0xD53BD040, "branch"),  # mrs x0, tpidr_el0
    (0x8B020020, "int_other"),  # add x0, x1, x2
    (0x91001020, "int_other"),  # add x0, x1, #4
    (0x9B020C20, "int_other"),  # madd x0, x1, x2, x3
    (0xD37DF020, "int_other"),  # lsl x0, x1, #3
    (0xB0000000, "int_other"),  # adrp x0, #4096
    (0x9A820020, "int_other"),  # csel x0, x1, x2, eq
    (0xD2800020, "int_other"),  # mov x0, #1
]
"""Written by hand from the manual, and as LLVM's assembler has them."""


def test_instructions_are_of_the_class_that_the_manual_says() -> None:
    assert [(word, class_of(word)) for word, _ in ENCODED] == ENCODED


def test_every_row_is_needed_and_every_pattern_is_whole() -> None:
    assert {len(row.pattern.replace(" ", "")) for row in ROWS} == {32}
    assert {row.name for row in ROWS} == set(NAMES)
    for number, row in enumerate(ROWS):
        assert not any(
            row.mask & above.mask == above.mask and row.value & above.mask == above.value for above in ROWS[:number]
        ), f"{row.what} is never reached"


def test_counts_have_all_classes() -> None:
    assert CLASSES == NAMES


HARNESS = """
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include "classes.h"
int main(void) {
    uint32_t word;
    while (scanf("%" SCNx32, &word) == 1) {
        int row = 0;
        while ((word & ROWS[row].mask) != ROWS[row].value)
            row++;
        puts(NAMES[ROWS[row].class]);
    }
}
"""


def test_the_header_says_the_same(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "classes.h").write_text(header())
    (tmp_path / "main.c").write_text(HARNESS)
    subprocess.run([compiler, "-Wall", "-Werror", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    numbers = random.Random(0)
    given = [word for word, _ in ENCODED] + [numbers.getrandbits(32) for _ in range(2000)]
    text = "\n".join(f"{word:x}" for word in given)
    told = subprocess.run([tmp_path / "main"], input=text, capture_output=True, text=True, check=True).stdout.split()
    assert told == [class_of(word) for word in given]


# --- marks ----------------------------------------------------------------------------------------------------------


def line(mark: int, **classes: int) -> str:
    rows = ", ".join(f'"{name}": {classes.get(name, 0)}' for name in NAMES)
    return f'{PREFIX}{{"mark": {mark}, {rows}}}'


def test_the_run_with_the_fewest_instructions_counts() -> None:
    lines = [
        "a warning",
        line(0, fp_fma=5, branch=9),
        line(0, fp_fma=5, branch=2),
        line(1, ld_int=1),
        line(1, ld_int=1),
    ]
    found = counts_in("\n".join(lines), ["a", "b"])
    assert RUNS == 2
    assert (found["a"].total, found["a"].fp_fma, found["a"].branch, found["a"].ld_int) == (7, 5, 2, 0)
    assert found["b"] == Counts(1, *(int(name == "ld_int") for name in CLASSES))


def test_more_models_than_marks_have_numbers() -> None:
    names = [str(number) for number in range(CYCLE + 2)]
    text = "\n".join(line(number % CYCLE, branch=number) for number in range(len(names)) for _ in range(RUNS))
    assert [found.total for found in counts_in(text, names).values()] == list(range(len(names)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        line(0),
        "\n".join([line(0), line(0), line(1)]),
        "\n".join([line(1), line(1), line(0), line(0)]),
        "\n".join([line(0)] * 2 + [line(1)] * 2 + [line(2)] * 2),
    ],
)
def test_a_run_that_was_not_seen_is_no_count(text: str) -> None:
    with pytest.raises(DeviceError, match=r"counted \d runs instead of 4.*setup"):
        counts_in(text, ["a", "b"])


@pytest.mark.parametrize("text", [f'{PREFIX}{{"mark": 0}}', f"{PREFIX}[]", f"{PREFIX}{{", f'{PREFIX}{{"fp_fma": 1}}'])
def test_a_line_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="another version"):
        counts_in("\n".join([text] * RUNS), ["a"])


# --- blocks and cycles ----------------------------------------------------------------------------------------------

ADD, LOAD, RETURN = "8b020020", "f9400020", "d65f03c0"
BLOCKS = f"""mark 0
block 7 {ADD}{RETURN}
7 10
block 9 {LOAD}
9 5
mark 0
7 8
9 5
block 11 {LOAD}
11 1
"""


def test_blocks_of_the_same_instructions_are_added_up() -> None:
    (run,) = runs_in(BLOCKS, 1)
    assert run == {ADD + RETURN: 8, LOAD: 6}
    assert (length(ADD + RETURN), words(ADD + RETURN)) == (2, [ADD, RETURN])


@pytest.mark.parametrize("text", ["mark 0\n7 8\nmark 0\n", "mark x\n", "7 8\n", "mark 0\nblock 7\n", "mark\n", "\n"])
def test_blocks_of_another_version_are_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="set it up anew"):
        runs_in(text, 1)


def test_missing_blocks_are_refused() -> None:
    with pytest.raises(DeviceError, match="counted 2 runs instead of 4"):
        runs_in(BLOCKS, 2)


class Known(Pipeline):
    """A simulator that knows two blocks."""

    def cycles(self, blocks: object) -> dict[str, float]:
        return {ADD + RETURN: 1.5, LOAD: 4.0}


def test_cycles_are_those_of_the_blocks_and_the_rest_is_as_fast() -> None:
    simulator = Known(Path(), Path(), "19", "cortex-a53")
    (found,) = estimates([{ADD + RETURN: 100, LOAD: 50, RETURN: 1}], simulator)
    assert found.instructions == 251 and found.covered == pytest.approx(250 / 251)
    assert found.cycles == pytest.approx((150 + 200) * 251 / 250)
    assert found.model == "llvm-mca 19, cortex-a53"


def test_cycles_of_no_block_at_all_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"llvm-mca 19, cortex-a53 simulated none .*another version of LLVM"):
        estimates([{RETURN: 3}], Known(Path(), Path(), "19", "cortex-a53"))


def test_the_hottest_blocks_come_first_until_enough_is_covered() -> None:
    run = {ADD: 96, LOAD: 1, RETURN: 1, ADD + LOAD: 1, LOAD + ADD: 1}  # 102 instructions
    assert hot(run)[0] == ADD
    assert sum(run[block] * length(block) for block in hot(run)) >= COVERED * 102
    assert hot(run) == [ADD, ADD + LOAD, LOAD + ADD][: len(hot(run))] and len(hot(run)) < len(run)


def program(folder: Path, name: str, text: str) -> None:
    place = folder / name
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)


def test_the_newest_simulator_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for suffix, version in (("", "14.0.6"), ("-19", "19.1.7"), ("-20", "20.1.2"), ("-9", "9.0.0")):
        program(tmp_path, f"llvm-mca{suffix}", f"echo 'Debian LLVM version {version}'")
        if suffix != "-20":  # of which one program is missing
            program(tmp_path, f"llvm-mc{suffix}", "true")
    assert pipeline("cortex-a53").name == "llvm-mca 19.1.7, cortex-a53"


def test_no_simulator_or_an_old_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="there is no llvm-mca: install LLVM 19"):
        pipeline("cortex-a53")
    program(tmp_path, "llvm-mca", "echo 'LLVM version 14.0.6'")
    program(tmp_path, "llvm-mc", "true")
    with pytest.raises(DeviceError, match=r"14\.0\.6 is too old"):
        pipeline("cortex-a53")


def test_a_simulator_that_fails_is_told(tmp_path: Path) -> None:
    program(tmp_path, "mca", "echo 'error: no such core' >&2; exit 1")
    with pytest.raises(DeviceError, match="no such core"):
        Pipeline(tmp_path / "mca", tmp_path / "mca", "19", "x").cycles([ADD])


def test_cycles_of_blocks_are_what_llvm_says() -> None:
    try:
        simulator = pipeline("cortex-a53")
    except DeviceError as error:
        pytest.skip(str(error))
    four, eight = "0e22c020" * 4, "8b020020" * 8  # umull after umull; add x0, x1, x2
    found = simulator.cycles([four, eight, "00000000"])
    assert set(found) == {four, eight}  # zeros are no instruction
    assert found[eight] == pytest.approx(4, abs=0.2)  # two a cycle
    assert simulator.cycles([eight]) == {eight: found[eight]}


# --- the device -----------------------------------------------------------------------------------------------------


def made_up(folder: Path, script: str = 'shift 6; exec "$@"') -> Path:
    """A folder that looks set up, with a shell script in the place of qemu."""
    for part in ("host/usr/bin", "host/usr/lib/x86_64-linux-gnu", "root/usr/bin", "site", "plugins"):
        (folder / part).mkdir(parents=True)
    program(folder / "host/usr/bin", "qemu-aarch64", script)
    program(folder / "root/usr/bin", "python3.11", 'echo "python $@"')
    for name in CORES:
        (folder / "cores" / name).mkdir(parents=True)
    return folder


def test_a_core_is_a_command_line_and_an_environment(tmp_path: Path) -> None:
    made_up(tmp_path)
    with open_device(f"emulated://a53?folder={tmp_path}") as device:
        assert isinstance(device, Emulated) and device.level == "counted" and device.python is not None
        qemu, *rest = device.python
        assert qemu == str(tmp_path / "host/usr/bin/qemu-aarch64")
        view, python = str(tmp_path / "cores/cortex-a53"), str(tmp_path / "root/usr/bin/python3.11")
        assert rest == ["-U", "LD_LIBRARY_PATH", "-L", view, "-cpu", "cortex-a53", python]
        assert device.environment is not None and device.environment["PYTHONPATH"] == str(tmp_path / "site")
        assert "HOME" not in device.environment
        assert device.run([*device.python, "x"]).stdout == b"python x\n"


def test_a_plugin_is_named_so_that_qemu_understands(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "a,b")
    (folder / "plugins" / "classes.so").write_bytes(b"")
    with Emulated("emulated://cortex-a76", Place("cortex-a76", folder)) as device:
        watched = device.with_plugin("classes")
        assert watched.python is not None and f"file={tmp_path}/a,,b/plugins/classes.so" in watched.python
        with pytest.raises(DeviceError, match=r"no blocks\.so.*C compiler"):
            device.with_plugin("blocks")


def test_another_onnxruntime_lies_before_the_usual_one(tmp_path: Path) -> None:
    made_up(tmp_path)
    with pytest.raises(DeviceError, match=r"no onnxruntime 1\.21\.0.*--also 1\.21\.0"):
        open_device(f"emulated://a72?folder={tmp_path}&onnxruntime=1.21.0")
    (tmp_path / "site-1.21.0").mkdir()
    with open_device(f"emulated://a72?folder={tmp_path}&onnxruntime=1.21.0") as device:
        assert isinstance(device, Emulated) and device.environment is not None
        assert device.environment["PYTHONPATH"] == f"{tmp_path}/site-1.21.0:{tmp_path}/site"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("emulated://cortex-m4", "no emulated core 'cortex-m4'.*cortex-a53"),
        ("emulated://", "no emulated core ''"),
        ("emulated://a53?python=x", "no setting 'python'"),
        ("emulated://me@a53", "no user"),
        ("emulated://a53:22", "no port"),
        ("emulated://a53?onnxruntime=../x", "no version of onnxruntime"),
    ],
)
def test_what_names_no_core_is_refused(spec: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        open_device(spec)


def test_where_the_emulator_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEPRESS_ARM", raising=False)
    with pytest.raises(DeviceError, match=r"build/arm holds no emulated ARM.*tools/arm/setup\.py .*EDGEPRESS_ARM"):
        open_device("emulated://a53")
    made_up(tmp_path / "build" / "arm")
    with open_device("emulated://a53") as device:
        assert device.python is not None and device.python[0].startswith(f"{tmp_path}/build/arm/")
    monkeypatch.setenv("EDGEPRESS_ARM", str(tmp_path / "elsewhere"))
    with pytest.raises(DeviceError, match="elsewhere holds no emulated ARM"):
        open_device("emulated://a53")


def test_a_core_without_an_instruction_is_told(tmp_path: Path) -> None:
    made_up(tmp_path, "kill -ILL $$")
    with open_device(f"emulated://a72?folder={tmp_path}") as device:
        with pytest.raises(Crash, match="Illegal instruction: onnxruntime uses instructions that this core"):
            Agent(device).perform({"task": "identify"})
        assert device.run(["sh", "-c", "exit 3"]).status == 3


@pytest.mark.parametrize("task", ["race", "best", "memory"])
def test_no_times_are_taken(tmp_path: Path, task: str) -> None:
    made_up(tmp_path)
    with (
        open_device(f"emulated://a72?folder={tmp_path}") as device,
        pytest.raises(DeviceError, match="emulated cores tell no times"),
    ):
        Agent(device).perform({"task": task})


def test_only_emulated_cores_count() -> None:
    with pytest.raises(DeviceError, match="emulated cores only"):
        counts(Agent(Local()), {"a": b""}, {"x": np.zeros(1)})


@pytest.mark.parametrize("name", CORES)
def test_cpuinfo_names_what_qemu_has(name: str) -> None:
    text = cpuinfo(CORES[name])
    assert text.count("processor\t: ") == PROCESSORS and text.endswith("\n\n")
    assert ("asimddp" in text) == (CORES[name].qemu == "cortex-a76")
    assert f"CPU part\t: {CORES[name].part:#x}\n" in text
    assert core_name(name) == core_name(name.removeprefix("cortex-")) == name
