"""Redistribution: after a cut, refit every linear operator whose input changed (Shah 2020, sequential form).

For each of them, inputs come from the compressed network as it is by then, targets are the ORIGINAL network's outputs
(corrected at residual Adds), and the new weights are the ridge least-squares solution pulled toward the sliced original
weights, with the ridge chosen on held-out chunks (``calibrate.ridge``)::

    min_M  sum ||y_original - M [x_compressed, 1]||^2 + r ||M - W_sliced||^2

What is an operator is said in ``calibrate.views``: every group of a Conv, every phase of a ConvTranspose, a Gemm,
MatMul (with the bias of the Add behind it) or Einsum, the gates of a recurrent operator. Some cases need more:

* Depthwise convolutions are carried along: their error is mended by the next dense layer (refitting their few taps
  gained nothing).
* Behind a Concat all columns are fitted, not only those of the branch that lost channels: the others take over a part
  of what is gone. (Measured with 256 to 30,000 rows: the error on hold-out samples is 10 to 30 % lower than with the
  other branches' columns left as they are, never higher; the ridge keeps them near where they were.)
* Several nodes with the same weights are fitted jointly where the first of them stands. The inputs of the later ones
  in the compressed network are not known there: those of the original network, without the removed channels, stand in.
* A layer with more than ``LARGEST_GRAM`` columns stays as sliced: its Gram would not fit.
* A recurrent operator reads its own past. Its rows take the states from the original network, without the removed units
  (teacher forcing); so it can be fitted before it runs.

Measured: deletion alone destroys trained networks, scalar redistribution recovers part, this recovers 91-92 of 93
points at half the multiply-adds.
Guarantee: deterministic; bit-identical for any number of workers.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np

from edgepress.calibrate import fits
from edgepress.calibrate.fits import Fit, fits_of
from edgepress.calibrate.ridge import refit
from edgepress.calibrate.statistics import Gram, SplitGram
from edgepress.calibrate.views import Part
from edgepress.executor.run import Executor, single_threaded
from edgepress.executor.sweep import Scene, Visit, sweep
from edgepress.model import Model
from edgepress.parallel import ordered_map
from edgepress.surgery.cut import Cutting
from edgepress.surgery.mend import Survivors
from edgepress.surgery.narrowed import beside_what_is_left

Chunks = Sequence[Mapping[str, np.ndarray]]


class Finish(Protocol):
    """What is done to every layer before the sweep goes on: it may round the weights."""

    def wants(self, fit: Fit) -> bool:
        """Whether a layer is handed over even if its inputs are those of the original."""
        ...

    def fitted(self, fit: Fit, matrix: np.ndarray, moments: Gram) -> np.ndarray:
        """The matrix to go on with.

        Args:
            fit: the layer in the cut model.
            matrix: its refitted matrix [outputs, columns + biases].
            moments: of its inputs in the changed network and of its targets.
        """
        ...

    def unfitted(self, seen: Visit) -> Mapping[str, np.ndarray]:
        """New initializers of a node that has no fit, seen beside what is left of the original; empty for none."""
        ...


class _Nothing:
    """Refit only (private)."""

    def wants(self, _: Fit) -> bool:
        return False

    def fitted(self, _: Fit, matrix: np.ndarray, __: Gram) -> np.ndarray:
        return matrix

    def unfitted(self, _: Visit) -> Mapping[str, np.ndarray]:
        return {}


def fold(
    original: Model,
    cutting: Cutting,
    chunks: Chunks,
    *,
    positions: int,
    seed: int,
    workers: int,
    finish: Finish | None = None,
) -> Model:
    """Refit the cut model against the original one.

    Args:
        original: the model before the cut.
        cutting: the cut model and what it kept.
        chunks: calibration inputs, ready to run (held in memory).
        positions: output positions used per sample.
        seed: seed of the choice of positions.
        workers: threads.
        finish: rounds each layer once it is refitted, so that the layers behind it make up for that too.
    """
    twins = _twins(original, cutting)
    sampling = _Sampling(positions, seed)
    elsewhere = _elsewhere(original, twins, chunks, sampling, workers)
    last = finish or _Nothing()

    def visit(seen: Visit) -> Mapping[str, np.ndarray]:
        given: dict[str, np.ndarray] = {}
        own = [twin for twin in twins.get(seen.node.name, ()) if seen.stale or twin.forgets or last.wants(twin.now)]
        for twin in own:
            looking = _Looking(sampling, cutting.left)
            if looking.aligned(twin.then, seen):
                known = ChainMap(given, seen.parameters)  # type: ignore[arg-type]
                given |= _refitted(twin, seen, known, elsewhere, looking, last)
        return given or last.unfitted(beside_what_is_left(seen, cutting.left))

    return sweep(original, cutting.model, chunks, visit, workers=workers)


@dataclass(frozen=True, slots=True)
class _Sampling:
    """Which positions of a chunk are looked at (private)."""

    positions: int
    seed: int

    def of(self, part: Part, values: Mapping[str, np.ndarray], number: int) -> np.ndarray | None:
        return part.choose(values, self.positions, np.random.default_rng([self.seed, number]))


@dataclass(frozen=True, slots=True)
class _Looking:
    """How both networks are looked at (private)."""

    sampling: _Sampling
    left: Survivors | None

    def aligned(self, fit: Fit, seen: Visit) -> bool:
        """Whether rows that are lost can be told: not where an axis holds channels of every sample (N x C in one)."""

        def told(scene: Scene) -> bool:
            own = [part for part in fit.parts if part.node.name == seen.node.name]
            return all(self._told(part, name, scene.original[name]) for part in own for name in part.geometry.tensors)

        return all(seen.each(told))

    def _told(self, part: Part, name: str, array: np.ndarray) -> bool:
        axes = part.geometry.crosswise(name, array.ndim) if self.left is not None and self.left.changed(name) else ()
        masks = ((axis, self.left.mask(name, axis)) for axis in axes if self.left is not None)
        return all(mask.all() or len(mask) == array.shape[axis] for axis, mask in masks)

    def matched(self, part: Part, values: Mapping[str, np.ndarray], names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Activations of the original without rows that the changed network lost: channels of another kind."""
        found = {}
        for name in names:
            array = values[name]
            for axis in part.geometry.crosswise(name, array.ndim) if self.left is not None else ():
                if self.left is not None and not (mask := self.left.mask(name, axis)).all():
                    array = array.compress(mask, axis)
            found[name] = array
        return found


