"""Run every static check, all of them even when one fails: `python -m tools.check`.

lint and format (ruff), types (mypy), floors (import-linter). The exit status is the number of failures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-logo"),
)


def main() -> int:
    """Run the checks with the programs of this interpreter's environment; returns how many failed."""
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join((beside, os.environ.get("PATH", "")))}
    failed = []
    for command in CHECKS:
        print("$", *command, flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed.append(" ".join(command))
    print(
        f"{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed" + "".join(f"; failed: {name}" for name in failed)
    )
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
