"""Random graphs for the tests of surgery: every rule meets every other one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from group_models import Toy

Tensor = tuple[str, int]
"""Name and channels; every tensor is [N, channels, 4, 4]."""


@dataclass
class Growing:
    """A graph in the making."""

    random: np.random.Generator
    lines: list[str] = field(default_factory=list)
    constants: dict[str, Sequence[int]] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    filters: dict[str, tuple[int, int]] = field(default_factory=dict)

    def say(self, text: str, **constants: Sequence[int]) -> str:
        """Add nodes; ``@`` becomes a fresh name, which is returned (and the prefix of constants)."""
        name = f"t{len(self.lines)}"
        self.lines.append(text.replace("@", name))
        self.constants |= {f"{name}{key}": value for key, value in constants.items()}
        return name

    def conv(self, source: Tensor, channels: int, groups: int = 1) -> Tensor:
        """A 1 x 1 convolution, with a bias half of the time."""
        weight = (channels, source[1] // groups, 1, 1)
        text = f"@ = Conv<group={groups},kernel_shape=[1,1]>({source[0]},@w"
        if self.random.random() < 0.5:
            name = self.say(text + ",@b)", w=weight, b=(channels,))
        else:
            name = self.say(text + ")", w=weight)
        if groups == 1:
            self.filters[f"{name}w"] = (channels, source[1])
        return name, channels

    def pick(self, *numbers: int) -> int:
        """One of these numbers."""
        return int(self.random.choice(numbers))

    def below(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high - 1``."""
        return int(self.random.integers(low, high))


def _conv(g: Growing, t: Tensor) -> list[Tensor]:
    return [g.conv(t, g.pick(4, 6, 8, 12))]


def _depthwise(g: Growing, t: Tensor) -> list[Tensor]:
    return [g.conv(t, t[1] * g.pick(1, 2), t[1])]


def _grouped(g: Growing, t: Tensor) -> list[Tensor]:
    blocks = [n for n in (2, 3, 4) if t[1] % n == 0]
    return [g.conv(t, 12, blocks[g.below(0, len(blocks))])] if blocks else []


