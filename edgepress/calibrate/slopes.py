"""What gradients say about linear operators and their input channels, in sums that merge.

With input rows ``x`` and gradients ``g`` of the outputs, the gradient of the weights for one sample is the sum over its
positions ``P_n = sum_p g_p [x_p, 1]^T``. From it::

    fisher    sum_n P_n^2                       diagonal of the Fisher information (Tu 2016, section 2)
    stream    v <- BETA v + (1 - BETA) m^2      second moment of the mean gradient m of a chunk, as Adam has it
    outer     sum over rows of g g^T            Kronecker factor G (Martens & Grosse 2015; for convolutions Grosse 2016)
    gates     u_n[c] = sum over weights w of channel c of  w dl/dw     how a sample's score feels a channel as a whole

The streaming estimate depends on the order of the samples; parts of a stream still merge exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.statistics import Probe, slope
from edgepress.calibrate.views import Part

BETA = 0.999
"""Decay of Adam's second moment."""

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
        parts: squared gradients of the weights that read the channels, by part; without parts whose outputs are no
            tensor.
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
        felt = values[slope(answer)]
        rows = part.geometry.outputs(felt, None)
        return Outer((rows.T @ rows).astype(np.float64), len(rows), len(felt))

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

    def by_channel(self, columns: np.ndarray) -> np.ndarray:
        """Sums over the columns of each channel: [samples, columns] to float64 [samples, size]."""
        own = self.owners >= 0
        return np.array([np.bincount(self.owners[own], row[own], self.size) for row in columns])


def gates_probe(group: str, readers: Sequence[Reader], loss: str) -> Probe:
    """Observe how the channels of a group are felt through all that reads them."""
    parts = [reader.part for reader in readers]
    tensors = dict.fromkeys(name for part in parts for name in part.geometry.tensors)
    felt = dict.fromkeys(_felt(part) for part in parts)

    def observe(values: Arrays, _: int) -> Gates:
        gates: np.ndarray = np.zeros(())
        slopes = {}
        for reader in readers:
            if reader.part.geometry.answer is None:
                gates = gates + _through_inputs(reader, values)
            else:
                columns, slopes[reader.part.name] = _through_weights(reader.part, values)
                gates = gates + reader.by_channel(columns)
        return Gates(gates.sum(0), np.abs(gates).sum(0), np.square(gates).sum(0), len(gates), slopes)

    return Probe(f"{group}@{loss}/gates", tuple(tensors), observe, tuple(felt), loss)


def _felt(part: Part) -> str:
    """The tensor whose gradient says how the part is felt."""
    return part.geometry.tensors[0] if part.geometry.answer is None else part.geometry.answer


def _through_weights(part: Part, values: Arrays) -> tuple[np.ndarray, Slopes]:
    """Weights times their gradients, summed over outputs [samples, columns], and the squared gradients."""
    felt = values[slope(_felt(part))]
    outputs = part.geometry.outputs(felt, None).reshape(len(felt), -1, part.outputs)
    flat = part.geometry.rows(values, None)
    rows = np.ones((*outputs.shape[:2], flat.shape[1] + 1), np.float32)
    rows[:, :, :-1] = flat.reshape(*outputs.shape[:2], -1)
    weights = part.matrix()[:, :-1].astype(np.float32)
    if outputs.shape[1] == 1:  # one position: squares of products are products of squares
        g, x = outputs[:, 0], rows[:, 0]
        return x[:, :-1] * (g @ weights), Slopes.of(np.square(g).T @ np.square(x), g.T @ x, len(felt))
    gradient = outputs.transpose(0, 2, 1) @ rows
    columns = np.einsum("noc,oc->nc", gradient[:, :, :-1], weights)
    return columns, Slopes.of(np.einsum("noc,noc->oc", gradient, gradient), gradient.sum(0), len(felt))


def _through_inputs(reader: Reader, values: Arrays) -> np.ndarray:
    """Inputs times their gradients, for the gates of a recurrent operator: its rows come step by step.

    What it remembers has no gradient of its own here; it is felt through what reads the output.
    """
    geometry, source = reader.part.geometry, reader.part.geometry.tensors[0]
    samples = values[source].shape[1]
    product = geometry.rows({source: values[source] * values[slope(source)]}, None)
    columns = np.zeros((samples, reader.part.columns))
    columns[:, : product.shape[1]] = product.reshape(-1, samples, product.shape[1]).sum(0, dtype=np.float64)
    return reader.by_channel(columns)
