"""A model -> the same model with bit-exact restoration, whatever an evaluation does to it.

Must never know lesions, metrics or files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def restored(model: nn.Module, *, weights: bool) -> Iterator[None]:
    """Puts back modes, buffers, random states (torch, numpy, python), and with `weights` the
    parameters and their gradients too. Memory: one copy of what is put back."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    kept = [
        (p, p.detach().clone(), p.grad, None if p.grad is None else p.grad.clone())
        for p in (model.parameters() if weights else ())
    ]
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                _put_back(buffer, value)
            for parameter, value, gradient, gradient_value in kept:
                _put_back(parameter, value)
                parameter.grad = gradient
                _put_back(gradient, gradient_value)
        for module, training in modes:
            module.training = training
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _put_back(tensor: Tensor | None, value: Tensor | None) -> None:
    """Writes only where something changed: a graph kept for another backward pass stays valid."""
    if tensor is not None and value is not None and not torch.equal(tensor, value):
        tensor.copy_(value)
