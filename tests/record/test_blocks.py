"""Shortcut and branch gradients of residual units against vector-Jacobian products done apart."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import gradscope.models
from gradscope.store import open_run


class Unit(nn.Module):
    def __init__(self, channels: int, projection: bool, inplace: bool, activation: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1) if projection else nn.Identity()
        self.activation = activation
        self.inplace = inplace

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv2(self.relu(self.bn(self.conv1(x))))
        around = self.shortcut(x)
        if self.inplace:
            out += around
        else:
            out = around + out
        return self.relu(out) if self.activation else out


@pytest.mark.parametrize("activation", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("projection", [False, True])
def test_both_gradients_are_autograds_own(track, rows, projection, inplace, activation) -> None:
    torch.manual_seed(0)
    unit = Unit(3, projection, inplace, activation)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace), unit, nn.Flatten())
    x, weights = torch.randn(4, 3, 6, 6), torch.randn(4, 108)
    at = F.relu(model[0](x)).detach().requires_grad_()
    sides = at.detach().requires_grad_(), at.detach().requires_grad_()
    inside = F.relu(F.batch_norm(unit.conv1(sides[1]), None, None, training=True))
    total = unit.shortcut(sides[0]) + unit.conv2(inside)
    total = F.relu(total) if activation else total
    skip, branch = torch.autograd.grad((total.flatten(1) * weights).sum(), sides)
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        (model(x) * weights).sum().backward()
        optimizer.step()
    row = rows(scope, "blocks")[0, "2"]
    a, b = float(skip.double().norm()), float(branch.double().norm())
    cosine = float((skip.double() * branch.double()).sum()) / (a * b)
    assert row["skip_grad_norm"] == pytest.approx(a, rel=1e-5)
    assert row["branch_grad_norm"] == pytest.approx(b, rel=1e-5)
    assert row["skip_share"] == pytest.approx(a / (a + b), rel=1e-5)
    assert row["cosine"] == pytest.approx(cosine, abs=1e-5)


def test_the_units_of_a_residual_network_in_order(track, rows) -> None:
    torch.manual_seed(0)
    model = gradscope.models.build("resnet20")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with track(model, every=2) as scope:
        for _ in range(3):
            loss = F.cross_entropy(model(torch.randn(4, 1, 16, 16)), torch.randint(0, 10, (4,)))
            loss.backward()
            optimizer.step()
    found = rows(scope, "blocks")
    assert {step for step, _ in found} == {0, 2}
    sites = sorted(
        (s for s in open_run(scope.path).sites if s.kind == "block"), key=lambda s: s.depth
    )
    names = [f"stage{stage}.{unit}" for stage in (1, 2, 3) for unit in range(3)]
    assert [s.name for s in sites] == names
    assert all(s.parameters > 0 for s in sites)
    outputs = rows(scope, "outputs")
    for name in names:
        assert 0 < found[2, name]["skip_share"] < 1
    above = outputs[0, "stage3.1"]["grad_norm"]
    row = found[0, "stage3.2"]
    parts = row["skip_grad_norm"] ** 2 + row["branch_grad_norm"] ** 2
    parts += 2 * row["cosine"] * row["skip_grad_norm"] * row["branch_grad_norm"]
    assert above == pytest.approx(parts**0.5, rel=1e-4)


@pytest.mark.parametrize(("name", "units"), [("resnet18", 8), ("mobilenet_v2", 10)])
def test_torchvisions_units_add_up(track, rows, name, units) -> None:
    """What leaves a unit through shortcut and branch is all that its predecessor receives."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with track(model) as scope:
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    found = rows(scope, "blocks")
    assert len(found) == units
    before = {"resnet18": ("layer1.1", "layer1.0"), "mobilenet_v2": ("features.3", "features.2")}
    unit, previous = before[name]
    row = found[0, unit]
    parts = row["skip_grad_norm"] ** 2 + row["branch_grad_norm"] ** 2
    parts += 2 * row["cosine"] * row["skip_grad_norm"] * row["branch_grad_norm"]
    expected = rows(scope, "outputs")[0, previous]["grad_norm"]
    assert parts**0.5 == pytest.approx(expected, rel=1e-4)


def test_a_plain_network_has_no_units(track) -> None:
    model = gradscope.models.build("plain20")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with track(model) as scope:
        model(torch.randn(2, 1, 16, 16)).sum().backward()
        optimizer.step()
    assert "blocks" not in open_run(scope.path).tables()
