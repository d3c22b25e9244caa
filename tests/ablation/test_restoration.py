"""A network is the same to the bit after its ablation, however that ends, whatever the network."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from gradscope import GradScopeError, models
from gradscope.ablation import ablate
from gradscope.units import find_units

torch.set_num_threads(1)

OURS = ("plain20", "resnet20", "densenet22", "inception_small")
QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
SLOW = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "regnet_x_400mf", "regnet_y_400mf",
    "resnet50", "resnext50_32x4d", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip
ENDINGS = (None, RuntimeError, KeyboardInterrupt)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network with statistics away from their first values, and two images."""
    if name in OURS:
        model, shape = models.build(name), (2, 1, 16, 16)
    else:
        quick: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):  # the latter's head needs images of 299 pixels
            quick = {"init_weights": False, "aux_logits": name == "googlenet"}
        model = torchvision.models.get_model(name, weights=None, num_classes=4, **quick)
        side = 224 if name.startswith(("vit", "maxvit")) else 96 if name == "inception_v3" else 64
        shape = (2, 3, side, side)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator))
            module.num_batches_tracked.fill_(3)
    return model, torch.randn(shape, generator=generator)


class Portrait:
    """Everything that must be the same afterwards, with the tensors copied."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = {
            name: value.clone() for name, value in model.state_dict(keep_vars=True).items()
        }
        self.gradients = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
        self.facts = self._facts()
        self.random = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    def _facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, module in self.model.named_modules():
            found[name] = {
                key: len(value) if key.endswith("_hooks") else id(value)
                for key, value in module.__dict__.items()
                if key != "training"
            }
            found[name]["mode"] = module.training
            found[name]["tensors"] = {
                key: id(value) for key, value in (module._parameters | module._buffers).items()
            }
        return found

    def check(self) -> None:
        after = self.model.state_dict(keep_vars=True)
        assert list(after) == list(self.tensors)
        for name, value in self.tensors.items():
            assert torch.equal(value, after[name]), name
        for name, parameter in self.model.named_parameters():
            if name in self.gradients:
                assert torch.equal(parameter.grad, self.gradients[name]), name
            else:
                assert parameter.grad is None, name
        assert self._facts() == self.facts
        assert torch.equal(torch.get_rng_state(), self.random[0])
        assert np.array_equal(np.random.get_state()[1], self.random[1])
        assert random.getstate() == self.random[2]


def tampering(x: torch.Tensor, error: type[BaseException] | None, at: int) -> Any:
    """An evaluation that changes what it can and fails at its `at`-th call."""
    calls = 0

    def evaluate(net: nn.Module) -> float:
        nonlocal calls
        calls += 1
        net.train()
        with torch.no_grad():
            net(torch.cat((x, x)))
            for parameter in net.parameters():
                parameter += torch.randn(()) * 1e-3
        random.random()
        np.random.rand()
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
            break
        if error is not None and calls == at:
            raise error
        net.eval()
        with torch.no_grad():
            output = net(x)
        return float((output if isinstance(output, torch.Tensor) else output[0]).sum())

    return evaluate


def failing_metric(error: type[BaseException] | None) -> Any:
    """A sum of the logits that fails when it is asked for the second time."""
    asked = 0

    def metric(logits: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if error is not None and asked == 2:
            raise error
        return logits.sum(1)

    return metric


def assert_restored(name: str, lesions: int) -> None:
    """By an evaluation and by a loader; ended well, by an error and by Ctrl-C."""
    model, x = build(name)
    model.train()
    next(
        m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU))
    ).eval()
    list(model.parameters())[1].grad = torch.ones_like(list(model.parameters())[1])
    found = [unit for unit in find_units(model, example=x) if unit.kind != "head"]
    names = [unit.name for unit in found][:: max(1, len(found) // lesions)]
    kinds = {unit.kind for unit in found if unit.name in names}
    drop = ["branches" if kind == "branch" else kind for kind in sorted(kinds)]
    portrait = Portrait(model)
    for ending in ENDINGS:
        evaluate = tampering(x, ending, at=2)
        if ending is None:
            assert len(ablate(model, evaluate, drop=drop, units=names, example=x).rows) == len(
                names
            )
        else:
            with pytest.raises(ending):
                ablate(model, evaluate, drop=drop, units=names, example=x)
        portrait.check()

        loader = [(x, torch.tensor([0, 1]))]
        wanted: dict[str, Any] = {"loader": loader, "drop": drop, "units": names}
        if ending is None:
            assert ablate(model, metric={"sum": failing_metric(ending)}, **wanted).reused
        else:
            with pytest.raises(ending):
                ablate(model, metric={"sum": failing_metric(ending)}, **wanted)
        portrait.check()


@pytest.mark.parametrize("name", [*OURS, *QUICK])
def test_everything_is_as_before(name: str) -> None:
    assert_restored(name, lesions=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_everything_is_as_before_in_the_zoo(name: str) -> None:
    assert_restored(name, lesions=3)


def test_a_model_that_defies_reuse_is_measured_by_whole_passes() -> None:
    class Fickle(nn.Module):
        """Calls its first layer once or twice, by turns."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.unit = nn.Sequential(nn.Linear(4, 4))
            self.turn = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.turn += 1
            x = self.first(x)
            if self.turn % 2:
                x = self.first(x + 1)
            return self.last(self.unit(x))

    model = Fickle().eval()
    loader = [(torch.randn(6, 4), torch.arange(6) % 4)]
    result = ablate(model, loader=loader, drop="plain", units=["unit"], example=loader[0][0])
    assert not result.reused
    assert "every pass was whole" in result.notes[0]


def test_units_are_found_with_blocks_dropped_at_random() -> None:
    """A forward that draws its way is looked at in eval mode; no random number is used up."""
    model = models.build("resnet20", survival=0.3).train()
    state = torch.get_rng_state()
    units = [u for u in find_units(model) if u.kind == "residual"]
    assert len(units) == 9
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(GradScopeError, match="near names"):
        ablate(model, loader=[(torch.randn(2, 1, 16, 16), torch.tensor([0, 1]))], units=["stage9"])
