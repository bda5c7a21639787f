"""Integer forms of a float candidate: int8, few levels, float arithmetic on stored integers; each is judged.

* ranges by minmax, percentile, mean squared error or entropy, whichever keeps the answers closest
* when that is not close enough, layers stay float: a growing prefix (the layers next to the input feed all others),
  then single layers, worst first; each step that helps is kept and timed
* weights of few levels (``--bits``): the same number for every layer, or chosen by Fisher information under a budget of
  bytes (``lowbit``); the arithmetic stays int8
* products that round their input as it comes, 4-bit blocks and int8 LSTM for transformers and recurrent networks
  (``sequences``)
* where the CPU is no faster in int8, weights are stored as integers and the arithmetic stays float
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgepress.levels import INT8, bits
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.build import Material, integer, material
from edgepress.pipeline.candidates import Candidate, Judge
from edgepress.pipeline.context import Context
from edgepress.pipeline.lonely import worst_alone
from edgepress.pipeline.sequences import form_name, is_sequence_form, sequence_forms, with_constants
from edgepress.plan import Quantization
from edgepress.quality import Verdict
from edgepress.quantize import MATRICES, has_float32_weight, stays_float
from edgepress.request import Request

PREFIXES = (1, 3, 5, 9, 13)
"""How many weighted layers next to the input may stay float."""

SINGLES = (1, 2, 4)
"""How many single layers may stay float."""

CLOSE_KL = 0.01
CLOSE_SQNR = 30.0
"""Closer than this, no float layers are tried."""

Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "entropy")
CLIPPING: tuple[Method, ...] = ("percentile", "mse")
"""Methods that were the best ones wherever int8 was not close at once."""


@dataclass(frozen=True)
class Maker:
    """Makes and judges integer forms of one float candidate."""

    context: Context
    source: Candidate
    judged: Judge

    def material(self, settings: Quantization) -> Material:
        """Rounded weights and what the activations do."""
        return material(self.context, self.source.cuts, self.source.model, settings)

    def form(self, made: Material, settings: Quantization) -> Candidate:
        """One form, judged."""
        model = integer(self.context, made, settings)
        name, label = _names(self.source, settings)
        return dataclasses.replace(
            self.source, name=name, label=label, model=model, quantization=settings, verdict=self.judged(model)
        )

    def closest(self, made: Material, settings: Quantization, methods: Sequence[Method] = METHODS) -> Candidate:
        """The form whose activation ranges keep the answers closest."""
        forms = (self.form(made, dataclasses.replace(settings, ranges=method)) for method in methods)
        return min(forms, key=lambda item: distance(item.verdict))


def base_settings(context: Context, request: Request) -> Quantization:
    """What the request and the target say about all integer forms."""
    return Quantization(
        weight_limit=context.target.weight_limit,
        repair=bool(context.sweep_samples),
        float_nodes=request.keep_float,
        scales="power-of-two" if request.fixed_point else "free",
        min_ort=request.min_ort,
        activation_bits=16 if request.activations == "16" else 8,
    )


def integers(context: Context, source: Candidate, judged: Judge, request: Request) -> list[Candidate]:
    """Integer forms of a float candidate at one width of weights: those acceptable, or the closest one."""
    maker = Maker(context, source, judged)
    base = _at_width(context, source, base_settings(context, request), request)
    base = with_constants(source.model, base, context.target)
    made = maker.material(base)
    stored = dataclasses.replace(base, compute="float")
    if request.activations == "float":
        return [maker.form(made, stored)]
    best = maker.closest(made, base)
    found = [best, *_with_float_layers(maker, made, best), *_whole(maker, best)]
    said = request.overrides is not None or request.save_overrides is not None  # of the weights as they came
    wanting = request.equalize or not (said or any(item.verdict.acceptable for item in found))
    if wanting and not base.levels:  # evened out, weights are int8: not the width that was asked for
        found += _equalized(maker, base, best)
    if not said:
        forms = sequence_forms(source.model, base, context.grouping.sizes, context.target)
        found += [maker.form(made, settings) for settings in forms]
    if not context.target.artifact:  # an accelerator gains nothing by weights that are only stored as integers
        only = maker.form(made, stored)
        found = [*(item for item in found if item.model.data != only.model.data), only]  # all may be float by rule
    return [item for item in found if item.verdict.acceptable] or [min(found, key=lambda item: distance(item.verdict))]


def _at_width(context: Context, source: Candidate, base: Quantization, request: Request) -> Quantization:
    """Settings at the number of levels that the request names; int8 without."""
    base = context.given.into(base, source.model, context.model)
    settled = {*base.float_nodes, *context.given.decided}
    names = [node.name for node in source.model.nodes if has_float32_weight(source.model, node)]
    few = request.levels is not None and request.levels < INT8
    levels = {name: request.levels for name in names if name not in settled and few and request.levels}
    joint = levels or base.levels or request.fixed_point  # power-of-two scales want the better rounding, too
    return dataclasses.replace(
        base,
        rounding="joint" if joint and context.sweep_samples else "nearest",
        levels={**base.levels, **levels},
        codebooks=tuple(levels) if request.codebooks else (),
    )


def _whole(maker: Maker, best: Candidate) -> list[Candidate]:
    """The form in which the target's rules keep nothing float, with one scale for each matrix; timing decides."""
    settings, model = best.quantization or Quantization(), maker.source.model
    matrices = any(node.op in MATRICES and has_float32_weight(model, node) for node in model.nodes)
    if settings.given_scales or not (matrices or stays_float(model, maker.context.target)):
        return []
    changed = whole(settings)
    return [maker.form(maker.material(changed), changed)]


