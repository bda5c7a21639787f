"""CIFAR-10 in its binary version: files of 10,000 records, each a label and 3 x 32 x 32 bytes, red plane first.

The python version holds pickles, which can run any program when they are read; it is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgepress.errors import DataError

RECORD = 1 + 3 * 32 * 32
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)


def pictures(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [samples, 3, 32, 32] and labels int64 [samples].

    Args:
        folder: where the files are.
        part: ``train`` or ``test``.

    Raises:
        DataError: the folder holds the python version, or not all files, or one of another length.
    """
    names = TEST if part == "test" else TRAIN
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and (folder / missing[0].removesuffix(".bin")).is_file():
        raise DataError(
            f"{folder} holds the python version of CIFAR-10, which is pickles: get the binary version "
            "(cifar-10-binary.tar.gz, folder cifar-10-batches-bin) and hand over that folder."
        )
    if missing:
        raise DataError(
            f"{folder} has no {missing[0]}: hand over the folder of CIFAR-10's binary version (cifar-10-batches-bin)."
        )
    raw = [np.fromfile(folder / name, np.uint8) for name in names]
    for name, array in zip(names, raw, strict=True):
        if not array.size or array.size % RECORD:
            raise DataError(f"{folder / name} is no file of CIFAR-10's binary version: get it anew.")
    records = np.concatenate(raw).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{folder} holds labels above 9: hand over CIFAR-10, not another set.")
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)
