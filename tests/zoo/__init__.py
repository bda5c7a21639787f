"""A zoo of small networks: torch definitions, exports to ONNX, and what must be prunable in each."""

from __future__ import annotations

from zoo import convolutional, dense, mobile, recurrent, tabular, transformers
from zoo.export import ExportError, export, modules_of
from zoo.parts import DYNAMO, LEGACY, NETS, OPSETS, Input, Net, Variant

__all__ = [
    "DYNAMO",
    "LEGACY",
    "NETS",
    "OPSETS",
    "ExportError",
    "Input",
    "Net",
    "Variant",
    "convolutional",
    "dense",
    "export",
    "mobile",
    "modules_of",
    "recurrent",
    "tabular",
    "transformers",
]
