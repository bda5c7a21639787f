"""Build qemu's plugins that count instructions, with this machine's C compiler.

Sources lie in ``edgepress/devices/counting``; the table of classes is made into a header. A digest of what they were
built from lies beside them, so that building again does nothing until that changes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from edgepress.devices import counting
from edgepress.devices.counting.classes import header

sys.path.append(str(Path(__file__).parents[1]))
from debian import spoken

SOURCES = Path(counting.__file__).parent
NAMES = ("classes", "blocks")
COMPILER = "cc"
OPTIONS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
DIGEST = "sources.sha256"


def build(folder: Path) -> str:
    """Build the plugins into ``folder/plugins``; returns what to say about it.

    Raises:
        debian.Failure: the compiler fails.
    """
    place = folder / "plugins"
    digest = place / DIGEST
    if digest.is_file() and digest.read_text(encoding="ascii") == wanted():
        return "counts instructions"
    if shutil.which(COMPILER) is None:
        return f"cannot count instructions, as there is no C compiler ({COMPILER}) to build the plugins with"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgepress-") as made:
        (Path(made) / "classes.h").write_text(header(), encoding="ascii")
        for name in NAMES:
            new = place / f"{name}.so.new"
            spoken([COMPILER, *OPTIONS, "-I", made, SOURCES / f"{name}.c", "-o", new])
            new.replace(place / f"{name}.so")  # one that runs may have the old one open
    digest.write_text(wanted(), encoding="ascii")
    return "counts instructions"


def wanted() -> str:
    """The digest of what the plugins are built from."""
    parts = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]"))]
    return hashlib.sha256(b"\0".join([*parts, header().encode()])).hexdigest()
