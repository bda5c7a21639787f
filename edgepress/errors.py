"""What can go wrong, and what edgepress declines to do.

"Wrong" is an exception of one tree; each carries the exit code the command line ends with::

    EdgepressError                 1
    ├── InputError                 2   something the user handed over cannot be used
    │   ├── ModelError                 the ONNX file
    │   ├── DataError                  the samples
    │   ├── PlanError                  the plan file
    │   ├── OutputError                the place to write to
    │   ├── PluginError                what another package adds
    │   └── DeviceError                the device to run on
    ├── UnsupportedError       1   an operator or attribute the torch executor does not run
    ├── BudgetMissed               3   an explicit budget is out of reach; says the best found
    ├── VerifyFailed               3   a device answers otherwise than a bundle promises
    └── InvariantError             1   a guarantee of edgepress itself did not hold (a bug: please report)

"Cannot" is a value: a :class:`Refusal` says what is left alone, and why.
Messages are one sentence that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


class EdgepressError(Exception):
    """Base of every error edgepress raises on purpose."""

    exit_code = 1


class InputError(EdgepressError):
    """Something the user handed over cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """The ONNX file cannot be used."""


class DataError(InputError):
    """The samples cannot be used with this model."""


class PlanError(InputError):
    """The plan file cannot be used, or belongs to another model."""


class OutputError(InputError):
    """The result cannot be written where it was asked for."""


class PluginError(InputError):
    """What another package adds to edgepress by an entry point cannot be used."""


class DeviceError(InputError):
    """A device cannot be reached, or lacks what running a model there needs."""


class UnsupportedError(EdgepressError):
    """An operator or attribute the torch executor does not run."""


class BudgetMissed(EdgepressError):
    """An explicit budget is out of reach within the other limits."""

    exit_code = 3
    report: object | None = None  # the report.Report of the best that was found, set by the pipeline


class VerifyFailed(EdgepressError):
    """A device answers otherwise than the test vectors of a bundle say."""

    exit_code = 3


class InvariantError(EdgepressError):
    """A guarantee of edgepress itself did not hold."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something left alone on purpose: what, why, and (where there is one) the way round it."""

    what: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" + (f" ({self.hint})" if self.hint else "")
