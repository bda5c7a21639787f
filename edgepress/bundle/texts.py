"""Texts of a bundle: the README and the examples, with the names, shapes and types of the model in them.

Templates lie in ``texts/``; ``@WORD@`` stands for what is filled in, all of it in one pass, so that nothing that is
filled in is read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgepress.bundle import check, literals, ortformat
from edgepress.bundle.manifest import VECTORS, Manifest, Port
from edgepress.errors import InvariantError
from edgepress.report.bundle import Promise, allowance

FOLDER = Path(__file__).with_suffix("")
README, PYTHON, CPP = "README.md", "example.py", "example.cpp"

WHAT = {
    "model.onnx": "the model",
    "model.onnx.data": "its weights",
    ortformat.NAME: "the model for minimal builds of onnxruntime",
    ortformat.CONFIG: "the operators that such a build must have",
    VECTORS: 'inputs of the test vectors: array `"<number>/<input>"`',
    check.EXPECTED: 'expected outputs: array `"<number>/<position of the output>"`',
    check.AGENT: "runs models on a device: a job in, a report out",
    check.JOB: "the job that runs all test vectors",
    "check.py": "has that job done and compares",
    PYTHON: "how to call the model from Python",
    CPP: "the same from C++",
    README: "this page",
    check.MANIFEST: "all of this for programs",
    check.SUMS: "hashes of all files",
}

Feed = Mapping[str, np.ndarray]


def written(manifest: Manifest, feed: Feed, notes: Sequence[str], of_ort: Sequence[str]) -> dict[str, str]:
    """The texts by file name.

    Args:
        manifest: what they speak of; its files are those that are there beside the texts.
        feed: the first test vector, for the sizes.
        notes: what is not sure about the expected outputs.
        of_ort: what to know of the .ort file.
    """
    return {
        PYTHON: _filled("example.py", _python(manifest)),
        CPP: _filled("example.cpp", _cpp(manifest, feed)),
        README: _filled("README.md", _readme(manifest, feed, notes, of_ort)),
    }


def _filled(name: str, values: Mapping[str, str]) -> str:
    template = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    missing = set(re.findall(r"@([A-Z_]+)@", template)) - values.keys()
    if missing:
        raise InvariantError(f"The template of {name} wants {sorted(missing)[0]}.")
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


def _python(manifest: Manifest) -> dict[str, str]:
    return {
        "MODEL": manifest.model,
        "VECTORS": VECTORS,
        "INPUT_NAMES": f"[{', '.join(literals.python(port.name) for port in manifest.inputs)}]",
        "OUTPUT_NAMES": f"[{', '.join(literals.python(port.name) for port in manifest.outputs)}]",
        "INPUT_COMMENTS": "\n".join(f"#   {literals.python(port.name)}: {_kind(port)}" for port in manifest.inputs),
    }


def _cpp(manifest: Manifest, feed: Feed) -> dict[str, str]:
    blocks = [_cpp_input(place, port, feed[port.name]) for place, port in enumerate(manifest.inputs)]
    return {
        "MODEL": manifest.model,
        "INPUTS": "\n".join(blocks),
        "INPUT_NAMES": ", ".join(literals.cpp(port.name) for port in manifest.inputs),
        "OUTPUT_NAMES": ", ".join(literals.cpp(port.name) for port in manifest.outputs),
        "OUTPUT_TYPE": literals.CPP_TYPES[manifest.outputs[0].dtype],
    }


def _cpp_input(place: int, port: Port, array: np.ndarray) -> str:
    kind = literals.CPP_TYPES[port.dtype]
    sizes = ", ".join(map(str, array.shape))
    return (
        f"  // {literals.cpp(port.name)}: {_kind(port)}\n"
        f"  const std::vector<std::int64_t> shape{place} = {{{sizes}}};\n"
        f"  auto data{place} = std::make_unique<{kind}[]>({array.size});\n"
        f"  inputs.push_back(Ort::Value::CreateTensor<{kind}>(memory, data{place}.get(), {array.size}, "
        f"shape{place}.data(), shape{place}.size()));\n"
    )


def _kotlin(manifest: Manifest, feed: Feed) -> str:
    rows = []
    for port in manifest.inputs:
        name, array = literals.kotlin(port.name), feed[port.name]
        if port.dtype not in literals.KOTLIN_TYPES:
            rows.append(f"    // {name}: {port.dtype} has no Kotlin type, call it from C++")
            continue
        buffer, kind = literals.KOTLIN_TYPES[port.dtype]
        count = array.nbytes if buffer.startswith("ByteBuffer") else array.size
        sizes = f"longArrayOf({', '.join(map(str, array.shape))})"
        more = f", {kind}" if kind else ""
        tensor = f"OnnxTensor.createTensor(environment, {buffer}({count}), {sizes}{more})"
        rows.append(f"    {name} to {tensor},  // {_kind(port)}")
    first = f"{literals.kotlin(manifest.outputs[0].name)}: {_kind(manifest.outputs[0])}"
    return _filled("kotlin", {"MODEL": manifest.model, "INPUTS": "\n".join(rows), "FIRST_OUTPUT": first}).rstrip()


def _swift(manifest: Manifest, feed: Feed) -> str:
    rows = []
    for port in manifest.inputs:
        name, array = literals.swift(port.name), feed[port.name]
        if port.dtype not in literals.SWIFT_TYPES:
            rows.append(f"    // {name}: {port.dtype} has no Swift type, call it from C++")
            continue
        data = f"NSMutableData(length: {array.nbytes})!"
        sizes = ", ".join(map(str, array.shape))
        tensor = f"ORTValue(tensorData: {data}, elementType: {literals.SWIFT_TYPES[port.dtype]}, shape: [{sizes}])"
        rows.append(f"    {name}: try {tensor},  // {_kind(port)}")
    values = {
        "STEM": Path(manifest.model).stem,
        "SUFFIX": Path(manifest.model).suffix.lstrip("."),
        "INPUTS": "\n".join(rows),
        "OUTPUT_NAMES": ", ".join(literals.swift(port.name) for port in manifest.outputs),
        "FIRST_NAME": literals.swift(manifest.outputs[0].name),
    }
    return _filled("swift", values).rstrip()


def _readme(manifest: Manifest, feed: Feed, notes: Sequence[str], of_ort: Sequence[str]) -> dict[str, str]:
    models = [name for name in manifest.files if name.startswith("model.onnx")]
    listed = [*manifest.files, PYTHON, CPP, README, check.MANIFEST, check.SUMS]
    promised = zip(manifest.outputs, manifest.promises, strict=True)
    return {
        "NAME": literals.code(manifest.name),
        "VERSION": manifest.edgepress,
        "ORT": manifest.onnxruntime,
        "OPSET": str(manifest.opsets.get("", 1)),
        "IR": str(manifest.ir_version),
        "TARGET": "" if manifest.target is None else f". Made for `{manifest.target}`",
        "INPUT_ROWS": "\n".join(f"| {_cells(port)} |" for port in manifest.inputs),
        "OUTPUT_ROWS": "\n".join(f"| {_cells(port)} | {_promised(item)} |" for port, item in promised),
        "DATA": f"Test vectors: {manifest.samples}. {manifest.data}",
        "RECIPE": _recipe(manifest),
        "COMPUTED": "{cpu} (`{target}`) by onnxruntime {onnxruntime}".format(**manifest.computed_on),
        "NOTES": "".join(f"\n**{note}**\n" for note in notes),
        "WHY": "\n".join(f"- {literals.code(item.output)}: {item.why}." for item in manifest.promises),
        "FILES": "\n".join(f"| `{name}` | {WHAT[name]} |" for name in listed),
        "MODEL": manifest.model,
        "PUSHED": " ".join(models),
        "KOTLIN": _kotlin(manifest, feed),
        "SWIFT": _swift(manifest, feed),
        "ORT_SECTION": _ort(manifest, of_ort),
    }


def _recipe(manifest: Manifest) -> str:
    if manifest.recipe is None:
        return ""
    return f"\n```json\n{json.dumps(manifest.recipe, indent=1)}\n```\n"


def _promised(item: Promise) -> str:
    return f"{item.rule}, {allowance(item)}" if item.rule == "close" else item.rule


def _ort(manifest: Manifest, of_ort: Sequence[str]) -> str:
    if manifest.ort is None:
        return ""
    listed = "\n".join(f"- {warning}" for warning in of_ort)
    return (
        f"\n## The .ort file\n\n`{manifest.ort}` is the model for minimal builds of onnxruntime; `{ortformat.CONFIG}` "
        f"is for `--include_ops_by_config` of such a build. `python3 check.py --model {manifest.ort}` checks it.\n\n"
        f"{listed}\n"
    )


def _cells(port: Port) -> str:
    return f"{literals.code(port.name)} | {port.dtype} | {literals.code(literals.shape(port.shape))}"


def _kind(port: Port) -> str:
    return f"{port.dtype} {literals.shape(port.shape)}"
