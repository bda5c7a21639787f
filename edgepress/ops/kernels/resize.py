"""Resize and Upsample: each axis on its own, by nearest neighbor, linear or cubic interpolation.

Output position ``i`` of an axis stands at a source coordinate that ``coordinate_transformation_mode`` names; the
result is a weighted sum of the elements around it, elements outside being those at the edge (or left out,
``exclude_outside``). Cubic weights are those of Keys (1981) with ``cubic_coeff_a``.

Refused, because the specification's reference and onnxruntime disagree or hang on rounding: ``antialias``, a
fractional number of output elements where the mode depends on it, a nearest neighbor that rounding decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from edgepress.ops.kernels.call import Call, Host, Kernel, axis_of, integers, require

MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)

NEAR = 1e-4
"""Coordinates nearer to each other than this are not told apart where formulas differ in rounding."""


@dataclass(frozen=True)
class Axis:
    """One axis to resize: its size before and after, the stated scale and the part of it to look at."""

    axis: int
    size: int
    out: int
    scale: float
    roi: tuple[float, float]


def resize(
    call: Call,
    x: torch.Tensor,
    roi: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    sizes: Host | None = None,
) -> torch.Tensor:
    """Resize along ``axes`` (all by default) by scales or to sizes."""
    if call.opset < 11:
        return upsample(call, x, roi)
    mode, transform = call.get("mode", "nearest"), call.get("coordinate_transformation_mode", "half_pixel")
    require(mode in ("nearest", "linear", "cubic"), f"Resize with mode {mode!r}")
    require(transform in MODES, f"Resize with {transform!r}")
    require(not call.get("antialias", 0), "Resize with antialias")
    outside = bool(call.get("exclude_outside", 0))
    require(not outside or mode == "cubic", f"Resize with exclude_outside and mode {mode!r}")
    require(mode != "cubic" or transform != "tf_crop_and_resize", "cubic Resize with 'tf_crop_and_resize'")
    for axis in _axes(call, x, roi, scales, sizes):
        if axis.out == axis.size and axis.scale == 1:
            # onnxruntime takes the whole of such an axis, the specification a part
            require(axis.roi == (0, 1), "Resize of a part of an axis to the size of all of it")
            continue
        if mode == "nearest":
            rounding = call.get("nearest_mode", "round_prefer_floor")
            y = x.index_select(axis.axis, _nearest(axis, transform, rounding, x.device))
        else:
            y = _interpolated(call, x, axis, transform, cubic=mode == "cubic")
        x = _cropped(call, y, axis) if transform == "tf_crop_and_resize" else y
    return x


def upsample(call: Call, x: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    """Upsample (opset 7 to 9) and Resize of opset 10: ``i / scale``, the nearest below (above where it shrinks)."""
    given = call.attributes["scales"] if scales is None else scales.tolist()
    mode = call.get("mode", "nearest")
    require(mode in ("nearest", "linear"), f"Upsample with mode {mode!r}")
    require(len(given) == x.ndim, f"{len(given)} scales of data of rank {x.ndim}")
    for number, scale in enumerate(np.asarray(given, np.float32)):
        axis = _scaled(number, x.shape[number], float(scale), (0.0, 1.0))
        if scale == 1:
            continue
        if mode == "nearest":
            x = x.index_select(number, _nearest(axis, "asymmetric", "ceil" if scale < 1 else "floor", x.device))
        else:
            x = _interpolated(call, x, axis, "asymmetric", cubic=False)
    return x


# --- sizes ---------------------------------------------------------------------------------------


def _axes(
    call: Call, x: torch.Tensor, roi: torch.Tensor | None, scales: torch.Tensor | None, sizes: Host | None
) -> list[Axis]:
    chosen = [axis_of(int(axis), x.ndim) for axis in call.get("axes", range(x.ndim))]
    count = len(chosen)
    parts = _regions(call, roi, count)
    stated = [] if sizes is None else integers(sizes)
    if stated:
        require(len(stated) == count, f"{len(stated)} sizes for {count} axes")
        return _sized(call, x, chosen, stated, parts)
    factors = [] if scales is None else [float(scale) for scale in scales.tolist()]
    require(len(factors) == count, f"{len(factors)} scales for {count} axes")
    return [_scaled(axis, x.shape[axis], factors[at], parts[at]) for at, axis in enumerate(chosen)]


def _regions(call: Call, roi: torch.Tensor | None, count: int) -> list[tuple[float, float]]:
    """First and last place to look at per axis, as shares of it."""
    if call.get("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    edges = [] if roi is None else [float(edge) for edge in roi.tolist()]
    require(len(edges) == 2 * count, f"{len(edges)} entries of roi for {count} axes")
    return list(zip(edges[:count], edges[count:], strict=True))


def _scaled(axis: int, size: int, scale: float, roi: tuple[float, float]) -> Axis:
    require(scale > 0, f"a scale of {scale}")
    out = math.floor(size * scale)
    require(out == int(np.float32(scale) * np.float32(size)), f"{size} elements scaled by {scale}, left to rounding")
    return Axis(axis, size, out, scale, roi)


def _sized(
    call: Call, x: torch.Tensor, chosen: list[int], stated: list[int], parts: list[tuple[float, float]]
) -> list[Axis]:
    before = [x.shape[axis] for axis in chosen]
    require(min((*before, *stated)) > 0, f"Resize of {before} to {stated}")
    scales = [out / size for out, size in zip(stated, before, strict=True)]
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    require(policy in ("stretch", "not_larger", "not_smaller"), f"keep_aspect_ratio_policy {policy!r}")
    if policy != "stretch":
        scales = [min(scales) if policy == "not_larger" else max(scales)] * len(scales)
        stated = [math.floor(size * scale + 0.5) for size, scale in zip(before, scales, strict=True)]
    rows = zip(chosen, before, stated, scales, parts, strict=True)
    return [Axis(axis, size, out, scale, roi) for axis, size, out, scale, roi in rows]


# --- coordinates ---------------------------------------------------------------------------------


def _source(axis: Axis, transform: str, kind: type[np.floating]) -> np.ndarray:
    """The coordinate of every output element in the source."""
    i, scale = np.arange(axis.out).astype(kind), kind(axis.scale)
    exact = abs(axis.size * axis.scale - axis.out) < 1e-4
    if transform == "asymmetric":
        return np.asarray(i / scale)
    if transform in ("align_corners", "tf_crop_and_resize"):
        require(exact, f"Resize with {transform!r} to {axis.size * axis.scale} elements")
        first, last = (kind(edge) * kind(axis.size - 1) for edge in axis.roi)
        if axis.out == 1:
            return np.full(1, (first + last) / 2 if transform == "tf_crop_and_resize" else 0, kind)
        return np.asarray(first + i * (last - first) / kind(axis.out - 1))
    if transform == "pytorch_half_pixel" and axis.out == 1:
        require(exact, f"Resize with {transform!r} to {axis.size * axis.scale} elements")
        return np.zeros(1, kind)  # the reference says -0.5, which is the same to all modes but cubic
    half = kind(0.5)
    centers = (i + half) / scale - half
    if transform == "half_pixel_symmetric":
        share = kind(axis.out) / (scale * kind(axis.size))
        return np.asarray(kind(axis.size) / kind(2) * (1 - share) + centers)
    return np.asarray(centers)


def _nearest(axis: Axis, transform: str, rounding: str, device: torch.device) -> torch.Tensor:
    """The nearest source element of every output element; float and double must agree on it."""
    at = _source(axis, transform, np.float64)
    fine, coarse = (
        _rounded(places, rounding).clip(0, axis.size - 1) for places in (at, _source(axis, transform, np.float32))
    )
    sure = bool((fine == coarse).all())
    if _loose(axis, transform):
        sure = sure and not _close(at, at.round() if rounding in ("floor", "ceil") else np.floor(at) + 0.5)
    require(sure, f"the nearest of {axis.size} elements for {axis.out}, left to rounding")
    return torch.from_numpy(fine.astype(np.int64)).to(device)


def _loose(axis: Axis, transform: str) -> bool:
    """The coordinate's formula leaves the order of operations open, and the order makes a difference."""
    if transform == "tf_crop_and_resize":
        return axis.roi != (0, 1)
    return transform == "half_pixel_symmetric"


