"""Train and prune at the same time, toward flat minima (Ebrahimi & Klabjan 2021).

    along    from 10 % to 70 % of the steps weights fall evenly from all to the share that is kept; every few steps the
             cheapest units go (:mod:`edgepress.train.pruning.units`), and those that stay take over
    cut      all at once at 70 % of the steps, then training goes on
    end      all at once after the last step

Factors are moving averages (:mod:`edgepress.train.pruning.curvature`). What the optimizer remembers of the weights that
stay is kept. Only models that are small enough count; of these the best on the hold-out samples is handed over.

(Measured: redistribution is worth 2 points while training too; the flatness term lies within the noise at 0.1, does not
lower the radius measurably and destroys networks from 0.3 on, so it is capped. Smaller networks are sharper: compare
radii at equal sizes only.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from edgepress.calibrate.fits import Fit
from edgepress.executor import Executor
from edgepress.groups import Grouping, find_groups
from edgepress.groups.binding import sizes_of
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.surgery.cut import Cutting, cut
from edgepress.train.batches import DRAWS, torch_generator
from edgepress.train.method import Found, Moment, Plain, badness, within
from edgepress.train.pruning.curvature import Factor, Factors, hessian_radius, linear, mixed, observed, radius, shared
from edgepress.train.pruning.units import chosen, redistributed

BEGIN, END = 0.1, 0.7
"""Shares of the steps between which units go."""

LOOK, MOST_TIMES = 10, 60
"""Steps between two looks at the factors; most removals in a run."""

SEEN, SEEN_AT_ONCE = 256, 2048
"""Samples of a look, and where all units go at once."""

MEASURED = 1024
"""Samples that spectral radii are reported on."""


class Flat(Plain):
    """Pruning along the training."""

    def __post_init__(self) -> None:
        """Start whole."""
        super().__post_init__()
        self.whole = self.setting.model.parameters
        self.goal = max(1, int((self.setting.settings.keep or 1.0) * self.whole))
        self.factors: Factors = {}
        self.known: dict[str, float] = {}
        self.exhausted = False

    def stepped(self, moment: Moment) -> None:
        """Look at the factors, or remove units, when it is time."""
        when, step, steps = self.setting.settings.when, moment.step, moment.steps
        begin, end = max(1, int(BEGIN * steps)), max(1, int(END * steps))
        if when == "along" and begin <= step <= end:
            every = max(2 * LOOK, -(-(end - begin) // MOST_TIMES))
            removing = (step - begin) % every == 0 or step == end
            if removing or step % LOOK == 0:
                self._look(step, SEEN)
            if removing:
                share = 1.0 if step == end else (step - begin + every) / (end - begin + every)
                self._remove(int(self.whole - (self.whole - self.goal) * min(1.0, share)))
        elif (when == "cut" and step == end) or (when == "end" and step == steps):
            self._look(step, SEEN_AT_ONCE)
            self._remove(self.goal)

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """The best of those that are small enough and lose no more than they may."""
        small = found.parameters <= self.goal or self.exhausted
        return badness(found.verdict) if small and within(found.verdict) else None

    def figures(self, model: Model) -> dict[str, float]:
        """Spectral radii before units went and of the model that is handed over."""
        after = {
            f"{what} after": value for what, value in self._radii(Executor(model, device=self.setting.device)).items()
        }
        units = {f"units of {group.name}": float(group.size) for group in self._groups(model).prunable}
        return {**self.known, **after, **units}

    def state(self) -> dict[str, np.ndarray]:
        """Also the factors, and what was measured before."""
        own = super().state()
        for name, factor in self.factors.items():
            own[f"inputs/{name}"], own[f"slopes/{name}"] = factor.inputs, factor.slopes
            own[f"positions/{name}"] = np.array(factor.positions)
        own |= {f"known/{what}": np.array(value) for what, value in self.known.items()}
        return {**own, "exhausted": np.array(self.exhausted)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        super().restore(arrays)
        names = [name.removeprefix("inputs/") for name in arrays if name.startswith("inputs/")]
        self.factors = {
            name: Factor(arrays[f"inputs/{name}"], arrays[f"slopes/{name}"], float(arrays[f"positions/{name}"]))
            for name in names
        }
        self.known = {n.removeprefix("known/"): float(value) for n, value in arrays.items() if n.startswith("known/")}
        self.exhausted = bool(arrays["exhausted"])

    def _look(self, step: int, samples: int) -> None:
        setting = self.setting
        if not self.known:
            own = self._now()
            self.known = {f"{what} before": value for what, value in self._radii(own).items()}
        batch = setting.batches.first(samples, step)
        generator = torch_generator(setting.settings.seed, DRAWS, step)
        with one_blas_thread():
            new = observed(self._now(), batch, setting.loss.classifies, generator, step)
            self.factors = mixed(self.factors, shared(new, setting.ranks))

    def _remove(self, goal: int) -> None:
        """Cut the cheapest units until at most ``goal`` weights are left.

        What a unit saves is counted before others are gone, so it takes a few turns.
        """
        while self.executor.model.parameters > goal:
            if not self._removed(goal):
                self.exhausted = True
                return

    def _removed(self, goal: int) -> bool:
        """One turn; False where no unit may go."""
        model, settings = self.current(), self.setting.settings
        grouping = self._groups(model)
        with one_blas_thread():
            removed = chosen(model, grouping, self.factors, goal, flatness=settings.flatness)
            if not removed:
                return False
            if settings.redistribute:
                model = redistributed(model, grouping, self.factors, removed)
        cutting = cut(model, grouping, removed)
        self._narrow(model, cutting)
        return True

    def _narrow(self, model: Model, cutting: Cutting) -> None:
        """Go on with a cut model, the factors and what the optimizer remembers cut alike."""
        before, after = self._fits(model), self._fits(cutting.model)
        for name, fit in before.items():
            if name in self.factors and name in after:
                outputs, columns = fit.kept(cutting.kept)
                self.factors = {**self.factors, name: self.factors[name].cut(outputs, columns)}
        self.adam.cut(cutting.kept)
        self.executor = Executor(cutting.model, device=self.setting.device)
        for name in self.adam.values:
            self.adam.put(name, self.executor.parameters[name])

    def _now(self) -> Executor:
        """A network whose own parameters are those of now."""
        return Executor(self.current(), device=self.setting.device)

    def _groups(self, model: Model) -> Grouping:
        one = self.setting.batches.read(np.arange(1))
        return find_groups(model, sizes_of(model.inputs, {n: value.cpu().numpy() for n, value in one.inputs.items()}))

    def _fits(self, model: Model) -> dict[str, Fit]:
        return {fit.name: fit for fit in linear(model)}

    def _radii(self, executor: Executor) -> dict[str, float]:
        setting = self.setting
        batch = setting.batches.first(MEASURED)
        generator = torch_generator(setting.settings.seed, DRAWS, 0)
        with one_blas_thread(), torch.enable_grad():
            whole = radius(observed(executor, batch, setting.loss.classifies, generator, 0))
            values = {name: executor.parameters[name] for name in executor.trainable}
            true = hessian_radius(executor, values, setting.loss, batch)
        return {"spectral radius of the Kronecker factors": whole, "largest eigenvalue of the Hessian": true}
