"""The name of a data set -> images and labels as tensors, ready to train on.

Embedded or read by torchvision's own classes; nothing is downloaded unless asked.
Must never know networks or runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets as vision
from torchvision.transforms import functional as images

from gradscope.schema import GradScopeError

SMALL = "fashion-mnist-small"
FOLDER_SIZE = 32
"""Side in pixels to which the images of a folder are brought."""


@dataclass(frozen=True)
class Split:
    """Images (n, channels, side, side), uint8, and labels (n,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A train and a test split with the training images' mean and deviation by channel."""

    name: str
    train: Split
    test: Split
    classes: int

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])

    @property
    def side(self) -> int:
        """Side of an image in pixels."""
        return int(self.train.images.shape[-1])

    def normalise(self) -> Callable[[Tensor], Tensor]:
        """The function uint8 images -> float32 of mean 0 and deviation 1 over the training images."""
        x = self.train.images.float()
        mean = x.mean((0, 2, 3), keepdim=True)
        deviation = x.std((0, 2, 3), keepdim=True).clamp(min=1e-6)

        def apply(batch: Tensor) -> Tensor:
            return (batch.float() - mean.to(batch.device)) / deviation.to(batch.device)

        return apply


def names() -> tuple[str, ...]:
    """Names that `load` takes."""
    return (SMALL, *_VISION, "folder")


def load(
    name: str = SMALL,
    root: str | Path | None = None,
    download: bool = False,
    *,
    side: int | None = None,
) -> DataSet:
    """Load a data set by name, its images brought to `side` x `side` pixels if that is given.

    `fashion-mnist-small` is embedded (6,000 + 1,500 images). The others are read from `root` in the
    layout of torchvision's classes (`folder`: root/train/CLASS/*.png and root/test/CLASS/*.png), and
    downloaded there when `download` is set. Raises GradScopeError for an unknown name, a missing
    root or missing files.
    """
    found = _found(name, root, download)
    if side is None or side == found.side:
        return found
    if side < 1:
        raise GradScopeError(f"Images cannot be brought to {side} pixels.")
    return replace(found, train=_resized(found.train, side), test=_resized(found.test, side))


def _resized(split: Split, side: int) -> Split:
    return Split(images.resize(split.images, [side, side]), split.labels)


def _found(name: str, root: str | Path | None, download: bool) -> DataSet:
    if name == SMALL:
        return _small()
    if name not in names():
        raise GradScopeError(f"There is no data set {name!r}; known are {', '.join(names())}.")
    if root is None:
        raise GradScopeError(f"The data set {name} needs the folder it is in: --data-root DIR.")
    try:
        if name == "folder":
            return _folder(Path(root))
        train, test = (_VISION[name](str(root), part, download) for part in (True, False))
    except ImportError as error:
        missing = error.name or "a package"
        raise GradScopeError(
            f"The data set {name} needs {missing} to be read: pip install {missing}"
        ) from None
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GradScopeError(
            f"The data set {name} cannot be read from {root} ({reason}); " + _remedy(name)
        ) from None
    return DataSet(name, train, test, int(train.labels.max()) + 1)


def _remedy(name: str) -> str:
    if name == "folder":
        return "--data-root must hold train/CLASS/*.png and test/CLASS/*.png, of the same classes."
    return "name another folder with --data-root or fetch it with --download."


def _small() -> DataSet:
    path = files("gradscope.experiments") / "data" / "fashion_mnist_small.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        parts = [
            Split(
                torch.from_numpy(arrays[f"{part}_images"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64)),
            )
            for part in ("train", "test")
        ]
        classes = len(arrays["classes"])
    return DataSet(SMALL, parts[0], parts[1], classes)


def _split(images_: Any, labels: Any) -> Split:
    """Arrays as torchvision keeps them: (n, h, w), (n, h, w, c) or (n, c, h, w) of bytes."""
    x = torch.as_tensor(np.asarray(images_))
    if x.dim() == 3:
        x = x.unsqueeze(1)
    elif x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    return Split(x.contiguous(), torch.as_tensor(np.asarray(labels)).long())


def _mnist_like(kind: Any) -> Callable[[str, bool, bool], Split]:
    def read(root: str, train: bool, download: bool) -> Split:
        found = kind(root, train=train, download=download)
        return _split(found.data, found.targets)

    return read


def _svhn(root: str, train: bool, download: bool) -> Split:
    found = vision.SVHN(root, split="train" if train else "test", download=download)
    return _split(found.data, found.labels)


def _folder(root: Path) -> DataSet:
    parts, classes = [], []
    for part in ("train", "test"):
        found = vision.ImageFolder(str(root / part))
        side = [FOLDER_SIZE, FOLDER_SIZE]
        pictures = [images.pil_to_tensor(images.resize(picture, side)) for picture, _ in found]
        parts.append(Split(torch.stack(pictures), torch.tensor(found.targets)))
        classes.append(found.classes)
    if classes[0] != classes[1]:
        raise ValueError(f"train has the classes {classes[0]}, test {classes[1]}")
    return DataSet("folder", parts[0], parts[1], len(classes[0]))


_VISION: dict[str, Callable[[str, bool, bool], Split]] = {
    "fashion-mnist": _mnist_like(vision.FashionMNIST),
    "mnist": _mnist_like(vision.MNIST),
    "cifar10": _mnist_like(vision.CIFAR10),
    "cifar100": _mnist_like(vision.CIFAR100),
    "svhn": _svhn,
}
