"""Quantize: a float model becomes int8 QDQ, laid out so that onnxruntime fuses all of it.

``observe`` the activations on samples, read their ``ranges``, ``round_weights``, then ``quantize``; ``unfused`` tells
what onnxruntime does not run as it should. ``repair`` (its own module: it needs torch) and ``baseline`` (it needs
onnxruntime's quantizer) are imported by those who want them.
"""

from __future__ import annotations

from edgepress.quantize.activations.overrides import (
    Overrides,
    activation_ranges,
    read_overrides,
    to_json,
    weight_levels,
    weight_scales,
)
from edgepress.quantize.activations.ranges import (
    Histogram,
    Observations,
    Range,
    activations_to_observe,
    observe,
    ranges,
)
from edgepress.quantize.forms.blocked import blocked, blocked_candidates
from edgepress.quantize.forms.dynamic import dynamic, dynamic_candidates
from edgepress.quantize.forms.recurrent import recurrent, recurrent_candidates
from edgepress.quantize.graph.fusion import unfused
from edgepress.quantize.graph.qdq import quantize, quantize_refusal
from edgepress.quantize.graph.regions import MATRICES, has_float32_weight, stays_float
from edgepress.quantize.storage.slim import slim
from edgepress.quantize.storage.stored import storable, stored
from edgepress.quantize.storage.tables import share_transposed, table_candidates, tables
from edgepress.quantize.weights.equalize import equalize
from edgepress.quantize.weights.nearest import Rounded, bias_correction, round_weights

__all__ = [
    "MATRICES",
    "Histogram",
    "Observations",
    "Overrides",
    "Range",
    "Rounded",
    "activation_ranges",
    "activations_to_observe",
    "bias_correction",
    "blocked",
    "blocked_candidates",
    "dynamic",
    "dynamic_candidates",
    "equalize",
    "has_float32_weight",
    "observe",
    "quantize",
    "quantize_refusal",
    "ranges",
    "read_overrides",
    "recurrent",
    "recurrent_candidates",
    "round_weights",
    "share_transposed",
    "slim",
    "stays_float",
    "storable",
    "stored",
    "table_candidates",
    "tables",
    "to_json",
    "unfused",
    "weight_levels",
    "weight_scales",
]
