"""What is recorded against autograd and float64 arithmetic done by hand."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope import GradScopeError
from gradscope.store import open_run


def norm(t: torch.Tensor) -> float:
    return float(t.detach().double().norm())


def test_parameters_and_the_update_really_applied(track, rows) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    expected = []
    with track(model) as scope:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(8, 5)), torch.randint(0, 3, (8,))).backward()
            before = model[0].weight.detach().clone()
            gradient = model[0].weight.grad.clone()
            optimizer.step()
            change = model[0].weight.detach() - before
            expected.append((gradient, norm(before), norm(change) / norm(before)))
    found = rows(scope, "parameters")
    for step, (gradient, weight, ratio) in enumerate(expected):
        row = found[step, "0.weight"]
        assert row["grad_norm"] == pytest.approx(norm(gradient), rel=1e-5)
        assert row["grad_rms"] == pytest.approx(norm(gradient) / math.sqrt(35), rel=1e-5)
        assert row["grad_absmax"] == pytest.approx(float(gradient.abs().max()), rel=1e-5)
        assert row["grad_nonfinite"] == 0
        assert row["weight_norm"] == pytest.approx(weight, rel=1e-5)
        assert row["update_ratio"] == pytest.approx(ratio, rel=2e-5)
        assert row["clip_factor"] == 1.0


class InPlace(nn.Module):
    """Batch norm and an in-place activation used twice, as in torchvision's residual blocks."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = self.relu(self.conv2(x) + x)
        return self.fc(x.mean((2, 3)))


def test_in_place_operations_change_no_number(track, rows, tmp_path) -> None:
    found = []
    for inplace in (False, True):
        torch.manual_seed(1)
        model = InPlace(inplace)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with track(model, run=f"inplace-{inplace}") as scope:
            x, y = torch.randn(6, 2, 5, 5), torch.randint(0, 3, (6,))
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        found.append(rows(scope, "outputs"))
    assert set(found[0]) == set(found[1])
    assert (0, "relu#2") in found[0]
    for key, row in found[0].items():
        for name, value in row.items():
            assert found[1][key][name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), (
                key,
                name,
            )


def test_output_gradients_are_autograds_own(track, rows) -> None:
    torch.manual_seed(2)
    model = InPlace(inplace=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(6, 2, 5, 5), torch.randint(0, 3, (6,))
    model.train()
    conv = model.conv(x).detach().requires_grad_()
    bn = F.batch_norm(conv, None, None, model.bn.weight, model.bn.bias, training=True)
    first = F.relu(bn)
    second = F.relu(model.conv2(first) + first)
    loss = F.cross_entropy(model.fc(second.mean((2, 3))), y)
    at_conv, at_bn, at_first = torch.autograd.grad(loss, [conv, bn, first])
    with track(model) as scope:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    found = rows(scope, "outputs")
    for site, gradient, value in (
        ("conv", at_conv, conv),
        ("bn", at_bn, bn),
        ("relu", at_first, first),
    ):
        row = found[0, site]
        assert row["grad_norm"] == pytest.approx(norm(gradient), rel=2e-5)
        assert row["grad_rms"] == pytest.approx(float(gradient.square().mean().sqrt()), rel=2e-5)
        assert row["norm"] == pytest.approx(norm(value), rel=2e-5)
        assert row["zero_fraction"] == pytest.approx(float((value == 0).float().mean()), abs=1e-6)
        assert row["std"] == pytest.approx(float(value.double().std(unbiased=False)), rel=2e-5)


def test_sites_are_numbered_in_order_of_execution(track) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.middle = nn.Linear(4, 4)
            self.first = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(F.relu(self.middle(F.relu(self.first(x)))))

    model = Backwards()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    for kind, suffix in (("output", ""), ("parameter", ".weight")):
        depth = {s.name: s.depth for s in open_run(scope.path).sites if s.kind == kind}
        assert depth[f"first{suffix}"] < depth[f"middle{suffix}"] < depth[f"last{suffix}"], kind


def test_a_container_that_applies_a_function_is_seen_after_it(track, rows) -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.conv(x), inplace=True)

    torch.manual_seed(0)
    model = nn.Sequential(Unit(), nn.Flatten(), nn.Linear(27, 2))
    with torch.no_grad():
        model[0].conv.bias[1] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with track(model) as scope:
        model(torch.randn(4, 1, 5, 5)).sum().backward()
        optimizer.step()
    found = rows(scope, "outputs")
    assert found[0, "0"]["dead_fraction"] == pytest.approx(1 / 3, rel=1e-5)
    assert found[0, "0"]["zero_fraction"] > 1 / 3
    assert found[0, "0.conv"]["zero_fraction"] == 0


