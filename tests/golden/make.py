"""Writes the coded files that every later version must read: ``python tests/golden/make.py VERSION``.

To be run once for each version of the format, when it is released; what is there is never written again. The files of
other versions stay, and ``tests/test_codec_golden.py`` reads them all.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from coded_models import MODELS  # noqa: E402

from edgepress.codec import encode  # noqa: E402


def main(version: int) -> None:
    """Write the files of a version, and what they decode to."""
    table = HERE / f"v{version}.json"
    if table.exists():
        raise SystemExit(f"{table} is there: files of a version are made once.")
    made = {name: model() for name, model in MODELS.items()}
    for name, model in made.items():
        (HERE / f"v{version}_{name}.epz").write_bytes(encode(model))
    hashes = {name: hashlib.sha256(model).hexdigest() for name, model in made.items()}
    table.write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]))
