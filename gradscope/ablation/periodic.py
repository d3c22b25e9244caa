"""A training in progress -> leave-one-out on a held-out batch at chosen steps, rows into its run.

Must never know how training is done or recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from gradscope.ablation.result import Ablation, Appends
from gradscope.ablation.run import ablate
from gradscope.schema import GradScopeError
from gradscope.units import Bypass


class PeriodicAblation:
    """Call it with the step after each optimizer step; it measures at every `every`-th.

    `batch` is (inputs, targets) held out from training, or a loader. Training goes on bit by bit
    as it would have without: weights, gradients, buffers, modes and random state are restored.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Any, Any] | Iterable[Any],
        *,
        every: int,
        writer: Appends | None = None,
        drop: str | Iterable[str] = "blocks",
        units: Mapping[str, Bypass] | Sequence[str] | None = None,
    ) -> None:
        if every < 1:
            raise GradScopeError(f"every={every} must be at least 1 step.")
        self.model, self.every, self.writer = model, every, writer
        self.drop = drop if isinstance(drop, str) else tuple(drop)
        self.loader = [batch] if isinstance(batch, tuple) else batch
        self.units = units

    def __call__(self, step: int) -> Ablation | None:
        """Measures if the step is due; the rows carry the step."""
        if step % self.every:
            return None
        result = ablate(self.model, loader=self.loader, drop=self.drop, units=self.units, step=step)
        if self.writer is not None:
            result.save(self.writer)
        return result
