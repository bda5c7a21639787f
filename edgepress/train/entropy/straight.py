"""Entropy-constrained training, straight through rounding, with the coder's own contexts: the form that measured best.

    forward   u = w / D      q = round(u), its slope that of u      W = q * D * a       D of a layer, a of a row
    loss      task + beta * bits / 10^4          bits read between whole numbers from the tables of ``rates``

Latents ``w`` start in the middle of their bins and move in units of their step: Adam's rate for them is ``RELATIVE``
steps (one absolute rate leaves layers with large steps frozen). D, a and biases are trained along. Tables are counted
every ``COUNT`` steps, classes found every ``CLASSIFY``. beta rises over the first ``RAMP`` of the steps. At every epoch
steps are put on the grid, and biases on theirs; that model is judged and coded.

Source: Wiedemann, Marban, Mueller & Samek 2018 (arXiv 1812.07520), objective; Bengio 2013, straight-through slopes;
design notes, stack.md section 5 (recipe and figures).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from edgepress.codec import matrix_bits
from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.quantize.weights.lattice import on_grid, settled_vector
from edgepress.train.adam import Adam
from edgepress.train.batches import Batch
from edgepress.train.entropy.layers import REACH, Layer, layers_of, weights_of
from edgepress.train.entropy.rates import Rates
from edgepress.train.entropy.start import Start, start_of
from edgepress.train.method import Found, Moment, Plain, Terms, badness, within

RELATIVE = 0.0135
"""Adam's rate for latents, in steps, at a learning rate of ``UNIT_RATE``."""

UNIT_RATE = 1e-3
COUNT, CLASSIFY = 20, 200

RAMP = 0.3
"""Share of the steps that beta rises over."""

WORTH = 0.2
"""Nats that all bits are worth at the start, where beta is chosen. (Measured: 0.13 to 0.25 at the end go with losses
up to 0.4 points, 0.3 to 0.6 with 0.6 to 1.)"""

ENTROPY = 1.2
"""Bits of a weight to start from."""

UNIT_BITS = 1e4

STEP, ROW = " step", " rows"
"""What the names of log D and log a have behind the name of their weight."""


