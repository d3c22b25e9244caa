"""Networks at initialisation -> how gradients along a line of inputs decorrelate (Balduzzi 2017).

Must never know files or figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.schema import GradScopeError
from gradscope.units import at_rest


@dataclass(frozen=True)
class Shattering:
    """One entry per lag: mean autocorrelation of the gradient over networks, and its 95 % interval.

    `lag` counts grid points; `distance` is the lag in units of the input.
    """

    lag: np.ndarray
    distance: np.ndarray
    autocorrelation: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def shattering(
    build: Callable[[int], nn.Module],
    *,
    points: int = 256,
    span: tuple[float, float] = (-2.0, 2.0),
    lags: int = 16,
    seeds: int = 20,
    direction: Tensor | None = None,
) -> Shattering:
    """Autocorrelation of d(sum of outputs)/d(input) over a one-dimensional grid of inputs.

    `build(seed)` gives a freshly initialised network; its inputs are t * direction, shape
    (points, *direction.shape), `direction` being the number 1 (shape (1,)) by default. Networks run
    in training mode, so that batch normalisation uses the grid's own statistics.
    """
    if not 1 <= lags < points or seeds < 1:
        raise GradScopeError(
            f"lags={lags} must lie below points={points}, and seeds be at least 1."
        )
    line = torch.ones(1) if direction is None else direction
    grid = torch.linspace(*span, points)
    inputs = grid.reshape(-1, *(1,) * line.dim()) * line
    curves = []
    for seed in range(seeds):
        model = build(seed)
        leaf = inputs.clone().requires_grad_()
        with at_rest(model), torch.enable_grad():
            model.train()
            (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
        along = (gradient * line).flatten(1).sum(dim=1).double().numpy()
        curves.append(autocorrelation(along, lags))
    table = np.array(curves)
    mean = np.nanmean(table, axis=0)
    half = 1.96 * np.nanstd(table, axis=0) / np.sqrt(seeds)
    lag = np.arange(lags)
    step = (span[1] - span[0]) / (points - 1)
    return Shattering(lag, lag * step, mean, mean - half, mean + half)


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation at lags 0..lags-1 of one series, about its mean; NaN for a constant one."""
    centred = values - values.mean()
    power = float(centred @ centred)
    if power == 0:
        return np.full(lags, np.nan)
    return np.array([float(centred[: len(centred) - k] @ centred[k:]) / power for k in range(lags)])


class LineNet(nn.Module):
    """Balduzzi's network from numbers to numbers: (N, 1) -> (N, 1), `depth` ReLU layers of `width`.

    `kind` is `plain`, `plain_bn`, `residual` or `residual_bn` (each layer with its own shortcut,
    x + W relu(x), batch normalisation before the ReLU; `beta` scales the branch).
    """

    def __init__(
        self, depth: int, kind: str = "plain", *, width: int = 200, beta: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if kind not in ("plain", "plain_bn", "residual", "residual_bn"):
            raise GradScopeError(
                f"kind={kind!r} is not known: plain, plain_bn, residual or residual_bn."
            )
        self.residual = kind.startswith("residual")
        self.beta = beta
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(1, width)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.last = nn.Linear(width, 1)
            for layer in (self.first, *self.layers, self.last):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)
        has_norm = kind.endswith("_bn")
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width) if has_norm else nn.Identity() for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            branch = layer(torch.relu(norm(x)))
            x = x + self.beta * branch if self.residual else branch
        out: Tensor = self.last(x)
        return out
