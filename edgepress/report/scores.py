"""Scores of channels, and saved statistics that scores are made from: data, on a terminal and in a pipe.

Scores of different groups need not have a common unit, so what is weak is said by the place within a group.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from edgepress.errors import Refusal
from edgepress.report import layout, numbers
from edgepress.report.result import dump, load
from edgepress.report.terminal import merged

SCORES_FORMAT = "edgepress-scores/1"
SAVED_FORMAT = "edgepress-saved-statistics/1"

WEAKEST = 10
"""Channels that are shown."""


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The scores of one group.

    Attributes:
        name: of the group.
        size: number of channels.
        producers: nodes that make them.
        consumers: nodes that sum over them.
        scores: of every channel; small numbers go first, but see ``order``.
        order: channels in the order of removal; methods that remove step by step have one of their own.
        details: what else the score says of the group, by its words.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    scores: tuple[float, ...]
    order: tuple[int, ...]
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weak:
    """A channel that may go early: its group, its number, its place in the order of the group from 0, its score."""

    group: str
    channel: int
    place: int
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What every channel is worth.

    Attributes:
        model: path.
        score: name of the score, as the user gave it.
        labels: whether gradients are of the labels where the score does not say.
        samples: how many it was made from.
        seed: of the order of the samples and of all draws.
        positions: output positions observed in each sample.
        model_sha256: of the cleaned model.
        data_sha256: identity of the samples.
        groups: those that were scored.
        refusals: why the others were not.
    """

    model: str
    score: str
    labels: bool
    samples: int
    seed: int
    positions: int
    model_sha256: str
    data_sha256: str
    groups: tuple[GroupScores, ...]
    refusals: tuple[Refusal, ...]

    @property
    def weakest(self) -> list[Weak]:
        """The channels that go first in their groups, the lowest scores first; then those that go second; and so on."""
        every = (
            Weak(group.name, channel, place, group.scores[channel])
            for group in self.groups
            for place, channel in enumerate(group.order[:WEAKEST])
        )
        return sorted(every, key=lambda weak: (weak.place, weak.score))[:WEAKEST]

    def to_json(self) -> str:
        """The scores as indented JSON."""
        return dump(SCORES_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Scores:
        """Read scores (InputError if they are none)."""
        return load(cls, SCORES_FORMAT, text)


@dataclass(frozen=True, slots=True)
class Saved:
    """Statistics that were written.

    Attributes:
        output: path.
        file_bytes: size of the file.
        score: the scores they were observed for.
        samples: of the whole feed.
        groups: how many can be scored.
        parts: into how many the samples are cut.
        held: the parts that are in the file, from 0.
        missing: those that are not.
    """

    output: str
    file_bytes: int
    score: str
    samples: int
    groups: int
    parts: int
    held: tuple[int, ...]
    missing: tuple[int, ...]

    def to_json(self) -> str:
        """As indented JSON."""
        return dump(SAVED_FORMAT, self)


def render(scores: Scores, console: Console, written: Sequence[str] = ()) -> None:
    """Print the range of every group, the weakest channels, and why other groups have none."""
    layout.sentence(console, _sentence(scores), "bold")
    console.print()
    if scores.groups:
        headings = ("group", "channels", "least", "median", "greatest", "first to go")
        layout.show(console, layout.table(console, headings, [_cells(group) for group in scores.groups]))
        weak = [[weak.group, str(weak.channel), _short(weak.score)] for weak in scores.weakest]
        layout.show(console, layout.table(console, ("weakest", "channel", "score"), weak))
    for group in scores.groups:
        if group.details:
            layout.paragraph(console, group.name, ", ".join(f"{what} {_short(v)}" for what, v in group.details.items()))
    for reason in merged(scores.refusals, None):
        layout.paragraph(console, "left out", reason)
    for path in written:
        layout.line(console, "written", path)


def pairs(scores: Scores, written: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Keys and values for a pipe; a group has its size, least, median and greatest score."""
    return [
        ("score", scores.score),
        ("samples", str(scores.samples)),
        *((f"group.{group.name}", str(group.size), *map(numbers.raw, _range(group))) for group in scores.groups),
        *(
            (f"detail.{group.name}", what, numbers.raw(value))
            for group in scores.groups
            for what, value in group.details.items()
        ),
        *(("weakest", weak.group, str(weak.channel), numbers.raw(weak.score)) for weak in scores.weakest),
        *((f"refusal.{refusal.what}", refusal.reason) for refusal in scores.refusals),
        *(("written", path) for path in written),
    ]


def render_saved(saved: Saved, console: Console) -> None:
    """Print what was saved, and what is still missing."""
    for label, text in saved_pairs(saved):
        layout.line(console, label, text)


def saved_pairs(saved: Saved) -> list[tuple[str, str]]:
    """Keys and values of saved statistics."""
    found = [
        ("written", saved.output),
        ("bytes", str(saved.file_bytes)),
        ("score", saved.score),
        ("samples", str(saved.samples)),
        ("groups", str(saved.groups)),
        ("parts", f"{len(saved.held)} of {saved.parts}"),
    ]
    return found + ([("missing", ",".join(str(part + 1) for part in saved.missing))] if saved.missing else [])


def _sentence(scores: Scores) -> str:
    channels = sum(group.size for group in scores.groups)
    groups = f"{len(scores.groups)} of {len(scores.groups) + len(scores.refusals)} groups"
    return f"{scores.model}: {channels} channels in {groups} by {scores.score}, on {scores.samples} samples."


def _cells(group: GroupScores) -> list[str]:
    first = ", ".join(map(str, group.order[:3]))
    return [group.name, str(group.size), *map(_short, _range(group)), first]


def _range(group: GroupScores) -> Iterator[float]:
    for value in (min, statistics.median, max):
        yield float(value(group.scores))


def _short(value: float) -> str:
    """Scores may be of any size: three digits, with an exponent where that is shorter."""
    return f"{value:.3g}".replace("-", numbers.MINUS)
