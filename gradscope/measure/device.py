"""A tensor on any device -> its raw sums in a row on that device, without waiting for it.

The fused kernel on CUDA where Triton is installed, plain torch operations elsewhere; nothing depends
on a value, so nothing synchronises. Must never know sites, steps or files.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gradscope.measure.fused import fits, fused_sums_into

_broken: list[str] = []
"""Why Triton cannot build the kernel here, once it was tried: no C compiler, say."""


def raw_sums_into(t: Tensor, row: Tensor) -> None:
    """Write the sums `RAW` of `t` into `row` (7 float64 elements, same device as `t`)."""
    if t.is_cuda and fits(t) and _fused(t, row):
        return
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


def _fused(t: Tensor, row: Tensor) -> bool:
    """Whether the fused kernel did the work; a machine on which it cannot be built must still train."""
    if _broken:
        return False
    try:
        with torch.cuda.device(t.device):
            fused_sums_into(t, row)
    except Exception as error:
        _broken.append(f"{type(error).__name__}: {error}".splitlines()[0])
        warnings.warn(
            "GradScope measures with plain torch operations, more slowly: Triton cannot build its "
            f"kernel here ({_broken[0]}).",
            stacklevel=2,
        )
        return False
    return True