def _transposed(g: Growing, t: Tensor) -> list[Tensor]:
    blocks = [n for n in range(1, t[1] + 1) if t[1] % n == 0]
    groups = blocks[g.below(0, len(blocks))]
    each = g.below(1, 12 // groups + 1) if groups <= 6 else 1
    text = f"@ = ConvTranspose<group={groups},kernel_shape=[1,1]>({t[0]},@w,@b)"
    return [(g.say(text, w=(t[1], each, 1, 1), b=(groups * each,)), groups * each)]


def _normalized(g: Growing, t: Tensor) -> list[Tensor]:
    """GroupNorm as exporters write it."""
    blocks = [n for n in range(1, t[1] + 1) if t[1] % n == 0]
    groups = blocks[g.below(0, len(blocks))]
    text = f"@r = Reshape({t[0]},@s) @n = InstanceNormalization(@r,@g,@b) @q = Reshape(@n,@z) @ = Mul(@q,@k)"
    constants = {"s": [0, groups, -1], "g": (groups,), "b": (groups,), "z": [0, t[1], 4, 4], "k": (t[1], 1, 1)}
    return [(g.say(text, **constants), t[1])]


def _shared(g: Growing, t: Tensor) -> list[Tensor]:
    fitting = [name for name, (_, width) in g.filters.items() if width == t[1]]
    if not fitting:
        return []
    weight = fitting[g.below(0, len(fitting))]
    return [(g.say(f"@ = Conv<kernel_shape=[1,1]>({t[0]},{weight})"), g.filters[weight][0])]


def _join(g: Growing, t: Tensor) -> list[Tensor]:
    same = [name for name, width in g.tensors if width == t[1]]
    return [(g.say(f"@ = {g.random.choice(['Add', 'Mul'])}({t[0]},{same[g.below(0, len(same))]})"), t[1])]


def _concat(g: Growing, t: Tensor) -> list[Tensor]:
    other, width = g.tensors[g.below(0, len(g.tensors))]
    return [(g.say(f"@ = Concat<axis=1>({t[0]},{other})"), t[1] + width)] if t[1] + width <= 24 else []


def _split(g: Growing, t: Tensor) -> list[Tensor]:
    first = g.below(1, t[1])
    name = g.say(f"@, @r = Split<axis=1>({t[0]},@s)", s=[first, t[1] - first])
    return [(name, first), (f"{name}r", t[1] - first)]


def _slice(g: Growing, t: Tensor) -> list[Tensor]:
    start = g.below(0, t[1] - 1)
    end = g.below(start + 1, t[1] + 1)
    bound = end - t[1] if end < t[1] and g.pick(0, 1) else end
    return [(g.say(f"@ = Slice({t[0]},@f,@e,@a)", f=[start], e=[bound], a=[1]), end - start)]


def _strided(g: Growing, t: Tensor) -> list[Tensor]:
    step, start = g.pick(-3, -2, -1, 2, 3), g.below(0, t[1])
    end = g.below(start + 1, t[1] + 1) if step > 0 else g.below(0, start + 1) - t[1] - 1
    width = len(range(t[1])[slice(start, end, step)])
    return [(g.say(f"@ = Slice({t[0]},@f,@e,@a,@p)", f=[start], e=[end], a=[-3], p=[step]), width)]


def _resized(g: Growing, t: Tensor) -> list[Tensor]:
    text = f"@r = Resize<axes=[1,2,3]>({t[0]},,,@s) @ = MaxPool<kernel_shape=[2,2],strides=[2,2]>(@r)"
    return [(g.say(text, s=[t[1], 8, 8]), t[1])]


def _largest(g: Growing, t: Tensor) -> list[Tensor]:
    return [(g.say(f"@, @i = TopK<axis={g.pick(1, 2, -1)}>({t[0]},@k)", k=[4]), t[1])] if t[1] == 4 else []


def _shuffle_pixels(g: Growing, t: Tensor) -> list[Tensor]:
    if t[1] % 4:
        return []
    text = f"""@r = Reshape({t[0]},@s) @q = Transpose<perm=[0,1,4,2,5,3]>(@r) @u = Reshape(@q,@z)
    @ = MaxPool<kernel_shape=[2,2],strides=[2,2]>(@u)"""
    return [(g.say(text, s=[-1, t[1] // 4, 2, 2, 4, 4], z=[0, -1, 8, 8]), t[1] // 4)]


def _gather(g: Growing, t: Tensor) -> list[Tensor]:
    order = g.random.choice(t[1], g.below(1, t[1] + 1), replace=bool(g.pick(0, 0, 1))).tolist()
    return [(g.say(f"@ = Gather<axis=1>({t[0]},@i)", i=order), len(order))]


def _shuffle(g: Growing, t: Tensor) -> list[Tensor]:
    if t[1] % 2:
        return []
    text = f"@p = Reshape({t[0]},@s) @q = Transpose<perm=[0,2,1,3,4]>(@p) @ = Reshape(@q,@z)"
    back = [0, -1, 4, 4] if g.pick(0, 1) else [-1, t[1], 4, 4]
    return [(g.say(text, s=[-1, 2, t[1] // 2, 4, 4], z=back), t[1])]


def _gate(g: Growing, t: Tensor) -> list[Tensor]:
    gate = g.conv(g.conv((g.say(f"@ = GlobalAveragePool({t[0]})"), t[1]), 4), t[1])
    return [(g.say(f"@ = Mul({t[0]},{gate[0]})"), t[1])]


def _mask(g: Growing, t: Tensor) -> list[Tensor]:
    return [(g.say(f"@ = Mul({t[0]},{g.conv(t, 1)[0]})"), t[1])]


def _depth_to_space(g: Growing, t: Tensor) -> list[Tensor]:
    if t[1] % 4:
        return []
    mode = g.random.choice(["DCR", "CRD"])
    text = f'@d = DepthToSpace<blocksize=2,mode="{mode}">({t[0]}) @ = MaxPool<kernel_shape=[2,2],strides=[2,2]>(@d)'
    return [(g.say(text), t[1] // 4)]


def _constant(g: Growing, t: Tensor) -> list[Tensor]:
    shape = [(1, t[1], 1, 1), (t[1], 4, 4), (1, 1, 4, 4)][g.below(0, 3)]
    return [(g.say(f"@ = Add(@k,{t[0]})", k=shape), t[1])]


def _pad(g: Growing, t: Tensor) -> list[Tensor]:
    before = g.pick(0, 1)
    return [(g.say(f"@ = Pad({t[0]},@p)", p=[0, before, 0, 0, 0, 1 - before, 0, 0]), t[1] + 1)]


def _last_axis(g: Growing, t: Tensor) -> list[Tensor]:
    text = f"@a = Transpose<perm=[0,2,3,1]>({t[0]}) @c = Add(@a,@v) @ = Transpose<perm=[0,3,1,2]>(@c)"
    return [(g.say(text, v=(t[1],)), t[1])]


def _through_vector(g: Growing, t: Tensor) -> list[Tensor]:
    text = f"@f = Flatten({t[0]}) @h = Gemm(@f,@m) @ = Reshape(@h,@s)"
    return [(g.say(text, m=(t[1] * 16, 32), s=[0, -1, 4, 4]), 2)]


def _unary(g: Growing, t: Tensor) -> list[Tensor]:
    texts = [
        "Relu({})",
        "AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>({})",
        "PRelu({},@s)",
        "Softmax<axis={axis}>({})",
    ]
    text = texts[g.below(0, 4)].format(t[0], axis=g.pick(1, 2, 3))
    return [(g.say(f"@ = {text}", **({"s": (t[1], 1, 1)} if "PRelu" in text else {})), t[1])]


STEPS: tuple[Callable[[Growing, Tensor], list[Tensor]], ...] = (
    *(_conv, _conv, _depthwise, _grouped, _shared, _join, _join, _concat, _split, _slice, _gather, _shuffle),
    *(_gate, _mask, _depth_to_space, _constant, _pad, _last_axis, _through_vector, _unary, _unary),
    *(_transposed, _normalized, _strided, _resized, _largest, _shuffle_pixels),
)


def random_graph(seed: int) -> Toy:
    """A graph of up to 12 random steps; every tensor is read by a last convolution of its own, summed to the output."""
    g = Growing(np.random.default_rng(seed))
    g.tensors = [g.conv(("x", 3), g.pick(4, 6, 8, 12)) for _ in range(2)]
    for _ in range(g.below(4, 13)):
        step = STEPS[g.below(0, len(STEPS))]
        wide = [tensor for tensor in g.tensors if tensor[1] > 1]
        g.tensors += step(g, wide[g.below(0, len(wide))])
    ends = [g.conv(tensor, 5)[0] for tensor in list(g.tensors)]
    g.lines.append(f"y = Sum({','.join(ends)})")
    return Toy("g (float[N,3,4,4] x) => (float[N,5,4,4] y) {\n" + "\n".join(g.lines) + "}", g.constants, ())
