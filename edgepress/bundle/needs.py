"""What a model needs: the oldest onnxruntime that loads and runs it as it is."""

from __future__ import annotations

from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.quantize.graph.lowered import KERNELS, lowered
from edgepress.targets.releases import CAST2, CAST4, RELEASES, TYPES4, Release

_FOUR, _TWO = ("int4", "uint4"), ("int2", "uint2")


def oldest_release(model: Model) -> Release | None:
    """The oldest release that takes the file as it is, by its operator sets, IR version, operators and types.

    Returns:
        The release; None if nothing is known of some operator (one of other domains than ONNX's, say).
    """
    least, light = _by_types(model), Model.of(model.outline())  # without the weights, which may be large
    for known in RELEASES:
        loads = known.version >= least and known.loads(model.opset, model.ir_version)
        if (
            loads
            and model.opset <= KERNELS.get(known.version, known.opset)
            and not isinstance(lowered(light, known), Refusal)
        ):
            return known
    return None


def _by_types(model: Model) -> tuple[int, int]:
    """The first release that has the types of all initializers."""
    types = {name: kind.dtype for name, kind in model.types.items()}
    held = {types[name] for name in model.constants}
    if held.intersection(_TWO):
        return CAST2
    if not held.intersection(_FOUR):
        return RELEASES[0].version
    cast = any(node.op == "Cast" and types.get(node.inputs[0]) in _FOUR for node in model.nodes)
    return CAST4 if cast else TYPES4
