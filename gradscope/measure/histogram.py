"""A tensor -> counts per binary exponent, and what half precision would lose of it.

Must never know sites, steps or files.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradscope.measure.blocks import flat

LOWEST = -149
"""Exponent of the smallest float32 subnormal; the first bin of a histogram."""

BINS = 128 - LOWEST
"""Bins for the exponents -149 .. 127, the whole float32 range."""

SMALLEST = {"float16": (-24, -14), "bfloat16": (-133, -126)}
"""Exponents of the smallest subnormal and the smallest normal number of each half type."""


def magnitude_histogram(t: Tensor, limit: int | None = None) -> NDArray[np.int64]:
    """Counts of floor(log2 |t|) over the finite non-zero elements, shape (277,), from -149 up.

    `limit`: read at most about that many elements, evenly spread. float64 values outside the float32
    range fall into the first and last bins.
    """
    x = flat(t.detach())
    if limit is not None and x.numel() > limit:
        x = x[:: sample_stride(x.numel(), limit)]
    values = x.to(device="cpu", dtype=torch.float64).numpy()
    values = np.abs(values[np.isfinite(values) & (values != 0)])
    _, exponent = np.frexp(values)
    return exponent_counts(exponent - 1)


def exponent_counts(exponent: NDArray[np.integer]) -> NDArray[np.int64]:
    """Counts per exponent, those outside the float32 range in the outermost bins."""
    index = np.clip(exponent.astype(np.int64) - LOWEST, 0, BINS - 1)
    return np.bincount(index, minlength=BINS).astype(np.int64)


def fast_histogram(t: Tensor, limit: int) -> NDArray[np.int64]:
    """`magnitude_histogram` of a CPU tensor's sample, of float32 by its exponent bits alone.

    Other types and subnormal numbers (below 2^-126) are the rare case and take the exact way.
    """
    x = flat(t.detach())
    if x.dtype != torch.float32:
        return magnitude_histogram(x, limit)
    if x.numel() > limit:
        x = x[:: sample_stride(x.numel(), limit)]
    bits = (x.contiguous().numpy().view(np.uint32) >> np.uint32(23)) & np.uint32(255)
    counts = np.bincount(bits, minlength=256)
    out = np.zeros(BINS, dtype=np.int64)
    out[-126 - LOWEST : 128 - LOWEST] = counts[1:255]
    if counts[0] and bool(((x.abs() < 2.0**-126) & (x != 0)).any()):
        return magnitude_histogram(x)
    return out


def sample_stride(count: int, limit: int) -> int:
    """Stride that reads about `limit` of `count` elements: 1 for all of them, else an odd number.

    An odd stride visits all channels and columns of power-of-two shapes.
    """
    return 1 if count <= limit else -(-count // limit) | 1


def underflow_share(counts: NDArray[np.integer], dtype: str) -> tuple[float, float]:
    """Shares of the non-zero elements that would be (zero, zero or subnormal) in `dtype`.

    `dtype` is "float16" or "bfloat16"; counts as from `magnitude_histogram`. A magnitude rounds to
    zero below half the smallest subnormal, so from the exponent two below it down. Elements
    in the binade between are counted as zero too: they are a tie or round up, at most one bit of 2^-24.
    """
    subnormal, normal = SMALLEST[dtype]
    total = int(counts.sum())
    if total == 0:
        return (float("nan"), float("nan"))
    zero = int(counts[: max(subnormal - 1 - LOWEST, 0)].sum())
    small = int(counts[: normal - LOWEST].sum())
    return (zero / total, small / total)
