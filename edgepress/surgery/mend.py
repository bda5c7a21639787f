"""Mends what mentions a width: attributes and constants that a cut makes stale.

    Conv      group of a depthwise convolution = channels that are left
    Reshape   target entries that name a width (0, -1 and unchanged entries stay as they are)
    Expand    the same, aligned to the right; 1 stays
    Split     sizes, written out when the parts changed
    Slice     bounds on a channel axis, counted in channels that are left
    Gather    indices on a channel axis, renumbered, those of removed channels dropped

A mended constant is always a new one, because the old one may be shared. Works on a graphsurgeon graph
that belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.model import Model, Node


class Survivors:
    """Which positions of every tensor stay.

    Args:
        channels: channel numbers per tensor (``Grouping.channels``).
        gone: bool [largest number + 1]; ``gone[0]`` is False.
    """

    def __init__(self, channels: Mapping[str, np.ndarray], gone: np.ndarray) -> None:
        """See the class."""
        self._channels = channels
        self._gone = gone

    def known(self, tensor: str) -> bool:
        """Whether the tensor was analysed and its shape is known."""
        return tensor in self._channels

    def mask(self, tensor: str, axis: int) -> np.ndarray:
        """Bool [n]: the indices of ``axis`` that stay."""
        numbers = self._channels[tensor]
        axis %= numbers.ndim
        line = numbers[tuple(slice(None) if i == axis or stride else slice(0, 1) for i, stride in _strides(numbers))]
        stay = ~self._gone[line]
        return np.asarray(stay.any(axis=tuple(i for i in range(stay.ndim) if i != axis)))

    def shape(self, tensor: str, *, before: bool = False) -> list[int]:
        """The tensor's shape after (or before) the cut, batch 1."""
        numbers = self._channels[tensor]
        return list(numbers.shape) if before else [int(self.mask(tensor, axis).sum()) for axis in range(numbers.ndim)]

    def changed(self, tensor: str) -> bool:
        """Whether the tensor loses positions."""
        return self.known(tensor) and self.shape(tensor) != self.shape(tensor, before=True)


def _strides(array: np.ndarray) -> list[tuple[int, int]]:
    return list(enumerate(array.strides))


def mend(graph: gs.Graph, model: Model, left: Survivors) -> None:
    """Mend every node of ``graph`` (which mirrors ``model.nodes``) that mentions a changed width."""
    for node, target in zip(model.nodes, graph.nodes, strict=True):
        mender = _MENDERS.get(node.op)
        touched = (*node.inputs, *node.outputs)
        if mender is not None and any(left.changed(tensor) for tensor in touched):
            mender(model, node, target, left)


def _constant(node: gs.Node, slot: int, name: str, values: list[int] | np.ndarray) -> None:
    """Make input ``slot`` of a node a new integer constant."""
    constant = gs.Constant(name, np.asarray(values, np.int64))
    while len(node.inputs) <= slot:
        node.inputs.append(gs.Variable.empty())
    node.inputs[slot] = constant


def _conv(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    if int(node.attributes.get("group", 1)) > 1 and model.constants[node.inputs[1]].shape[1] == 1:
        target.attrs["group"] = int(left.mask(node.inputs[0], 1).sum())


def _reshape(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    entries = model.constants[node.inputs[1]].ravel().tolist()
    entering, old, new = left.shape(node.inputs[0]), left.shape(node.output, before=True), left.shape(node.output)
    mended = []
    for axis, entry in enumerate(entries):
        copies = entry == 0 and not node.attributes.get("allowzero", 0) and entering[axis] == new[axis]
        mended.append(entry if entry == -1 or copies or (entry and new[axis] == old[axis]) else new[axis])
    if mended != entries:
        _constant(target, 1, f"{node.output}/shape", mended)


def _expand(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    entries = model.constants[node.inputs[1]].ravel().tolist()
    old, new = left.shape(node.output, before=True), left.shape(node.output)
    first = len(new) - len(entries)
    pairs = zip(entries, old[first:], new[first:], strict=True)
    mended = [entry if entry == 1 or before == after else after for entry, before, after in pairs]
    if mended != entries:
        _constant(target, 1, f"{node.output}/shape", mended)


def _split(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    axis = int(node.attributes.get("axis", 0))
    sizes = [int(left.mask(output, axis).sum()) for output in node.outputs]
    if sizes == [left.shape(output, before=True)[axis] for output in node.outputs]:
        return
    target.attrs.pop("num_outputs", None)
    if model.opset >= 13:
        _constant(target, 1, f"{node.output}/split", sizes)
    else:
        target.attrs["split"] = sizes


def _slice(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    bounds = [model.constants[name].ravel().tolist() for name in node.inputs[1:3]]
    given = model.constants[node.inputs[3]].ravel().tolist() if len(node.inputs) > 3 and node.inputs[3] else None
    mended = [list(bound) for bound in bounds]
    for place, axis in enumerate(given if given is not None else range(len(bounds[0]))):
        stay = left.mask(node.inputs[0], axis)
        if not stay.all():
            for old, new in zip(bounds, mended, strict=True):
                edge = old[place] + len(stay) if old[place] < 0 else old[place]
                new[place] = int(stay[: max(edge, 0)].sum())
    for slot, (old, new, what) in enumerate(zip(bounds, mended, ("starts", "ends"), strict=True), start=1):
        if new != old:
            _constant(target, slot, f"{node.output}/{what}", new)


def _gather(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    axis = int(node.attributes.get("axis", 0))
    stay = left.mask(node.inputs[0], axis)
    if stay.all():
        return
    indices = model.constants[node.inputs[1]]
    axis %= len(left.shape(node.inputs[0]))
    number = np.cumsum(stay) - 1
    kept = number[np.where(indices < 0, indices + len(stay), indices)]
    for place in range(indices.ndim):
        kept = kept.compress(left.mask(node.output, axis + place), axis=place)
    _constant(target, 1, f"{node.output}/indices", kept)


_Mender = Callable[[Model, Node, gs.Node, Survivors], None]
_MENDERS: Mapping[str, _Mender] = {
    "Conv": _conv,
    "Reshape": _reshape,
    "Expand": _expand,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
}
