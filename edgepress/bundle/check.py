"""Does this device answer as the bundle says? ``python3 check.py`` in the folder of the bundle.

One file that needs Python 3.8 and numpy (and onnxruntime, for the agent beside it), and nothing of edgepress: it is
copied into every bundle as it is, and ``edgepress verify`` compares by the same functions. Each output has a promise,

    exact   every bit is that of the expected output
    equal   every value is
    close   |answer - expected| <= absolute + relative * span,  span = max(expected, 0) - min(expected, 0)

where the span is that of all samples. Shapes and types must be equal; NaN agrees with NaN only. Exit codes: 0 all
outputs agree, 2 the bundle is damaged or the model does not run here, 3 an output is another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

MANIFEST = "manifest.json"
AGENT = "edgepress_agent.py"
JOB = "job.json"
EXPECTED = "expected.npz"
SUMS = "SHA256SUMS"
ANSWERS = "outputs.npz"
LEFT = (ANSWERS, "report.json", "__pycache__")
"""What running the check or the agent in a bundle leaves there."""

BROKEN, DIFFERS = 2, 3

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_BLOCK = 1 << 20

Row = Dict[str, Any]


# --- files --------------------------------------------------------------------------------------------------------


def plain(name: str) -> bool:
    """Whether a text is a file name of letters, digits, dots, dashes and underscores: no path, nothing hidden."""
    return _PLAIN.fullmatch(name) is not None


def damage(folder: str, files: Mapping[str, Mapping[str, Any]]) -> Optional[str]:
    """What is wrong with the files of a bundle, in a sentence; None if nothing is.

    Args:
        folder: the bundle.
        files: by name ``sha256`` and ``bytes``, as the manifest has them.
    """
    for name in files:
        path = os.path.join(folder, name)
        if not plain(name):
            return "{!r} is no file of a bundle: make the bundle again.".format(name)
        if os.path.islink(path) or not os.path.isfile(path):
            return "{} is missing (a link is no file): copy the whole bundle again.".format(name)
        size = os.path.getsize(path)
        if size != files[name]["bytes"]:
            return "{} has {} bytes, not {}: copy the bundle again.".format(name, size, files[name]["bytes"])
        if sha256(path) != files[name]["sha256"]:
            return "{} has other contents than the manifest says: copy the bundle again.".format(name)
    return _damaged_sums(folder, files)


def _damaged_sums(folder: str, files: Mapping[str, Mapping[str, Any]]) -> Optional[str]:
    """Whether the sums are those of these files and of this manifest, which nothing else vouches for."""
    try:
        with open(os.path.join(folder, SUMS), encoding="utf-8") as file:
            found = file.read()
    except (OSError, ValueError):
        return "{} is missing or damaged: copy the bundle again.".format(SUMS)
    if found != sums(folder, {name: files[name]["sha256"] for name in files}):
        return "{} and {} do not belong together: copy the bundle again.".format(MANIFEST, SUMS)
    return None


def sums(folder: str, hashes: Mapping[str, str]) -> str:
    """The hashes of all files, the manifest's too, as ``sha256sum --check`` reads them."""
    everything = dict(hashes)
    everything[MANIFEST] = sha256(os.path.join(folder, MANIFEST))
    return "".join("{}  {}\n".format(everything[name], name) for name in sorted(everything))


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            found.update(block)
    return found.hexdigest()


def older(version: str, least: str) -> bool:
    """Whether a version (``1.24.1``) is older than another (``1.24``); one that cannot be read is."""
    numbers = [re.match(r"(\d+)\.(\d+)", text) for text in (version, least)]
    first, second = (tuple(map(int, found.groups())) if found else (0, 0) for found in numbers)
    return first < second


# --- answers ------------------------------------------------------------------------------------------------------


