"""A data set's test split -> normalised batches, the same at every round.

Must never know networks or runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from gradscope.experiments.datasets import DataSet

EVALUATION_BATCH = 500
"""Test images that pass through a network at once."""


class TestImages:
    """Batches (images, labels) of the first `limit` test images, or of all."""

    __test__ = False

    def __init__(self, data: DataSet, limit: int | None = None) -> None:
        self._split = data.test
        self._limit = len(data.test) if limit is None else min(limit, len(data.test))
        self._normalise = data.normalise()

    def __len__(self) -> int:
        return -(-self._limit // EVALUATION_BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, self._limit, EVALUATION_BATCH):
            part = slice(first, min(first + EVALUATION_BATCH, self._limit))
            yield self._normalise(self._split.images[part]), self._split.labels[part]
