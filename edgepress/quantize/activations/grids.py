"""The unsigned grid of every activation tensor that carries a Q: 8 bits, or 16 for targets that run them.

    scale = (high - low) / (2^bits - 1),   zero = round(-low / scale)      with low <= 0 <= high

What onnxruntime fuses decides the rest: zero is 0 behind a Relu, the grid stays inside the bounds of a Clip, tensors
that are only moved about (MaxPool, Reshape, Slice, ...) have the grid of what they come from, and a Gemm that only
float nodes read has none. Targets fix the grid behind some operators (Softmax, Sigmoid, Tanh). Guarantees that 0.0 is
on every grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.errors import InvariantError
from edgepress.model import Model
from edgepress.ops.row import Role
from edgepress.quantize.activations.ranges import Range
from edgepress.quantize.graph.regions import Unit, clip_bounds, operands
from edgepress.targets import SOFTMAX, FixedGrid

SMALLEST_WIDTH = 1e-20
"""A tensor narrower than this was never seen to move."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The unsigned grid of one activation tensor."""

    scale: np.float32
    zero: int
    bits: int = 8

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the integers, and of the zero point."""
        return np.uint8 if self.bits == 8 else np.uint16

    def whole(self, values: np.ndarray) -> np.ndarray:
        """The integers nearest to some values, of the grid's type."""
        top = np.iinfo(self.dtype).max
        return np.asarray(np.clip(np.rint(values.astype(np.float64) / self.scale) + self.zero, 0, top), self.dtype)


def grid_of(given: Range, bounds: tuple[float, float] | None = None, bits: int = 8) -> Grid:
    """The grid that covers a range and zero; behind a Clip it must not reach over the bounds."""
    top = (1 << bits) - 1
    low, high = min(given.low, 0.0), max(given.high, 0.0)
    if high - low < SMALLEST_WIDTH:
        high = 1.0  # nothing was ever seen here: any grid will do
    scale = np.float32((high - low) / top)
    zero = int(np.clip(np.rint(-low / scale), 0, top))
    for reach, bound in ((top - zero, bounds[1]), (zero, -bounds[0])) if bounds else ():
        if reach and scale * np.float32(reach) > bound:
            scale = np.nextafter(np.float32(bound / reach), np.float32(0))
    return Grid(scale, zero, bits)


def grids(
    model: Model,
    found: Sequence[Unit],
    inside: Collection[str],
    ranges: Mapping[str, Range],
    same: Mapping[str, str],
    *,
    fixed: Sequence[FixedGrid] = (SOFTMAX,),
    bits: int = 8,
) -> dict[str, Grid]:
    """The grid of every tensor that carries a Q; tensors that are only moved about share one.

    Args:
        model: a typed model.
        found: its units.
        inside: names of those that run in int8.
        ranges: observed ranges.
        same: tensors that have the grid of another one, beside those of data movement.
        fixed: grids that the target wants behind some operators, whatever was observed.
        bits: of every activation.
    """
    made: dict[str, Grid] = {}
    clips = {u.outputs[0]: clip_bounds(model, u.fused) for u in found if u.fused and u.fused.op == "Clip"}

    known = {item.op: Grid(np.float32(item.scale), item.zero, bits) for item in fixed if item.bits == bits}

    def add(tensor: str) -> None:
        maker = model.producer(tensor)
        if tensor not in made and maker is not None and maker.op in known:
            made[tensor] = known[maker.op]
        if tensor not in made and tensor in model.constants:
            made[tensor] = grid_of(_range(model.constants[tensor]), None, bits)
        if tensor not in made:
            if tensor not in ranges:
                raise InvariantError(f"Tensor {tensor!r} has no range: observe activations_to_observe(model).")
            made[tensor] = grid_of(ranges[tensor], clips.get(tensor), bits)

    for unit in found:
        if unit.name not in inside:
            continue
        for tensor in (*operands(model, unit), *unit.constants):
            add(tensor)
        for tensor in unit.outputs:
            if unit.role is Role.ALIKE or tensor in same:
                made[tensor] = made[same.get(tensor, unit.node.inputs[0])]
            elif unit.role is not Role.WEIGHTED or _needs_grid(model, unit, tensor, found, inside):
                add(tensor)
    return made


def _range(values: np.ndarray) -> Range:
    return Range(float(values.min()), float(values.max()))


def _needs_grid(model: Model, unit: Unit, tensor: str, found: Sequence[Unit], inside: Collection[str]) -> bool:
    """A Gemm that no int8 unit reads can hand out float: one rounding less, and it fuses all the same."""
    if not unit.hands_out_float:
        return True
    return any(other.name in inside and tensor in operands(model, other) for other in found)
