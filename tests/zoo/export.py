"""Exports networks of the zoo to ONNX files, with both exporters of torch, and says which module made which node."""

from __future__ import annotations

import ast
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from zoo.parts import DYNAMO, LEGACY, Net, Variant

SCOPES = "pkg.torch.onnx.name_scopes"
SAMPLES = 2  # a batch of one would be taken for a fixed one


class ExportError(Exception):
    """torch cannot write this network in this way."""


def export(net: Net, variant: Variant, path: Path) -> None:
    """Write a network to a file; whole or not at all, whoever else writes it at the same time.

    Raises:
        ExportError: torch refuses, or wrote another operator set than was asked for, or an illegal model.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    place = Path(name)
    try:
        with _quiet():
            _write(net, variant, place)
        written = next(entry.version for entry in onnx.load(place).opset_import if entry.domain in {"", "ai.onnx"})
        if written != variant.opset:
            raise ExportError(f"asked for opset {variant.opset}, got {written}")
        onnx.checker.check_model(place)
        place.replace(path)
    except onnx.checker.ValidationError as error:  # its conversion to older operator sets leaves new attributes behind
        raise ExportError(f"wrote an illegal model: {str(error).splitlines()[0]}") from error
    finally:
        place.unlink(missing_ok=True)


def _write(net: Net, variant: Variant, path: Path) -> None:
    module = net.module()
    arguments = tuple(torch.from_numpy(array) for array in net.samples(SAMPLES).values())
    dynamic = _dynamic(net, variant)
    names = list(net.inputs)
    try:
        if variant.exporter == LEGACY:
            torch.onnx.export(
                module,
                arguments,
                path,
                dynamo=False,
                opset_version=variant.opset,
                input_names=names,
                output_names=["out"],
                dynamic_axes={**dynamic, **({"out": {0: "batch"}} if net.batch else {})},
            )
        else:
            _forget()
            torch.onnx.export(
                module,
                arguments,
                path,
                dynamo=True,
                opset_version=variant.opset,
                input_names=names,
                output_names=["out"],
                dynamic_shapes=tuple(dynamic[name] for name in names) if any(dynamic.values()) else None,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        raise ExportError(str(error).strip().splitlines()[0]) from error


def _forget() -> None:
    """Forget how recurrent operators were dispatched: after one export torch 2.13 would unroll the next."""
    for name in ("lstm", "gru"):
        for overload in ("input", "data"):
            getattr(getattr(torch.ops.aten, name), overload)._dispatch_cache.clear()


def _dynamic(net: Net, variant: Variant) -> dict[str, dict[int, str]]:
    batch = {0: "batch"} if net.batch else {}
    rigid = net.rigid and variant.exporter == DYNAMO
    return {name: {**batch, **({} if rigid else given.free)} for name, given in net.inputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the exporters and of what they use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export", UserWarning)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def modules_of(proto: onnx.ModelProto, modules: Collection[str]) -> dict[str, str]:
    """Per node name the path of the torch module it came from, for nodes that say so.

    The older exporter writes it into node names (``/one/a/conv/Conv``), the newer one into their metadata.

    Args:
        proto: as exported.
        modules: every module path of the network.
    """
    found = {}
    for node in proto.graph.node:
        said = {entry.key: entry.value for entry in node.metadata_props}
        if SCOPES in said:
            scopes: list[str] = ast.literal_eval(said[SCOPES])
            path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
        else:
            path = _dotted(node.name.strip("/").split("/")[:-1])
        found[node.name] = _known(path, modules)
    return found


def _dotted(scopes: Sequence[str]) -> str:
    """Join scopes; a member of a list repeats the list's name (``blocks/blocks.0``)."""
    path: list[str] = []
    for scope in scopes:
        path = [*path[:-1], scope] if path and scope.startswith(path[-1] + ".") else [*path, scope]
    return ".".join(path)


def _known(path: str, modules: Collection[str]) -> str:
    """The module's path, without the numbers that repeated calls get."""
    if path in modules:
        return path
    parts: list[str] = []
    for part in path.split("."):
        plain = re.sub(r"_\d+$", "", part)
        parts.append(part if ".".join([*parts, part]) in modules else plain)
    return ".".join(parts)
