"""Tables and plots of ``criteria.py`` from the rows it kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curves_svg import draw
from quantize import table

Row = dict[str, Any]

PLOTTED = ("redundancy", "redundancy-qr", "kfac", "mint", "entropy", "fisher", "taylor", "wanda", "magnitude", "random")


def write(section: str, folder: Path) -> None:
    """Write ``criteria-SECTION.md`` and its plots."""
    path = folder / f"criteria-{section}.json"
    if path.exists():
        rows = json.loads(path.read_text())
        (folder / f"criteria-{section}.md").write_text(REPORTS[section](rows, folder))


def _prune(rows: Sequence[Row], folder: Path) -> str:
    models = list(dict.fromkeys(row["model"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    text = [
        "Points lost (mean of the seeds, standard error) and, behind the bar, mean KL. All criteria get equal widths:",
        "every group loses the same share of its channels, without and with the least-squares refit of what is left.",
        f"{seeds} seeds; the first 2000 test images at most.",
        "",
    ]
    for model in models:
        own = [row for row in rows if row["model"] == model]
        text += [f"### {model}", "", _losses(own), _plot(model, own, folder), ""]
    return "\n".join([*text, "### All models", "", _overall(rows)])


def _losses(rows: Sequence[Row]) -> str:
    shares = sorted({row["share"] for row in rows}, reverse=True)
    found = []
    for score in dict.fromkeys(row["score"] for row in rows):
        line: Row = {"score": score}
        for refit in ("none", "refit"):
            for share in shares:
                own = [row for row in rows if (row["score"], row["refit"], row["share"]) == (score, refit, share)]
                line[f"{share:g} {refit}"] = f"{_mean(own, 'loss')} \\| {np.mean([row['kl'] for row in own]):.3g}"
        found.append(line)
    return table(found)


def _mean(rows: Sequence[Row], key: str) -> str:
    values = np.array([row[key] for row in rows])
    if len(values) == 1:
        return f"{values[0]:.2f} (one seed)"
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def _plot(model: str, rows: Sequence[Row], folder: Path) -> str:
    series = {
        score: [
            (share, float(np.mean([row["loss"] for row in rows if _is(row, score, share)])))
            for share in sorted({row["share"] for row in rows})
        ]
        for score in PLOTTED
        if any(row["score"] == score for row in rows)
    }
    place = folder / f"criteria-{model}.svg"
    place.write_text(draw(series, across="multiply-adds left", up="points lost, refitted", top=10.0))
    return f"![points lost over multiply-adds left]({place.name})"


def _is(row: Row, score: str, share: float) -> bool:
    return bool(row["score"] == score and row["share"] == share and row["refit"] == "refit")


def _overall(rows: Sequence[Row]) -> str:
    """Per criterion: KL against that of redundancy in the same case, as a geometric mean, and its mean rank."""
    cases = sorted({(row["model"], row["share"], row["seed"], row["refit"]) for row in rows})
    scores = list(dict.fromkeys(row["score"] for row in rows))
    kl = {(row["model"], row["share"], row["seed"], row["refit"], row["score"]): max(row["kl"], 1e-9) for row in rows}
    whole = [case for case in cases if all((*case, score) in kl for score in scores)]
    found = []
    for score in scores:
        line: Row = {"score": score}
        for refit in ("none", "refit"):
            own = [case for case in whole if case[3] == refit]
            ratios = [math.log(kl[(*case, score)] / kl[(*case, "redundancy")]) for case in own]
            ranks = [1 + sum(kl[(*case, other)] < kl[(*case, score)] for other in scores) for case in own]
            line[f"KL / redundancy's, {refit}"] = math.exp(float(np.mean(ratios))) if ratios else math.nan
            line[f"mean rank, {refit}"] = float(np.mean(ranks)) if ranks else math.nan
        found.append(line)
    by_rank = sorted(found, key=lambda line: line["KL / redundancy's, refit"])
    return f"{len(whole) // 2} cases (model, share, seed).\n\n" + table(by_rank)


def _correlation(rows: Sequence[Row], _: Path) -> str:
    models = list(dict.fromkeys(row["model"] for row in rows))
    found = []
    for score in dict.fromkeys(row["score"] for row in rows):
        line: Row = {"score": score}
        for model in models:
            own = [row for row in rows if row["model"] == model and row["score"] == score]
            line[model] = _mean(own, "spearman") if own else None
        found.append(line)
    head = (
        "Spearman's rank correlation of a score with the KL that removing one unit alone causes, without any refit:\n"
        "mean over groups and seeds, and its standard error. Scores that remove step by step rank units by what their\n"
        "removal adds at its turn, when others are gone already, which is another question than this one.\n\n"
    )
    return head + table(found)


def _plain(rows: Sequence[Row], _: Path) -> str:
    return table(rows) + "\n`!`: the goal was missed.\n"


def _allocation(rows: Sequence[Row], _: Path) -> str:
    keys = ("model", "multiple", "cost", "share", "allocation")
    found = []
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in keys) == key]
        means = {name: float(np.mean([row[name] for row in own])) for name in ("macs", "weights", "predicted", "kl")}
        line = {**dict(zip(keys, key, strict=True)), "loss": _mean(own, "loss"), **means, "seeds": len(own)}
        if "met" in own[0]:
            line["met"] = {"loss": all(row["met"]["loss"] for row in own)}
        found.append(line)
    return table(found) + "\nMeans of the seeds. `!`: the goal was missed with one of them.\n"


REPORTS: dict[str, Callable[[Sequence[Row], Path], str]] = {
    "prune": _prune, "correlation": _correlation, "goals": _allocation, "allocation": _allocation, "cost": _plain,
}  # fmt: skip
