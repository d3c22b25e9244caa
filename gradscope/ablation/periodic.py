"""A training in progress -> leave-one-out on a held-out batch at chosen steps, rows into its run.

Must never know how training is done or recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.ablation.lesions import plan
from gradscope.ablation.result import Ablation, Appends
from gradscope.ablation.run import ablate
from gradscope.ablation.scores import batches
from gradscope.ablation.state import restored
from gradscope.schema import GradScopeError
from gradscope.units import Chosen, find_units, unwrapped


class PeriodicAblation:
    """Call it with the step after each optimizer step; it measures at every `every`-th.

    `batch` is (inputs, targets) held out from training, or a loader of its own. Training goes on
    bit by bit as it would have without: weights, gradients, buffers, modes and random state are
    restored. The units are found once, here. GradScopeError where there is nothing to drop.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Sequence[Any] | Iterable[Any],
        *,
        every: int,
        writer: Appends | None = None,
        drop: str | Iterable[str] = "blocks",
        units: Chosen = None,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise GradScopeError(f"{every!r} is no whole number of steps from 1 up.")
        self.model, self.every, self.writer = unwrapped(model), every, writer
        self.drop = drop if isinstance(drop, str) else tuple(drop)
        self.loader = [batch] if _is_batch(batch) else batch
        with restored(self.model, weights=False):
            inputs, _ = next(iter(batches(self.loader, self.model, 2)), ((), None))
        if not inputs:
            raise GradScopeError("There is no batch to measure lesions on: the loader is empty.")
        self.units = find_units(self.model, example=inputs, units=units)
        plan(self.model, self.units, self.drop)

    def __call__(self, step: int) -> Ablation | None:
        """Measures if the step is due; the rows carry the step."""
        if step % self.every:
            return None
        first = next(self.model.parameters(), None)
        device = first.device.type if first is not None else "cpu"
        # an autocast region around the step would keep casts made without gradients for training
        with torch.autocast(device, enabled=False):
            result = ablate(
                self.model, loader=self.loader, drop=self.drop, units=self.units, step=step
            )
        if self.writer is not None:
            result.save(self.writer)
        return result


def _is_batch(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 1 and isinstance(value[-1], Tensor)
