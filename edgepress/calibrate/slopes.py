"""What gradients say about linear operators and their input channels, in sums that merge.

With input rows ``x`` and gradients ``g`` of the outputs, the gradient of the weights for one sample is the sum over its
positions ``P_n = sum_p g_p [x_p, 1]^T``. From it::

    fisher    sum_n P_n^2                       diagonal of the Fisher information (Tu 2016, section 2)
    stream    v <- BETA v + (1 - BETA) m^2      second moment of the mean gradient m of a chunk, as Adam has it
    outer     sum over rows of g g^T            Kronecker factor G (Martens & Grosse 2015; for convolutions Grosse 2016)
    gates     u_n[c] = sum over weights w of channel c of  w dl/dw     how a sample's score feels a channel as a whole

Which rows are those of a sample follows from the number of samples in the chunk: they lie along the axis that is as
long (of several the first one; of a recurrent operator's input the second one), else along the first axis that is a
multiple of it, samples and positions in one. A tensor without such an axis counts as one sample: sums over independent
samples have the same mean square as the samples have together. Parts that share their weights share a gradient.
The streaming estimate depends on the order of the samples; parts of a stream still merge exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.statistics import Probe, slope
from edgepress.calibrate.views import Part, Source

BETA = 0.999
"""Decay of Adam's second moment."""

SAMPLES = "@samples"
"""The key, among the values that a probe observes, of the number of samples they come from."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Outer:
    """Second moments of a part's output gradients.

    Attributes:
        total: sum of g g^T over rows, float64 [outputs, outputs].
        rows: number of rows.
        samples: number of samples.
    """

    total: np.ndarray
    rows: int
    samples: int

    def merge(self, other: Outer) -> Outer:
        """Moments of both."""
        return Outer(self.total + other.total, self.rows + other.rows, self.samples + other.samples)

    @property
    def mean(self) -> np.ndarray:
        """The Kronecker factor G: float64 [outputs, outputs]."""
        return np.asarray(self.total / self.rows)


@dataclass(frozen=True, slots=True)
class Slopes:
    """Squared gradients of a part's weights.

    Attributes:
        fisher: sum over samples of the squared gradient, float64 [outputs, columns + 1].
        stream: Adam's second moment before its bias is corrected, of the same shape.
        steps: steps of the stream.
        samples: number of samples.
    """

    fisher: np.ndarray
    stream: np.ndarray
    steps: int
    samples: int

    @classmethod
    def of(cls, fisher: np.ndarray, total: np.ndarray, samples: int) -> Slopes:
        """From the summed squared gradients of the samples of a chunk, and their summed gradient."""
        return cls(fisher.astype(np.float64), (1 - BETA) * (total.astype(np.float64) / samples) ** 2, 1, samples)

    def merge(self, other: Slopes) -> Slopes:
        """Both, ``other`` being later in the stream."""
        stream = other.stream + self.stream * BETA**other.steps
        return Slopes(self.fisher + other.fisher, stream, self.steps + other.steps, self.samples + other.samples)

    @property
    def mean(self) -> np.ndarray:
        """Diagonal Fisher information per weight (biases in the last column)."""
        return np.asarray(self.fisher / self.samples)

    @property
    def adam(self) -> np.ndarray:
        """Adam's estimate of it, its bias corrected; of the mean gradient of a chunk, not of a sample's."""
        return np.asarray(self.stream / (1 - BETA**self.steps))


@dataclass(frozen=True, slots=True)
class Gates:
    """How the scores of samples feel each channel of a group as a whole.

    Attributes:
        total: sum over samples of u, float64 [size].
        absolute: sum of |u|.
        square: sum of u^2.
        samples: number of samples.
        parts: squared gradients of the weights that read the channels, by part (the first one of those that share
            them); without parts whose outputs are no tensor.
    """

    total: np.ndarray
    absolute: np.ndarray
    square: np.ndarray
    samples: int
    parts: Mapping[str, Slopes]

    def merge(self, other: Gates) -> Gates:
        """Both."""
        return Gates(
            self.total + other.total,
            self.absolute + other.absolute,
            self.square + other.square,
            self.samples + other.samples,
            {name: own.merge(other.parts[name]) for name, own in self.parts.items()},
        )


def outer_probe(part: Part, loss: str) -> Probe:
    """Observe the output gradients of a part whose outputs are a tensor (``part.geometry.answer``)."""
    answer = part.geometry.answer
    if answer is None:
        raise ValueError(f"the outputs of {part.name} are no tensor")

    def observe(values: Arrays, _: int) -> Outer:
        rows = part.geometry.outputs(values[slope(answer)], None)
        return Outer((rows.T @ rows).astype(np.float64), len(rows), int(values[SAMPLES]))

    return Probe(f"{part.name}@{loss}/outer", (), observe, (answer,), loss)


@dataclass(frozen=True, slots=True)
class Reader:
    """A part that reads a group.

    Attributes:
        part: the part.
        owners: the channel of every column, -1 for none: int64 [columns].
        size: channels of the group.
    """

    part: Part
    owners: np.ndarray
    size: int

    @property
    def source(self) -> str:
        """The tensor it reads."""
        return self.part.geometry.tensors[0]

    @property
    def felt(self) -> str:
        """The tensor whose gradient says how it is felt: its outputs, its inputs where these are no tensor."""
        return self.part.geometry.answer or self.source

    def by_channel(self, columns: np.ndarray) -> np.ndarray:
        """Sums over the columns of each channel: [samples, columns] to float64 [samples, size]."""
        own = self.owners >= 0
        return np.array([np.bincount(self.owners[own], row[own], self.size) for row in columns])


def gates_probe(group: str, size: int, readers: Sequence[Reader], loss: str) -> Probe:
    """Observe how the ``size`` channels of a group are felt through all that reads them."""
    recurrent = [reader for reader in readers if reader.part.geometry.answer is None]
    others = [reader for reader in readers if reader.part.geometry.answer is not None]
    weighted = _sharing(others, {reader.source for reader in recurrent})

    def observe(values: Arrays, _: int) -> Gates:
        gates = np.zeros((int(values[SAMPLES]), size))
        slopes: dict[str, Slopes] = {}
        whole: set[str] = set()  # tensors whose gradient was taken: it is felt by all that read them, and counts once
        for reader in recurrent:
            felt = None if reader.source in whole else _through_inputs(reader, values)
            if felt is not None:
                gates += felt
                whole.add(reader.source)
        for shared in weighted:
            columns, slopes[shared[0].part.name] = _through_weights(shared, values)
            if shared[0].source not in whole:
                gates += shared[0].by_channel(columns)
        return Gates(gates.sum(0), np.abs(gates).sum(0), np.square(gates).sum(0), len(gates), slopes)

    tensors = dict.fromkeys(reader.source for reader in readers)
    felt = dict.fromkeys(reader.felt for reader in readers)
    return Probe(f"{group}@{loss}/gates", tuple(tensors), observe, tuple(felt), loss)


def _sharing(readers: Sequence[Reader], apart: Collection[str]) -> list[list[Reader]]:
    """Readers that share their weights, together; those of some tensors by themselves."""
    found: dict[tuple[tuple[Source, ...], str], list[Reader]] = {}
    for reader in readers:
        own = reader.source if reader.source in apart else ""
        found.setdefault((reader.part.weights, own), []).append(reader)
    return list(found.values())


def _through_weights(shared: Sequence[Reader], values: Arrays) -> tuple[np.ndarray, Slopes]:
    """Weights times their gradients, summed over outputs [samples, columns], and the squared gradients."""
    pairs = [_rows(reader, values) for reader in shared]
    outputs, rows = pairs[0] if len(pairs) == 1 else (np.concatenate(own, axis=1) for own in zip(*pairs, strict=True))
    weights = shared[0].part.matrix()[:, :-1].astype(np.float32)
    bias = outputs.sum(1)
    if outputs.shape[1] == 1:  # one position: squares of products are products of squares
        g, x = outputs[:, 0], rows[:, 0]
        columns, squares, total = x * (g @ weights), np.square(g).T @ np.square(x), g.T @ x
    else:
        gradient = outputs.transpose(0, 2, 1) @ rows
        columns = np.einsum("noc,oc->nc", gradient, weights)
        squares, total = np.einsum("noc,noc->oc", gradient, gradient), gradient.sum(0)
    squares, total = np.column_stack([squares, np.square(bias).sum(0)]), np.column_stack([total, bias.sum(0)])
    return columns, Slopes.of(squares, total, len(bias))


def _rows(reader: Reader, values: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Output gradients [samples, positions, outputs] and inputs [samples, positions, columns]."""
    geometry, felt = reader.part.geometry, values[slope(reader.felt)]
    counted = [felt.shape[axis] for axis in geometry.crosswise(reader.felt, felt.ndim)] or [len(felt)]
    outputs, rows = (
        _by_sample(flat.astype(np.float32, copy=False), counted, int(values[SAMPLES]))
        for flat in (geometry.outputs(felt, None), geometry.rows(values, None))
    )
    return outputs, rows


