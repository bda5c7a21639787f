"""The native runner: the agent's answers, bit by bit, in the same words; what is wrong is said in a sentence.

It is built for this machine and loads the library of the installed onnxruntime. What needs the emulated ARM is skipped
unless tools/arm/native.py has set it up.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgepress.devices import Agent, Native, agent, open_device
from edgepress.devices.local import Local
from edgepress.devices.runner import FOLDER, elf, tensors, words
from edgepress.errors import DataError, DeviceError, ModelError

Feed = Mapping[str, np.ndarray]


class Counting(Local):
    """This machine, without Python; knows what was copied to it."""

    def __init__(self, native: Native) -> None:
        super().__init__("here")
        self.python, self.native = None, native
        self.pushed: list[str] = []

    def push(self, source: Path, name: str) -> None:
        self.pushed.append(name)
        super().push(source, name)


@pytest.fixture(scope="module")
def runner(native: Native) -> Iterator[Agent]:
    with Counting(native) as device:
        yield Agent(device)


@pytest.fixture(scope="module")
def python() -> Iterator[Agent]:
    with open_device("local") as device:
        yield Agent(device)


def graph(text: str, opset: int = 21) -> bytes:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    return bytes(model.SerializeToString())


INTEGER = graph("""g (float[n, 3] x) => (float[n, 3] y, uint8[n, 3] q)
    <float s = {0.5}, uint8 z = {3}, float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
    { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w) }""")


def task(name: str, **more: Any) -> dict[str, Any]:
    """A small job of every kind, on the models a.onnx and b.onnx."""
    models = {"first": "a.onnx", "the second": "b.onnx"}
    jobs: dict[str, dict[str, Any]] = {
        "identify": {},
        "race": {"models": models, "reference": "the second", "feeds": "f.npz", "seconds": 0.0, "min_rounds": 7},
        "best": {
            "groups": [[{"model": "a.onnx", "feeds": "f.npz"}, {"model": "b.onnx", "feeds": "f.npz"}]] * 2,
            "visit_ms": 1.0,
            "rounds": 3,
            "seconds": 0.1,
        },
        "memory": {"model": "a.onnx", "feeds": "f.npz"},
        "outputs": {"model": "a.onnx", "feeds": "f.npz", "to": "o.npz"},
        "operators": {"models": models},
        "profile": {"models": models, "feeds": "f.npz", "warmup": 1, "runs": 4, "seconds": 1.0},
        "count": {"models": models, "feeds": "f.npz", "warmup": 1},
    }
    return {"task": name, **jobs[name], **more}


def prepared(host: Agent) -> Agent:
    random = np.random.default_rng(5)
    host.send("a.onnx", INTEGER)
    host.send("b.onnx", graph("g (float[n, 3] x) => (float[n, 3] y) { a = Exp(x) y = Neg(a) }"))
    host.send_feeds("f.npz", [{"x": random.normal(size=(2, 3)).astype(np.float32)} for _ in range(3)])
    return host


def outputs(host: Agent, model: bytes, feeds: Sequence[Feed], **more: Any) -> dict[str, np.ndarray]:
    host.send("m.onnx", model)
    host.send_feeds("m.npz", feeds)
    host.perform({"task": "outputs", "model": "m.onnx", "feeds": "m.npz", "to": "m-out.npz", **more})
    with np.load(io.BytesIO(host.fetch("m-out.npz")), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> bool:
    """Names, types, shapes and every bit."""
    return found.keys() == wanted.keys() and all(
        (found[key].dtype, found[key].shape, found[key].tobytes()) == (item.dtype, item.shape, item.tobytes())
        for key, item in wanted.items()
    )


# --- the same as the agent ------------------------------------------------------------------------------------------


def form(value: Any) -> Any:
    """What a report is made of, without its numbers."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [form(value[0])] if value else []
    return "number or nothing" if value is None or isinstance(value, (int, float)) else type(value).__name__


@pytest.mark.parametrize("name", agent.TASKS)
def test_reports_have_the_form_of_the_agents(runner: Agent, python: Agent, name: str) -> None:
    found, wanted = (prepared(host).perform(task(name)).report for host in (runner, python))
    assert form(found) == form(wanted)
    assert found["machine"]["flags"] == wanted["machine"]["flags"]
    for key in ("cpu", "part", "cores", "machine", "os", "onnxruntime"):
        assert found["machine"][key] == wanted["machine"][key]
    for key in ("names", "outputs", "operators"):
        assert found.get(key) == wanted.get(key)


