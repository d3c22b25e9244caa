"""A tensor on any device -> its raw sums in a row on that device, without waiting for it.

Plain torch operations, for devices that have no fused kernel here; nothing depends on a value, so
nothing synchronises. Must never know sites, steps or files.
"""

from __future__ import annotations

import torch
from torch import Tensor


def raw_sums_into(t: Tensor, row: Tensor) -> None:
    """Write the sums `RAW` of `t` into `row` (7 float64 elements, same device as `t`)."""
    x = t.detach().reshape(-1)
    count = x.numel()
    if count == 0:
        row.zero_()
        return
    finite = torch.isfinite(x)
    wide = torch.where(finite, x, torch.zeros((), dtype=x.dtype, device=x.device)).to(row.dtype)
    number = finite.sum(dtype=row.dtype)
    total = wide.sum()
    mean = total / number.clamp(min=1)
    centered = torch.where(finite, (wide - mean).square(), torch.zeros_like(wide)).sum()
    row.copy_(
        torch.stack(
            [
                torch.full_like(total, float(count)),
                count - number,
                ((wide == 0) & finite).sum(dtype=row.dtype),
                total,
                wide.square().sum(),
                centered,
                wide.abs().amax(),
            ]
        )
    )
