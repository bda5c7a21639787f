"""Where models and data are, and where this benchmark keeps its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zoo

from paper_sections.cifar import pictures

UNLABELLED = 2048
"""Training images without labels that pruning gets."""

NAMES = {
    "mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10_jpegq75", "cifar-lossless": "cifar10_lossless",
}  # fmt: skip


class Place:
    """Models, samples, and a folder for what is made."""

    def __init__(self, folder: Path, cifar: Path | None) -> None:
        """Make the folder.

        Args:
            folder: for samples and results.
            cifar: folder of CIFAR-10's binary version; None for the recoded copy beside the models.
        """
        self.folder, self.cifar = folder, cifar
        folder.mkdir(parents=True, exist_ok=True)

    def model(self, name: str) -> Path:
        """A trained model."""
        return zoo.SHARED / "models" / f"{name}.onnx"

    def samples(self, data: str, kind: str) -> Path:
        """``train``, ``test`` or ``few`` (unlabelled training images) as an .npz."""
        path = self.folder / f"{data}-{kind}.npz"
        if not path.is_file():
            x, y = self._read(data, "test" if kind == "test" else "train")
            if kind == "few":
                np.savez(path, input=x[:UNLABELLED])
            else:
                np.savez(path, input=x, label=y)
        return path

    def test(self, data: str) -> tuple[np.ndarray, np.ndarray]:
        """Test images and labels."""
        with np.load(self.samples(data, "test")) as arrays:
            return arrays["input"], arrays["label"]

    def answers(self, model: bytes, data: str) -> np.ndarray:
        """Outputs of a model for the test images, in onnxruntime: [samples, classes]."""
        return zoo.evaluate(model, self.test(data)[0], True)

    def accuracy(self, model: bytes, data: str) -> float:
        """Percent of the test images that a model answers rightly."""
        return 100 * float((self.answers(model, data).argmax(1) == self.test(data)[1]).mean())

    def _read(self, data: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        share = zoo._shared()
        if data == "cifar" and self.cifar is not None:
            x, y = pictures(self.cifar, part)
            return share.norm_torch(x), y
        inputs = {"mnist": share.mnist_input, "fashion": share.fashion_input}
        arrays = share.load(zoo.SHARED / "data" / f"{NAMES[data]}.npz")
        return inputs.get(data, share.norm_torch)(arrays[f"x_{part}"]), arrays[f"y_{part}"].astype(np.int64)