class Straight(Plain):
    """Straight-through rounding."""

    def __post_init__(self) -> None:
        """Round the start, and count what it costs."""
        setting = self.setting
        self.executor = Executor(setting.model, device=setting.device)
        self.layers = layers_of(setting.model, self.executor)
        start = start_of(
            setting.model, self.layers, setting.batches, classifies=setting.loss.classifies, entropy=ENTROPY,
            seed=setting.settings.seed,
        )  # fmt: skip
        self.adam = Adam(self._tensors(start), self._rates(start))
        self.tables = {layer.name: Rates(setting.device) for layer in self.layers}
        self.beta = setting.settings.beta
        self._count(anew=True)
        if self.beta is None:
            bits = sum(float(self._bits(layer).detach()) for layer in self.layers)
            self.beta = WORTH * UNIT_BITS / max(bits, 1.0)
            self.notes.append(f"beta was chosen as {self.beta:.3g}: {WORTH:g} nats for the bits of the start.")

    @property
    def weights(self) -> int:
        """Weights that bits are counted of."""
        return sum(math.prod(layer.shape) for layer in self.layers)

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """The weights as whole numbers times their steps, and everything else as it is."""
        found = dict(self.adam.values)
        for layer in self.layers:
            steps = found[layer.name] / found[layer.name + STEP].exp()
            whole = steps + (steps.clamp(-REACH, REACH).round() - steps).detach()
            scale = found.pop(layer.name + STEP).exp()
            if self.setting.settings.row_steps:
                scale = scale * found.pop(layer.name + ROW).exp().view(layer.broadcast())
            found[layer.name] = whole * scale
        return found

    def terms(self, batch: Batch, moment: Moment) -> Terms:
        """The loss with the bits."""
        if moment.step % COUNT == 0:
            self._count(anew=moment.step % CLASSIFY == 0)
        found = self.executor.forward(batch.inputs, capture=self.setting.loss.captured, parameters=self.parameters())
        loss = self.setting.loss(found, batch)
        bits = torch.stack([self._bits(layer) for layer in self.layers]).sum()
        beta = (self.beta or 0.0) * min(1.0, moment.share / RAMP)
        return Terms(loss + beta * bits / UNIT_BITS, float(loss.detach()), float(bits.detach()))

    def found(self) -> tuple[Model, int, int | None]:
        """The model on its grids, weights that are not zero, bytes of its whole numbers as the coder counts them."""
        whole = [self._whole(layer) for layer in self.layers]
        bits = sum(matrix_bits(each) for each in whole)
        return self.snapped(), sum(int(np.count_nonzero(each)) for each in whole), math.ceil(bits / 8)

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """The smallest file that loses no more than it may."""
        size = found.coded_bytes if found.coded_bytes is not None else found.parameters
        return (float(size), *badness(found.verdict)) if within(found.verdict) else None

    def snapped(self) -> Model:
        """Steps on the grid 2^(k / 64), biases as whole numbers times one step."""
        values = {name: value.detach().cpu().numpy() for name, value in self.adam.values.items()}
        changed = {}
        for layer in self.layers:
            steps = np.full(layer.rows, np.exp(np.float64(values[layer.name + STEP])))
            if self.setting.settings.row_steps:
                steps = steps * np.exp(values[layer.name + ROW].astype(np.float64))
            changed[layer.name] = weights_of(layer, self._whole(layer), on_grid(steps))
        plain = values.keys() & self.setting.model.constants.keys() - changed.keys()
        changed |= {name: settled_vector(values[name]) for name in sorted(plain)}
        return self.setting.model.with_constants(changed)

    def state(self) -> dict[str, np.ndarray]:
        """What is trained, and the classes that bits are counted by until they are found again."""
        own = self.adam.state()
        own |= {f"classes/{layer.name}": self.tables[layer.name].known for layer in self.layers}
        own |= {f"table/{layer.name}": self.tables[layer.name].table.cpu().numpy() for layer in self.layers}
        return {**own, "beta": np.array(self.beta)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        self.adam.restore(arrays)
        self.beta = float(arrays["beta"])
        for layer in self.layers:
            self.tables[layer.name].restore(arrays[f"classes/{layer.name}"], arrays[f"table/{layer.name}"])

    def _tensors(self, start: Start) -> dict[str, torch.Tensor]:
        values = {name: self.executor.parameters[name] for name in self.executor.trainable}
        device = self.setting.device
        for name, array in start.others.items():
            if name in values:
                values[name] = torch.from_numpy(array.copy()).to(device)
        for layer in self.layers:
            step = start.steps[layer.name]
            values[layer.name] = torch.from_numpy((layer.tensor(start.whole[layer.name]) * step).astype(np.float32)).to(
                device
            )
            values[layer.name + STEP] = torch.tensor(math.log(step), device=device)
            if self.setting.settings.row_steps:
                values[layer.name + ROW] = torch.zeros(layer.rows, device=device)
        return values

    def _rates(self, start: Start) -> dict[str, float]:
        own = {layer.name: RELATIVE / UNIT_RATE * start.steps[layer.name] for layer in self.layers}
        return {**own, **{layer.name + STEP: 0.5 for layer in self.layers}}

    def _steps(self, layer: Layer) -> torch.Tensor:
        """Latents in units of their step, [rows, columns]."""
        steps = self.adam.values[layer.name] / self.adam.values[layer.name + STEP].exp()
        return steps.movedim(layer.axis, 0).reshape(layer.rows, -1)

    def _whole(self, layer: Layer) -> np.ndarray:
        return self._steps(layer).detach().clamp(-REACH, REACH).round().cpu().numpy().astype(np.int64)

    def _bits(self, layer: Layer) -> torch.Tensor:
        return self.tables[layer.name].bits(self._steps(layer))

    def _count(self, *, anew: bool) -> None:
        for layer in self.layers:
            self.tables[layer.name].count(self._whole(layer), anew=anew)
