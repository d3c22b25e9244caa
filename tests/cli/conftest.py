"""A tiny data set in place of the embedded one: 128 + 64 images of 14 x 14."""

from __future__ import annotations

import pytest
import torch

from gradscope.experiments import DataSet, Split, datasets


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data() -> DataSet:
    whole = datasets.load()

    def cut(split: Split, count: int) -> Split:
        return Split(split.images[:count, :, ::2, ::2].contiguous(), split.labels[:count])

    return DataSet(whole.name, cut(whole.train, 128), cut(whole.test, 64), whole.classes)


@pytest.fixture
def tiny(tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    monkeypatch.setattr(datasets, "_small", lambda: tiny_data)
    return tiny_data
