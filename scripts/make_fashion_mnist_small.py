"""The original idx files of Fashion-MNIST -> the balanced subset that the package carries.

    python scripts/make_fashion_mnist_small.py DIR_WITH_IDX_FILES [OUT.npz]

Takes 600 images a class from the training file and 150 a class from the test file, drawn with a
fixed seed and put in a mixed order. The same idx files give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

CLASSES = 10
PER_CLASS = {"train": 600, "test": 150}
STEMS = {"train": "train", "test": "t10k"}
SEED = 1708
OUT = Path(__file__).parent.parent / "gradscope/experiments/data/fashion_mnist_small.npz"
NAMES = (
    "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot".split()  # noqa: SIM905
)
CREDIT = (
    "Fashion-MNIST, (c) 2017 Zalando SE, https://github.com/zalandoresearch/fashion-mnist. "
    "MIT License; balanced subset, see fashion_mnist_small.LICENSE.txt."
)


def read_idx(path: Path) -> Bytes:
    """An idx file of bytes, gzipped or not, as an array of its shape."""
    with_gzip = path.suffix == ".gz"
    with gzip.open(path, "rb") if with_gzip else path.open("rb") as file:
        zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zero != 0 or kind != 8:
            raise SystemExit(f"{path} is no idx file of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def find(folder: Path, stem: str) -> Path:
    for name in (f"{stem}-ubyte", f"{stem}-ubyte.gz"):
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(f"{folder} has no {stem}-ubyte(.gz): get it from the Fashion-MNIST project")


def subset(images: Bytes, labels: Bytes, per_class: int) -> tuple[Bytes, Bytes]:
    """`per_class` images of each class, mixed: (n, 28, 28) and (n,)."""
    random = np.random.default_rng(SEED)
    chosen = [
        random.choice(np.flatnonzero(labels == label), per_class, replace=False)
        for label in range(CLASSES)
    ]
    order = random.permutation(np.concatenate(chosen))
    return images[order], labels[order]


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    """An npz that `numpy.load` reads; LZMA saves an eighth of what deflate would take."""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(2017, 8, 25, 0, 0, 0))
            archive.writestr(member, buffer.getvalue(), compress_type=zipfile.ZIP_LZMA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    given = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    for split, stem in STEMS.items():
        images = read_idx(find(given.folder, f"{stem}-images-idx3"))
        labels = read_idx(find(given.folder, f"{stem}-labels-idx1"))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = subset(
            images, labels, PER_CLASS[split]
        )
    arrays["classes"] = np.array(NAMES)
    arrays["credit"] = np.array(CREDIT)
    write(given.out, arrays)
    print(f"{given.out}: {given.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
