"""The record of a target: what is fast there, and what int8 must look like, as numbers and short lists.

    width a layer of c channels costs like = (1 - slope) block ceil(c / block) + slope multiple ceil(c / multiple)

A record states facts and decides nothing: the quantizer and the planner read it. Where a fact comes from stands in the
module of the family; ``evidence`` says how sure it is. Guarantees that more channels never cost less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class FixedGrid:
    """The grid that a target wants behind one operator, whatever range was seen there.

    Attributes:
        op: the operator.
        bits: of the activation, unsigned.
        scale: step.
        zero: the integer of 0.0.
    """

    op: str
    bits: int
    scale: float
    zero: int


SOFTMAX = FixedGrid("Softmax", 8, 1 / 256, 0)
"""Results in 0 .. 1: onnxruntime's int8 Softmax overflows on much finer grids, and other kernels assume this one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Rules of one kind of processor.

    Attributes:
        name: what the user types after ``--target``.
        multiple: kept widths are multiples of this; anything else falls off the fast kernels.
        block: width of the staircase: inside one block channels cost nearly the same.
        slope: share of a block's cost that is saved half-way down the block (0 = pure staircase, 1 = linear).
        weight_limit: largest ``|int8 weight|`` that cannot saturate: 64 where pairs of products are added in 16 bits
            (2 * 255 * 64 <= 32767), else 127.
        stem_multiple: a convolution of the input stays float unless its input channels are a multiple of this; 1: it
            never does. Int8 kernels take input channels in fours, images have three or one.
        gemm_floor: a Gemm or MatMul under this many multiply-adds per call stays float; 0: none does. Small ones are
            slower in int8 than in float.
        group_floor: a grouped convolution with fewer input channels per group stays float, unless it is depthwise;
            1: none does. Thin groups are slower in int8 than in float.
        activation_bits: what activations may have, unsigned, the usual choice first.
        per_channel_matrices: whether the weights of Gemm and MatMul may have one scale per output channel.
        whole: everything with an int8 kernel runs in int8, graph inputs and outputs included, whether or not it pays.
        mapped: operators with an int8 kernel from one tensor to one, beside those of the operator table.
        joined: operators with an int8 kernel on several activations, beside those of the operator table.
        fixed_grids: grids behind operators whose range is known beforehand.
        swish_pays: whether int8 is faster where most activations are HardSwish or SiLU, which run in float between two
            conversions.
        family: targets of one family run, and can be timed, on each other's machines.
        evidence: where the numbers come from: ``timed``; ``counted``: instructions under an emulator, an estimate;
            ``stated`` by the makers of a runtime that was not at hand.
        lanes: multiply-adds of one instruction, in float32 and in int8; None where nothing is known. What is counted by
            them is the least number of instructions, without loads, stores and all that is no multiply-add.
        artifact: made for another device than a CPU: times on a CPU say nothing about it.
    """

    name: str
    multiple: int
    block: int
    slope: float
    weight_limit: int
    stem_multiple: int = 4
    gemm_floor: int = 65_536
    group_floor: int = 32
    activation_bits: tuple[int, ...] = (8,)
    per_channel_matrices: bool = True
    whole: bool = False
    mapped: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    fixed_grids: tuple[FixedGrid, ...] = (SOFTMAX,)
    swish_pays: bool = False
    family: str = "x64"
    evidence: Literal["timed", "counted", "stated"] = "stated"
    lanes: tuple[float, float] | None = None
    artifact: bool = False

    def effective_width(self, channels: int) -> float:
        """Width that ``channels`` cost like: the staircase of the target's kernels (in channels)."""
        step = self.block * -(-channels // self.block)
        fine = self.multiple * -(-channels // self.multiple)
        return (1 - self.slope) * step + self.slope * fine

    def fixed_grid(self, op: str, bits: int = 8) -> FixedGrid | None:
        """The grid behind an operator, where the target wants one."""
        return next((grid for grid in self.fixed_grids if (grid.op, grid.bits) == (op, bits)), None)

    def unruled(self) -> Target:
        """The target without its rules for what stays float because that is faster: all that can run in int8 does."""
        return replace(self, stem_multiple=1, gemm_floor=0, group_floor=1)

    def timed_on(self, machine: Target) -> bool:
        """Whether times taken on that machine speak for this target."""
        return not self.artifact and self.family == machine.family
