"""What the papers did with training, done again by ``edgepress finetune``, beside the papers' own figures.

    python benchmarks/papers.py                                 everything, hours of CPU
    python benchmarks/papers.py ladder entropy --only lenet5 --seconds 500
    python benchmarks/papers.py --report                        only the tables, from what was measured before

    untrained the coded file without labels or training (``compress -o small.epz``)
    flat      Ebrahimi 2021: from scratch, pruned along the training, at once, or at its end: equal sizes, equal steps
    anneal    Shah 2020: units that depend on others go without a loss; LeNet-5 annealed to 3 % of its weights
    mint      Ganesh 2020: a perceptron with masks, and with units really removed; what both take to run
    ladder    Wiedemann 2018: settings of the training for the coded file, chosen on hold-out samples
    entropy   Wiedemann 2018: all bytes of the coded file against the fp32 ONNX file, and points lost, as chosen

Every row is a piece of its own: rows that are in ``results/papers-SECTION.json`` already are not made again, so the
work can be done in pieces (``--seconds``: no piece is begun after that; a piece that was killed goes on where it was).
Training sees training images only, decisions are made on a part of them that is held out; accuracy is counted on the
whole test set at the end, once. CPU seconds are those of all commands of a row, one thread. Models and data are looked
for in ``../shared`` or the folder named by EDGEPRESS_SHARED; CIFAR-10 also in a folder of its binary version
(``--cifar``: data_batch_1.bin, ...).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from paper_sections import anneal, entropy, flat, mint, untrained
from paper_sections.commands import ROOT
from paper_sections.kept import RESULTS, Piece, keep
from paper_sections.place import Place
from paper_sections.tables import report

from edgepress.errors import EdgepressError
from edgepress.model import write_atomically

SECTIONS: dict[str, Callable[[], Iterator[Piece]]] = {
    "untrained": untrained.pieces,
    "flat": flat.pieces,
    "anneal": anneal.pieces,
    "mint": mint.pieces,
    "ladder": entropy.ladder,
    "entropy": entropy.pieces,
}


def main() -> None:
    """Make the rows that are missing, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--only", help="pieces whose network is this one")
    parser.add_argument("--kind", default="", help="pieces whose kind begins like this")
    parser.add_argument("--seeds", type=int, default=99, help="no more seeds than this")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no piece after so many")
    parser.add_argument("--again", action="store_true", help="make rows that are there already, too")
    parser.add_argument("--report", action="store_true", help="only the tables")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "papers", help="for samples and models")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's binary version")
    given = parser.parse_args()
    place, began = Place(given.folder, given.cifar), time.monotonic()
    wanted = [piece for name in given.sections or SECTIONS for piece in SECTIONS[name]() if piece.seed < given.seeds]
    for piece in () if given.report else wanted:
        other = (given.only and given.only != piece.name) or not piece.kind.startswith(given.kind)
        if other or (piece.there and not given.again) or time.monotonic() - began > given.seconds:
            continue
        row = piece.make(place, piece.name, piece.kind, piece.seed)
        keep(piece, row)
        shown = {what: value for what, value in row.items() if what not in ("figures", "notes", "commands")}
        print(piece.section, json.dumps({**piece.key, **shown}), flush=True)
    write_atomically(RESULTS / "papers.md", report().encode())


if __name__ == "__main__":
    try:
        main()
    except EdgepressError as error:
        sys.exit(str(error))
