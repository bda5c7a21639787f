"""Networks of HardSwish or SiLU, which int8 makes slower on x64.

onnxruntime 1.31 fuses no int8 HardSwish (it runs in float between two conversions), and a SiLU costs two int8 kernels
where float has one. Timed networks that have one behind every convolution but the last of a block took 1.3 to 1.5 times
as long in int8 on x64; half as many as convolutions is the threshold. It is a guess ahead of timing, no more.
"""

from __future__ import annotations

from edgepress.model import Model, Node
from edgepress.targets import Target


def swish_reason(model: Model, target: Target) -> str:
    """Why int8 is likely slower than float for the model as a whole; empty if nothing says so."""
    layers = sum(node.op == "Conv" for node in model.nodes)
    found = sum(_is_swish(model, node) for node in model.nodes)
    if target.swish_pays or not layers or 2 * found < layers:
        return ""
    return f"{found} HardSwish or SiLU behind {layers} convolutions: int8 is slower than float on {target.name}"


def _is_swish(model: Model, node: Node) -> bool:
    """HardSwish, Swish, or ``x * (Hard)Sigmoid(x)`` at its gate."""
    if node.op in ("HardSwish", "Swish", "QuickGelu"):
        return True
    readers = model.consumers(node.output) if node.op in ("HardSigmoid", "Sigmoid") else ()
    return len(readers) == 1 and readers[0].op == "Mul" and node.inputs[0] in readers[0].inputs
