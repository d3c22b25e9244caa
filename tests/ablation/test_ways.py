"""Ways of the gradient: exact where algebra says what must come out."""

import numpy as np
import pytest
import torch
from torch import nn

from gradscope import models
from gradscope.ablation import LineNet, feature_reuse, head_share, path_profile, shattering
from gradscope.schema import GradScopeError

torch.set_num_threads(1)


class _Scaled(nn.Module):
    """y = x + c x with c = 0.5: a path of length k carries 0.5^k."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.linear.weight)
        self.linear.weight.data *= 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x)


def test_path_profile_of_scaled_identities() -> None:
    model = nn.Sequential(*(_Scaled() for _ in range(4)))
    batch = (torch.ones(2, 3), torch.zeros(2))
    result = path_profile(model, batch, lambda out, _: out.sum(), draws=3)
    assert np.allclose(result.gradient, np.sqrt(6) * 0.5 ** np.arange(5))
    assert np.allclose(result.paths, np.array([1, 4, 6, 4, 1]) / 16)
    expected = np.array([1, 2, 1.5, 0.5, 0.0625])
    assert np.allclose(result.contribution, expected / expected.sum())
    assert (result.draws, result.samples) == (3, 2)
    assert np.allclose(result.gradient_low, result.gradient)
    told: list[tuple[int, int]] = []
    single = path_profile(
        model, batch, lambda out, _: out.sum(), draws=1, on_length=lambda k, n: told.append((k, n))
    )
    assert told == [(k, 5) for k in range(1, 6)]
    assert np.isnan(single.gradient_low).all(), "one draw has no interval"


def test_path_profile_runs_on_a_resnet_and_refuses_a_plain_net() -> None:
    batch = (torch.randn(2, 1, 16, 16), torch.tensor([0, 1]))
    result = path_profile(models.build("resnet20"), batch, draws=2)
    assert len({len(v) for v in result.columns().values()}) == 1
    assert (result.gradient > 0).all()
    with pytest.raises(GradScopeError, match="single path"):
        path_profile(models.build("plain20"), batch)


def test_feature_reuse_reads_the_right_channels() -> None:
    model = models.build("densenet22")
    conv = model.block2[2].conv1
    start = model.block2[1].conv1.in_channels
    with torch.no_grad():
        for layer in model.block2:
            layer.conv1.weight.fill_(0.25)
        conv.weight[:, start:] = -2.0
    grid = feature_reuse(model).matrix("block2")
    assert grid[2, 2] == 2.0
    assert grid[1, 2] == 0.25
    assert np.isnan(grid[3, 2])
    with pytest.raises(GradScopeError, match="dense"):
        feature_reuse(models.build("resnet20"))


def test_heads_feed_only_what_lies_below_them() -> None:
    model = models.build("inception_small").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = (torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]))
    table = head_share(model, batch).columns()
    assert set(table["head"]) == {"main", "aux1", "aux2"}

    def norm(site: str, head: str) -> float:
        return float(table["norm"][(table["layer"] == site) & (table["head"] == head)][0])

    assert norm("conv1", "aux1") > 0
    assert norm("conv1", "aux2") > 0
    assert norm("inception4d.branch1.conv", "aux1") == 0
    assert norm("inception4b.branch1.conv", "aux1") == 0
    assert norm("inception4b.branch1.conv", "aux2") > 0
    shares = table["share"][table["layer"] == "conv1"]
    assert shares.sum() == pytest.approx(1)
    assert set(table["weight"][table["head"] == "aux1"]) == {0.3}
    mains = table["cosine"][(table["head"] == "main") & np.isfinite(table["cosine"])]
    assert np.allclose(mains, 1)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_a_heavier_head_has_the_larger_share() -> None:
    model = models.build("inception_small").eval()
    batch = (torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]))
    light, heavy = (
        head_share(model, batch, weights={"aux1": weight}).columns() for weight in (0.3, 0.6)
    )
    own = light["head"] == "aux1"
    assert np.allclose(heavy["norm"][own], 2 * light["norm"][own])
    at = own & (light["layer"] == "conv1")
    assert heavy["share"][at][0] > light["share"][at][0]


def mean_at(depth: int, kind: str, lag: int = 1, **options: float) -> float:
    result = shattering(lambda seed: LineNet(depth, kind, seed=seed, **options), seeds=6)
    assert result.autocorrelation[0] == pytest.approx(1)
    assert result.curves.shape == (6, 16)
    return float(result.autocorrelation[lag])


def test_plain_nets_with_normalisation_shatter_and_residual_nets_resist() -> None:
    assert mean_at(1, "plain_bn") > 0.9
    assert abs(mean_at(24, "plain_bn")) < 0.1
    assert 0.4 < mean_at(24, "residual_bn") < mean_at(24, "residual_bn", beta=0.1)


def test_without_normalisation_two_inputs_open_the_same_relus() -> None:
    """The rates of the paper assume 1/4; normalisation brings it about, depth alone undoes it."""

    def coactivation(depth: int, kind: str) -> float:
        nets = shattering(lambda seed: LineNet(depth, kind, seed=seed), seeds=4)
        return float(nets.coactivation.mean())

    assert coactivation(24, "plain_bn") == pytest.approx(0.25, abs=0.02)
    assert coactivation(24, "plain") > 0.4
    assert mean_at(24, "plain") > 0.5


class _Square(nn.Module):
    """f(x) = sum of x^2 / 2, whose gradient along the line is the line itself."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (x**2 / 2).sum(dim=1, keepdim=True), None


def test_the_gradient_along_a_line_by_algebra() -> None:
    direction = torch.tensor([1.0, 2.0])
    result = shattering(lambda _: _Square(), points=9, lags=3, seeds=1, direction=direction)
    t = np.arange(-4.0, 5.0)
    wanted = [float(t[: 9 - k] @ t[k:]) / float(t @ t) for k in range(3)]
    assert np.allclose(result.curves[0], wanted)
    assert np.allclose(result.distance, [0, 0.5, 1])
    assert np.isnan(result.coactivation).all()
    rows = result.columns()
    assert {len(values) for values in rows.values()} == {3}


def test_coactivation_counts_pairs() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 5.0]))
    # On the grid -2, -1, 0, 1, 2 the first ReLU is open for two inputs: 1 of 10 pairs; the other
    # for all: 10 of 10.
    result = shattering(lambda _: model, points=5, lags=2, seeds=1)
    assert result.coactivation[0] == pytest.approx(11 / 20)