def arrays(content: Any) -> Dict[str, np.ndarray]:
    """The arrays of an .npz, by name (``"<number of the sample>/<position of the output>"``).

    Args:
        content: an open file.

    Raises:
        ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error: it is none.
    """
    archive = np.load(content, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array")
    with archive:
        return {name: archive[name] for name in archive.files}


def read(folder: str, name: str) -> Dict[str, np.ndarray]:
    """The arrays of a file in a folder."""
    with open(os.path.join(folder, name), "rb") as file:
        return arrays(file)


def compare(
    promises: Sequence[Mapping[str, Any]], got: Mapping[str, Any], wanted: Mapping[str, Any], samples: int
) -> List[Row]:
    """Compare the answers to all samples, output by output.

    Args:
        promises: by position of the output, ``output`` (its name), ``rule``, ``relative`` and ``absolute``.
        got: the answers, as :func:`arrays`.
        wanted: the expected outputs.
        samples: how many samples there are.

    Returns:
        For every output ``output``, ``rule``, ``values`` (how many), ``differ`` (how many are not the same),
        ``largest`` (difference), ``allowed`` (0 unless the rule is ``close``), ``agrees``, ``sample`` (the first one
        that does not agree, or None) and ``problem`` (an answer of another kind, in words, or "").
    """
    rows = []
    for position, promise in enumerate(promises):
        keys = ["{}/{}".format(number, position) for number in range(samples)]
        rows.append(_row(promise, [got.get(key) for key in keys], [wanted[key] for key in keys]))
    return rows


def _row(promise: Mapping[str, Any], got: Sequence[Any], wanted: Sequence[np.ndarray]) -> Row:
    allowed = promise["absolute"] + promise["relative"] * span(wanted) if promise["rule"] == "close" else 0.0
    row = {"output": promise["output"], "rule": promise["rule"], "values": 0, "differ": 0, "largest": 0.0}
    row.update({"allowed": allowed, "agrees": True, "sample": None, "problem": ""})
    for number, (mine, theirs) in enumerate(zip(got, wanted)):
        row["values"] += int(theirs.size)
        problem = _other_kind(mine, theirs)
        differ, largest = (int(theirs.size), float("inf")) if problem else _apart(promise["rule"], mine, theirs)
        row["differ"] += differ
        row["largest"] = max(row["largest"], largest)
        agrees = not problem and (largest <= allowed if promise["rule"] == "close" else differ == 0)
        if not agrees and row["agrees"]:
            row.update({"agrees": False, "sample": number, "problem": problem})
    return row


def span(wanted: Sequence[np.ndarray]) -> float:
    """How far the expected values of an output reach, zero included."""
    low = high = 0.0
    for array in wanted:
        values = array.astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return high - low


def _other_kind(mine: Optional[np.ndarray], theirs: np.ndarray) -> str:
    if mine is None:
        return "it is missing"
    if (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape):
        return ""
    return "it is {} {} in place of {} {}".format(mine.dtype, list(mine.shape), theirs.dtype, list(theirs.shape))


def _apart(rule: str, mine: np.ndarray, theirs: np.ndarray) -> Any:
    """How many values differ, and by how much at most."""
    first, second = mine.astype(np.float64), theirs.astype(np.float64)
    if rule == "exact":
        bits = np.dtype("u{}".format(mine.dtype.itemsize))
        unequal = np.ascontiguousarray(mine).view(bits) != np.ascontiguousarray(theirs).view(bits)
        unequal = unequal.reshape(mine.shape)
    else:
        unequal = (mine != theirs) & ~(np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        distances = np.abs(first - second)[unequal]
    distances[np.isnan(distances)] = np.inf
    return int(np.count_nonzero(unequal)), float(distances.max()) if distances.size else 0.0


# --- on the device ------------------------------------------------------------------------------------------------


def main(words: Optional[Sequence[str]] = None) -> int:
    """Check the files, run the agent's job, compare, and say what was found."""
    parser = argparse.ArgumentParser(description="Does this device answer as the bundle says?")
    parser.add_argument("--model", help="another file of the bundle than the ONNX model, such as model.ort")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model (1)")
    given = parser.parse_args(words)
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        return _checked(folder, given.model, given.threads)
    except (OSError, ValueError, KeyError) as error:
        print("check.py: {}".format(error), file=sys.stderr)
        return BROKEN


def _checked(folder: str, model: Optional[str], threads: int) -> int:
    with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
        manifest = json.load(file)
    problem = damage(folder, manifest["files"])
    if problem:
        raise ValueError(problem)
    if model is not None and model not in manifest["files"]:
        raise ValueError("The bundle has no file {!r}.".format(model))
    with open(os.path.join(folder, JOB), encoding="utf-8") as file:
        job = dict(json.load(file), threads=threads)
    job["model"] = model or job["model"]
    asked = json.dumps(job).encode()
    done = subprocess.run([sys.executable, AGENT], input=asked, stdout=subprocess.PIPE, cwd=folder, check=False)
    if done.returncode:
        raise ValueError("The agent could not run the model.")
    about = json.loads(done.stdout.decode())["machine"]
    print("{cpu}, onnxruntime {onnxruntime}".format(**about))
    if older(about["onnxruntime"], manifest["onnxruntime"]):
        raise ValueError("The bundle needs onnxruntime {} or newer.".format(manifest["onnxruntime"]))
    rows = compare(manifest["promises"], read(folder, job["to"]), read(folder, EXPECTED), manifest["samples"])
    for row in rows:
        print(sentence(row))
    return 0 if all(row["agrees"] for row in rows) else DIFFERS


def sentence(row: Mapping[str, Any]) -> str:
    """What was found of an output."""
    found = "{differ} of {values} values differ, by {largest:.3g} at most".format(**row)
    if row["rule"] == "close":
        found += " ({allowed:.3g} allowed)".format(**row)
    else:
        found += " (none may)"
    problem = "; in sample {sample} {problem}".format(**row) if row["problem"] else ""
    return "{} {}: {}{}".format("agrees " if row["agrees"] else "DIFFERS", row["output"], found, problem)


if __name__ == "__main__":
    sys.exit(main())
