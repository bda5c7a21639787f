"""Commands about coded files: encode, decode."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepress.cli.options import DEBUG, JSON, MODEL, PATH, options
from edgepress.cli.printing import show

if TYPE_CHECKING:
    from edgepress.codec.encoder import Coded
    from edgepress.report.coding import CodedFile

FORMS = ("same", "int8", "int4", "packed", "float")


@click.command(short_help="Code an ONNX file in as few bytes as possible.")
@MODEL
@options(
    click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The coded file, FILE.epz."),
    JSON,
    DEBUG,
)
def encode(model: Path, output: Path, as_json: bool) -> None:
    """Code MODEL without loss: decoding gives back the very bytes."""
    from edgepress.codec.files import encode_file
    from edgepress.report import coding as page
    from edgepress.request import check_output

    check_output(model, output)
    made = told(encode_file(model, output), model, output)
    show(made, as_json, lambda console: page.render_coded(made, console), lambda: page.coded_pairs(made))


@click.command(short_help="Make an ONNX file of a coded one.")
@click.argument("coded", type=PATH, metavar="FILE")
@options(
    click.option("-o", "--output", type=PATH, required=True, metavar="MODEL", help="The ONNX file to write."),
    click.option("--form", type=click.Choice(FORMS), default="same", show_default=True,
                 help="How the ONNX file stores its weights."),
    JSON,
    DEBUG,
)  # fmt: skip
def decode(coded: Path, output: Path, form: str, as_json: bool) -> None:
    """Make an ONNX file of the coded FILE: every byte of the original, or with its weights in another form."""
    from edgepress.codec.files import decode_file
    from edgepress.report import coding as page
    from edgepress.request import check_output

    check_output(coded, output)
    change = None
    if form != "same":
        from edgepress.quantize.storage.reformed import reformed

        change = partial(reformed, form=form)
    size = decode_file(coded, output, change)
    made = page.DecodedFile(str(coded), str(output), coded.stat().st_size, size, form)
    show(made, as_json, lambda console: page.render_decoded(made, console), lambda: page.decoded_pairs(made))


def told(coded: Coded, model: Path, output: Path) -> CodedFile:
    """The page about a file that was coded."""
    from edgepress.report.coding import CodedFile, Part

    weights = sum(each.original for each in coded.tensors)
    parts = [Part("graph", 0, 0, coded.original - weights, coded.graph)]
    for kind in dict.fromkeys(each.method for each in coded.tensors):
        same = [each for each in coded.tensors if each.method == kind]
        count, before, bits = (
            sum(column) for column in zip(*((t.count, t.original, t.bits) for t in same), strict=True)
        )
        parts.append(Part(kind, len(same), int(count), int(before), bits / 8))
    return CodedFile(str(model), str(output), coded.original, len(coded.data), tuple(parts))
