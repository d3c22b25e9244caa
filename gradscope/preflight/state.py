"""A model about to be tried -> the same model afterwards, bit for bit.

Buffers, gradients, modes, attributes set by a forward pass and every random stream are put back,
also after an error. Must never know what is done in between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS: tuple[str, ...] = ("_buffers", "_parameters", "_modules")


@dataclass(frozen=True)
class _Module:
    """One module's attributes; its containers and the values of its buffers as copies."""

    module: nn.Module
    attributes: dict[str, Any]
    containers: dict[str, dict[str, Any]]
    buffers: dict[str, Tensor]


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Whatever passes run inside, the model and the random streams leave as they came.

    Parameters are not copied: the passes must not step an optimizer.
    """
    modules = [_snapshot(module) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    cpu, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    finally:
        for saved in modules:
            _restore(saved)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(legacy)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _snapshot(module: nn.Module) -> _Module:
    containers: dict[str, dict[str, Any]] = {
        name: dict(module.__dict__[name]) for name in CONTAINERS
    }
    buffers = {
        name: buffer.detach().clone()
        for name, buffer in module._buffers.items()
        if buffer is not None
    }
    return _Module(module, dict(module.__dict__), containers, buffers)


def _restore(saved: _Module) -> None:
    module = saved.module
    module.__dict__.clear()
    module.__dict__.update(saved.attributes)
    for name, content in saved.containers.items():
        container = module.__dict__[name]
        container.clear()
        container.update(content)
    with torch.no_grad():
        for name, value in saved.buffers.items():
            buffer = module._buffers[name]
            if buffer is not None:
                buffer.copy_(value)
