"""A CUDA tensor -> its raw sums and its magnitude counts in device buffers, by Triton, with no wait.

One kernel reads the tensor once and merges per-program partial sums in float64 by a second, tiny one;
nothing depends on a value, so nothing synchronises. Must never know sites, steps or files.

Moments are shifted: each program takes mean and centered squares of its own tile (two passes over
registers, not over memory), and tiles are merged by Chan's formula, so that no difference of large
sums is taken. Float64 accumulators hold squares of the whole float32 range.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

from gradscope.measure.blocks import flat
from gradscope.measure.histogram import BINS

SLOTS = 512
"""Bins of the kernel's own counts: the power of two above `BINS`."""

BLOCK = 2048
"""Elements per tile."""

MAX_PROGRAMS = 1024
"""Programs of one launch; larger tensors give each of them several tiles."""

PARTS = 8
"""Columns of a partial row: `RAW` and one spare, for aligned stores."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def available() -> bool:
    """Whether Triton can be imported."""
    return triton is not None


def fits(t: Tensor) -> bool:
    """Whether the kernel takes this tensor: real, floating, dense, of any shape, fewer than 2^31 elements."""
    return triton is not None and t.dtype in DTYPES and 0 < t.numel() < 2**31


def fused_sums_into(t: Tensor, row: Tensor, counts: Tensor | None = None) -> None:
    """Write the sums `RAW` of `t` into `row` (7 float64 elements on the device of `t`).

    `counts`: None, or `BINS` int32 elements there, to which the magnitude counts are added.
    """
    x = flat(t.detach())
    tiles = -(-x.numel() // BLOCK)
    programs = min(tiles, MAX_PROGRAMS)
    partial = torch.empty(programs, PARTS, dtype=torch.float64, device=x.device)
    _partial_sums[programs,](
        x,
        partial,
        partial if counts is None else counts,
        x.numel(),
        -(-tiles // programs),
        COUNTED=counts is not None,
        TILE=BLOCK,
        WIDTH=PARTS,
        OCCUPIED=BINS,
        WIDE=SLOTS,
    )
    _merge[1,](partial, row, programs, ROWS=_power_of_two(programs), WIDTH=PARTS)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _partial_sums(
        x: tl.tensor,
        partial: tl.tensor,
        counts: tl.tensor,
        n: tl.tensor,
        tiles: tl.tensor,
        COUNTED: tl.constexpr,
        TILE: tl.constexpr,
        WIDTH: tl.constexpr,
        OCCUPIED: tl.constexpr,
        WIDE: tl.constexpr,
    ) -> None:
        program = tl.program_id(0).to(tl.int64)
        finite = tl.zeros((), tl.float64)
        bad = tl.zeros((), tl.float64)
        zeros = tl.zeros((), tl.float64)
        total = tl.zeros((), tl.float64)
        square = tl.zeros((), tl.float64)
        centered = tl.zeros((), tl.float64)
        absmax = tl.zeros((), tl.float64)
        for i in range(tiles):
            at = (program * tiles + i) * TILE + tl.arange(0, TILE)
            inside = at < n
            v = tl.load(x + at, mask=inside, other=0.0)
            w = v.to(tl.float64)
            good = inside & (w - w == 0.0)
            w = tl.where(good, w, 0.0)
            number = tl.sum(good.to(tl.int32), 0).to(tl.float64)
            s = tl.sum(w, 0)
            mean = s / tl.maximum(number, 1.0)
            away = tl.where(good, w - mean, 0.0)
            # Chan, Golub and LeVeque (1979): merge (finite, total, centered) with this tile's.
            gap = mean - total / tl.maximum(finite, 1.0)
            both = tl.maximum(finite + number, 1.0)
            centered += tl.sum(away * away, 0) + gap * gap * (finite * number / both)
            finite += number
            bad += tl.sum((inside & (~good)).to(tl.int32), 0).to(tl.float64)
            zeros += tl.sum((good & (w == 0.0)).to(tl.int32), 0).to(tl.float64)
            total += s
            square += tl.sum(w * w, 0)
            absmax = tl.maximum(absmax, tl.max(tl.abs(w), 0))
            if COUNTED:
                bits = v.to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF
                # Of a subnormal number the exponent is the place of its leading bit.
                leading = ((bits.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255) - 127
                slot = tl.where(bits < 0x800000, leading, (bits >> 23) + 22)
                slot = tl.minimum(tl.maximum(slot, 0), OCCUPIED - 1)
                found = tl.histogram(slot, WIDE, mask=good & (w != 0.0))
                bins = tl.arange(0, WIDE)
                tl.atomic_add(counts + bins, found, mask=found > 0, sem="relaxed")
        row = partial + program * WIDTH
        tl.store(row, finite + bad)
        tl.store(row + 1, bad)
        tl.store(row + 2, zeros)
        tl.store(row + 3, total)
        tl.store(row + 4, square)
        tl.store(row + 5, centered)
        tl.store(row + 6, absmax)

    @triton.jit  # type: ignore[untyped-decorator]
    def _merge(
        partial: tl.tensor, row: tl.tensor, n: tl.tensor, ROWS: tl.constexpr, WIDTH: tl.constexpr
    ) -> None:
        at = tl.arange(0, ROWS)
        inside = at < n
        start = partial + at * WIDTH
        count = tl.load(start, mask=inside, other=0.0)
        bad = tl.load(start + 1, mask=inside, other=0.0)
        total = tl.load(start + 3, mask=inside, other=0.0)
        finite = count - bad
        everything = tl.sum(total, 0)
        mean = everything / tl.maximum(tl.sum(finite, 0), 1.0)
        gap = tl.where(finite > 0, total / tl.maximum(finite, 1.0) - mean, 0.0)
        centered = tl.load(start + 5, mask=inside, other=0.0) + gap * gap * finite
        tl.store(row, tl.sum(count, 0))
        tl.store(row + 1, tl.sum(bad, 0))
        tl.store(row + 2, tl.sum(tl.load(start + 2, mask=inside, other=0.0), 0))
        tl.store(row + 3, everything)
        tl.store(row + 4, tl.sum(tl.load(start + 4, mask=inside, other=0.0), 0))
        tl.store(row + 5, tl.sum(centered, 0))
        tl.store(row + 6, tl.max(tl.load(start + 6, mask=inside, other=0.0), 0))
