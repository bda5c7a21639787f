"""Attributes that count channels: groups of a convolution, blocks of a normalization, hidden units."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from edgepress.model import Model, Node
from edgepress.surgery.mend.mender import Mender
from edgepress.surgery.mend.survivors import Survivors


def _blocks(attribute: str) -> Mender:
    """Mends the number of blocks that the channels of axis 1 come in: those that keep a channel are left."""

    def mender(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
        count = int(node.attributes.get(attribute, 1))
        if count > 1:
            stay = left.mask(node.inputs[0], 1).reshape(count, -1)
            target.attrs[attribute] = int(stay.any(axis=1).sum())

    return mender


def _hidden(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    produced = next(name for name in node.outputs if name)
    if "hidden_size" in node.attributes:
        target.attrs["hidden_size"] = int(left.mask(produced, -1).sum())


MENDERS: Mapping[str, Mender] = {
    "Conv": _blocks("group"),
    "ConvTranspose": _blocks("group"),
    "GroupNormalization": _blocks("num_groups"),
    "LSTM": _hidden,
    "GRU": _hidden,
    "RNN": _hidden,
}
