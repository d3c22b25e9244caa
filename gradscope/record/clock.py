"""Optimizers as they step -> calls before and after, and the number of the step.

Must never know tensors' values or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

Concerns = Callable[[torch.optim.Optimizer], bool]
OnStep = Callable[[torch.optim.Optimizer, int, bool], None]
"""Called with the optimizer, the step's number, and whether a closure computes its gradients."""


class Clock:
    """Counts optimizer steps.

    The first optimizer that steps (or the ones given) leads: its steps are counted. Another
    optimizer's step belongs to the leader's last step unless it was already seen there.
    Optimizers are found by torch's global step hooks, so nothing is asked of the training script.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        concerns: Concerns,
        before: OnStep,
        after: OnStep,
        start: int,
    ) -> None:
        self._given = tuple(optimizers)
        self._leader: torch.optim.Optimizer | None = optimizers[0] if optimizers else None
        self._concerns = concerns
        self._before = before
        self._after = after
        self._seen: dict[int, int] = {}
        self._inside = False
        self.now = start
        self._handles = [
            register_optimizer_step_pre_hook(self._pre),
            register_optimizer_step_post_hook(self._post),
        ]

    def close(self) -> None:
        """Take the hooks off and let go of the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._given, self._leader = (), None

    def _relevant(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._given:
            return any(optimizer is given for given in self._given)
        return self._concerns(optimizer)

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or not self._relevant(optimizer):
            return
        if self._leader is None:
            self._leader = optimizer
        self._before(optimizer, self._number(optimizer), _closure(args, kwargs))

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or not self._relevant(optimizer):
            return
        number = self._number(optimizer)
        self._seen[id(optimizer)] = number
        if optimizer is self._leader:
            self.now = number + 1
        self._after(optimizer, number, _closure(args, kwargs))

    def _number(self, optimizer: torch.optim.Optimizer) -> int:
        if optimizer is self._leader or self.now == 0:
            return self.now
        late = self._seen.get(id(optimizer), -1) < self.now - 1
        return self.now - 1 if late else self.now

    def leads(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether this optimizer's steps are the ones counted."""
        return optimizer is self._leader

    def tick(self) -> int:
        """A step without an optimizer; returns its number."""
        self.now += 1
        return self.now - 1


def _closure(args: Any, kwargs: Any) -> bool:
    """Whether step() was called with a closure; args includes the optimizer itself."""
    return any(callable(a) for a in args[1:]) or callable(kwargs.get("closure"))
