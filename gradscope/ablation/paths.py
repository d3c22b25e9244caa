"""A residual network and a batch -> gradient by path length (Veit et al. 2016, section 4.2).

Must never know files or figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.ablation.intervals import paired_mean
from gradscope.schema import GradScopeError
from gradscope.units import Gated, Unit, at_rest, find_units, replaced, unwrapped


@dataclass(frozen=True)
class PathProfile:
    """One entry per path length 0..n (units crossed through their branch).

    `paths`: share of all 2^n paths with this length. `gradient`: mean norm of the gradient at the
    network's input when it passes only such a path, with its 95 % interval (bootstrap over draws) in
    `gradient_low`, `gradient_high` (NaN where a single draw is all there is). `contribution`:
    paths x gradient, summing to 1. `draws` and `samples`: how many choices of units, and inputs.
    """

    length: np.ndarray
    paths: np.ndarray
    gradient: np.ndarray
    gradient_low: np.ndarray
    gradient_high: np.ndarray
    contribution: np.ndarray
    draws: int
    samples: int

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table `paths`, one entry per length."""
        same = np.ones(len(self.length), dtype=np.int64)
        return {f.name: same * getattr(self, f.name) for f in fields(self)}


class _Switch(torch.autograd.Function):
    """Passes values on; passes the gradient on only while its switch is open."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, is_open: Callable[[], bool]) -> Tensor:
        ctx.is_open = is_open
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        return (gradients[0] if ctx.is_open() else None), None


def path_profile(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss_fn: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    *,
    draws: int = 20,
    lengths: list[int] | None = None,
    seed: int = 0,
    on_length: Callable[[int, int], None] | None = None,
) -> PathProfile:
    """Gradient norms by path length: forward whole, backward through k branches only.

    For each length k, `draws` random choices of k units pass the gradient only through their
    branch, all others only through their shortcut. Eval mode; the model is left as it was. Lengths
    not asked for are NaN (and count as 0 in the contribution). `on_length(done, all)` is told after
    each length. GradScopeError where there is no residual unit or the input takes no gradient.
    """
    inner = unwrapped(model)
    inputs, target = batch
    if not inputs.is_floating_point():
        raise GradScopeError("The inputs are integers and take no gradient: pass floating inputs.")
    units = [u for u in find_units(inner, example=inputs[:2]) if _is_gated(u)]
    if not units:
        raise GradScopeError(f"{type(inner).__name__} has no residual unit: it has a single path.")
    through: set[int] = set()
    gates = {u.name: Gated(_gate(n, through)) for n, u in enumerate(units)}
    n = len(units)
    norms = np.full((n + 1, draws), np.nan)
    rng = np.random.default_rng(seed)
    leaf = inputs.detach().clone().requires_grad_()
    with at_rest(inner), torch.enable_grad(), replaced(inner, gates):
        loss = loss_fn(inner(leaf), target)
        chosen = list(range(n + 1)) if lengths is None else lengths
        for done, k in enumerate(chosen, start=1):
            for draw in range(draws):
                through.clear()
                through.update(int(i) for i in rng.choice(n, k, replace=False))
                (g,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
                norms[k, draw] = 0.0 if g is None else float(g.double().norm())
            if on_length is not None:
                on_length(done, len(chosen))
    return _profile(norms, len(inputs))


def _is_gated(unit: Unit) -> bool:
    return unit.kind == "residual" and unit.modules == (unit.name,) and unit.way != "zero_branch"


def _gate(number: int, through: set[int]) -> Callable[[str, Tensor], Tensor]:
    def gate(side: str, value: Tensor) -> Tensor:
        return _Switch.apply(value, lambda: (number in through) == (side == "branch"))  # type: ignore[no-any-return]

    return gate


def _profile(norms: np.ndarray, samples: int) -> PathProfile:
    n, draws = norms.shape[0] - 1, norms.shape[1]
    mean, low, high = paired_mean(np.zeros(draws), norms)
    if draws < 2:
        low, high = np.full(n + 1, np.nan), np.full(n + 1, np.nan)
    log_count = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)
    ]
    paths = np.exp(np.array(log_count) - n * math.log(2))
    product = paths * np.nan_to_num(mean)
    total = product.sum()
    share = product / total if total > 0 else product
    return PathProfile(np.arange(n + 1), paths, mean, low, high, share, draws, samples)
