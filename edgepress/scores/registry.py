"""Scores by name, those of plug-ins among them, and mixes: ``redundancy``, ``taylor@labels``, ``fisher=1,wanda=2``.

``NAME@LOSS`` says what gradients are taken of (``executor.slopes``). Plug-ins are entry points of the group
``edgepress.scores``: each a callable that makes a score (``scores.base.Score``) of ``scores.base.Options``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points

from edgepress.errors import InputError
from edgepress.executor.slopes import LOSSES
from edgepress.scores.base import Options, Score
from edgepress.scores.entropy import Entropy
from edgepress.scores.fisher import Fisher
from edgepress.scores.kfac import Kfac
from edgepress.scores.magnitude import Magnitude
from edgepress.scores.mint import Mint
from edgepress.scores.mix import Mix
from edgepress.scores.random import Random
from edgepress.scores.redundancy import Redundancy
from edgepress.scores.taylor import Taylor
from edgepress.scores.wanda import Wanda

Maker = Callable[[Options], Score]

PLUGINS = "edgepress.scores"
"""Group of entry points."""

BUILT_IN: Mapping[str, Maker] = {
    "redundancy": lambda o: Redundancy(o.positions, o.seed),
    "redundancy-scalar": lambda o: Redundancy(o.positions, o.seed, "redundancy-scalar", "scalar"),
    "redundancy-qr": lambda o: Redundancy(o.positions, o.seed, "redundancy-qr", "qr"),
    "redundancy-gauss-newton": lambda o: Kfac(
        o.positions, "outputs", o.seed, flatness=0.0, name="redundancy-gauss-newton"
    ),
    "fisher": lambda o: Fisher(o.loss),
    "fisher-weights": lambda o: Fisher(o.loss, "weights", "fisher-weights"),
    "fisher-adam": lambda o: Fisher(o.loss, "adam", "fisher-adam"),
    "kfac": lambda o: Kfac(o.positions, o.loss, o.seed),
    "kfac-obd": lambda o: Kfac(o.positions, o.loss, o.seed, "obd", name="kfac-obd"),
    "kfac-rows": lambda o: Kfac(o.positions, o.loss, o.seed, "rows", name="kfac-rows"),
    "mint": lambda o: Mint(o.positions, o.seed),
    "mint-graph": lambda o: Mint(o.positions, o.seed, estimator="graph", name="mint-graph"),
    "mint-patches": lambda o: Mint(o.positions, o.seed, estimator="patches", name="mint-patches"),
    "entropy": lambda o: Entropy(o.positions, o.seed),
    "magnitude": lambda o: Magnitude(),
    "taylor": lambda o: Taylor(o.loss),
    "wanda": lambda o: Wanda(o.positions, o.seed),
    "wanda-centred": lambda o: Wanda(o.positions, o.seed, centred=True, name="wanda-centred"),
    "random": lambda o: Random(o.seed),
}


def names() -> tuple[str, ...]:
    """All scores, built in first."""
    return (*BUILT_IN, *sorted({point.name for point in entry_points(group=PLUGINS)} - BUILT_IN.keys()))


def find(text: str, options: Options) -> Score:
    """The score that a text names.

    Args:
        text: ``NAME``, ``NAME@LOSS``, or several of them with weights: ``NAME=WEIGHT,NAME=WEIGHT``.
        options: what it is made with.

    Raises:
        InputError: no such score or loss, a weight that is no number above zero, a plug-in that cannot be loaded.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and "=" not in text:
        return _one(text.strip(), options)
    return Mix(tuple(_weighted(part, options) for part in parts), text)


def _weighted(part: str, options: Options) -> tuple[Score, float]:
    name, _, weight = part.partition("=")
    try:
        value = float(weight or 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"--score {part}: give a weight above zero behind the equals sign, as in fisher=0.5.")
    return _one(name.strip(), options), value


def _one(text: str, options: Options) -> Score:
    name, mark, loss = text.partition("@")
    if mark and loss not in LOSSES:
        raise InputError(f"--score {text}: give one of {', '.join(LOSSES)} behind the @.")
    chosen = replace(options, loss=loss) if mark else options
    if name in BUILT_IN:
        return BUILT_IN[name](chosen)
    for point in entry_points(group=PLUGINS):
        if point.name == name:
            return _plugged(point.value, point.load, chosen)
    near = difflib.get_close_matches(name, names(), n=1)
    advice = f"did you mean {near[0]}?" if near else f"give one of {', '.join(names())}."
    raise InputError(f"There is no score {name!r}: {advice}")


def _plugged(place: str, load: Callable[[], Maker], options: Options) -> Score:
    """A score of a plug-in, which may be broken."""
    try:
        return load()(options)
    except Exception as error:  # whatever a package of somebody else does wrong
        raise InputError(f"The score plug-in {place} cannot be used ({error}): mend or remove it.") from error
