"""The loop: steps, epochs, hold-out, checkpoints, an early end.

    every step     a batch, its loss, one step of Adam, ``method.stepped``
    every look     the model of now is judged on the hold-out samples; the best so far is kept
    now and then   a checkpoint: after every look, and when ``EVERY`` seconds have gone by

A run that is killed and goes on from its checkpoint makes the same steps with the same numbers, so its result is the
same, bit for bit, on the same number of threads and processes. A loss that is not a number ends the training: the best
so far is kept, and the report says so. If nothing was better than the start, the start is handed over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from edgepress.model import Model
from edgepress.quality import Verdict
from edgepress.train import checkpoint
from edgepress.train.checkpoint import Saved
from edgepress.train.method import Found, Method, Moment, read_model
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings

EVERY = 60.0
"""Seconds between checkpoints within an epoch."""


class Listener(Protocol):
    """Who hears of epochs."""

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """An epoch that runs; it takes a note."""
        ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """What was seen at one look, mostly at the end of an epoch.

    Attributes:
        number: from 1.
        steps: made until its end.
        loss: mean of the loss that was trained, without bits.
        bits: for each weight that is trained, in the mean; NaN where nobody counts.
        after: quality of the model at its end (accuracy or agreement in percent, or SQNR in dB).
        lost: what it lost on the hold-out samples (points, nats, or dB below the floor).
        kl: divergence from the reference, in nats; NaN for no classifier.
        parameters: weights that count.
        coded_bytes: of the weights in the coded file, as the coder counts them; None where nothing is coded.
        best: it was the best until then.
    """

    number: int
    steps: int
    loss: float
    bits: float
    after: float
    lost: float
    kl: float
    parameters: int
    coded_bytes: int | None
    best: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training has led to.

    Attributes:
        model: the best model; None where none was better than the start.
        epochs: what happened.
        notes: what is to be said.
        resumed: step that a checkpoint was taken up at; 0 for none.
    """

    model: Model | None
    epochs: tuple[Epoch, ...]
    notes: tuple[str, ...]
    resumed: int