@dataclass(frozen=True, slots=True)
class _Twin:
    """A fit of the cut model and what it was in the original (private).

    Attributes:
        then: the fit of the original.
        now: the fit of the cut model.
        outputs: outputs of ``then`` that are left.
        columns: per part, the columns of ``then`` that are left (the bias not counted).
    """

    then: Fit
    now: Fit
    outputs: np.ndarray
    columns: tuple[np.ndarray, ...]

    @property
    def forgets(self) -> bool:
        """Whether states that a part remembers are gone."""
        pairs = zip(self.then.parts, self.columns, strict=True)
        return any(len(kept) < part.columns for part, kept in pairs if part.geometry.answer is None)


def _twins(original: Model, cutting: Cutting) -> dict[str, list[_Twin]]:
    """The fits by their first node; without those of nodes that lost a whole part (then numbers mean other groups)."""
    names = [node.name for node in original.nodes]
    before, after = (fits_of(model, names)[0] for model in (original, cutting.model))
    made = {fit.name: fit for fit in after}
    left = {fit.name: np.flatnonzero(fit.kept(cutting.kept)[0]) for fit in before}
    broken = {part.node.name for fit in before if fit.name not in made or not left[fit.name].size for part in fit.parts}
    found: dict[str, list[_Twin]] = {}
    for then in before:
        if then.columns <= fits.LARGEST_GRAM and not broken & {part.node.name for part in then.parts}:
            columns = tuple(_kept_columns(part, cutting) for part in then.parts)
            twin = _Twin(then, made[then.name], left[then.name], columns)
            found.setdefault(then.node.name, []).append(twin)
    return found