def test_dead_units_of_inceptions_are_judged_after_the_activation(track, rows) -> None:
    """GoogLeNet's and Inception's conv units apply their ReLU as a function, in place."""
    googlenet = importlib.import_module("torchvision.models.googlenet")
    inception = importlib.import_module("torchvision.models.inception")
    torch.manual_seed(0)
    units = [
        googlenet.BasicConv2d(1, 8, kernel_size=3),
        inception.BasicConv2d(8, 8, kernel_size=3),
    ]
    model = nn.Sequential(*units, nn.Flatten(), nn.Linear(8 * 16, 2))
    with torch.no_grad():
        for unit in units:
            unit.bn.bias[2:4] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with track(model) as scope:
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(6, 1, 8, 8)).square().sum().backward()
            optimizer.step()
    found = rows(scope, "outputs")
    for site in ("0", "1"):
        assert found[3, site]["dead_fraction"] == pytest.approx(2 / 8, rel=1e-5)
        assert found[3, site]["zero_fraction"] > 2 / 8
        assert found[3, f"{site}.bn"]["zero_fraction"] == 0.0


def test_norms_at_every_step_and_the_rest_at_sampled_ones(track, rows) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    with track(model, every=3) as scope:
        for _ in range(7):
            optimizer.zero_grad()
            model(torch.randn(3, 4)).square().sum().backward()
            expected.append(norm(model.weight.grad))
            optimizer.step()
            scope.log(loss=1.0)
    found = rows(scope, "parameters")
    assert {step for step, _ in rows(scope, "outputs")} == {0, 3, 6}
    for step, value in enumerate(expected):
        assert found[step, "weight"]["grad_norm"] == pytest.approx(value, rel=1e-5)
        assert math.isnan(found[step, "weight"]["update_ratio"]) == (step % 3 != 0)


def test_clip_factor_is_after_over_before(track, rows) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        model(torch.randn(3, 4)).square().sum().backward()
        total = norm(torch.cat([p.grad.flatten() for p in model.parameters()]))
        nn.utils.clip_grad_norm_(model.parameters(), 0.25 * total)
        optimizer.step()
    for name in ("weight", "bias"):
        assert rows(scope, "parameters")[0, name]["clip_factor"] == pytest.approx(0.25, rel=1e-4)


def test_choosing_layers(track) -> None:
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model.forward = lambda x: model["head"](model["stem"](x))  # type: ignore[method-assign]
    with pytest.raises(GradScopeError, match=r"observe='stm' matches no module.*stem"):
        track(model, observe="stm", run="a")
    with pytest.raises(GradScopeError, match=r"LSTM.*matches no module.*Linear"):
        track(model, observe=nn.LSTM, run="b")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, observe=["s*"], run="c") as scope:
        model(torch.randn(3, 2)).sum().backward()
        optimizer.step()
    assert {s.name for s in open_run(scope.path).sites} == {"stem", "stem.weight", "stem.bias"}


@pytest.mark.parametrize(("option", "value"), [("every", 0), ("every", "often"), ("budget", 0.0)])
def test_bad_settings_are_told_in_one_sentence(track, option, value) -> None:
    with pytest.raises(GradScopeError, match=f"{option}={value!r}"):
        track(nn.Linear(1, 1), **{option: value})


def test_log_takes_numbers_and_one_element_tensors(track, scalars) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        for step in range(3):
            loss = model(torch.ones(1, 2)).sum()
            loss.backward()
            optimizer.step()
            scope.log(loss=loss, twice=2 * step)
        with pytest.raises(GradScopeError, match=r"shape \(2,\)"):
            scope.log(loss=torch.zeros(2))
        with pytest.raises(GradScopeError, match="not str"):
            scope.log(loss="low")
    assert [step for step, _ in scalars(scope, "loss")] == [0, 1, 2]
    assert scalars(scope, "twice") == [(0, 0.0), (1, 2.0), (2, 4.0)]
