"""Write an int8 model without any float arithmetic: `python tools/arm/integer.py MODEL --data SRC -o OUT`.

edgepress keeps layers float where that is faster (convolutions with few input channels, small Gemms), so what
``compress`` writes is rarely all integer. Here the rules of arm64 are left out: everything that has an int8 form gets
it, whatever it costs, and a Softmax at the end is left out, as it has none. The models are for comparing arithmetic
between cores, not for use.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from edgepress.calibrate import open_feed
from edgepress.errors import EdgepressError
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.ops.weighted import output_axis
from edgepress.plan import Quantization
from edgepress.quantize import activations_to_observe, has_float32_weight, observe, quantize, ranges, round_weights
from edgepress.targets import TARGETS

EVERYTHING = dataclasses.replace(TARGETS["arm64"], stem_multiple=1, gemm_floor=0, group_floor=1)
PARITY_SAMPLES = 4
SAMPLES = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantize one model."""
    parser = argparse.ArgumentParser(description="Write an int8 model without any float arithmetic.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="the samples, as for edgepress compress")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        integer(given.model, given.data).save(given.output)
    except EdgepressError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def integer(path: Path, data: str, limit: int = 127) -> Model:
    """The int8 form of a float model, nothing kept float; ranges from the first samples of ``data``.

    ``limit`` is the largest ``|int8 weight|``: 64 for comparing with an x64 CPU without VNNI, which saturates above.
    """
    loaded = Model.load(path)
    feed = open_feed(data, loaded)
    feed = feed.subset(range(min(len(feed), SAMPLES)))
    model = normalize(logits(loaded), [chunk.inputs for chunk in feed.subset(range(PARITY_SAMPLES)).chunks(1)]).model
    settings = Quantization(repair=False, weight_limit=limit)
    rounded = {
        node.name: round_weights(
            model.constants[node.inputs[1]], output_axis(node.op, node.attributes), settings.weight_limit
        )
        for node in model.nodes
        if has_float32_weight(model, node)
    }
    seen = observe(model, feed, activations_to_observe(model))
    return quantize(model, ranges(seen, settings), rounded, settings, EVERYTHING)


def logits(model: Model) -> Model:
    """The model without a Softmax that makes a graph output; what it reads goes out under the same name."""
    proto = model.edit()
    last = [node for node in proto.graph.node if node.op_type == "Softmax" and node.output[0] in model.outputs]
    for end in last:
        proto.graph.node.remove(end)
        for node in proto.graph.node:
            node.input[:] = [end.output[0] if name == end.input[0] else name for name in node.input]
            node.output[:] = [end.output[0] if name == end.input[0] else name for name in node.output]
    return Model.of(proto)


if __name__ == "__main__":
    sys.exit(main())
