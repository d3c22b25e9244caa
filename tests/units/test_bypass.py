"""A bypassed unit equals the network built without it; the model is as before afterwards."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from gradscope import models
from gradscope.schema import GradScopeError
from gradscope.units import (
    bypass_identity,
    dropped,
    find_units,
    remove_head,
    residual_parts,
    skip_gradients,
    without_heads,
)

torch.set_num_threads(1)


def _shaken(model: nn.Module) -> nn.Module:
    """Statistics and weights away from their initial values, so that nothing cancels by luck."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("kind", ["plain20", "resnet20"])
def test_dropped_block_is_the_net_built_without_it(kind: str) -> None:
    model = _shaken(models.build(kind))
    shorter = copy.deepcopy(model)
    del shorter.stage2[1]
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        with dropped(model, "stage2.1"):
            lesioned = model(x)
        assert torch.equal(lesioned, shorter(x))
        assert not torch.equal(lesioned, model(x))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_dropped_downsampling_unit_keeps_its_shortcut(shortcut: str) -> None:
    model = _shaken(models.build("resnet20", shortcut=shortcut))
    reference = copy.deepcopy(model)
    unit = reference.stage2[0]
    reference.stage2[0] = nn.Sequential(unit.shortcut, nn.ReLU())
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad(), dropped(model, "stage2.0"):
        assert torch.equal(model(x), reference(x))


def test_dropped_branch_is_the_module_with_zero_channels() -> None:
    model = _shaken(models.build("inception_small"))
    reference = copy.deepcopy(model)
    following = reference.inception4b
    removed = slice(16, 48)  # branch2 of inception4a: the next 32 after the first 16 channels
    with torch.no_grad():
        for first in (
            following.branch1.conv,
            following.branch2[0].conv,
            following.branch3[0].conv,
            following.branch4[1].conv,
        ):
            first.weight[:, removed] = 0
        x = torch.randn(3, 1, 28, 28)
        with dropped(model, "inception4a.branch2"):
            assert torch.allclose(model(x), reference(x), atol=1e-6)


def test_dropped_dense_layer_gives_zero_features() -> None:
    model = _shaken(models.build("densenet22"))
    reference = copy.deepcopy(model)
    layer = reference.block1[1]
    with torch.no_grad():
        layer.conv1.weight.zero_()
        x = torch.randn(2, 1, 28, 28)
        with dropped(model, "block1.1"):
            assert torch.equal(model(x), reference(x))


def test_vgg_layer_is_left_out() -> None:
    model = torchvision.models.vgg11_bn(num_classes=5).eval()
    reference = copy.deepcopy(model)
    kept = [layer for index, layer in enumerate(reference.features) if index not in (11, 12, 13)]
    reference.features = nn.Sequential(*kept)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), dropped(model, "features.11"):
        assert torch.equal(model(x), reference(x))


class _Written(nn.Module):
    """Additions written out in the model's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.out(x)


def test_additions_written_out_are_units_and_can_go_together() -> None:
    model = _Written()
    units = [u for u in find_units(model) if u.kind == "residual"]
    assert [u.name for u in units] == [f"layers.{n}" for n in range(4)]
    reference = copy.deepcopy(model)
    del reference.layers[1:3]
    x = torch.randn(5, 6)
    with dropped(model, "layers.1", "layers.2"):
        assert torch.equal(model(x), reference(x))


def test_users_own_bypass_and_errors() -> None:
    model = models.build("resnet20").eval()
    with pytest.raises(GradScopeError, match=r"stage2\.1"):
        find_units(model, units={"stage2.1x": bypass_identity})
    with (
        pytest.raises(GradScopeError, match="stage1"),
        dropped(model, "stage1.9"),
    ):
        pass
    units = find_units(model, units={"stage1.1": bypass_identity})
    assert [u.way for u in units] == ["custom"]
    with pytest.raises(GradScopeError, match="units="):
        find_units(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_restored_after_errors(error: type[BaseException]) -> None:
    model = models.build("resnet20").train()
    x = torch.randn(2, 1, 28, 28)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = {name: dict(module.__dict__) for name, module in model.named_modules()}
    state = torch.get_rng_state()
    with pytest.raises(error), dropped(model, "stage3.1", example=x):
        raise error
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.__dict__.keys() == modules[n].keys() for n, module in model.named_modules())
    assert all(module.training for module in model.modules())


def test_skip_and_branch_gradients_sum_to_the_whole() -> None:
    model = models.build("resnet20", shortcut="B")
    units = [u for u in find_units(model) if u.kind == "residual"]
    batch = (torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]))
    result = skip_gradients(model, units, functional.cross_entropy, batch)
    assert (result.sum_error < 1e-5).all()
    assert (result.skip_grad_norm > 0).all()
    assert (result.branch_grad_norm > 0).all()
    assert all(p.grad is None for p in model.parameters())


def test_parts_tell_where_to_read() -> None:
    unit = torchvision.models.resnet18().layer2[0]
    (part,) = residual_parts(unit)
    assert part.way == "projection"
    assert part.shortcut == "downsample"
    assert part.branch == (("conv1", 0),)
    assert part.after == ("relu", 1)
    assert part.measurable
    own = models.build("resnet20").stage1[1]
    (part,) = residual_parts(own)
    assert (part.way, part.branch, part.after) == ("identity", (("conv1", 0),), ("relu", 1))


def test_heads_go_without_changing_the_main_output() -> None:
    model = models.build("inception_small").eval()
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        before = model(x)
        with without_heads(model):
            assert torch.equal(model(x), before)
            assert isinstance(copy.deepcopy(model).train()(x), torch.Tensor)
        assert list(dict(model.named_children()))[-2:] == ["aux1", "aux2"]
        remove_head(model, "aux1")
        assert torch.equal(model(x), before)
    with pytest.raises(GradScopeError, match="aux2"):
        remove_head(model, "aux1")
