"""Where the windows of a convolution or pooling lie: kernel, stride, dilation and padding on either side.

ONNX pads are ``[before_0, ..., after_0, ...]``; torch pads one amount on both sides. For ``SAME_UPPER`` and
``SAME_LOWER`` the output has ``ceil(size / stride)`` positions and the padding is what that takes:
``max(0, (out - 1) * stride + kernel - size)``, the odd element behind (UPPER) or in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, require


@dataclass(frozen=True)
class Windows:
    """Geometry per spatial axis; ``before`` and ``after`` count padded elements."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Padding is the same on both sides."""
        return self.before == self.after

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements a window spans, holes included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def windows(call: Call, x: torch.Tensor, kernel: tuple[int, ...]) -> Windows:
    """Read the window attributes of a node for data of shape ``[N, C, *spatial]``.

    Raises:
        UnsupportedError: not one to three spatial axes, unknown ``auto_pad`` or one that does not go with the rest,
            negative pads.
    """
    rank = len(kernel)
    require(1 <= rank <= 3, f"{rank} spatial axes")
    require(x.ndim == rank + 2, f"data of rank {x.ndim} with a window over {rank} axes")
    stride = call.sizes("strides", rank, 1)
    dilation = call.sizes("dilations", rank, 1)
    pads = call.sizes("pads", 2 * rank, 0)
    require(min(pads) >= 0, f"negative pads {list(pads)}")
    mode = call.get("auto_pad", "NOTSET")
    require(mode in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad {mode!r}")
    require(mode == "NOTSET" or not any(pads), f"auto_pad {mode} together with pads {list(pads)}")
    # for pooling onnxruntime leaves the dilation out of this padding, for Conv it refuses; the specification counts it
    require(not mode.startswith("SAME") or set(dilation) == {1}, f"auto_pad {mode} together with dilations")
    plain = Windows(kernel, stride, dilation, pads[:rank], pads[rank:])
    return _same(plain, tuple(x.shape[2:]), upper=mode == "SAME_UPPER") if mode.startswith("SAME") else plain


def _same(plain: Windows, size: tuple[int, ...], *, upper: bool) -> Windows:
    needed = tuple(
        max(0, (-(-n // s) - 1) * s + reach - n) for n, s, reach in zip(size, plain.stride, plain.reach, strict=True)
    )
    less = tuple(total // 2 for total in needed)
    more = tuple(total - half for total, half in zip(needed, less, strict=True))
    before, after = (less, more) if upper else (more, less)
    return Windows(plain.kernel, plain.stride, plain.dilation, before, after)


def pad_spatial(x: torch.Tensor, before: tuple[int, ...], after: tuple[int, ...], value: float = 0.0) -> torch.Tensor:
    """Pad the trailing axes of ``x``; torch wants the pairs from the last axis to the first."""
    pairs = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    return F.pad(x, pairs, value=value) if any(pairs) else x
