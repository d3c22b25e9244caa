"""The embedded subset of Fashion-MNIST: balanced, small, free of pickles, credited."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gradscope

DATA = Path(gradscope.__file__).parent / "experiments" / "data"
FILE = DATA / "fashion_mnist_small.npz"


def test_subset_is_balanced_and_small() -> None:
    assert FILE.stat().st_size <= 3_000_000
    with np.load(FILE, allow_pickle=False) as data:
        for split, per_class in (("train", 600), ("test", 150)):
            images, labels = data[f"{split}_images"], data[f"{split}_labels"]
            assert images.shape == (10 * per_class, 28, 28)
            assert images.dtype == labels.dtype == np.uint8
            assert np.bincount(labels).tolist() == [per_class] * 10
            assert images.min() == 0
            assert images.max() == 255
            assert len(set(labels[:50].tolist())) == 10
        assert len(data["classes"]) == 10
        assert "MIT" in str(data["credit"])


def test_no_image_is_in_both_splits() -> None:
    with np.load(FILE, allow_pickle=False) as data:
        train = {image.tobytes() for image in data["train_images"]}
        assert not any(image.tobytes() in train for image in data["test_images"])


def test_licence_stands_beside_the_images() -> None:
    text = (DATA / "fashion_mnist_small.LICENSE.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "MIT License" in text