@dataclass
class Loop:
    """One run.

    Attributes:
        method: what is trained, and how.
        settings: the options.
        ranks: the processes.
        judge: the verdict of the hold-out samples on a model.
        listener: who hears of epochs.
        place: the checkpoint's path; None keeps none.
        identity: what the run is.
        weights: how many are trained, to say bits for each.
    """

    method: Method
    settings: Settings
    ranks: Ranks
    judge: Callable[[Model], Verdict]
    listener: Listener
    place: Path | None
    identity: str
    weights: int
    step: int = 0
    total: float = 0.0
    bits: float = float("nan")
    counted: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    best: bytes = b""
    rank: tuple[float, ...] | None = None
    since: int = 0
    ended: str = ""
    resumed: int = 0

    def begin(self, start: Found, *, counts: bool) -> None:
        """The model that training starts from; ``counts`` where anything else must be better."""
        if counts:
            self.rank = self.method.rank(start)

    def resume(self, data: bytes, path: Path) -> None:
        """Take up a checkpoint.

        Raises:
            DataError: it is damaged, or of another run.
        """
        saved = Saved.unpacked(data, self.identity, path)
        meta = saved.meta
        self.method.restore(saved.arrays)
        self.method.notes[:] = meta["notes"]
        self.step, self.total, self.counted = meta["step"], meta["total"], meta["counted"]
        self.bits = _number(meta["bits"])
        self.epochs = [
            Epoch(**{**row, "bits": _number(row["bits"]), "kl": _number(row["kl"])}) for row in meta["epochs"]
        ]
        self.best, self.since, self.ended = saved.best, meta["since"], meta["ended"]
        self.rank = None if meta["rank"] is None else tuple(meta["rank"])
        self.resumed = self.step

    def run(self, per_epoch: int) -> Outcome:
        """Train to the end."""
        steps = max(1, round(self.settings.passes * per_epoch))
        per_look = max(1, round(self.settings.every * per_epoch))
        saved = time.monotonic()
        while self.step < steps and not self.ended:
            number = self.step // per_look
            with self.listener.stage("epoch") as stage:
                until = min(steps, (number + 1) * per_look)
                while self.step < until and not self.ended:
                    self._step(Moment(self.step, steps))
                    if time.monotonic() - saved > EVERY and self.step < until:
                        self._save()
                        saved = time.monotonic()
                stage.note(self._end_epoch(number + 1, Moment(self.step, steps), math.ceil(steps / per_look)))
                self._save()
                saved = time.monotonic()
        model = read_model(self.best) if self.best else None
        notes = [*self.method.notes, *([self.ended] if self.ended else [])]
        return Outcome(model, tuple(self.epochs), tuple(notes), self.resumed)

    def _step(self, moment: Moment) -> None:
        batch = self.method.setting.batches.at(moment.step)
        with torch.enable_grad():
            terms = self.method.terms(batch, moment)
            lr = self.settings.lr * self.method.rate(moment)
            good = self.method.adam.step(terms.total, lr, self.ranks)
        if not good:
            self.ended = (
                f"The loss or its gradient was not a number at step {moment.step + 1}: training stopped there and the "
                "best model until then was kept; a smaller --lr may help."
            )
            return
        self.total, self.counted = self.total + terms.task, self.counted + 1
        self.bits = terms.bits
        self.step += 1
        self.method.stepped(Moment(self.step, moment.steps))

    def _end_epoch(self, number: int, moment: Moment, of: int) -> str:
        """Judge the model of now; the note of the epoch."""
        model, parameters, coded = self.method.found()
        found = Found(model, self.judge(model), parameters, coded)
        rank = self.method.rank(found)
        better = rank is not None and (self.rank is None or rank < self.rank) and _finite(found.verdict)
        if better:
            self.rank, self.best, self.since = rank, model.data, 0
        else:
            self.since += 1
        loss = self.total / max(1, self.counted)
        verdict, bits = found.verdict, self.bits / max(1, self.weights)
        row = Epoch(
            number, self.step, loss, bits, verdict.after, verdict.loss, verdict.kl, parameters, coded, bool(better)
        )
        self.epochs.append(row)
        self.total, self.counted = 0.0, 0
        if not self.ended:
            self.method.judged(found, moment)
            if self.settings.patience is not None and self.since >= self.settings.patience:
                self.ended = f"Training ended early: nothing was better for {self.since} looks."
        return note_of(row, of, verdict.measure)

    def _save(self) -> None:
        if self.place is None or not self.ranks.first:
            return
        meta = {
            "step": self.step, "total": self.total, "bits": _text(self.bits), "counted": self.counted,
            "epochs": [{**asdict(row), "bits": _text(row.bits), "kl": _text(row.kl)} for row in self.epochs],
            "rank": self.rank, "since": self.since, "ended": self.ended, "notes": list(self.method.notes),
        }  # fmt: skip
        checkpoint.save(self.place, Saved(meta, self.method.state(), self.best), self.identity)


def note_of(row: Epoch, of: int, measure: str) -> str:
    """What is said of an epoch while it runs."""
    quality = {"accuracy": "accuracy {:.2f} %", "agreement": "agreement {:.2f} %", "sqnr": "SQNR {:.1f} dB"}[measure]
    parts = [f"{row.number}/{of}", f"loss {row.loss:.4f}"]
    if math.isfinite(row.bits):
        parts.append(f"{row.bits:.3f} bits a weight")
    parts.append(quality.format(row.after))
    if measure == "agreement":
        parts.append(f"KL {row.kl:.4f}")
    parts.append(f"{row.parameters:,} weights")
    if row.coded_bytes is not None:
        parts.append(f"{row.coded_bytes:,} bytes")
    return ", ".join([*parts, *(["best"] if row.best else [])])


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Fixed threads and deterministic algorithms of torch inside, the old settings after."""
    before, strict, slow = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn
    torch.use_deterministic_algorithms(True, warn_only=True)
    tuned = slow.benchmark
    slow.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
        slow.benchmark = tuned


def _finite(verdict: Verdict) -> bool:
    return math.isfinite(verdict.after) and not (verdict.measure == "agreement" and not math.isfinite(verdict.kl))


def _text(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