def _kept_columns(part: Part, cutting: Cutting) -> np.ndarray:
    masks = [source.kept(cutting.kept.get(source.tensor, ()))[1] for source in part.weights]
    return np.flatnonzero(np.concatenate(masks))


def _refitted(
    twin: _Twin,
    seen: Visit,
    known: Mapping[str, np.ndarray],
    elsewhere: Mapping[str, SplitGram],
    looking: _Looking,
    last: Finish,
) -> dict[str, np.ndarray]:
    """New initializers of one fit, in the element types of the old ones."""

    def split_of(number: int, part: Part) -> SplitGram:
        if part.node.name != seen.node.name:
            return elsewhere[part.name]
        observed: Iterator[SplitGram] = seen.stream(lambda scene: _observed(twin, number, scene, looking))
        return reduce(SplitGram.merge, observed)

    fit = twin.now
    splits = [split_of(number, part) for number, part in enumerate(fit.parts)]
    joined = fit.joined(splits)
    start = fit.matrix(known)
    found = (
        refit(joined, start, np.arange(fit.width), biases=fit.biases).matrix if seen.stale or twin.forgets else start
    )
    written = fit.written(last.fitted(fit, found, joined.whole), known)
    return {name: array.astype(known[name].dtype, copy=False) for name, array in written.items()}


def _observed(twin: _Twin, number: int, scene: Scene, looking: _Looking) -> SplitGram:
    """Inputs of the changed network against outputs of the original one, of one part and chunk."""
    then, now = twin.then.parts[number], twin.now.parts[number]
    original = looking.matched(then, scene.original, then.geometry.tensors)
    chosen = looking.sampling.of(then, original, scene.number)
    targets = then.targets(original, chosen)[:, twin.outputs]
    if scene.other is not None and then.geometry.answer is not None:
        beside = looking.matched(then, scene.original, [scene.other])[scene.other]
        right = then.geometry.outputs(beside, chosen)[:, twin.outputs]
        targets += right - now.geometry.outputs(scene.changed[scene.other], chosen)
    past = then.geometry.states(original, chosen)
    if past is not None:
        kept = twin.columns[number] - (then.columns - past.shape[1])
        past = past[:, kept[kept >= 0]]
    return SplitGram.of(Gram.of(now.rows(scene.changed, chosen, past), targets), scene.number)


def _elsewhere(
    original: Model, twins: Mapping[str, Sequence[_Twin]], chunks: Chunks, sampling: _Sampling, workers: int
) -> dict[str, SplitGram]:
    """Moments of parts that are fitted before their node is reached: on the original network (see the module)."""
    later = [
        (twin, number)
        for name, group in twins.items()
        for twin in group
        for number, part in enumerate(twin.then.parts)
        if part.node.name != name
    ]
    if not later:
        return {}
    executor = Executor(original)
    wanted = sorted({name for twin, number in later for name in twin.then.parts[number].geometry.tensors})

    def one(numbered: tuple[int, Mapping[str, np.ndarray]]) -> list[SplitGram]:
        chunk, inputs = numbered
        inner = [name for name in wanted if name not in inputs]
        made = executor.run(inputs, capture=inner)
        values = {**inputs, **{name: np.asarray(made[name]) for name in inner}}
        return [_restricted(twin, number, values, chunk, sampling) for twin, number in later]

    with single_threaded():
        observed = list(ordered_map(one, enumerate(chunks), workers=workers))
    merged = [reduce(SplitGram.merge, column) for column in zip(*observed, strict=True)]
    return {twin.now.parts[number].name: split for (twin, number), split in zip(later, merged, strict=True)}


def _restricted(
    twin: _Twin, number: int, values: Mapping[str, np.ndarray], chunk: int, sampling: _Sampling
) -> SplitGram:
    """Rows of the original network without the removed columns."""
    part, kept = twin.then.parts[number], twin.columns[number]
    chosen = sampling.of(part, values, chunk)
    gram = Gram.of(part.rows(values, chosen), part.targets(values, chosen))
    return SplitGram.of(gram.select(np.append(kept, part.columns), twin.outputs), chunk)
