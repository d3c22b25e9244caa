"""A recorded run with a checkpoint -> the ablation of its network, stored in the run.

Must never know figures or the dashboard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradscope.ablation import Ablation, ablate
from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.datasets import DataSet, load
from gradscope.experiments.training import EVALUATION_BATCH
from gradscope.store import RunWriter, open_run


class TestImages:
    """The normalised test images of a data set in batches, the same at every round."""

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


def ablate_run(
    run: str | Path,
    *,
    drop: str | Iterable[str] = "blocks",
    data_root: str | Path | None = None,
    limit: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Ablation:
    """Drop units of a run's trained network, measured on its data set's test images.

    `limit`: use that many test images. The rows go into the run's table `ablations` at its last step;
    `options` to `gradscope.ablate`. GradScopeError for a run without a checkpoint.
    """
    path = Path(run)
    model, config = rebuild(path)
    data = load(str(config["data"]), data_root)
    with torch.random.fork_rng():
        stored = open_run(path)
        found = ablate(
            model,
            loader=TestImages(data, limit),
            drop=drop,
            progress=progress,
            step=max(stored.status.last_step, 0),
            **options,
        )
    writer = RunWriter(path.parent, path.name, stored.info, resume=True)
    found.save(writer)
    writer.close()
    return found