def test_outputs_of_the_embedded_network_are_the_agents(
    runner: Agent, python: Agent, digits_model: Path, digits_npz: Path
) -> None:
    with np.load(digits_npz) as archive:
        images = archive["image"][:12]
    feeds = [{"image": images[start : start + size]} for start, size in ((0, 1), (1, 8), (9, 3))]
    found, wanted = (outputs(host, digits_model.read_bytes(), feeds) for host in (runner, python))
    assert same(found, wanted) and found["1/0"].shape == (8, 10)


@pytest.mark.parametrize("name", tensors.TYPES)
def test_every_type_goes_there_and_back(runner: Agent, python: Agent, name: str) -> None:
    element = onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))).lower()
    model = graph(f"g ({element}[a, b] x, {element} c) => ({element}[b, a] y, {element} d)"
                  "{ y = Transpose(x) d = Identity(c) }")  # fmt: skip
    random = np.random.default_rng(1)
    values = [random.integers(0, 256, shape).astype(name) for shape in ((2, 3), (0, 4), (5, 1))]
    feeds = [{"x": value, "c": np.asarray(value.sum() > 7).astype(name)} for value in values]
    found, wanted = (outputs(host, model, feeds) for host in (runner, python))
    assert same(found, wanted)
    assert found["0/0"].dtype == np.dtype(name) and found["1/0"].shape == (4, 0) and found["0/1"].shape == ()


def test_threads_change_nothing(runner: Agent, python: Agent) -> None:
    feeds = [{"x": np.linspace(-2, 2, 96, dtype=np.float32).reshape(32, 3)}]
    assert same(outputs(runner, INTEGER, feeds, threads=2), outputs(python, INTEGER, feeds))


# --- a race ---------------------------------------------------------------------------------------------------------


def test_a_race_visits_every_model_once_a_round(runner: Agent) -> None:
    report = prepared(runner).perform(task("race")).report
    assert report["rounds"] == sum(report["openings"]) >= 7 and len(report["openings"]) >= agent.FEWEST_OPENINGS
    rows = [*report["models"].values(), report["twin"]]
    assert {len(row["visits"]) for row in rows} == {report["rounds"]}
    for row in rows:
        (runs,) = {len(visit) for visit in row["visits"]}
        assert agent.MIN_RUNS <= runs <= agent.MAX_RUNS
        assert all(time > 0 for visit in row["visits"] for time in visit)
        assert 0 < row["first_ms"] < row["load_ms"] * 1000
    assert len(report["twin"]["visits"][0]) == len(report["models"]["the second"]["visits"][0])
    assert {len(times) for times in report["canary"].values()} == {agent.CANARY_VISITS}


def test_it_goes_on_for_as_long_as_it_is_told(runner: Agent) -> None:
    few, many = (prepared(runner).perform(task("race", min_rounds=rounds)).report["rounds"] for rounds in (1, 60))
    assert few < 60 <= many


def test_memory_is_that_of_the_model(runner: Agent) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((1024, 4096), np.float32), "w")
    large = onnx.ModelProto.FromString(graph("g (float[1, 1024] x) => (float[1, 4096] y) { y = MatMul(x, w) }"))
    large.graph.initializer.append(weights)
    prepared(runner).send("large.onnx", large.SerializeToString())
    runner.send_feeds("wide.npz", [{"x": np.ones((1, 1024), np.float32)}])
    small = runner.perform(task("memory")).report
    report = runner.perform(task("memory", model="large.onnx", feeds="wide.npz")).report
    assert small["start_kb"] < small["peak_kb"]
    assert report["peak_kb"] - report["start_kb"] > small["peak_kb"] - small["start_kb"] + 16_000  # 16 MiB of weights


def test_processors_to_stay_on(runner: Agent) -> None:
    mine = min(os.sched_getaffinity(0))
    assert runner.perform(task("identify", cpus=[mine])).report["machine"]["cores"] == 1
    with pytest.raises(DeviceError, match="keeps no program on the processors 1000"):
        runner.perform(task("identify", cpus=[1000]))
    for other in (1000, 1024 + mine, 9999):  # the system is content with one that is there
        with pytest.raises(DeviceError, match="keeps no program"):
            runner.perform(task("identify", cpus=[mine, other]))


def test_too_hot_a_machine_is_waited_for_and_one_that_does_not_tell_is_not(runner: Agent) -> None:
    known = runner.perform(task("identify")).report["before"]["temperature_c"] is not None
    if known:
        pytest.skip("this machine tells its temperature")
    with pytest.raises(DeviceError, match="does not say how hot"):
        prepared(runner).perform(task("race", max_temp_c=80.0))


