"""What was found out about models as they are, as plain data: a benchmark of several, an explanation of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgepress.bench import Timing
from edgepress.bench.inspect import Memory, Profile
from edgepress.errors import Refusal
from edgepress.report.result import dump, load

BENCH_FORMAT = "edgepress-bench/2"
EXPLAIN_FORMAT = "edgepress-explain/2"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One file of a benchmark.

    Attributes:
        name: short and unique.
        path: as it was given.
        file_bytes: size of the file.
        operators: what onnxruntime really runs on the device, after its own fusions.
        warnings: sentences about operators that should not be left over.
        memory: of a fresh process; None where none was measured.
        profile: where the time goes; None where nobody asked.
    """

    name: str
    path: str
    file_bytes: int
    operators: Mapping[str, int]
    warnings: tuple[str, ...]
    memory: Memory | None = None
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Several files against the first of them.

    Attributes:
        models: the files, reference first.
        timing: their times, by ``BenchModel.name``.
        notes: what the models were run on.
        device: SPEC of the device they ran on; None: in this process.
    """

    models: tuple[BenchModel, ...]
    timing: Timing
    notes: tuple[str, ...]
    device: str | None = None

    def to_json(self) -> str:
        """The benchmark as indented JSON."""
        return dump(BENCH_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Benchmark:
        """Read a benchmark (InputError if it is none)."""
        return load(cls, BENCH_FORMAT, text)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One channel group.

    Attributes:
        name: the first node that makes its channels.
        size: number of channels.
        producers: nodes that make them.
        consumers: nodes that sum over them.
        refusal: why it must stay whole; None if it may be cut.
        stopper: the node, graph input or graph output that makes it impossible; "" where nothing does.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    refusal: str | None
    stopper: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What could be done to a model, without doing it.

    Attributes:
        model: path.
        groups: channel groups.
        refusals: walls that channels stop at.
        notes: what was assumed.
    """

    model: str
    groups: tuple[GroupRow, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The explanation as indented JSON."""
        return dump(EXPLAIN_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Explanation:
        """Read an explanation (InputError if it is none)."""
        return load(cls, EXPLAIN_FORMAT, text)
