"""The command line. Every command calls one library function and prints what it returns.

stdout holds the result (a page on a terminal, ``key<TAB>value`` in a pipe, JSON with ``--json``), stderr the
progress and errors. Exit codes: 0 done, 1 a fault of edgepress, 2 something handed over cannot be used, 3 an
explicit budget is out of reach (the best found is printed) or a device does not keep what a bundle promises, 130
interrupted. What a command needs is imported inside it, so that ``edgepress --help`` loads neither torch nor
onnxruntime nor onnx.
"""

from __future__ import annotations

import click

from edgepress import __version__
from edgepress.cli.bundling import bundle, verify
from edgepress.cli.coding import decode, encode
from edgepress.cli.compressing import apply, compress, quantize
from edgepress.cli.group import INTERRUPTED, Edgepress
from edgepress.cli.looking import explain, ops
from edgepress.cli.measuring import bench
from edgepress.cli.scoring import calibrate, merge, score
from edgepress.cli.training import finetune

__all__ = ["INTERRUPTED", "main"]


@click.group(cls=Edgepress, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgepress")
def main() -> None:
    """Make an ONNX model smaller and faster on a CPU, and say what that cost.

    \b
      edgepress compress model.onnx --data samples.npz   cut, quantize, measure
      edgepress quantize model.onnx --data samples.npz   only quantize
      edgepress bench model.onnx model.edge.onnx         time against each other
      edgepress bundle small.onnx -o bundle              pack it for devices
      edgepress verify bundle --device ssh://pi@kitchen  compare there
      edgepress encode small.onnx -o small.epz           as few bytes as possible
      edgepress decode small.epz -o small.onnx           the same bytes again
      edgepress explain model.onnx                       what can be cut, and why
      edgepress score model.onnx --data samples.npz      what channels are worth
      edgepress finetune model.onnx --data samples.npz   recover, code, prune
      edgepress ops model.onnx                           operators that are known
    """  # noqa: D301  (click wants a real backspace before lines it must not fold)


for _command in (
    compress,
    quantize,
    apply,
    bench,
    bundle,
    verify,
    explain,
    ops,
    calibrate,
    merge,
    score,
    finetune,
    encode,
    decode,
):
    main.add_command(_command)
