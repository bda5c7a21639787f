"""Rows of a ConvTranspose, phase by phase.

    y[o] = sum over taps t, inputs i with  i s + t d - p = o  of  w[t] x[i]

An output position whose ``(o + p) mod s`` is ``phi`` is reached by the taps with ``t d mod s = phi`` only: every such
phase (one residue for each spatial axis) is a linear operator of its own, with every ``s / gcd(s, d)``-th tap and rows
that are patches of the input, read backwards. What lies outside the input counts as zero, so borders are exact. The
phases share no weights, but all of them share the bias (a phase without taps has nothing else).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from edgepress.calibrate.views.part import Arrays, draw


@dataclass(frozen=True, slots=True)
class Lattice:
    """One spatial axis of one phase.

    Attributes:
        stride: step of the output per input.
        dilation: distance of the taps.
        begin: what is cut off in front (the pad).
        extra: the output has ``stride * (inputs - 1) + extra`` positions.
        residue: the phase.
        taps: the kernel's taps of this phase.
    """

    stride: int
    dilation: int
    begin: int
    extra: int
    residue: int
    taps: range

    def positions(self, inputs: int) -> np.ndarray:
        """Output positions of the phase, for an input of this length."""
        return np.arange((self.residue - self.begin) % self.stride, self.outputs(inputs), self.stride)

    def outputs(self, inputs: int) -> int:
        """Length of the output."""
        return self.stride * (inputs - 1) + self.extra

    def sources(self, positions: np.ndarray) -> np.ndarray:
        """Input positions under each tap: int64 [positions, taps]; they may lie outside."""
        reach = positions[:, None] + self.begin - np.array(self.taps, np.int64) * self.dilation
        return np.asarray(reach // self.stride)


def lattices(kernel: int, stride: int, dilation: int, pads: tuple[int, int], extra: int) -> list[Lattice]:
    """The phases along one axis; ``pads`` are cut off the output, ``extra`` is added behind it."""
    period = stride // gcd(stride, dilation)
    length = (kernel - 1) * dilation + 1 + extra - sum(pads)
    taps = {tap * dilation % stride: range(tap, kernel, period) for tap in range(min(period, kernel))}
    return [
        Lattice(stride, dilation, pads[0], length, residue, taps.get(residue, range(0))) for residue in range(stride)
    ]


@dataclass(frozen=True, slots=True)
class Phase:
    """Geometry of one phase of one group of a ConvTranspose.

    Attributes:
        source: the activation that goes in.
        answer: the activation that comes out.
        axes: the phase along every spatial axis.
        inputs: the group's input channels.
        made: its output channels.
    """

    source: str
    answer: str
    axes: tuple[Lattice, ...]
    inputs: range
    made: range

    @property
    def tensors(self) -> tuple[str, ...]:
        """What goes in and what comes out."""
        return self.source, self.answer

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """None: windows do not slide over channels."""
        return ()

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Output positions of this phase: its share of ``count``, so that all phases together have it."""
        spatial = values[self.source].shape[2:]
        available = prod(len(positions) for positions in self._grid(spatial))
        every = prod(axis.outputs(size) for axis, size in zip(self.axes, spatial, strict=True))
        return draw(available, max(1, -(-count * available // max(1, every))), generator)

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Patches: [samples * positions, channels * taps of the phase]."""
        inputs = values[self.source][:, self.inputs.start : self.inputs.stop]
        spatial = inputs.shape[2:]
        padded = np.pad(inputs, [(0, 0), (0, 0), *((0, 1) for _ in spatial)])  # the last position holds zeros
        index = []
        for number, (axis, positions) in enumerate(zip(self.axes, self._positions(spatial, chosen), strict=True)):
            places = axis.sources(positions)
            places = np.where((places >= 0) & (places < spatial[number]), places, spatial[number])
            index.append(places.reshape(len(places), *(-1 if a == number else 1 for a in range(len(spatial)))))
        picked = np.asarray(padded[(slice(None), slice(None), *index)])  # type: ignore[arg-type]
        columns = picked.shape[1] * prod(picked.shape[3:])
        return np.moveaxis(picked, 1, 2).reshape(len(inputs) * picked.shape[2], columns)

    def states(self, values: Arrays, chosen: np.ndarray | None) -> None:
        """None: nothing is remembered."""

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """The group's channels at the phase's positions: [samples * positions, outputs]."""
        own = array[:, self.made.start : self.made.stop]
        inputs = [(size - axis.extra) // axis.stride + 1 for axis, size in zip(self.axes, array.shape[2:], strict=True)]
        picked = np.asarray(own[(slice(None), slice(None), *self._positions(tuple(inputs), chosen))])  # type: ignore[arg-type]
        return picked.transpose(0, 2, 1).reshape(-1, len(self.made))

    def _grid(self, spatial: tuple[int, ...]) -> list[np.ndarray]:
        return [axis.positions(size) for axis, size in zip(self.axes, spatial, strict=True)]

    def _positions(self, spatial: tuple[int, ...], chosen: np.ndarray | None) -> list[np.ndarray]:
        """Output positions along every axis, for an input of this size: int64 [positions] each."""
        grid = self._grid(spatial)
        sizes = tuple(len(positions) for positions in grid)
        flat = np.arange(prod(sizes)) if chosen is None else chosen
        return [positions[at] for positions, at in zip(grid, np.unravel_index(flat, sizes), strict=True)]
