"""A tensor in host memory -> its raw sums, magnitude counts and silent channels.

One compiled pass where `_host.c` was built and the tensor is float32 (halves are widened, which is
exact), torch operations elsewhere. Must never know sites, steps or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.measure.blocks import block_square_sum, block_sums, flat
from gradscope.measure.histogram import fast_histogram, sample_stride

try:
    from gradscope.measure import _host as compiled
except ImportError:  # built without a C compiler
    compiled = None  # type: ignore[assignment]

PLAIN = (Tensor, nn.Parameter)
HALVES = (torch.float16, torch.bfloat16)


def raw_sums(
    t: Tensor, counts: NDArray[np.int32] | None = None, limit: int = 1 << 62
) -> tuple[float, ...]:
    """The sums `RAW` of a real floating-point tensor of any shape and dtype on the CPU.

    `counts` (`BINS` int32, or None) gets the magnitude counts of at most about `limit` elements
    added, evenly spread.
    """
    x = _plain(t)
    if _readable(x):
        count = x.numel()
        return compiled.sums(x.data_ptr(), count, counts, sample_stride(count, limit))
    if counts is not None:
        counts += fast_histogram(x, limit).astype(np.int32)
    return block_sums(x)


def square_sum(t: Tensor) -> float:
    """Sum of squares of the finite elements; what a gradient norm needs and nothing more."""
    return square_sums([t])[0]


def square_sums(tensors: Sequence[Tensor]) -> list[float]:
    """`square_sum` of many tensors at once."""
    flats = [_plain(t) for t in tensors]
    if all(_readable(x) for x in flats):
        return compiled.square_sums([x.data_ptr() for x in flats], [x.numel() for x in flats])
    return [block_square_sum(x) for x in flats]


def products(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """a.a, b.b and a.b of two host tensors of one shape, added up in float64."""
    x, y = a.contiguous(), b.contiguous()
    if _readable(x) and _readable(y):
        return compiled.products(x.data_ptr(), y.data_ptr(), x.numel())
    x, y = a.reshape(-1).double(), b.reshape(-1).double()
    return (torch.dot(x, x).item(), torch.dot(y, y).item(), torch.dot(x, y).item())


def difference_square_sum(a: Tensor, b: Tensor) -> float:
    """Sum of squares of a - b, of two host tensors of one shape and dtype, added up in float64."""
    x, y = a.contiguous(), b.contiguous()
    if _readable(x) and _readable(y):
        return compiled.difference(x.data_ptr(), y.data_ptr(), x.numel())
    return (a.double() - b.double()).square().sum().item()


def silent_channels(t: Tensor, dim: int) -> int | None:
    """How many channels (dimension `dim`) are zero throughout; None where the pass does not apply."""
    if not _readable(t) or not t.is_contiguous():
        return None
    outer, inner = math.prod(t.shape[:dim]), math.prod(t.shape[dim + 1 :])
    return compiled.silent_channels(t.data_ptr(), outer, t.shape[dim], inner)


def _plain(t: Tensor) -> Tensor:
    """The elements dense in memory, halves widened."""
    x = t if t.is_contiguous() else flat(t.detach())
    return x.detach().float() if x.dtype in HALVES else x


def _readable(x: Tensor) -> bool:
    """Whether the compiled pass may read the memory of `x`: float32 that is what it seems to be.

    Subclasses and traced tensors may have no memory of their own, and some views negate it when read.
    """
    return (
        compiled is not None
        and x.dtype is torch.float32
        and type(x) in PLAIN
        and not x.is_neg()
        and (x.data_ptr() != 0 or x.numel() == 0)
    )
