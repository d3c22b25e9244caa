"""A module's output -> the share of its channels that are silent for a whole batch.

Must never know sites, steps or files.
"""

from __future__ import annotations

import torch
from torch import Tensor


def channel_dim(t: Tensor, module_type: str = "") -> int:
    """The dimension that counts channels: 1 for images, the last for sequences of features."""
    if t.dim() == 3 and not module_type.endswith("1d"):
        return 2
    return 1


def dead_channels(t: Tensor, dim: int) -> Tensor:
    """Whether each channel (dimension `dim` of size C) is zero for every sample: shape (C,), bool."""
    others = [d for d in range(t.dim()) if d != dim % t.dim()]
    low, high = (t.amin(others), t.amax(others)) if others else (t, t)
    return (low == 0) & (high == 0)


def dead_fraction(t: Tensor, dim: int, nonnegative: bool = False) -> Tensor:
    """Share of channels that are zero for every sample of the batch, a scalar tensor.

    `nonnegative` says that no element is below zero, which spares a pass.
    """
    if t.dim() < 2 or t.numel() == 0:
        return torch.full((), float("nan"), device=t.device)
    if t.device.type == "cpu":
        return _on_host(t, dim)
    if not nonnegative:
        return dead_channels(t, dim).float().mean()
    if dim == 1 and t.dim() > 2 and t.is_contiguous():
        high = t.flatten(2).amax(-1).amax(0)
    else:
        high = t.amax([d for d in range(t.dim()) if d != dim])
    return (high == 0).float().mean()


def _on_host(t: Tensor, dim: int) -> Tensor:
    """The same, looking first at one sample: only the channels silent there are read for the others."""
    batch = 0 if dim % t.dim() else t.dim() - 1
    first = dead_channels(t.narrow(batch, 0, 1), dim)
    candidates = first.nonzero().flatten()
    number = candidates.numel()
    if number and t.shape[batch] > 1:
        number = int(dead_channels(t.index_select(dim, candidates), dim).sum())
    return torch.tensor(number / first.numel(), device="cpu")
