"""Optimizers as they step -> calls before and after, and the number of the step.

Must never know tensors' values or files.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

Concerns = Callable[[torch.optim.Optimizer], bool]
OnStep = Callable[[torch.optim.Optimizer, int, bool], None]
"""Called with the optimizer, the step's number, and whether a closure computes its gradients."""


class Clock:
    """Counts optimizer steps.

    The first optimizer that steps (or the first given) leads: its steps are counted. Another
    optimizer's step belongs to the leader's last step unless it was already seen there. One that
    steps on while the leader rests, or is new and updates the leader's parameters, takes the lead.
    Optimizers are found by torch's global step hooks, so nothing is asked of the training script.
    `broken(error)` is called when an exception ends `before` or `after` midway; only what is no error,
    such as Ctrl-C, goes on from there to the training script.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        concerns: Concerns,
        before: OnStep,
        after: OnStep,
        broken: Callable[[BaseException], None],
        start: int,
    ) -> None:
        self._given = tuple(optimizers)
        self._leader: Callable[[], torch.optim.Optimizer | None] = (
            weakref.ref(optimizers[0]) if optimizers else _nobody
        )
        self._concerns = concerns
        self._before = before
        self._after = after
        self._broken = broken
        self._seen: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = (
            weakref.WeakKeyDictionary()
        )
        self.now = start
        self._handles: list[RemovableHandle] = []
        self._handles.append(register_optimizer_step_pre_hook(self._pre))
        self._handles.append(register_optimizer_step_post_hook(self._post))

    def close(self) -> None:
        """Take the hooks off and let go of the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._given, self._leader = (), _nobody

    def _relevant(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._given:
            return any(optimizer is given for given in self._given)
        return self._concerns(optimizer)

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:
            if torch.compiler.is_compiling() or not self._relevant(optimizer):
                return
            self._elect(optimizer)
            self._before(optimizer, self._number(optimizer), _closure(args, kwargs))
        except BaseException as error:
            self._broken(error)
            if not isinstance(error, Exception):
                raise

    def _elect(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the lead to an optimizer about to step, if the leader has left it to others."""
        leader = self._leader()
        if leader is optimizer:
            return
        if leader is None or (optimizer not in self._seen and _share(leader, optimizer)):
            self._leader = weakref.ref(optimizer)
        elif self._seen.get(optimizer, -1) == self.now:
            self._leader = weakref.ref(optimizer)
            self.now += 1

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:
            if torch.compiler.is_compiling() or not self._relevant(optimizer):
                return
            number = self._number(optimizer)
            self._seen[optimizer] = number
            if self.leads(optimizer):
                self.now = number + 1
            self._after(optimizer, number, _closure(args, kwargs))
        except BaseException as error:
            self._broken(error)
            if not isinstance(error, Exception):
                raise

    def _number(self, optimizer: torch.optim.Optimizer) -> int:
        if self.leads(optimizer) or self.now == 0:
            return self.now
        late = self._seen.get(optimizer, -1) < self.now - 1
        return self.now - 1 if late else self.now

    def leads(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether this optimizer's steps are the ones counted."""
        return self._leader() is optimizer

    def tick(self) -> int:
        """A step without an optimizer; returns its number."""
        self.now += 1
        return self.now - 1


def _closure(args: Any, kwargs: Any) -> bool:
    """Whether step() was called with a closure; args includes the optimizer itself."""
    return any(callable(a) for a in args[1:]) or callable(kwargs.get("closure"))


def _share(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> bool:
    """Whether two optimizers update a parameter in common."""
    known = {id(p) for group in first.param_groups for p in group["params"]}
    return any(id(p) in known for group in second.param_groups for p in group["params"])


def _nobody() -> torch.optim.Optimizer | None:
    return None