def _close(at: np.ndarray, edge: np.ndarray | float) -> bool:
    """Some coordinate lies so near to where the result jumps that rounding decides."""
    return bool((np.abs(at - edge) < NEAR).any())


def _rounded(at: np.ndarray, rounding: str) -> np.ndarray:
    require(rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"), f"nearest_mode {rounding!r}")
    if rounding == "round_prefer_floor":
        return np.asarray(np.ceil(at - at.dtype.type(0.5)))
    if rounding == "round_prefer_ceil":
        return np.asarray(np.floor(at + at.dtype.type(0.5)))
    return np.asarray(np.floor(at) if rounding == "floor" else np.ceil(at))


# --- weights -------------------------------------------------------------------------------------


def _interpolated(call: Call, x: torch.Tensor, axis: Axis, transform: str, *, cubic: bool) -> torch.Tensor:
    require(x.is_floating_point(), f"interpolation of {x.dtype}")
    lone = transform == "pytorch_half_pixel" and axis.out == 1 and cubic
    require(not lone, f"cubic Resize with {transform!r} to one element")
    at = _source(axis, transform, np.float64)
    left = np.floor(at)
    taps = np.arange(-1, 3) if cubic else np.arange(2)
    places = left[:, None] + taps
    weights = np.abs(at[:, None] - places)
    weights = _keys(weights, float(call.get("cubic_coeff_a", -0.75))) if cubic else 1 - weights
    if call.get("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < axis.size), weights, 0.0)
        weights /= weights.sum(1, keepdims=True)
    rows = torch.from_numpy(places.clip(0, axis.size - 1).astype(np.int64)).to(x.device)
    shares = torch.from_numpy(weights).to(x.device, x.dtype)
    along = (-1, *(1,) * (x.ndim - axis.axis - 1))
    parts = [x.index_select(axis.axis, rows[:, tap]) * shares[:, tap].reshape(along) for tap in range(len(taps))]
    return reduce(torch.add, parts)


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Cubic convolution weights of elements at a distance up to 2."""
    d = distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, far)


def _cropped(call: Call, y: torch.Tensor, axis: Axis) -> torch.Tensor:
    """``extrapolation_value`` where an output element looks outside the source."""
    if not _loose(axis, "tf_crop_and_resize"):
        return y
    at, last = _source(axis, "tf_crop_and_resize", np.float64), axis.size - 1
    require(not _close(at, 0) and not _close(at, last), "Resize with an edge that is left to rounding")
    beyond = torch.from_numpy((at < 0) | (at > last)).to(y.device).reshape(-1, *(1,) * (y.ndim - axis.axis - 1))
    return torch.where(beyond, torch.full_like(y, float(call.get("extrapolation_value", 0.0))), y)


KERNELS: dict[str, Kernel] = {"resize": resize, "upsample": upsample}
