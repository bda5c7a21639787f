"""64-bit ARM CPUs: read from onnxruntime 1.31's kernels, instructions counted under an emulator, never timed.

Float convolutions are matrix products (no blocked layout in the Linux wheels), so float costs no staircase. Int8 with
uint8 activations takes most layers through the general matrix product: multiples of 8 are smooth there, 4 more cost up
to a tenth, and a depthwise layer that is no multiple of 8 more than double. The symmetric convolution wants output
channels in sixteens on paper (with dot products), but 72 or 88 channels cost no more than their share. Nothing
saturates: weights have the whole range.

With dot products (Cortex-A55, A75 and later, Apple) int8 needs about a third of the instructions of float; without
(Cortex-A53, A72: Raspberry Pi 3 and 4) from two thirds up to as many, so a Gemm must be larger to gain. A float stem
before int8 layers is cheaper than an int8 one with both. Groups of 16 channels gain, of 8 they do not. HardSwish in
float between int8 layers leaves a gain, smaller ones without dot products. ``arm64`` is for who does not know which it
is: what suits both.
"""

from __future__ import annotations

from dataclasses import replace

from edgepress.targets.target import Target

ARM64_DOTPROD = Target(
    "arm64-dotprod",
    multiple=8,
    block=8,
    slope=1.0,
    weight_limit=127,
    gemm_floor=131_072,
    group_floor=16,
    swish_pays=True,
    family="arm64",
    evidence="counted",
    lanes=(4.0, 16.0),
)
ARM64_NODOT = replace(ARM64_DOTPROD, name="arm64-nodot", gemm_floor=524_288, lanes=(4.0, 4.5))
ARM64 = replace(ARM64_NODOT, name="arm64")