def test_runner_and_library_are_copied_once(native: Native) -> None:
    device = Counting(native)
    with device:
        for host in (Agent(device), Agent(device)):
            for name in ("identify", "outputs"):
                prepared(host).perform(task(name))
    models = ["a.onnx", "b.onnx", "f.npz"]
    assert device.pushed == [*models, "libonnxruntime.so", "edgerun", *models]


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "feed", "words"),
    [
        (INTEGER, {"x": np.ones((1, 3))}, r"cannot run this model on these inputs: .*double"),
        (INTEGER, {"x": np.ones((1, 4), np.float32)}, "cannot run this model on these inputs"),
        (INTEGER, {}, "cannot run this model on these inputs"),
        (INTEGER, {"x": np.ones((1, 3), np.float32), "y": np.ones(1, np.float32)}, "these inputs: Invalid input name"),
        (b"not a model", {}, "cannot load this model"),
        (INTEGER[:60], {}, "cannot load this model"),
        (graph("g (float[1] x) => (seq(float[1]) y) { y = SequenceConstruct(x) }"), {"x": np.ones(1, np.float32)},
         "Output 0 of this model is no tensor"),
        (graph("g (float[1] x) => (string[1] y) { y = Cast<to = 8>(x) }"), {"x": np.ones(1, np.float32)},
         r"Output 0 is of a type \(8\) without numbers"),
    ],
)  # fmt: skip
def test_models_and_samples_that_do_not_fit(runner: Agent, model: bytes, feed: Feed, words: str) -> None:
    with pytest.raises(ModelError, match=words) as told:
        outputs(runner, model, [feed])
    assert str(told.value).startswith("On here: ") and "\n" not in str(told.value)


def test_texts_are_no_samples_for_it(runner: Agent) -> None:
    with pytest.raises(DataError, match="'x' holds <U1"):
        runner.send_feeds("f.npz", [{"x": np.array(["a"])}])


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        (task("outputs", model="none.onnx"), ModelError, "cannot load this model: .*none.onnx"),
        (task("outputs", feeds="none.npz"), DeviceError, "none.npz is missing"),
        (task("outputs", feeds="a.onnx"), DeviceError, "a.onnx is no file of samples"),
        (task("outputs", feeds="cut.npz"), DeviceError, "cut.npz is no whole file of samples"),
        (task("outputs", feeds="empty.npz"), DeviceError, "empty.npz holds no sample"),
        (task("outputs", to="none/o.npz"), DeviceError, "none/o.npz.raw cannot be written"),
        ({"task": "dance"}, DeviceError, "no task 'dance'"),
    ],
)
def test_jobs_that_cannot_be_done(runner: Agent, job: dict[str, Any], error: type[Exception], words: str) -> None:
    prepared(runner)
    whole = tensors.pack([{"x": np.ones((2, 3), np.float32)}])
    runner.send("cut.npz", whole[:-1])
    runner.send("empty.npz", tensors.pack([]))
    with pytest.raises(error, match=words):
        runner.perform(job)


def test_a_job_of_another_version_is_refused(native: Native) -> None:
    for text, told in [(b"library x\ntask race\nfuture 3\n", b"knows no future"), (b"", b"needs a library and a task")]:
        done = subprocess.run([native.runner], input=text, capture_output=True, check=False)
        assert done.returncode == agent.BAD_JOB and told in done.stderr and done.stdout == b""
    done = subprocess.run([native.runner, "none"], capture_output=True, check=False)
    assert done.returncode == agent.BAD_JOB and b"none cannot be read" in done.stderr


def changed(source: Path, target: Path, machine: int) -> Path:
    """A program as if it was built for another machine."""
    content = bytearray(source.read_bytes())
    struct.pack_into("<H", content, 18, machine)
    target.write_bytes(content)
    return target


def test_files_for_another_machine_are_named_before_they_are_copied(native: Native, tmp_path: Path) -> None:
    other, far = (changed(path, tmp_path / path.name, 258) for path in (native.runner, native.library))
    for pair, told in [
        (Native(other, native.library), "edgerun is built for loongarch64, .* for x86-64"),
        (Native(other, far), "are built for loongarch64, here is x86_64: name those built for it"),
    ]:
        device = Counting(pair)
        with device, pytest.raises(DeviceError, match=told):
            Agent(device).perform(task("identify"))
        assert device.pushed == []


