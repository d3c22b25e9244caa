"""A network -> the same network with He's initial weights, reproducible and free of side effects.

Knows layers alone; never what the network is for, how it is trained or recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a CPU random stream of its own, and give the global one back untouched.

    With `seed=None` nothing is forked: the draws come from the global stream, as in any module.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would also reseed every accelerator, which the fork does not restore.
        torch.default_generator.manual_seed(seed)
        yield


def he_initialise(model: nn.Module, seed: int | None, *, last: Sequence[str] = ()) -> None:
    """Set all weights in place: convolutions N(0, 2 / fan_in), classifiers N(0, 1 / fan_in).

    Biases become 0, scales of normalisation 1. Source: He et al. 2015, arXiv 1502.01852, eq. 10
    (a classifier is followed by no rectifier, hence its 1 in place of the 2).

    `last` names path components (`"shortcut"`, `"aux1"`) whose modules are drawn after all others,
    so that networks that differ in those parts alone share the weights of everything else.
    """
    parts = set(last)
    modules = list(model.named_modules())
    ordered = [m for name, m in modules if parts.isdisjoint(name.split("."))]
    ordered += [m for name, m in modules if not parts.isdisjoint(name.split("."))]
    with torch.no_grad(), seeded(seed):
        for module in ordered:
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in))
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0.0, math.sqrt(1.0 / module.in_features))
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.0)
            else:
                continue
            if module.bias is not None:
                module.bias.zero_()


def norm(channels: int, batch_norm: bool) -> nn.Module:
    """Batch normalisation, or an identity under the same name."""
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