def whole(settings: Quantization) -> Quantization:
    """The settings without the target's rules and with one scale for each matrix."""
    return dataclasses.replace(settings, whole=True, matrix_scales="tensor")


def _with_float_layers(maker: Maker, made: Material, best: Candidate) -> list[Candidate]:
    """Forms with more and more layers in float, until one is close."""
    source, settings = maker.source, best.quantization or Quantization()
    if close(best.verdict, source.verdict):
        return []
    found: list[Candidate] = []
    order = _quantized_order(maker.context, source, settings)
    for length in (length for length in PREFIXES if length < len(order)):
        found.append(_with_float(maker, made, settings, order[:length]))
        if close(found[-1].verdict, source.verdict):
            break
    if any(item.verdict.acceptable for item in found):
        return found
    worst = worst_alone(maker.context, source.model, made, settings, order)
    for count in (count for count in SINGLES if count < len(worst)):
        found.append(_with_float(maker, made, settings, worst[:count]))
        if close(found[-1].verdict, source.verdict):
            break
    return found


def _with_float(maker: Maker, made: Material, settings: Quantization, names: Sequence[str]) -> Candidate:
    """The form with some more layers in float, with the ranges that suit the others best."""
    kept = tuple(dict.fromkeys((*settings.float_nodes, *names)))
    levels = {name: count for name, count in settings.levels.items() if name not in kept}
    changed = dataclasses.replace(settings, float_nodes=kept, levels=levels)
    made = maker.material(changed) if changed.rounding == "joint" else made
    return maker.closest(made, changed, tuple(dict.fromkeys((settings.ranges, *CLIPPING))))


def _equalized(maker: Maker, base: Quantization, best: Candidate) -> list[Candidate]:
    """Forms with neighbouring layers evened out first, if that brings int8 closer."""
    changed = dataclasses.replace(base, equalize=True, rounding="nearest", levels={}, codebooks=())
    made = maker.material(changed)
    found = maker.closest(made, changed)
    if distance(found.verdict) >= distance(best.verdict):
        return []
    return [found, *_with_float_layers(maker, made, found)]


def _names(source: Candidate, settings: Quantization) -> tuple[str, str]:
    """Name and label of an integer form."""
    before = "pruned " if source.cuts else ""
    if is_sequence_form(settings):
        suffix, called = form_name(settings)
        return f"{source.name}{suffix}", f"{before}{called}"
    width, called = _width(settings)
    every, everywhere = ("-whole", " everywhere") if settings.whole else ("", "")
    even, evened = ("-equalized", ", equalized") if settings.equalize else ("", "")
    if settings.compute == "float":
        return f"{source.name}-stored{width}", f"{before}fp32, weights stored as {called or 'int8'}"
    name, label = (
        f"{source.name}-int8{width}{even}{every}",
        f"{before}int8{everywhere}{evened}" + (f", {called} weights" if called else ""),
    )
    if not settings.float_nodes:
        return name, label
    count = len(settings.float_nodes)
    return f"{name}-float{count}", f"{label}, {count} layer{'s' if count > 1 else ''} float"


def _width(settings: Quantization) -> tuple[str, str]:
    """Name and wording of the width of the weights; empty for int8 rounded to the nearest."""
    counts = set(settings.levels.values())
    if not counts:
        return ("-joint", "jointly rounded int8") if settings.rounding == "joint" else ("", "")
    if len(counts) == 1:
        return f"-{bits(min(counts)):g}bit", f"{bits(min(counts)):g}-bit"
    return f"-{sum(settings.levels.values())}levels", "mixed-width"


def distance(verdict: Verdict) -> float:
    """How far a candidate's answers are from the original's: KL, or noise to signal."""
    return -verdict.sqnr if verdict.measure == "sqnr" else verdict.kl


def close(verdict: Verdict, source: Verdict) -> bool:
    """Rounding costs so little, beside what pruning has cost already, that more float layers are not worth trying."""
    if verdict.measure == "sqnr":
        return verdict.sqnr >= min(CLOSE_SQNR, source.sqnr - 1)
    return verdict.kl <= max(CLOSE_KL, 1.25 * source.kl)


def _quantized_order(context: Context, source: Candidate, settings: Quantization) -> list[str]:
    """Weighted nodes in graph order that would be int8 by the target's rules."""
    target = context.target.unruled() if settings.whole else context.target
    kept = {*stays_float(source.model, target), *settings.float_nodes}
    return [node.name for node in source.model.nodes if node.op in WEIGHTED and node.name not in kept]
