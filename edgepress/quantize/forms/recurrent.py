"""Recurrent layers: an LSTM whose products are int8, by DynamicQuantizeLSTM (com.microsoft).

    gates[t] = s_x W_s[o] (q(x[t]) W8)[o] + s_h R_s[o] (q(h[t-1]) R8)[o] + b        W_s[o] = max |W[:, o]| / limit

Weights are int8 ``[directions, inputs, 4 hidden]``, the transpose of what ONNX keeps, with one scale for every gate of
every hidden unit; x as a whole and h of every step become uint8 as they come (contrib_ops/cpu/quantization/
dynamic_quantize_lstm.cc). Biases, initial states, sequence lengths, peepholes, both directions, clipping and other
activations pass through. GRU and RNN have no such form: their weights can be stored (see ``stored``). It pays from
``LEAST_UNITS`` on (benchmarks/transformers.py): rounding h in every step costs small layers more than it saves.
Guarantees: graph outputs keep their names and types; weights within half a step.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from edgepress.errors import ModelError
from edgepress.model import Model, Node
from edgepress.quantize.forms.draft import CONTRIB, Draft, node
from edgepress.quantize.weights.nearest import round_weights

GATES = 4
OPTIONAL = 5
"""Bias, sequence lengths, initial hidden and cell states, peepholes: inputs 3 to 7 of both operators."""

LEAST_UNITS = 128
"""Hidden units from which int8 pays."""

LEAST_OPSET = 7
"""Older ones have a layout of their own."""


def recurrent_candidates(model: Model) -> dict[str, str]:
    """Every LSTM, GRU and RNN, with the reason why int8 is nothing for it; empty if it may pay."""
    found = (each for each in model.nodes if each.op in ("LSTM", "GRU", "RNN"))
    return {each.name: recurrent_refusal(model, each) or _small(model, each) for each in found}


def recurrent_refusal(model: Model, each: Node) -> str:
    """Why a node cannot become a DynamicQuantizeLSTM; empty if it can."""
    if each.op != "LSTM" or each.domain not in ("", "ai.onnx"):
        return f"onnxruntime has no int8 {each.op}"
    if each.attributes.get("layout", 0):
        return "its batch comes first (layout 1), which onnxruntime does not run"
    weights = [model.constants.get(name) for name in each.inputs[1:3]]
    if any(values is None for values in weights):
        return "its weights are computed, not constant"
    if any(values is not None and values.dtype != np.float32 for values in weights):
        return "its weights are not float32"
    if any(values is not None and not np.isfinite(values).all() for values in weights):
        return "its weights have values that are not finite"
    return ""


def _small(model: Model, each: Node) -> str:
    units = model.constants[each.inputs[2]].shape[2]
    return f"{units} hidden units are faster in float" if units < LEAST_UNITS else ""


def recurrent(model: Model, nodes: Collection[str], limit: int = 127) -> Model:
    """The model with LSTM nodes whose products are int8.

    Args:
        model: a float model.
        nodes: names of LSTM nodes (see :func:`recurrent_candidates`), small ones too.
        limit: largest ``|int8 weight|``; 64 where the CPU adds pairs of products in 16 bits.

    Raises:
        ModelError: a node of that name does not exist or has no int8 form.
    """
    draft = Draft(model, least_opset=LEAST_OPSET)
    known = {each.name: each for each in model.nodes}
    for name in sorted(nodes):
        reason = recurrent_refusal(model, known[name]) if name in known else "there is no such node"
        if reason:
            raise ModelError(f"Node {name!r} cannot be quantized: {reason}.")
        draft.replace(known[name], [_written(draft, known[name], limit)])
    return draft.finish()


def _written(draft: Draft, old: Node, limit: int) -> onnx.NodeProto:
    passed = (*old.inputs[3:], *[""] * OPTIONAL)[:OPTIONAL]
    input_weights, input_scale = _weights(draft, old, 1, limit)
    state_weights, state_scale = _weights(draft, old, 2, limit)
    attributes = {key: value for key, value in old.attributes.items() if key != "layout"}
    attributes.setdefault("direction", "forward")
    attributes.setdefault("hidden_size", draft.model.constants[old.inputs[2]].shape[2])
    inputs = [old.inputs[0], input_weights, state_weights, *passed, *input_scale, *state_scale]
    return node("DynamicQuantizeLSTM", inputs, old.outputs, name=old.name, domain=CONTRIB, **attributes)


def _weights(draft: Draft, old: Node, place: int, limit: int) -> tuple[str, list[str]]:
    """The names of int8 weights, and of their scales and zero points."""
    weight, name = draft.model.constants[old.inputs[place]], f"{old.name}/{'xwr'[place]}"
    directions, gates, inputs = weight.shape
    made = round_weights(weight.reshape(directions * gates, inputs), 0, limit)
    values = made.values.reshape(weight.shape).transpose(0, 2, 1)
    scale = made.scale.reshape(directions, gates)
    zero = np.zeros(scale.shape, np.int8)
    return draft.constant(name, values), [draft.constant(f"{name}s", scale), draft.constant(f"{name}z", zero)]
