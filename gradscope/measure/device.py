"""A tensor on any device -> its raw sums and magnitude counts in rows on that device, without waiting.

The fused kernel on CUDA where Triton is installed, plain torch operations elsewhere; nothing depends
on a value, so nothing synchronises. Must never know sites, steps or files.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gradscope.measure.blocks import flat
from gradscope.measure.fused import fits, fused_sums_into
from gradscope.measure.histogram import BINS, LOWEST, sample_stride

_broken: list[str] = []
"""Why Triton cannot build the kernel here, once it was tried: no C compiler, say."""


def raw_sums_into(
    t: Tensor, row: Tensor, counts: Tensor | None = None, limit: int = 1 << 62
) -> float:
    """Write the sums `RAW` of `t` into `row` (7 float64 elements, same device as `t`).

    `counts` (`BINS` int32 zeros there, or None) gets the magnitude counts: of all elements by the
    fused kernel, of about `limit` evenly spread ones otherwise. Returns the share that was counted.
    """
    if t.is_cuda and fits(t) and _fused(t, row, counts):
        return 1.0
    x = flat(t.detach())
    count = x.numel()
    if count == 0:
        row.zero_()
        return 1.0
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
    stride = sample_stride(count, limit)
    if counts is not None:
        _count(wide[::stride], counts)
    return 1.0 / stride


def _count(wide: Tensor, counts: Tensor) -> None:
    """Add the binary exponents of the non-zero elements (non-finite ones are zero here)."""
    exponent = torch.frexp(wide).exponent - (1 + LOWEST)
    one = (wide != 0).to(counts.dtype)
    counts.scatter_add_(0, exponent.clamp(0, BINS - 1).to(torch.int64), one)


def _fused(t: Tensor, row: Tensor, counts: Tensor | None) -> bool:
    """Whether the fused kernel did the work; a machine on which it cannot be built must still train."""
    if _broken:
        return False
    try:
        with torch.cuda.device(t.device):
            fused_sums_into(t, row, counts)
    except Exception as error:
        _broken.append(f"{type(error).__name__}: {error}".splitlines()[0])
        warnings.warn(
            "GradScope measures with plain torch operations, more slowly: Triton cannot build its "
            f"kernel here ({_broken[0]}).",
            stacklevel=2,
        )
        return False
    return True
