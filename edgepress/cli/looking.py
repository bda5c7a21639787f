"""Commands that look at a model without changing it: explain, ops."""

from __future__ import annotations

from pathlib import Path

import click

from edgepress.cli.options import DEBUG, JSON, MODEL, PATH, options
from edgepress.cli.printing import show


@click.command(short_help="Say what can be cut, what not, and why.")
@MODEL
@options(
    click.option("--tensor", metavar="NAME", help="Only the channels of this activation or weight."),
    click.option("--op", "operator", metavar="TYPE", help="Only what happens at nodes of this operator."),
    click.option("--data", metavar="SRC", help="Samples that say how large free axes are.  [default: assume sizes]"),
    JSON,
    DEBUG,
)
def explain(model: Path, tensor: str | None, operator: str | None, data: str | None, as_json: bool) -> None:
    """Say which channels of MODEL can be cut, and why others must stay."""
    from edgepress import pipeline
    from edgepress.report import answers, explanation
    from edgepress.request import check_input

    if tensor is not None and operator is not None:
        raise click.UsageError("--tensor and --op are two questions: ask one at a time.")
    check_input(model)
    if tensor is None and operator is None:
        found = pipeline.explain(model, data)
        show(found, as_json, lambda out: explanation.render(found, out), lambda: explanation.pairs(found))
        return
    asked = pipeline.explain_operator if tensor is None else pipeline.explain_tensor
    answer = asked(model, tensor or operator or "", data)
    show(answer, as_json, lambda out: answers.render(answer, out), lambda: answers.pairs(answer))


@click.command(short_help="List the operators that are understood.")
@click.argument("models", type=PATH, nargs=-1, metavar="[MODEL]...")
@options(
    click.option("--unknown", is_flag=True, help="Only operators of the models that the table does not know."),
    JSON,
    DEBUG,
)
def ops(models: tuple[Path, ...], unknown: bool, as_json: bool) -> None:
    """List the operators edgepress understands, or those of every MODEL."""
    from edgepress import pipeline
    from edgepress.report import operators as page

    if unknown and not models:
        raise click.UsageError("--unknown needs a MODEL to look into.")
    found = pipeline.operators(models, unknown=unknown)
    show(found, as_json, lambda console: page.render(found, console), lambda: page.lines(found))
