"""A tensor in host memory -> its raw sums by torch operations, in passes over cache-sized blocks.

What the compiled pass of `host.py` does where there is one. The passes are those that run at memory speed (`sum`, `mul`, `aminmax`, `equal`); float32 results of one
block are added up in float64. Where float32 could lose digits - huge, tiny or non-finite elements, a
mean that cancels - the tensor is read again in float64. Must never know sites, steps or files.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 1 << 18
"""Elements per block: 1 MiB of float32, which stays in the second-level cache between passes."""

SAFE_SQUARE = (1e-15, 1e16)
"""Largest magnitudes whose squares float32 sums up without overflow or a share of underflow."""

CANCELLED_MEAN = 1e-2
"""|sum| below this share of sqrt(n * square_sum) is summed again in float64."""

CANCELLED_SPREAD = 0.1
"""Centered share of the squares below which it is not taken as a difference of float32 sums."""

_scratch = threading.local()


def flat(t: Tensor) -> Tensor:
    """The elements of `t` as one dense dimension, without a copy when they lie so in memory."""
    if t.is_contiguous():
        return t.view(-1)
    if torch.ops.aten.is_non_overlapping_and_dense(t):
        return t.as_strided((t.numel(),), (1,))
    return t.reshape(-1).contiguous()  # a reshaped view may still have a stride, even of 0


def block_sums(t: Tensor) -> tuple[float, ...]:
    """The sums `RAW` of a real floating-point tensor of any shape and dtype on the CPU."""
    x = flat(t.detach())
    count = x.numel()
    if count == 0:
        return (0.0,) * 7
    if x.dtype != torch.float32:
        return _wide(x.split(BLOCK), count)
    total = square = zeros = 0.0
    low, high = math.inf, -math.inf
    rough: list[tuple[Tensor, float]] = []
    for block in x.split(BLOCK) if count > BLOCK else (x,):
        part, part_square = block.sum().item(), _squares(block)
        if not math.isfinite(part + part_square):
            return _wide(x.split(BLOCK), count)
        if abs(part) < CANCELLED_MEAN * math.sqrt(block.numel() * part_square):
            part = block.sum(dtype=torch.float64).item()
        else:
            rough.append((block, part))
        total += part
        square += part_square
        small, large = (end.item() for end in torch.aminmax(block))
        low, high = min(low, small), max(high, large)
        if small <= 0 <= large:
            zeros += _zeros(block)
    absmax = max(-low, high)
    if absmax == 0.0:
        return (float(count), 0.0, float(count), 0.0, 0.0, 0.0, 0.0)
    if not SAFE_SQUARE[0] < absmax < SAFE_SQUARE[1]:
        return _wide(x.split(BLOCK), count)
    centered = square - total * total / count
    near = centered < CANCELLED_SPREAD * square
    if near or abs(total) < CANCELLED_MEAN * math.sqrt(count * square):
        total += sum(b.sum(dtype=torch.float64).item() - part for b, part in rough)
        centered = square - total * total / count
    if near:
        mean = total / count
        centered = sum((b.double() - mean).square_().sum().item() for b in x.split(BLOCK))
    return (float(count), 0.0, zeros, total, square, centered, absmax)


def block_square_sum(t: Tensor) -> float:
    """Sum of squares of the finite elements; what a gradient norm needs and nothing more."""
    x = flat(t.detach())
    if x.dtype == torch.float32 and x.numel():
        total = sum(_squares(b) for b in x.split(BLOCK))
        if 1e-30 < total < 1e32:
            return total
    return block_sums(t)[4]


def _squares(block: Tensor) -> float:
    """Sum of squares of a float32 block; `sum` adds in a cascade where `dot` adds in one chain.

    On a constant block of a MiB the chain is 7e-5 off with one thread, the cascade 4e-8.
    """
    buffer: Tensor | None = getattr(_scratch, "squares", None)
    if buffer is None or buffer.numel() < block.numel():
        buffer = _scratch.squares = torch.empty(
            max(block.numel(), 1 << 12), dtype=torch.float32, device="cpu"
        )
    return torch.mul(block, block, out=buffer[: block.numel()]).sum().item()


def _zeros(block: Tensor) -> int:
    """How many elements are zero; numpy counts booleans tenfold faster than torch."""
    values = block.numpy()
    buffer: NDArray[np.bool_] | None = getattr(_scratch, "buffer", None)
    if buffer is None or buffer.size < values.size:
        buffer = _scratch.buffer = np.empty(max(values.size, 1 << 12), dtype=np.bool_)
    return int(np.count_nonzero(np.equal(values, 0, out=buffer[: values.size])))


def _wide(blocks: tuple[Tensor, ...], count: int) -> tuple[float, ...]:
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
