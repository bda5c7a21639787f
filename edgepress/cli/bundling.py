"""Commands about deployment: bundle, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgepress import targets
from edgepress.cli.options import DATA, DEBUG, JSON, MODEL, PATH, RECIPE, options
from edgepress.cli.printing import show
from edgepress.errors import VerifyFailed


@click.command(short_help="Put a model and its test vectors into a folder.")
@MODEL
@options(
    click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="The folder to make."),
    DATA,
    RECIPE,
    click.option("--samples", default=16, show_default=True, metavar="N", help="Test vectors at most."),
    click.option("--target", metavar="NAME", help=f"What the model is for: {', '.join(targets.TARGETS)}.  "
                 "[default: as its plan says]"),
    click.option("--ort", is_flag=True, help="Also in onnxruntime's own format, for minimal builds."),
    JSON,
    DEBUG,
)  # fmt: skip
def bundle(model: Path, output: Path, data: str | None, as_json: bool, **settings: Any) -> None:
    """Put MODEL into a folder with test vectors, a check for devices, examples and a page on how to deploy it."""
    from edgepress.bundle import bundle
    from edgepress.report import bundle as page

    made = bundle(model, output, data, **settings)
    show(made, as_json, lambda console: page.render_bundled(made, console), lambda: page.bundled_pairs(made))


@click.command(short_help="Run a bundle's test vectors on a device.")
@click.argument("folder", type=PATH, metavar="BUNDLE")
@options(
    click.option("--device", default="local", show_default=True, metavar="SPEC",
                 help="Where: local, ssh://user@host, adb://serial, emulated://core."),
    click.option("--threads", default=1, show_default=True, metavar="N", help="Threads of the model."),
    click.option("--ort", is_flag=True, help="Run the .ort file."),
    JSON,
    DEBUG,
)  # fmt: skip
def verify(folder: Path, device: str, as_json: bool, **settings: Any) -> None:
    """Run the test vectors of BUNDLE on a device, and compare what it answers with what the bundle promises."""
    from edgepress.bundle import verify
    from edgepress.report import bundle as page

    found = verify(folder, device, **settings)
    show(found, as_json, lambda console: page.render_verification(found, console),
         lambda: page.verification_pairs(found))  # fmt: skip
    if not found.agrees:
        raise VerifyFailed(found.verdict)
