"""A module's output -> the share of its channels that are silent for a whole batch.

Must never know sites, steps or files.
"""

from __future__ import annotations

from torch import Tensor

from gradscope.measure.host import silent_channels


def channel_dim(t: Tensor, module_type: str = "") -> int:
    """The dimension that counts channels: 1 for images, the last for sequences of features."""
    if t.dim() == 3 and not module_type.endswith("1d"):
        return 2
    return 1


def dead_channels(t: Tensor, dim: int) -> Tensor:
    """Whether each channel (dimension `dim` of size C) is zero for every sample: shape (C,), bool."""
    others = [d for d in range(t.dim()) if d != dim % t.dim()]
    silent = t == 0
    return silent.all(others) if others else silent


def dead_fraction(t: Tensor, dim: int) -> Tensor | float:
    """Share of channels that are zero for every sample of the batch.

    A number for a host tensor, a scalar tensor on any other device, where nothing waits for it.
    """
    if t.dim() < 2 or t.numel() == 0:
        return float("nan")
    dim %= t.dim()
    if t.device.type != "cpu":
        return dead_channels(t, dim).float().mean()
    silent = silent_channels(t, dim)
    if silent is None:  # look at one sample first: only the channels silent there are read further
        batch = 0 if dim else t.dim() - 1
        candidates = dead_channels(t.narrow(batch, 0, 1), dim).nonzero().flatten()
        silent = candidates.numel()
        if silent and t.shape[batch] > 1:
            silent = int(dead_channels(t.index_select(dim, candidates), dim).sum())
    return silent / t.shape[dim]
