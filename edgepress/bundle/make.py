"""Make a bundle: a folder that holds a model, what it answers to test vectors, and all that its deployment needs.

It is written beside its place and then renamed, so that it is never half there. A folder that holds something else is
left alone; an older bundle is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgepress import __version__, targets
from edgepress.bench import describe
from edgepress.bundle import check, ortformat, texts, vectors
from edgepress.bundle.manifest import MODEL, VECTORS, Entry, Manifest, Port, entry, strangers
from edgepress.bundle.needs import oldest_release
from edgepress.bundle.promises import promises
from edgepress.devices import agent
from edgepress.errors import InputError, ModelError, OutputError, PlanError
from edgepress.model import Model
from edgepress.plan import Plan
from edgepress.report.bundle import Bundled
from edgepress.request import check_input, plan_path
from edgepress.targets import Target

SOURCE = "edgepress.source_sha256"
"""What edgepress notes in a model it made: the identity of the model it came from, which is in the plan as well."""

INT8_LIMIT = 127
"""Largest weight that cannot saturate, on CPUs with int8 dot products."""

JOB = {"task": "outputs", "model": MODEL, "feeds": VECTORS, "to": check.ANSWERS, "threads": 1}


def bundle(
    model: Path,
    output: Path,
    data: str | None = None,
    *,
    recipe: str | None = None,
    samples: int = vectors.SAMPLES,
    target: str | None = None,
    ort: bool = False,
) -> Bundled:
    """Make a bundle of an ONNX file.

    Args:
        model: the file.
        output: the folder to make.
        data: source of samples for the test vectors; None makes inputs up.
        recipe: JSON file that says how to read pictures.
        samples: most test vectors.
        target: what the model is for; None takes it from the plan beside the model, if there is one.
        ort: also write the model in onnxruntime's own format.

    Raises:
        ModelError: the model cannot be read, run or converted.
        DataError: the samples cannot be used.
        OutputError: the folder cannot be made there.
        InputError: a setting that cannot be kept.
    """
    if samples < 1:
        raise InputError("A bundle needs a test vector: give --samples 1 or more.")
    if recipe is not None and data is None:
        raise InputError("--recipe is of no use without samples: add --data.")
    check_input(model)
    _check_place(output, model)
    loaded = Model.load(model)
    if not loaded.inputs:
        raise ModelError("The model has no inputs, so there is nothing to test it with.")
    made_for = targets.find(target) if target is not None else _planned(model, loaded)
    if ort:
        ortformat.platform(made_for)
    inputs = vectors.inputs(loaded, data, recipe, samples)
    with _beside(output) as folder:
        written = _copied(model, loaded, folder)
        answers = vectors.answers(written, loaded, inputs.feeds)
        vectors.save_inputs(folder / VECTORS, inputs.feeds)
        vectors.save_answers(folder / check.EXPECTED, answers)
        of_ort = _converted(loaded, folder, made_for) if ort else ()
        _programs(folder)
        manifest = _manifest(model, loaded, folder, inputs, answers, recipe, made_for)
        notes = _notes(loaded, targets.detect())
        for name, text in texts.written(manifest, inputs.feeds[0], notes, of_ort).items():
            (folder / name).write_text(text, encoding="utf-8")
        manifest = replace(manifest, files=_entries(folder))
        (folder / check.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        sums = check.sums(str(folder), {name: item.sha256 for name, item in manifest.files.items()})
        (folder / check.SUMS).write_text(sums, encoding="utf-8")
    return _page(output, manifest, (*notes, *of_ort))


def _page(output: Path, manifest: Manifest, warnings: tuple[str, ...]) -> Bundled:
    return Bundled(
        folder=str(output),
        onnxruntime=manifest.onnxruntime,
        opset=manifest.opsets[""],
        ir_version=manifest.ir_version,
        target=manifest.target,
        samples=manifest.samples,
        made_up=manifest.made_up,
        promises=manifest.promises,
        files={path.name: path.stat().st_size for path in sorted(output.iterdir())},
        warnings=warnings,
    )


# --- what goes in -------------------------------------------------------------------------------------------------


def _planned(model: Path, loaded: Model) -> Target | None:
    """The target in the plan beside the model, if that plan is of this model."""
    place = plan_path(model)
    if SOURCE not in loaded.metadata or not place.is_file():
        return None
    try:
        plan = Plan.load(place)
    except PlanError:  # a neighbour that is no plan says nothing of the model
        return None
    name = plan.settings.get("target")
    belongs = plan.model_sha256 == loaded.metadata[SOURCE]
    return targets.TARGETS.get(name) if belongs and isinstance(name, str) else None


def _copied(model: Path, loaded: Model, folder: Path) -> Path:
    """The model as a file of the bundle: as it is; with external weights as one file, two if it is over 2 GiB."""
    place = folder / MODEL
    if loaded.external:
        loaded.save(place)
    else:
        shutil.copyfile(model, place)
    return place


def _converted(loaded: Model, folder: Path, target: Target | None) -> tuple[str, ...]:
    ortformat.convert(folder / MODEL, folder, target)
    sizes = [(folder / name).stat().st_size for name in (MODEL, ortformat.NAME)]
    return ortformat.warnings(loaded, target, *sizes)


def _notes(loaded: Model, here: Target) -> tuple[str, ...]:
    """What is not sure about the manifest and the expected outputs."""
    found = []
    if oldest_release(loaded) is None:
        found.append(
            "Nothing is known of the history of some operators of this model, so the oldest onnxruntime is taken to be "
            "the one that is installed here."
        )
    if here.weight_limit < INT8_LIMIT and any("QuantizeLinear" in node.op for node in loaded.nodes):
        found.append(
            "This CPU has no int8 dot products: sums of weights beyond 64 saturate on it, and the expected outputs "
            "then are not those of other CPUs. Make the bundle on one that has them."
        )
    return tuple(found)


def _programs(folder: Path) -> None:
    """The agent, its job, and the check."""
    shutil.copyfile(agent.__file__, folder / check.AGENT)
    shutil.copyfile(check.__file__, folder / "check.py")
    (folder / check.JOB).write_text(json.dumps(JOB) + "\n", encoding="utf-8")


def _manifest(
    model: Path,
    loaded: Model,
    folder: Path,
    inputs: vectors.Inputs,
    answers: list[list[np.ndarray]],
    recipe: str | None,
    target: Target | None,
) -> Manifest:
    machine, release = describe(), oldest_release(loaded)
    given = zip(loaded.outputs.items(), answers[0], strict=True)
    return Manifest(
        name=model.name,
        source_sha256=check.sha256(str(model)),
        edgepress=__version__,
        target=None if target is None else target.name,
        onnxruntime=str(release) if release else ".".join(machine.onnxruntime.split(".")[:2]),
        opsets=dict(loaded.opsets),
        ir_version=loaded.ir_version,
        model=MODEL,
        ort=ortformat.NAME if (folder / ortformat.NAME).is_file() else None,
        inputs=tuple(Port(name, kind.dtype, kind.shape) for name, kind in loaded.inputs.items()),
        outputs=tuple(Port(name, str(answer.dtype), kind.shape) for (name, kind), answer in given),
        promises=promises(folder / MODEL, loaded, answers[0]),
        samples=len(inputs.feeds),
        made_up=inputs.made_up,
        data=inputs.words,
        recipe=None if recipe is None else json.loads(Path(recipe).read_text(encoding="utf-8")),
        computed_on={"cpu": machine.cpu, "target": targets.detect().name, "onnxruntime": machine.onnxruntime},
        files=_entries(folder),
    )


def _entries(folder: Path) -> dict[str, Entry]:
    return {path.name: entry(path) for path in sorted(folder.iterdir())}


# --- where it goes ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A folder beside the place, which takes the place in the end; it is gone if something fails."""
    place = output.resolve()
    temporary, old = (place.with_name(f".{place.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    try:
        temporary.mkdir()
        yield temporary
        if place.exists():
            place.rename(old)
        temporary.rename(place)
    except OSError as error:
        raise OutputError(f"Cannot write {output}: {error.strerror}; choose another folder with -o.") from error
    finally:
        if old.exists() and not place.exists():  # interrupted in between
            old.rename(place)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_place(output: Path, model: Path) -> None:
    """Refuse a place that holds something else than a bundle, or the model itself."""
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file: give a folder with -o.")
    others = strangers(output) if output.is_dir() else []
    if others:
        raise OutputError(f"{output} holds {others[0]!r}, which no bundle put there: give a new folder with -o.")
    if output.resolve() in model.resolve().parents:
        raise OutputError(f"{model} lies in {output}, which would be replaced: give another folder with -o.")
    if not output.resolve().parent.is_dir():
        raise OutputError(f"The folder {output.resolve().parent} does not exist: create it, or give another with -o.")
