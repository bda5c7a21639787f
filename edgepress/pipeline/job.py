"""One training run as it is asked for: files, samples, settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edgepress.errors import DataError, InputError
from edgepress.request import CODED_SUFFIX
from edgepress.train.settings import Settings

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, as asked for.

    Attributes:
        model: the ONNX file.
        data: source of the samples.
        output: where the result goes.
        settings: how to train.
        teacher: the ONNX file whose answers are to be given again; None for the start, where a method wants one.
        eval_data: source of other samples, which the report says the quality on; they decide nothing.
        recipe: how to read pictures.
        resume: go on from the checkpoint beside the output, if there is one.
        device: ``cpu`` or ``cuda``.
        threads: of torch; None leaves its own number.
    """

    model: Path
    data: str
    output: Path
    settings: Settings = dataclasses.field(default_factory=Settings)
    teacher: Path | None = None
    eval_data: str | None = None
    recipe: str | None = None
    resume: bool = False
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check what settings do not know."""
        if self.device not in DEVICES:
            raise InputError(f"--device is {self.device}: give one of {', '.join(DEVICES)}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}: give a whole number of 1 or more.")
        settings = self.settings
        if settings.method == "distil" and self.teacher is None and not settings.labels:
            raise InputError(
                "--method distil brings a model nearer to another one: name that by --teacher, or train on --labels."
            )
        if settings.scratch and self.teacher is None and not settings.labels:
            raise DataError("Training from scratch needs --labels, or a --teacher to learn from.")


def coded_place(job: Job) -> Path | None:
    """Where the entropy-coded file goes: beside the output, for the method that codes."""
    return job.output.with_suffix(CODED_SUFFIX) if job.settings.method == "entropy" else None
