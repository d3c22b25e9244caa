"""Data sets by name: the files that torchvision's classes expect, made small, and what is missing."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as vision

from gradscope.experiments import data_names, load_data
from gradscope.schema import GradScopeError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.tobytes())


def write_mnist(raw: Path) -> None:
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        write_idx(raw / f"{part}-images-idx3-ubyte", PIXELS[:count])
        write_idx(raw / f"{part}-labels-idx1-ubyte", LABELS[:count])


def write_cifar(folder: Path, kind: type[vision.CIFAR10]) -> np.ndarray:
    """Batches in CIFAR's layout; returns the first training image, (3, 32, 32)."""
    folder.mkdir()
    fine = kind is vision.CIFAR100
    key = "fine_labels" if fine else "labels"
    rows = RNG.integers(0, 256, (10, 3 * 32 * 32), dtype=np.uint8)
    labels = [99, *range(9)] if fine else list(range(10))
    for name, _ in kind.train_list + kind.test_list:
        (folder / name).write_bytes(pickle.dumps({"data": rows, key: labels}))
    meta = {kind.meta["key"]: [str(n) for n in range(100 if fine else 10)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    return rows[0].reshape(3, 32, 32)


def write_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for value, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                Image.new("RGB", (20, 10), (value * 200, n, 7)).save(folder / f"{n}.png")


def test_the_embedded_set_has_known_shape_and_classes() -> None:
    found = load_data()
    assert found.train.images.shape == (6000, 1, 28, 28)
    assert found.test.images.shape == (1500, 1, 28, 28)
    assert found.train.images.dtype == torch.uint8
    assert found.train.labels.dtype == torch.int64
    assert (found.classes, found.channels, found.side) == (10, 1, 28)
    assert len(found.test) == 1500


def test_normalised_training_images_have_mean_0_and_deviation_1_in_each_channel(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path)
    for found in (load_data(), load_data("folder", tmp_path)):
        x = found.normalise()(found.train.images)
        assert x.dtype == torch.float32
        assert x.mean((0, 2, 3)) == pytest.approx([0.0] * found.channels, abs=1e-3)
        constant = found.train.images.float().std((0, 2, 3)) == 0
        wanted = [0.0 if still else 1.0 for still in constant]
        assert x.std((0, 2, 3)) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "folder"), [("fashion-mnist", "FashionMNIST"), ("mnist", "MNIST")]
)
def test_mnist_files_are_read_as_they_are(tmp_path: Path, name: str, folder: str) -> None:
    write_mnist(tmp_path / folder / "raw")
    found = load_data(name, tmp_path)
    assert np.array_equal(found.train.images[:, 0], PIXELS[:20])
    assert np.array_equal(found.test.labels, LABELS[:10])
    assert found.classes == 10


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [("cifar10", vision.CIFAR10, 10), ("cifar100", vision.CIFAR100, 100)],
)
def test_cifar_batches_become_channels_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[vision.CIFAR10],
    classes: int,
) -> None:
    first = write_cifar(tmp_path / kind.base_folder, kind)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    found = load_data(name, tmp_path)
    assert found.train.images.shape[1:] == (3, 32, 32)
    assert len(found.train) == 10 * len(kind.train_list)
    assert np.array_equal(found.train.images[0], first)
    assert found.classes == classes


def test_cifar_files_of_another_checksum_are_refused_unread(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", vision.CIFAR10)
    with pytest.raises(GradScopeError, match="corrupted"):
        load_data("cifar10", tmp_path)


def test_svhn_is_read_through_scipy_and_says_so_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision.SVHN, "_check_integrity", lambda _: True)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(GradScopeError, match="pip install scipy") as caught:
        load_data("svhn", tmp_path)
    assert "\n" not in str(caught.value)

    x = RNG.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    y = np.arange(1, 13).reshape(-1, 1) % 10
    io = types.ModuleType("scipy.io")
    io.loadmat = lambda _: {"X": x, "y": np.where(y == 0, 10, y)}  # type: ignore[attr-defined]
    package = types.ModuleType("scipy")
    package.io = io  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scipy", package)
    monkeypatch.setitem(sys.modules, "scipy.io", io)
    found = load_data("svhn", tmp_path)
    assert found.train.images.shape == (12, 3, 32, 32)
    assert np.array_equal(found.train.images[5], x[..., 5].transpose(2, 0, 1))
    assert found.train.labels.tolist() == y.ravel().tolist()


def test_a_folder_of_images_is_brought_to_one_size(tmp_path: Path) -> None:
    write_folder(tmp_path)
    found = load_data("folder", tmp_path)
    assert found.train.images.shape == (6, 3, 32, 32)
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    assert found.classes == 2
    assert found.train.images[5, :, 0, 0].tolist() == [200, 2, 7]


def test_a_folder_with_other_classes_in_its_test_part_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(GradScopeError, match="wolf"):
        load_data("folder", tmp_path)


@pytest.mark.parametrize(
    "name", [n for n in data_names() if n not in ("fashion-mnist-small", "folder")]
)
def test_missing_files_name_the_options_that_help(tmp_path: Path, name: str) -> None:
    with pytest.raises(GradScopeError, match=r"--data-root.*--download") as caught:
        load_data(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(GradScopeError, match="--data-root"):
        load_data(name)


def test_a_missing_folder_tells_its_layout(tmp_path: Path) -> None:
    with pytest.raises(GradScopeError, match=r"--data-root must hold train/CLASS"):
        load_data("folder", tmp_path)


def test_a_file_cut_short_is_a_sentence(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    for keep in (0, 2, 10, 1000):
        path = raw / "train-images-idx3-ubyte"
        write_idx(path, PIXELS[:20])
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(GradScopeError, match="cannot be read"):
            load_data("mnist", tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(GradScopeError, match="cifar10"):
        load_data("imagenet")
