"""Chosen steps of a training -> rows of leave-one-out in its run, and what they cost.

Trouble in a measurement ends the lesions, never the training. Must never know how a lesion is made.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from gradscope.ablation import PeriodicAblation
from gradscope.schema import GradScopeError
from gradscope.store import RunWriter


class Lesions:
    """Called after each optimizer step; `seconds` is the time its measurements took."""

    def __init__(self, model: nn.Module, every: int, batch: Any, writer: RunWriter) -> None:
        if any(hasattr(p, "to_local") for p in model.parameters()):
            raise GradScopeError(
                "ablate_every cannot measure a model whose parameters are split over processes: "
                "ablate its checkpoint in one process."
            )
        try:
            measure = PeriodicAblation(model, batch, every=every, writer=writer)
        except GradScopeError as error:
            raise GradScopeError(f"ablate_every={every!r}, ablate_on: {error}") from None
        self._measure: PeriodicAblation | None = measure
        self._writer = writer
        self.seconds = 0.0
        self.times = 0

    def __call__(self, step: int) -> None:
        """Measure if the step is due."""
        if self._measure is None or step % self._measure.every:
            return
        began = time.perf_counter()
        try:
            self._measure(step)
            self.times += 1
        except Exception as error:  # the user's loader or network may raise anything
            self.release()
            told = f"Lesions ended at step {step}: {type(error).__name__}: {error}"
            self._writer.note(told)
            with contextlib.suppress(Warning):  # warnings turned into errors must not stop training
                warnings.warn(f"GradScope: {told}", RuntimeWarning, stacklevel=2)
        self.seconds += time.perf_counter() - began

    def release(self) -> None:
        """Measure no more, and let go of the model."""
        self._measure = None

    def told(self) -> str:
        """A line for the summary."""
        return f"lesions at {self.times} steps took {self.seconds:.1f} s beside that cost"

    def measured(self) -> Mapping[str, Any]:
        """Entries for the run's config."""
        return {"ablations": self.times, "ablation_seconds": round(self.seconds, 3)}


def lesions_of(
    model: nn.Module, every: int | None, batch: Any, writer: RunWriter | None
) -> Lesions | None:
    """What `track` was asked for; None without lesions, or in a process that records nothing."""
    if (every is None) != (batch is None):
        raise GradScopeError(
            "ablate_every=N and ablate_on=(inputs, targets) belong together: give both or neither."
        )
    if every is None or writer is None:
        return None
    return Lesions(model, every, batch, writer)
