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
    assert result.effective_range(0.6) == (1, 2)


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
        return float(table["norm"][(table["site"] == site) & (table["head"] == head)][0])

    assert norm("conv1", "aux1") > 0
    assert norm("conv1", "aux2") > 0
    assert norm("inception4d.branch1.conv", "aux1") == 0
    assert norm("inception4b.branch1.conv", "aux1") == 0
    assert norm("inception4b.branch1.conv", "aux2") > 0
    shares = table["share"][table["site"] == "conv1"]
    assert shares.sum() == pytest.approx(1)
    mains = table["cosine"][(table["head"] == "main") & np.isfinite(table["cosine"])]
    assert np.allclose(mains, 1)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_plain_nets_shatter_and_residual_nets_resist() -> None:
    def curve(depth: int, kind: str) -> float:
        result = shattering(lambda seed: LineNet(depth, kind, seed=seed), seeds=6)
        assert result.autocorrelation[0] == pytest.approx(1)
        return float(result.autocorrelation[4])

    shallow, deep = curve(1, "plain_bn"), curve(24, "plain_bn")
    assert shallow > 0.5
    assert abs(deep) < 0.1
    assert curve(24, "residual_bn") > 0.12