def _through_inputs(reader: Reader, values: Arrays) -> np.ndarray | None:
    """Inputs times their gradients, for the gates of a recurrent operator: its rows come step by step.

    None where it reads no channel of the group through its inputs. What it remembers has no gradient of its own here;
    it is felt through what reads the output.
    """
    product = values[reader.source] * values[slope(reader.source)]
    flat = reader.part.geometry.rows({reader.source: product}, None)
    owners = reader.owners[: flat.shape[1]]
    if (owners < 0).all():
        return None
    samples = int(values[SAMPLES])
    columns = _by_sample(flat, product.shape[:2], samples, second=True).sum(1, dtype=np.float64)
    return Reader(reader.part, owners, reader.size).by_channel(columns)


def _by_sample(rows: np.ndarray, counted: Sequence[int], samples: int, *, second: bool = False) -> np.ndarray:
    """Rows that axes of these lengths count, sample by sample: [samples, positions, width] (see the module)."""
    order = sorted(range(len(counted)), key=lambda axis: (counted[axis] != samples, second and axis != 1, axis))
    axis = next((axis for axis in order if counted[axis] % samples == 0), None)
    if axis is None:
        together = np.zeros((samples, *rows.shape), rows.dtype)
        together[0] = rows
        return together
    shaped = rows.reshape(*counted, -1, rows.shape[-1])
    return np.moveaxis(shaped, axis, 0).reshape(samples, -1, rows.shape[-1])
