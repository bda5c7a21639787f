"""GridSample: values of an image at positions that another tensor states."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Kernel, alike, require

MODES = {"bilinear": "bilinear", "linear": "bilinear", "bicubic": "bicubic", "cubic": "bicubic", "nearest": "nearest"}
"""Names before and since opset 20 -> torch's."""


def grid_sample(call: Call, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Data ``[N, C, *s]`` with two or three spatial axes, grid ``[N, *out, axes]`` in -1 .. 1, last axis first."""
    alike(x, grid)
    mode, padding = call.get("mode", "linear"), call.get("padding_mode", "zeros")
    require(x.ndim in (4, 5) and grid.ndim == x.ndim, f"GridSample of ranks {x.ndim} and {grid.ndim}")
    require(mode in MODES and padding in ("zeros", "border", "reflection"), f"GridSample with {mode!r}, {padding!r}")
    require(x.ndim == 4 or MODES[mode] != "bicubic", "cubic GridSample over three axes")
    return F.grid_sample(x, grid, MODES[mode], padding, bool(call.get("align_corners", 0)))


KERNELS: dict[str, Kernel] = {"grid_sample": grid_sample}
