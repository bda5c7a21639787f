"""Data movement: targets, sizes, bounds and indices that mention a width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.model import Model, Node
from edgepress.surgery.mend.mender import Mender, set_constant
from edgepress.surgery.mend.survivors import Survivors

END = 2**31 - 1
"""Behind the last position of any axis."""


def _reshape(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    entries = model.constants[node.inputs[1]].ravel().tolist()
    entering, old, new = left.shape(node.inputs[0]), left.shape(node.output, before=True), left.shape(node.output)
    mended = []
    for axis, entry in enumerate(entries):
        copies = entry == 0 and not node.attributes.get("allowzero", 0) and entering[axis] == new[axis]
        mended.append(entry if entry == -1 or copies or (entry and new[axis] == old[axis]) else new[axis])
    if mended != entries:
        set_constant(target, 1, f"{node.output}/shape", mended)


def _expand(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    entries = model.constants[node.inputs[1]].ravel().tolist()
    old, new = left.shape(node.output, before=True), left.shape(node.output)
    first = len(new) - len(entries)
    pairs = zip(entries, old[first:], new[first:], strict=True)
    mended = [entry if entry == 1 or before == after else after for entry, before, after in pairs]
    if mended != entries:
        set_constant(target, 1, f"{node.output}/shape", mended)


def _split(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    axis = int(node.attributes.get("axis", 0))
    sizes = [int(left.mask(output, axis).sum()) for output in node.outputs]
    if sizes == [left.shape(output, before=True)[axis] for output in node.outputs]:
        return
    target.attrs.pop("num_outputs", None)
    if model.opset >= 13:
        set_constant(target, 1, f"{node.output}/split", sizes)
    else:
        target.attrs["split"] = sizes


def _slice(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    starts, ends = _numbers(model, node, 1, "starts", ()), _numbers(model, node, 2, "ends", ())
    axes = _numbers(model, node, 3, "axes", range(len(starts)))
    steps = _numbers(model, node, 4, "steps", [1] * len(starts))
    places = [
        _counted(left.mask(node.inputs[0], axis), slice(*bounds))
        for axis, *bounds in zip(axes, starts, ends, steps, strict=True)
    ]
    for slot, name, old, new in (
        (1, "starts", starts, [place.start for place in places]),
        (2, "ends", ends, [place.stop for place in places]),
    ):
        if list(old) != new:
            _set_numbers(node, target, slot, name, new)


def _counted(stay: np.ndarray, old: slice) -> slice:
    """The same places of an axis, counted in positions that are left; bounds that still mean them stay.

    Bounds that count from the end do so afterwards: the axis may hold the channels of a free number of positions.
    """
    start, stop, step = old.indices(len(stay))
    behind = int(step < 0)  # going down, bounds are counted from the position behind them
    count = int(stay.sum())
    first = next((place for place in range(start, stop, step) if stay[place]), start)
    begin, end = (int(stay[: edge + behind].sum()) - behind for edge in (first, stop))
    kept = old.indices(count)
    if kept[0] != begin:
        old = slice(begin - count if old.start < 0 else begin, old.stop, step)
    if kept[1] != end:
        from_the_end = end - count if end < count else END
        old = slice(old.start, end if old.stop >= 0 and end >= 0 else from_the_end, step)
    return old


def _numbers(model: Model, node: Node, slot: int, attribute: str, default: Sequence[int]) -> list[int]:
    """A parameter: an input, or an attribute in old operator sets."""
    given = slot < len(node.inputs) and node.inputs[slot]
    return [int(n) for n in (model.constants[given].ravel() if given else node.attributes.get(attribute, default))]


def _set_numbers(node: Node, target: gs.Node, slot: int, attribute: str, values: list[int]) -> None:
    if slot < len(node.inputs):
        set_constant(target, slot, f"{node.output}/{attribute}", values)
    else:
        target.attrs[attribute] = values


def _resize(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    sizes = model.constants.get(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is None:
        return
    old, new = left.shape(node.output, before=True), left.shape(node.output)
    axes = node.attributes.get("axes", range(len(old)))
    mended = [
        size if old[axis] == new[axis] else new[axis] for axis, size in zip(axes, sizes.ravel().tolist(), strict=True)
    ]
    if mended != sizes.ravel().tolist():
        set_constant(target, 3, f"{node.output}/sizes", mended)


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
    set_constant(target, 1, f"{node.output}/indices", kept)


MENDERS: Mapping[str, Mender] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Split": _split,
    "Slice": _slice,
    "Resize": _resize,
    "Gather": _gather,
}
