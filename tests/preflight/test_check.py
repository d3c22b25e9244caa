from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gradscope.models import build
from gradscope.preflight import check, classification_loss, load_builder, subject
from gradscope.preflight.skips import skip_shares
from gradscope.schema import GradScopeError


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)


def images(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 1, 28, 28), torch.randint(0, 10, (count,))


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(64, 32), torch.randint(0, 10, (64,))


def mlp(depth: int, activation: type[nn.Module]) -> nn.Sequential:
    layers = [part for _ in range(depth) for part in (nn.Linear(32, 32), activation())]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def kinds(report: object) -> dict[str, str]:
    return {f.kind: f.severity for f in report.findings}  # type: ignore[attr-defined]


def test_a_healthy_resnet_raises_no_fault_and_shows_its_shortcuts() -> None:
    report = check(build("resnet20"), images(), functional.cross_entropy)
    assert "info" not in kinds(report)
    assert not set(kinds(report).values()) - {"info"}
    assert report.verdict.startswith("No fault found")
    assert len(report.skips) == 9
    assert all(0 < s.share < 1 for s in report.skips)
    assert report.verdict in str(report)


def test_a_deep_sigmoid_net_vanishes() -> None:
    report = check(mlp(20, nn.Sigmoid), vectors(), functional.cross_entropy)
    assert kinds(report)["vanishing"] == "critical"
    assert report.attenuation.slope < -0.1
    assert "ReLU" in report.findings[0].advice


def test_a_huge_initialisation_explodes() -> None:
    model = mlp(10, nn.ReLU)
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear):
                module.weight.mul_(20)
    report = check(model, vectors(), functional.cross_entropy)
    assert "exploding" in kinds(report)


def test_a_dying_layer_is_named() -> None:
    model = mlp(4, nn.ReLU)
    nn.init.constant_(model[4].bias, -100.0)
    report = check(model, vectors(), functional.cross_entropy)
    dead = next(f for f in report.findings if f.kind == "dead_units")
    assert (dead.site, dead.severity) == ("5", "critical")


def test_zero_initialised_gates_are_a_remark() -> None:
    model = build("resnet20")
    for name, module in model.named_modules():
        if name.endswith("bn2"):
            nn.init.zeros_(module.weight)
    found = kinds(check(model, images(), functional.cross_entropy))
    assert found["no_gradient"] == "info"
    assert "warning" not in found.values()


def test_an_unused_branch_is_found() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.side, self.head = (nn.Linear(32, 32) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(functional.gelu(self.trunk(x)) + self.side(x).detach())

    report = check(Detached(), vectors(), functional.cross_entropy)
    found = next(f for f in report.findings if f.kind == "no_gradient")
    assert found.evidence["names"] == ["side.weight", "side.bias"]


def test_the_model_is_left_bit_for_bit() -> None:
    model = build("resnet20").eval()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    functional.cross_entropy(model(images()[0]), images()[1]).backward()
    gradients = {n: (p.grad, p.grad.clone()) for n, p in model.named_parameters()}
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    keys = [sorted(m.__dict__) for m in model.modules()]
    batch = images()
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    check(model, batch, functional.cross_entropy, passes=2)
    assert torch.equal(torch.get_rng_state(), streams[0])
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, p in model.named_parameters():
        assert p.grad is gradients[name][0]
        assert torch.equal(p.grad, gradients[name][1])
    assert [m.training for m in model.modules()] == modes
    assert [sorted(m.__dict__) for m in model.modules()] == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert random.getstate() == streams[1]
    assert np.array_equal(np.random.get_state()[1], streams[2])


def test_random_streams_and_state_survive_an_error() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Dropout(0.5))
    state, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    batch = (torch.ones(64, 32), torch.zeros(64, dtype=torch.long))
    with pytest.raises(GradScopeError, match="must return one number"):
        check(model, batch, lambda output, target: output)
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_skip_share_by_algebra() -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.relu = nn.Linear(4, 4, bias=False), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.branch(x)
            out += x
            return self.relu(out)

    unit, x, g = Unit(), torch.randn(3, 4), torch.randn(3, 4)
    (measured,) = skip_shares("unit", unit, (x,), g)
    arriving = g * (unit.branch(x) + x > 0)
    a, b = arriving.norm(), (arriving @ unit.branch.weight).norm()
    assert measured.shortcut_norm == pytest.approx(float(a), rel=1e-5)
    assert measured.branch_norm == pytest.approx(float(b), rel=1e-5)
    assert measured.share == pytest.approx(float(a / (a + b)), rel=1e-5)


def test_tuple_outputs_need_a_loss_that_takes_them() -> None:
    model = build("inception_small")
    with pytest.raises(GradScopeError, match="not a tensor: let loss_fn"):
        check(model, images(), functional.cross_entropy)
    assert check(model, images(), classification_loss, passes=1).losses


def test_inputs_alone_call_the_loss_with_the_output() -> None:
    report = check(mlp(3, nn.ReLU), torch.randn(8, 32), lambda output: output.square().mean())
    assert len(report.losses) == 3


def test_half_precision_shares() -> None:
    report = check(mlp(3, nn.ReLU), vectors(), lambda o, t: 1e-6 * functional.cross_entropy(o, t))
    assert kinds(report) == {"underflow": "info"}
    assert min(p.float16 for p in report.precision) > 0.5
    assert max(p.bfloat16 for p in report.precision) == 0.0
    assert max(p.scaled for p in report.precision) < 0.05


def test_errors_say_what_to_do() -> None:
    with pytest.raises(GradScopeError, match="failed on the batch"):
        check(mlp(2, nn.ReLU), (torch.randn(8, 31), torch.zeros(8)), functional.cross_entropy)
    with pytest.raises(GradScopeError, match="does not depend"):
        check(mlp(2, nn.ReLU), torch.randn(8, 32), lambda output: output.detach().mean())
    with pytest.raises(GradScopeError, match="lazy"):
        check(nn.LazyLinear(3), torch.randn(8, 32), lambda output: output.mean())


def test_builders_and_names(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def build_model():\n    return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))\n"
    )
    model, batch, loss_fn = subject(f"{file}:build_model")
    assert batch[0].shape == (32, 7)
    assert check(model, batch, loss_fn).losses
    for word, words in (
        (f"{file}:nothing", "has no function"),
        (f"{file}", "names no function|no file"),
        ("absent.py:build", "no file"),
    ):
        with pytest.raises(GradScopeError, match=words):
            load_builder(word)
    _, (x, _), _ = subject("resnet20")
    assert x.shape == (32, 1, 28, 28)


def test_the_page_stands_alone(tmp_path: Path) -> None:
    report = check(mlp(6, nn.Sigmoid), vectors(), functional.cross_entropy)
    path = report.show(tmp_path / "report.html", browser=False)
    text = path.read_text(encoding="utf-8")
    assert "<polyline" in text
    assert report.verdict in text
    assert "http" not in text
