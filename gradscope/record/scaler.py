"""torch's GradScaler at work -> its scale, and calls when it leaves an optimizer's step out.

A skipped step calls no optimizer, so no optimizer hook can tell of it; the class's `step` is
wrapped while somebody listens and put back afterwards. Must never know statistics or files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OnSkip = Callable[[torch.optim.Optimizer], None]

_listeners: list[OnSkip] = []
_stepping: list[torch.amp.GradScaler] = []
_original = torch.amp.GradScaler.step


def loss_scale() -> Tensor | None:
    """What the loss was multiplied with, inside a step that a GradScaler makes; else None."""
    if not _stepping or not _stepping[-1].is_enabled():
        return None
    return _stepping[-1]._scale


def listen(on_skip: OnSkip) -> Callable[[], None]:
    """Call `on_skip(optimizer)` after each skipped step; returns the function that ends it."""
    if not _listeners:
        torch.amp.GradScaler.step = _watched  # type: ignore[method-assign]
    _listeners.append(on_skip)

    def end() -> None:
        if on_skip in _listeners:
            _listeners.remove(on_skip)
        if not _listeners:
            torch.amp.GradScaler.step = _original  # type: ignore[method-assign]

    return end


@functools.wraps(_original)
def _watched(
    self: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any
) -> float | None:
    stepped: list[bool] = []
    handle = optimizer.register_step_post_hook(lambda *_: stepped.append(True))
    _stepping.append(self)
    try:
        result = _original(self, optimizer, *args, **kwargs)
    finally:
        _stepping.pop()
        handle.remove()
    if self.is_enabled() and not stepped:
        for on_skip in tuple(_listeners):
            on_skip(optimizer)
    return result
