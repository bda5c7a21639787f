"""The native runner: ``edgerun.c``, for devices without Python, and what the host needs to speak with it.

``edgerun.c`` needs libc and libdl, and loads onnxruntime's library when it starts; ``CMakeLists.txt`` builds it for
this machine, by a cross compiler or by Android's NDK. :mod:`edgepress.devices.runner.words` says a job in its words,
:mod:`edgepress.devices.runner.tensors` is the file format of its samples and outputs.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the source lies in this installation."""
