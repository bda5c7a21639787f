"""Coded files of every version that there was are read, by this decoder, alone, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from coded_models import MODELS, of, whole

from edgepress.codec import CodedFileError, decode, decoder, encode, squeezed

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    f"{table.stem}_{name}": digest
    for table in sorted(GOLDEN.glob("v*.json"))
    for name, digest in json.loads(table.read_text(encoding="utf-8")).items()
}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.epz").read_bytes()


def test_every_golden_file_is_listed() -> None:
    assert {path.stem for path in GOLDEN.glob("*.epz")} == set(FILES)
    assert f"v{decoder.VERSION}_steps" in FILES


@pytest.mark.parametrize("name", FILES)
def test_golden_files_decode_to_what_they_always_did(name: str) -> None:
    assert hashlib.sha256(decode(golden(name))).hexdigest() == FILES[name]


@pytest.mark.parametrize("name", MODELS)
def test_golden_files_hold_the_models_they_were_made_of(name: str) -> None:
    assert decode(golden(f"v1_{name}")) == MODELS[name]()


# --- the decoder alone ------------------------------------------------------------------------------------------------


def alone(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The decoder in an interpreter that knows nothing but numpy."""
    (tmp_path / "decoder.py").write_bytes(Path(decoder.__file__).read_bytes())
    (tmp_path / "numpy").symlink_to(Path(np.__file__).parent)
    libraries = Path(np.__file__).parents[1] / "numpy.libs"
    if libraries.is_dir():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    return subprocess.run(
        [sys.executable, "-S", "decoder.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_the_decoder_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "small.epz").write_bytes(golden("v1_steps"))
    done = alone(tmp_path, "small.epz", "small.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "small.onnx").read_bytes() == MODELS["steps"]()
    assert not list(tmp_path.glob("*.part"))


def test_the_decoder_alone_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "small.epz").write_bytes(golden("v1_steps")[:-1])
    done = alone(tmp_path, "small.epz", "small.onnx")
    assert done.returncode == 2
    assert done.stderr == "error: The coded file is damaged (it ends too early): copy it again.\n"
    assert not (tmp_path / "small.onnx").exists()
    assert not list(tmp_path.glob("*.part"))


def test_the_decoder_imports_nothing_of_edgepress() -> None:
    source = Path(decoder.__file__).read_text(encoding="utf-8")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - sys.stdlib_module_names == {"numpy"}


def test_the_decoder_is_python_of_old_devices() -> None:
    import ast

    ast.parse(Path(decoder.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))


# --- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"E", b"\x08\x08onnx", b"PK\x03\x04", b"epz\x01"])
def test_another_kind_of_file_is_named(data: bytes) -> None:
    with pytest.raises(CodedFileError, match="no coded file"):
        decode(data)


def test_a_newer_version_is_named() -> None:
    newer = bytearray(golden("v1_steps"))
    newer[3] = decoder.VERSION + 1
    with pytest.raises(CodedFileError, match=f"version {decoder.VERSION + 1}.*take a newer edgepress"):
        decode(bytes(newer))


def test_every_section_has_a_checksum() -> None:
    data = golden("v1_integers")
    _, _, sections = decoder.unwrapped(data)
    at = len(data)
    for name, section in zip(("side", "codes", "head"), reversed(sections), strict=True):
        at -= 4 + len(section)
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(CodedFileError, match=f"checksum of section '{name}'"):
            decode(bytes(broken))
        at -= len(decoder.number(len(section)))


def test_something_behind_the_end_is_refused() -> None:
    with pytest.raises(CodedFileError, match="follows its end"):
        decode(golden("v1_steps") + b"\0")


def sealed(data: bytes) -> bytes:
    """A file with the checksums of its sections put right, as nobody but a forger does."""
    source = decoder.Bytes(data)
    made = bytearray(source.take(4) + decoder.number(source.number()) + source.take(4))
    for _ in range(3):
        payload = source.take(source.number())
        made += decoder.number(len(payload)) + payload
        if payload:
            source.take(4)
            made += zlib.crc32(payload).to_bytes(4, "little")
    return bytes(made)


def right_or_refused(data: bytes, model: bytes) -> None:
    try:
        assert decode(data) == model
    except CodedFileError as error:
        assert str(error).count(":") >= 1


SMALL = of(w=whole(1, (6, 4, 3, 3)).astype(np.int8), b=whole(2, (30,), 5.0).astype(np.float32) * np.float32(0.1))


def quickly(model: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A coded file whose head is not guessed, which takes a moment."""
    monkeypatch.setattr(squeezed, "FEW_GUESSED", 0)
    return encode(model)


def test_ten_thousand_flips_and_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits turned over, ends cut off, pieces doubled: the right bytes or a sentence, nothing else."""
    data = quickly(SMALL, monkeypatch)
    draw = random.Random(0)
    for _ in range(10_000):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        if draw.random() < 0.3:
            del damaged[draw.randrange(len(damaged)) :]
        elif draw.random() < 0.1:
            damaged[draw.randrange(len(damaged)) : 0] = damaged[: draw.randrange(20)]
        right_or_refused(bytes(damaged), SMALL)


def test_forged_files_are_refused_in_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage under right checksums: what is read is wrong, and every size in it is checked before it is used."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [(golden(f"v1_{name}"), MODELS[name](), 4) for name in ("steps", "integers")]
    files += [(quickly(MODELS[name](), monkeypatch), MODELS[name](), 60) for name in ("steps", "integers", "floats")]
    draw = random.Random(1)
    for data, model, times in files:
        for _ in range(times):
            damaged = bytearray(data)
            damaged[draw.randrange(12, min(len(data), 2000))] ^= 1 << draw.randrange(8)
            with contextlib.suppress(CodedFileError):  # a length of a section was hit: no forger would
                right_or_refused(sealed(bytes(damaged)), model)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 400 << 10  # in kB; a file of kilobytes may decode to EXPANSION times its size


def test_huge_sizes_are_refused_before_anything_is_allocated() -> None:
    graph = decoder.number(decoder.HOLE) + decoder.number(1 << 47) + b"\0"
    head = bytes([decoder.PLAIN]) + decoder.number(len(graph)) + graph
    file = decoder.MAGIC + bytes([decoder.VERSION]) + decoder.number(1 << 47) + bytes(4)
    file += decoder.number(len(head)) + head + zlib.crc32(head).to_bytes(4, "little") + b"\0\0"
    with pytest.raises(CodedFileError, match="sizes"):
        decode(file)
