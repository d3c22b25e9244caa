"""Awkward tensors through `track`, every statistic against a float64 reference worked out with numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statistics import AWKWARD, STATISTICS, reference
from torch import nn

from gradscope.measure import BINS, LOWEST, underflow_share
from gradscope.store import open_run

Row = dict[str, float]

SINGLE = {name: t for name, t in AWKWARD.items() if t.dtype != torch.float64}
"""Tables hold float32: what only float64 can hold is left to the tests of the measuring."""

WHOLE = 4096
"""Elements up to which a magnitude histogram reads all of a tensor."""


class Give(torch.autograd.Function):
    """Returns a given tensor as it is, with its strides, as if it had been computed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.like = x
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        return torch.zeros_like(ctx.like), None


class Gives(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Give.apply(x, self.value)


class Many(nn.Module):
    """A module for each tensor, whose output it is; their gradients are given from outside."""

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.each = nn.ModuleDict({f"_{name}": Gives(t) for name, t in values.items()})

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [module(self.scale * x) for module in self.each.values()]


def as_stored(value: float) -> float:
    """As tables hold it: the norm of the largest floats is beyond what a float32 can say."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def agree(row: Row, expected: Row, prefix: str = "") -> None:
    for name in STATISTICS:
        floor = 1e-12 * abs(expected.get("absmax", 0.0) or 0.0) if name in ("mean", "std") else 0.0
        value = as_stored(expected[name])
        found = row[prefix + name]
        assert found == pytest.approx(value, rel=1e-5, abs=floor + 2e-45, nan_ok=True), name


def passed_through(
    track: Callable[..., Any], values: dict[str, torch.Tensor], gradients: list[torch.Tensor]
) -> Any:
    model = Many(values)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        torch.autograd.backward(model(torch.ones(())), gradients)
        optimizer.step()
    return scope


def test_outputs_and_their_gradients(track, rows) -> None:
    values = dict(SINGLE)
    gradients = {name: t.flip(0) if t.dim() else t for name, t in values.items()}
    scope = passed_through(track, values, list(gradients.values()))
    found = rows(scope, "outputs")
    for name, t in values.items():
        row = found[0, f"each._{name}"]
        agree(row, reference(t))
        agree(row, reference(gradients[name]), "grad_")
        assert row["sampled_fraction"] == 1.0


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_outputs_of_any_scale_and_shape(tmp_path_factory, seed, kind) -> None:
    import gradscope

    generator = torch.Generator().manual_seed(seed)
    values = {}
    for number in range(12):
        shape = torch.randint(0, 9, (int(torch.randint(0, 4, (), generator=generator)),)).tolist()
        t = torch.randn(shape, generator=generator).double()
        t *= 10.0 ** float(torch.empty(()).uniform_(-42, 31, generator=generator))
        t = t.to(getattr(torch, kind))
        values[f"n{number}"] = t.transpose(0, -1) if t.dim() > 1 and number % 2 else t

    def start(model: nn.Module) -> Any:
        root = tmp_path_factory.mktemp("runs")
        return gradscope.track(model, run="run", root=root, every=1, quiet=True)

    scope = passed_through(start, values, list(values.values()))
    run = open_run(scope.path)
    table = run.read("outputs")
    index = {run.sites[s].name: i for i, s in enumerate(table["site"].tolist())}
    for name, t in values.items():
        row = {key: column[index[f"each._{name}"]].item() for key, column in table.items()}
        agree(row, reference(t))
        agree(row, reference(t), "grad_")


def test_histograms_and_the_shares_that_half_precision_loses(track) -> None:
    """Counts per exponent by numpy's frexp, of all elements where the row says so."""
    values = {n: t for n, t in SINGLE.items() if 0 < t.numel() <= WHOLE}
    scope = passed_through(track, values, list(values.values()))
    run = open_run(scope.path)
    table = run.read("histograms")
    for name, t in values.items():
        site = next(i for i, s in enumerate(run.sites) if s.name == f"each._{name}")
        x = t.double().abs().numpy().ravel()
        x = x[np.isfinite(x) & (x != 0)]
        exponents, counts = np.unique(np.frexp(x)[1] - 1, return_counts=True)
        for of in (0, 1):
            here = (table["site"] == site) & (table["of"] == of)
            found = dict(zip(table["exponent"][here], table["count"][here], strict=True))
            assert found == dict(zip(exponents, counts, strict=True)), name
            assert (table["sampled_fraction"][here] == 1.0).all()
            lost = np.zeros(BINS, dtype=np.int64)
            lost[table["exponent"][here] - LOWEST] = table["count"][here]
            for dtype in ("float16", "bfloat16"):
                half = torch.from_numpy(x).float().to(getattr(torch, dtype)).double().numpy()
                tiny = torch.finfo(getattr(torch, dtype)).tiny
                shares = ((half == 0).mean(), (half < tiny).mean()) if x.size else (np.nan,) * 2
                assert underflow_share(lost, dtype) == pytest.approx(shares, abs=1e-3, nan_ok=True)


def test_dead_channels(track, rows) -> None:
    generator = torch.Generator().manual_seed(3)
    values = {}
    for name, shape, channels in (
        ("images", (6, 8, 4, 4), 1),
        ("features", (6, 8), 1),
        ("sequences", (6, 5, 8), 2),
    ):
        t = torch.randn(shape, generator=generator).relu_()
        t.index_fill_(channels, torch.tensor([1, 4, 6]), 0.0)
        values[name] = t
    values["channels-last"] = values["images"].contiguous(memory_format=torch.channels_last)
    values["one alive once"] = values["images"].index_fill(1, torch.tensor([6]), 0.0)
    values["one alive once"][5, 6, 3, 3] = 1.0
    scope = passed_through(track, values, list(values.values()))
    found = rows(scope, "outputs")
    for name in values:
        expected = 2 / 8 if name == "one alive once" else 3 / 8
        assert found[0, f"each._{name}"]["dead_fraction"] == pytest.approx(expected, rel=1e-5)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, weight_decay=1e-3),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_parameters_with_any_gradient_and_the_update_applied(track, rows, kind) -> None:
    """Each awkward tensor as a parameter's gradient: its statistics, and the change really made."""
    names = [n for n, t in SINGLE.items() if t.dtype == torch.float32]
    gradients = [SINGLE[n].clone(memory_format=torch.preserve_format) for n in names]
    torch.manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.randn(g.shape)) for g in gradients])
    optimizer = OPTIMIZERS[kind](model.parameters())
    with track(model) as scope:
        for _ in range(2):
            before = [p.detach().double().numpy().copy() for p in model]
            for parameter, gradient in zip(model, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        after = [p.detach().double().numpy() for p in model]
    found = rows(scope, "parameters")
    for i, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        row, expected = found[1, str(i)], reference(gradient)
        for statistic in ("norm", "rms", "absmax", "nonfinite"):
            value = as_stored(expected[statistic])
            assert row[f"grad_{statistic}"] == pytest.approx(
                value, rel=1e-5, abs=2e-45, nan_ok=True
            ), (name, statistic)
        with np.errstate(all="ignore"):
            weight = float(np.linalg.norm(before[i][np.isfinite(before[i])]))
            ratio = float(np.linalg.norm((after[i] - before[i]).ravel())) / weight if weight else 0
        if np.isfinite(before[i]).all() and before[i].size:
            assert row["weight_norm"] == pytest.approx(weight, rel=1e-5), name
        if math.isfinite(ratio) and weight:
            assert row["update_ratio"] == pytest.approx(as_stored(ratio), rel=1e-5), name


def test_subnormal_bins_reach_the_run(track) -> None:
    scope = passed_through(track, {"tiny": torch.full((5,), 2.0**-149)}, [torch.ones(5)])
    table = open_run(scope.path).read("histograms")
    assert table["exponent"][table["of"] == 0].tolist() == [LOWEST]
