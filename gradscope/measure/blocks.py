"""A tensor in host memory -> its raw sums, in passes over cache-sized blocks.

The passes are those that run at memory speed (`sum`, `dot`, `aminmax`, `eq`); float32 results of one
block are added up in float64. Where float32 could lose digits - huge, tiny or non-finite elements, a
mean that cancels - the tensor is read again in float64. Must never know sites, steps or files.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

BLOCK = 1 << 20
"""Elements per block: 4 MiB of float32, which stays in the last-level cache between passes."""

SAFE_SQUARE = (1e-15, 1e16)
"""Largest magnitudes whose squares float32 sums up without overflow or a share of underflow."""

CANCELLED_MEAN = 1e-2
"""|sum| below this share of sqrt(n * square_sum) is summed again in float64."""

CANCELLED_SPREAD = 0.1
"""Centered share of the squares below which it is not taken as a difference of float32 sums."""

_scratch = threading.local()


def flat(t: Tensor) -> Tensor:
    """The elements of `t` as one dimension, without a copy when they lie dense in memory."""
    if t.is_contiguous():
        return t.view(-1)
    if torch.ops.aten.is_non_overlapping_and_dense(t):
        return t.as_strided((t.numel(),), (1,))
    return t.reshape(-1)


def raw_sums(t: Tensor) -> tuple[float, ...]:
    """The sums `RAW` of a real floating-point tensor of any shape and dtype on the CPU."""
    x = flat(t)
    count = x.numel()
    if count == 0:
        return (0.0,) * 7
    if x.dtype != torch.float32:
        x_blocks = (b.double() for b in x.split(BLOCK))
        return _wide(list(x_blocks) if count <= BLOCK else x.split(BLOCK), count)
    total = square = zeros = 0.0
    low, high = math.inf, -math.inf
    for block in x.split(BLOCK) if count > BLOCK else (x,):
        total += block.sum().item()
        square += torch.dot(block, block).item()
        small, large = torch.aminmax(block)
        low, high = min(low, small.item()), max(high, large.item())
        zeros += _zeros(block)
        if not math.isfinite(total + square):
            return _wide(x.split(BLOCK), count)
    absmax = max(-low, high)
    if absmax == 0.0:
        return (float(count), 0.0, float(count), 0.0, 0.0, 0.0, 0.0)
    if not SAFE_SQUARE[0] < absmax < SAFE_SQUARE[1]:
        return _wide(x.split(BLOCK), count)
    if abs(total) < CANCELLED_MEAN * math.sqrt(count * square):
        total = sum(b.sum(dtype=torch.float64).item() for b in x.split(1 << 18))
    centered = square - total * total / count
    if centered < CANCELLED_SPREAD * square:
        mean = total = sum(b.sum(dtype=torch.float64).item() for b in x.split(1 << 18))
        mean /= count
        centered = sum((b.double() - mean).square_().sum().item() for b in x.split(BLOCK))
    return (float(count), 0.0, zeros, total, square, centered, absmax)


def square_sum(t: Tensor) -> float:
    """Sum of squares of the finite elements; what a gradient norm needs and nothing more."""
    x = flat(t)
    if x.dtype == torch.float32 and x.numel():
        total = sum(torch.dot(b, b).item() for b in x.split(BLOCK))
        if 1e-30 < total < 1e32:
            return total
    return raw_sums(t)[4]


def _zeros(block: Tensor) -> float:
    """How many elements are zero: as floats, since summing those is what the CPU does fastest."""
    buffer: Tensor | None = getattr(_scratch, "buffer", None)
    if buffer is None or buffer.numel() < block.numel():
        buffer = _scratch.buffer = torch.empty(max(block.numel(), 1 << 16))
    return torch.eq(block, 0, out=buffer[: block.numel()]).sum().item()


def _wide(blocks: list[Tensor] | tuple[Tensor, ...], count: int) -> tuple[float, ...]:
    """The same sums in float64 over the finite elements, two passes for the centered one."""
    nonfinite = zeros = 0
    total = square = absmax = 0.0
    for block in blocks:
        x = _finite(block)
        nonfinite += block.numel() - x.numel()
        if x.numel():
            zeros += int((x == 0).sum())
            total += x.sum().item()
            square += torch.dot(x, x).item()
            absmax = max(absmax, x.abs().max().item())
    finite = count - nonfinite
    mean = total / finite if finite else 0.0
    centered = sum((_finite(b) - mean).square_().sum().item() for b in blocks)
    return (float(count), float(nonfinite), float(zeros), total, square, centered, absmax)


def _finite(block: Tensor) -> Tensor:
    x = block.double()
    mask = torch.isfinite(x)
    return x if bool(mask.all()) else x[mask]
