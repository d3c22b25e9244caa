"""Networks at initialisation -> how gradients along a line of inputs decorrelate (Balduzzi 2017).

Must never know files or figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.schema import GradScopeError
from gradscope.units import at_rest
from gradscope.units.calls import tensors_in


@dataclass(frozen=True)
class Shattering:
    """Autocorrelation of the gradient along the line, one row per network.

    Shapes: `lag` (in grid points) and `distance` (in units of the input) (lags,), `seed` and
    `coactivation` (networks,), `curves` (networks, lags). `coactivation` is the share of the last
    ReLUs that are open for both of two inputs, averaged over all pairs: 1/4 is what the rates of
    Balduzzi et al. assume; NaN for networks without a module `nn.ReLU`.
    """

    lag: np.ndarray
    distance: np.ndarray
    seed: np.ndarray
    curves: np.ndarray
    coactivation: np.ndarray

    @property
    def autocorrelation(self) -> np.ndarray:
        """The mean curve over the networks, (lags,)."""
        return np.asarray(np.nanmean(self.curves, axis=0))

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table `shattering`, one entry per network and lag."""
        networks, lags = self.curves.shape
        return {
            "seed": np.repeat(self.seed, lags),
            "lag": np.tile(self.lag, networks),
            "distance": np.tile(self.distance, networks),
            "autocorrelation": self.curves.ravel(),
            "coactivation": np.repeat(self.coactivation, lags),
        }


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

    `build(seed)` gives a freshly initialised network, for seeds 0 .. seeds - 1; its inputs are
    t * direction, shape (points, *direction.shape), `direction` being the number 1 (shape (1,)) by
    default. Networks run in training mode, so that batch normalisation uses the grid's own
    statistics. Of several outputs the first counts. GradScopeError for impossible numbers.
    """
    if not 1 <= lags < points or seeds < 1:
        raise GradScopeError(
            f"lags={lags} must lie below points={points}, and seeds be at least 1."
        )
    line = torch.ones(1) if direction is None else direction
    grid = torch.linspace(*span, points)
    inputs = grid.reshape(-1, *(1,) * line.dim()) * line
    found = [_along(build(seed), inputs, line) for seed in range(seeds)]
    lag = np.arange(lags)
    step = (span[1] - span[0]) / (points - 1)
    return Shattering(
        lag,
        lag * step,
        np.arange(seeds),
        np.array([autocorrelation(gradient, lags) for gradient, _ in found]),
        np.array([share for _, share in found]),
    )


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation at lags 0..lags-1 of one series, about its mean; NaN for a constant one."""
    centred = values - values.mean()
    power = float(centred @ centred)
    if power == 0:
        return np.full(lags, np.nan)
    return np.array([float(centred[: len(centred) - k] @ centred[k:]) / power for k in range(lags)])


def _along(model: nn.Module, inputs: Tensor, line: Tensor) -> tuple[np.ndarray, float]:
    """The gradient along the line, (points,), and the co-activation of the last ReLU."""
    last: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> None:
        last[:] = [output.detach() > 0]

    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(keep) for module in relus]
    leaf = inputs.clone().requires_grad_()
    try:
        with at_rest(model), torch.enable_grad():
            model.train()
            output = next(tensors_in(model(leaf)))
            (gradient,) = torch.autograd.grad(output.sum(), leaf)
    finally:
        for handle in handles:
            handle.remove()
    along = (gradient * line).flatten(1).sum(dim=1).double().numpy()
    return along, _coactivation(last[0]) if last else float("nan")


def _coactivation(is_open: Tensor) -> float:
    """Share of units open for both of two inputs, mean over distinct pairs. Shape (inputs, ...)."""
    on = is_open.flatten(1).double()
    count = len(on)
    both = float(on.sum(dim=0).square().sum() - on.sum())
    return both / (count * (count - 1) * on.shape[1])


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
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            branch = layer(self.relu(norm(x)))
            x = x + self.beta * branch if self.residual else branch
        out: Tensor = self.last(x)
        return out