def test_files_that_are_no_programs(native: Native, tmp_path: Path) -> None:
    text, cut, shorter = tmp_path / "runner.c", tmp_path / "cut", tmp_path / "shorter"
    text.write_text("int main(void) { return 0; } /* a source text is not a program, even if it is a long one */")
    cut.write_bytes(native.runner.read_bytes()[:64])
    shorter.write_bytes(native.library.read_bytes()[:1_000_000])
    cases = [(text, "no program"), (cut, "is cut off"), (shorter, "is cut off"), (tmp_path / "none", "cannot be read")]
    for path, told in cases:
        with Counting(Native(path, native.library)) as device, pytest.raises(DeviceError, match=told):
            Agent(device).perform(task("identify"))


def test_a_library_that_is_not_onnxruntimes(native: Native, tmp_path: Path) -> None:
    with Counting(Native(native.runner, native.runner)) as device, pytest.raises(DeviceError, match=r"here: .*library"):
        Agent(device).perform(task("identify"))


def test_what_a_program_was_built_for(native: Native) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("this machine is no x86-64")
    assert elf.built(native.runner) == elf.Built("x86-64", "/lib64/ld-linux-x86-64.so.2")
    assert elf.built(native.library) == elf.Built("x86-64", "")


def test_an_answer_that_is_no_report() -> None:
    for stdout in (b"", b"Segmentation fault", b"[]", b'{"format": "edgerun/0"}', b'{"format": "edgerun/1"'):
        with pytest.raises(DeviceError, match="sent no report"):
            words.understood(task("identify"), stdout, lambda name: b"")


# --- files of tensors -----------------------------------------------------------------------------------------------


@st.composite
def samples(draw: st.DrawFn) -> list[dict[str, np.ndarray]]:
    names, kinds = st.text(max_size=4), st.sampled_from(sorted(tensors.TYPES))
    values = kinds.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)))
    return draw(st.lists(st.dictionaries(names, values, max_size=3), max_size=3))


@settings(deadline=None, max_examples=25)
@given(samples(), st.data())
def test_samples_come_back_as_they_were(given_samples: list[dict[str, np.ndarray]], data: st.DataObject) -> None:
    packed = tensors.pack(given_samples)
    found = tensors.unpack(packed)
    assert len(found) == len(given_samples)
    assert all(same(one, other) for one, other in zip(found, given_samples, strict=True))
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(DeviceError, match="not whole"):
        tensors.unpack(packed[:cut])
    with pytest.raises(DeviceError, match="not whole"):
        tensors.unpack(packed + b"\0")


def test_transposed_and_foreign_samples_are_written_in_order() -> None:
    value = np.arange(6, dtype=">i4").reshape(2, 3).T
    (found,) = tensors.unpack(tensors.pack([{"x": value}]))
    assert found["x"].tolist() == value.tolist() and found["x"].dtype == np.int32


# --- the interface of onnxruntime -----------------------------------------------------------------------------------


def declared(header: str) -> list[str]:
    """The members of OrtApi in order, by name."""
    body = header[header.index("struct OrtApi {") :]
    body = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*", "", body[: body.index("\n};")], flags=re.DOTALL | re.MULTILINE)
    found = []
    for part in body.partition("{")[2].split(";"):
        named = re.search(r"ORT_API2_STATUS\((\w+)|ORT_CLASS_RELEASE\((\w+)\)|\(ORT_API_CALL\s*\*\s*(\w+)\)", part)
        if named is not None:
            found.append(named[1] or (f"Release{named[2]}" if named[2] else named[3]))
    return found


def test_the_places_of_functions_are_those_of_onnxruntimes_header() -> None:
    named = os.environ.get("EDGEPRESS_ORT_HEADER", "/usr/include/onnxruntime/onnxruntime_c_api.h")
    if not Path(named).is_file():
        pytest.skip("no header of onnxruntime: EDGEPRESS_ORT_HEADER names one, Debian's libonnxruntime-dev has one")
    header = declared(Path(named).read_text(encoding="utf-8"))
    used = re.findall(r"X\((\d+), [^,]+, (\w+),", (FOLDER / "ort.h").read_text(encoding="utf-8"))
    assert len(used) > 25
    assert {name: header[int(place)] for place, name in used} == {name: name for _, name in used}


def test_cmake_builds_it(native: Native, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    for step in (["-S", str(FOLDER), "-B", str(tmp_path)], ["--build", str(tmp_path)]):
        subprocess.run(["cmake", *step], capture_output=True, check=True)
    with Counting(Native(tmp_path / "edgerun", native.library)) as device:
        assert Agent(device).perform(task("identify")).report["format"] == agent.FORMAT
