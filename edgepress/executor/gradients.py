"""Gradients of a loss by the parameters and tensors of a model, whole or sample by sample.

One backward pass gives the gradients of all parameters and of every captured tensor. Per-sample gradients are
``vmap(grad(loss of one sample))`` of ``torch.func`` (Horace He, Richard Zou, functorch, 2021): each sample runs as a
batch of one, and the result equals a loop of single gradients. Operators that torch has no batching rule for (its
fused LSTM and GRU, data-dependent conditions) are refused by name; ``method="loop"`` runs the loop instead.

Gradients mean nothing if the executor computes something else than onnxruntime: :func:`differentiable` makes an
executor only for a model whose tensors agree, and is the door through which tuning code should come.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgepress.errors import DataError, ModelError, UnsupportedError
from edgepress.executor.program import label
from edgepress.executor.run import Executor
from edgepress.executor.values import Tensors
from edgepress.model import Model

Arrays = Mapping[str, "np.ndarray | torch.Tensor"]
Loss = Callable[..., torch.Tensor]
"""``loss(outputs)``, or ``loss(outputs, targets)`` where targets are given; makes one number."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """What one backward pass gives; nothing in it has a history.

    Attributes:
        loss: the loss, without axes.
        parameters: gradient by initializer, shaped like it; zero where the loss does not depend on it.
        tensors: captured tensors by name.
        tensor_gradients: their gradients; zero where the loss does not depend on them.
    """

    loss: torch.Tensor
    parameters: Mapping[str, torch.Tensor]
    tensors: Mapping[str, torch.Tensor]
    tensor_gradients: Mapping[str, torch.Tensor]


def require_parity(executor: Executor, inputs: Mapping[str, np.ndarray], *, tolerance: float = 1e-3) -> None:
    """Refuse gradients unless every float tensor agrees with onnxruntime.

    Args:
        executor: the executor to check.
        inputs: every graph input by name: a calibration batch.
        tolerance: allowed relative difference per tensor, as in :meth:`Executor.parity`.

    Raises:
        UnsupportedError: a tensor differs; names the first one and the node that makes it.
    """
    name = executor.parity(inputs, tolerance=tolerance)
    if name is None:
        return
    maker = executor.model.producer(name)
    made = f", made by {label(maker)}," if maker is not None else ""
    raise UnsupportedError(
        f"Tensor {name!r}{made} differs between torch and onnxruntime by more than {tolerance:g} of its range: "
        "gradients of this model would be wrong."
    )


def differentiable(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    *,
    tolerance: float = 1e-3,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Executor:
    """An executor whose gradients can be trusted: checked against onnxruntime tensor by tensor.

    Args:
        model: the model.
        inputs: a calibration batch, every graph input by name.
        tolerance: as in :func:`require_parity`.
        dtype: as in :class:`Executor`.
        device: as in :class:`Executor`.

    Raises:
        UnsupportedError: an operator that cannot be run, or the first tensor that differs.
    """
    executor = Executor(model, dtype=dtype, device=device)
    require_parity(executor, inputs, tolerance=tolerance)
    return executor


def gradients(
    executor: Executor,
    inputs: Arrays,
    loss: Loss,
    *,
    parameters: Tensors | Sequence[str] | None = None,
    capture: Sequence[str] = (),
    targets: torch.Tensor | None = None,
) -> Gradients:
    """Gradients of one loss, all in one backward pass.

    Args:
        executor: the model; parity is the caller's business (:func:`differentiable`).
        inputs: every graph input by name.
        loss: makes one number of the graph outputs by name (and the targets, if given).
        parameters: initializers to take gradients by: names, or values to use instead of the executor's by name;
            all of ``executor.trainable`` by default.
        capture: tensors of the main graph (inputs included) to return with their gradients.
        targets: handed on to ``loss``.

    Raises:
        DataError: unknown names, or a loss that is no single number.
        UnsupportedError: a captured tensor that is not of a float type, or an operator that cannot run.
        ModelError: torch cannot run a node on these shapes.
    """
    tuned = _parameters(executor, parameters)
    weights = _parameters(executor, [name for name in capture if name in executor.parameters and name not in tuned])
    leaves = {name: value.detach().requires_grad_() for name, value in {**tuned, **weights}.items()}
    with torch.enable_grad():
        found = executor.forward(inputs, capture=capture, parameters=leaves, open_captured=True)
        whole = {name: found[name] for name in dict.fromkeys(capture)}
        _refuse_integers(whole)
        value = _number(loss(*_arguments(executor, found, targets)))
    points = {**whole, **leaves}  # an initializer may be captured too: it is its leaf
    slopes = dict(zip(points, _backward(value, list(points.values())), strict=True))
    return Gradients(
        loss=value.detach(),
        parameters={name: slopes[name] for name in tuned},
        tensors={name: tensor.detach() for name, tensor in whole.items()},
        tensor_gradients={name: slopes[name] for name in whole},
    )


def per_sample_gradients(
    executor: Executor,
    inputs: Arrays,
    loss: Loss,
    *,
    parameters: Tensors | Sequence[str] | None = None,
    targets: torch.Tensor | None = None,
    chunk: int | None = 32,
    method: str = "vmap",
) -> dict[str, torch.Tensor]:
    """Gradients of the loss of every sample by itself.

    Args:
        executor: the model; parity is the caller's business (:func:`differentiable`).
        inputs: every graph input by name, samples along the first axis; inputs whose first axis the model fixes to
            another size than 1 are shared by all samples.
        loss: makes one number of the outputs of a batch of one (and its targets ``[1, ...]``, if given).
        parameters: as in :func:`gradients`.
        targets: ``[samples, ...]``.
        chunk: samples that ``vmap`` runs at a time; None for all. Memory grows with it.
        method: ``"vmap"``, or ``"loop"``: one backward pass per sample, for operators without a batching rule.

    Returns:
        Gradients ``[samples, *shape]`` by initializer.

    Raises:
        DataError: inputs that do not agree on the number of samples, a model with a fixed batch, unknown names.
        UnsupportedError: ``vmap`` cannot run an operator (named in the message), or it cannot run at all.
        ModelError: torch cannot run a node on these shapes.
    """
    if method not in ("vmap", "loop"):
        raise DataError(f"Per-sample gradients go by 'vmap' or 'loop', not {method!r}.")
    tuned = {name: value.detach() for name, value in _parameters(executor, parameters).items()}
    given = {name: executor.place.tensor(value) for name, value in inputs.items()}
    split = _split_names(executor.model, given, targets)

    def one(values: Tensors, sample: Mapping[str, torch.Tensor], target: torch.Tensor | None) -> torch.Tensor:
        alone = {name: tensor.unsqueeze(0) for name, tensor in sample.items()}
        whole = {name: alone.get(name, tensor) for name, tensor in given.items()}
        found = executor.forward(whole, parameters=values)
        return _number(loss(*_arguments(executor, found, None if target is None else target.unsqueeze(0))))

    samples = {name: given[name] for name in split}
    if method == "loop":
        return _by_loop(one, tuned, samples, targets)
    return _by_vmap(one, tuned, samples, targets, chunk)


_One = Callable[[Tensors, Mapping[str, torch.Tensor], "torch.Tensor | None"], torch.Tensor]


def _by_loop(
    one: _One, tuned: Tensors, samples: Mapping[str, torch.Tensor], targets: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    count = len(next(iter(samples.values())))
    rows: list[list[torch.Tensor]] = []
    for number in range(count):
        leaves = {name: value.detach().requires_grad_() for name, value in tuned.items()}
        sample = {name: tensor[number] for name, tensor in samples.items()}
        with torch.enable_grad():
            value = one(leaves, sample, None if targets is None else targets[number])
        rows.append(_backward(value, list(leaves.values())))
    return {name: torch.stack(column) for name, column in zip(tuned, zip(*rows, strict=True), strict=True)}


def _by_vmap(
    one: _One,
    tuned: Tensors,
    samples: Mapping[str, torch.Tensor],
    targets: torch.Tensor | None,
    chunk: int | None,
) -> dict[str, torch.Tensor]:
    along = (None, 0, None if targets is None else 0)
    by_sample = torch.func.vmap(torch.func.grad(one), in_dims=along, chunk_size=chunk)
    try:
        with warnings.catch_warnings():
            # torch would loop inside and only warn
            warnings.filterwarnings("error", message=".*batching rule.*")
            return dict(by_sample(dict(tuned), dict(samples), targets))
    except (UnsupportedError, ModelError, NotImplementedError, UserWarning, RuntimeError) as error:
        _check_single(one, tuned, samples, targets)
        raise UnsupportedError(
            f"torch.func cannot take the gradients of all samples at once ({str(error).splitlines()[0].rstrip('.')}): "
            'use method="loop".'
        ) from error


def _check_single(one: _One, tuned: Tensors, samples: Mapping[str, torch.Tensor], targets: torch.Tensor | None) -> None:
    """Raise what is wrong with a plain run of the first sample: then vmap is not to blame."""
    _by_loop(
        one, tuned, {name: tensor[:1] for name, tensor in samples.items()}, None if targets is None else targets[:1]
    )


def _parameters(executor: Executor, chosen: Tensors | Sequence[str] | None) -> dict[str, torch.Tensor]:
    names = executor.trainable if chosen is None else tuple(chosen)
    unknown = [name for name in names if name not in executor.parameters]
    if unknown:
        raise DataError(f"{unknown[0]!r} is no initializer of this model.")
    whole = [name for name in names if not executor.parameters[name].is_floating_point()]
    if whole:
        raise DataError(f"The initializer {whole[0]!r} holds whole numbers, which have no gradient.")
    given = chosen if isinstance(chosen, Mapping) else executor.parameters
    return {name: given[name] for name in names}


def _split_names(model: Model, given: Mapping[str, torch.Tensor], targets: torch.Tensor | None) -> list[str]:
    """Inputs with one row per sample."""
    wrong = given.keys() ^ model.inputs.keys()
    if wrong:
        raise DataError(f"The model takes the inputs {sorted(model.inputs)}: mend {sorted(wrong)}.")
    split = [name for name, kind in model.inputs.items() if given[name].ndim and _is_batch(kind.shape)]
    if not split:
        raise DataError("Every input of this model has a fixed batch, so its samples cannot run one by one.")
    counts = {len(given[name]) for name in split} | (set() if targets is None else {len(targets)})
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"Inputs and targets must hold the same number of samples, not {sorted(counts)}.")
    return split


def _is_batch(shape: tuple[int | str | None, ...] | None) -> bool:
    """The first axis is not fixed, or to one sample."""
    return shape is None or (len(shape) > 0 and (shape[0] == 1 or not isinstance(shape[0], int)))


def _arguments(executor: Executor, found: Mapping[str, torch.Tensor], targets: torch.Tensor | None) -> tuple[Any, ...]:
    outputs = {name: found[name] for name in executor.model.outputs}
    return (outputs,) if targets is None else (outputs, targets)


def _number(value: torch.Tensor) -> torch.Tensor:
    if value.numel() != 1 or not value.is_floating_point():
        raise DataError("The loss must be a tensor of one float number: reduce it, e.g. by sum().")
    return value.reshape(())


def _backward(value: torch.Tensor, points: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients by ``points``, zero where there is none."""
    if not points or not value.requires_grad:
        return [torch.zeros_like(point) for point in points]
    slopes: Sequence[torch.Tensor | None] = torch.autograd.grad(value, points, allow_unused=True)
    return [torch.zeros_like(p) if slope is None else slope for p, slope in zip(points, slopes, strict=True)]


def _refuse_integers(captured: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in captured.items():
        if not tensor.is_floating_point():
            raise UnsupportedError(f"Tensor {name!r} holds {tensor.dtype}, which has no gradient.")
