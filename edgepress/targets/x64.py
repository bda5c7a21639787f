"""x64 CPUs, as onnxruntime 1.31 runs them: timed on an AVX512-VNNI machine, AVX2 on the same one with MLAS held to it.

Float convolutions take channels in blocks (16 with AVX512, 8 with AVX2), so 52 .. 64 channels cost the same with
AVX512; int8 ones (ConvSym) want input channels in fours and output channels in fours (AVX512) or eights, depthwise ones
sixteens. A width that is no multiple of 4 is slower than the unpruned one. Without VNNI, pairs of products are added in
16 bits and saturate above ``|w| = 64``: harmless to a ResNet, not to a MobileNet, and smaller weights cost no time.
Networks of HardSwish or SiLU are slower in int8 than in float.

Lanes are those of one instruction of 256 bits: 8 float32, 32 int8 with dot products (with AVX512 twice as many of
both), 32 in three instructions without.
"""

from __future__ import annotations

from edgepress.targets.target import Target

X64_VNNI = Target("x64-vnni", multiple=8, block=16, slope=0.35, weight_limit=127, evidence="timed", lanes=(8.0, 32.0))
X64_AVX2 = Target("x64-avx2", multiple=8, block=8, slope=1.0, weight_limit=64, evidence="timed", lanes=(8.0, 32 / 3))
