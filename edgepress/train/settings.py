"""Settings of one training run, checked before any work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass

from edgepress.errors import InputError

METHODS = ("distil", "entropy", "flat", "anneal", "mint")
FORMS = ("straight", "relaxed")
WHENS = ("along", "cut", "end")
AUGMENTS = ("none", "shift", "flip")

FEWEST = 8
"""Samples of the smallest batch: the gradients of fewer are mostly noise."""

EPOCHS = {"distil": 5.0, "entropy": 10.0, "flat": 10.0, "anneal": 30.0, "mint": 10.0}
"""Passes over the samples where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        method: one of ``METHODS``.
        labels: the loss is that of the labels (and of the teacher's answers, where there is one).
        epochs: passes over the samples; may be broken.
        every: epochs between two looks at the hold-out samples; may be broken.
        batch: samples of one step, all processes together.
        lr: learning rate of Adam; it warms up, then falls to zero along a cosine.
        seed: of the split, of the order of samples and of all draws.
        augment: ``shift`` moves every picture by up to two pixels, ``flip`` also mirrors half of them.
        patience: looks without a better result after which training ends; None for no such end.
        max_drop: points of accuracy that may be lost (without labels 0.02 nats of KL divergence each).
        min_sqnr: for models that do not classify: least signal-to-noise ratio, in dB.
        kd: weight of the teacher's answers beside the labels, 0 to 1.
        features: weight of the squared error of inner tensors beside the answers; 0 for none.
        beta: ``entropy``: nats of loss that 10,000 bits are worth at the end of the ramp; None chooses.
        form: ``entropy``: ``straight`` (straight-through rounding) or ``relaxed`` (the paper's soft assignment).
        row_steps: ``entropy``: every output channel has a step of its own.
        keep: ``flat``, ``anneal``, ``mint``: share of the weights that is to be left.
        flatness: ``flat``: largest share of its cost that a unit is forgiven for making the network flatter.
        when: ``flat``: units go ``along`` the training, in one ``cut`` at 70 % of the steps, or at the ``end``.
        redistribute: ``flat``: units that stay take over the work of those that go.
        scratch: weights start from random numbers.

    Raises:
        InputError: a value out of its range, or options that do not go together.
    """

    method: str = "distil"
    labels: bool = False
    epochs: float | None = None
    every: float = 1.0
    batch: int = 128
    lr: float = 1e-3
    seed: int = 0
    augment: str = "none"
    patience: int | None = None
    max_drop: float = 1.0
    min_sqnr: float = 20.0
    kd: float = 0.5
    features: float = 0.0
    beta: float | None = None
    form: str = "straight"
    row_steps: bool = True
    keep: float | None = None
    flatness: float = 0.1
    when: str = "along"
    redistribute: bool = True
    scratch: bool = False

    def __post_init__(self) -> None:
        """Check every range."""
        _one_of("--method", self.method, METHODS)
        _one_of("--augment", self.augment, AUGMENTS)
        _one_of("--form", self.form, FORMS)
        _one_of("--when", self.when, WHENS)
        _require(self.epochs is None or 0 < self.epochs < math.inf, "--epochs", self.epochs, "a number above 0")
        _require(0 < self.every < math.inf, "--every", self.every, "a number of epochs above 0")
        _require(self.batch >= 1, "--batch", self.batch, "a whole number of 1 or more")
        if self.batch < FEWEST:
            raise InputError(
                f"--batch is {self.batch}, which is too small: the gradients of so few samples are mostly noise; give "
                f"{FEWEST} or more."
            )
        _require(0 < self.lr < math.inf, "--lr", self.lr, "a number above 0")
        _require(self.seed >= 0, "--seed", self.seed, "a whole number of 0 or more")
        _require(
            self.patience is None or self.patience >= 1, "--patience", self.patience, "a whole number of 1 or more"
        )
        _require(0 <= self.max_drop <= 100, "--max-drop", self.max_drop, "percentage points from 0 to 100")
        _require(math.isfinite(self.min_sqnr), "--min-sqnr", self.min_sqnr, "a number of decibels")
        _require(0 <= self.kd <= 1, "--kd", self.kd, "a share from 0 to 1")
        _require(0 <= self.features < math.inf, "--features", self.features, "a number of 0 or more")
        _require(self.beta is None or 0 <= self.beta < math.inf, "--beta", self.beta, "a number of 0 or more")
        _require(self.keep is None or 0 < self.keep <= 1, "--keep", self.keep, "a share above 0 and at most 1")
        _require(0 <= self.flatness <= 1, "--flatness", self.flatness, "a share from 0 to 1")
        if self.keep is None and self.method in ("flat", "mint"):
            raise InputError(f"--method {self.method} removes until a share of the weights is left: give it by --keep.")
        if self.keep is not None and self.method in ("distil", "entropy"):
            raise InputError(f"--keep says what to remove, which --method {self.method} does not: leave it out.")
        if self.scratch and self.method in ("entropy", "anneal"):
            raise InputError(
                f"--from-scratch is of no use with --method {self.method}, which starts from a trained model: leave it "
                "out."
            )

    @property
    def passes(self) -> float:
        """Passes over the samples."""
        return EPOCHS[self.method] if self.epochs is None else self.epochs

    def identity(self, *more: str) -> str:
        """SHA-256 of everything that makes a run what it is: a checkpoint belongs to one."""
        return hashlib.sha256(json.dumps([dataclasses.asdict(self), *more]).encode()).hexdigest()


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    _require(value in known, name, value, f"one of {', '.join(known)}")


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value}: give {wanted}.")
