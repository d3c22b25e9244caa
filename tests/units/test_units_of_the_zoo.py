"""Which units are found in known architectures, how each is bypassed, and whether exactly."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

from gradscope import models
from gradscope.schema import GradScopeError
from gradscope.units import bypass_identity, dropped, find_units

torch.set_num_threads(1)

RESIDUAL, DENSE, INCEPTION, BRANCH, PLAIN = "residual", "dense", "inception", "branch", "plain"
ZOO = {
    "resnet18": {(RESIDUAL, "identity", True): 5, (RESIDUAL, "projection", True): 3},
    "resnext50_32x4d": {(RESIDUAL, "identity", True): 12, (RESIDUAL, "projection", True): 4},
    "wide_resnet50_2": {(RESIDUAL, "identity", True): 12, (RESIDUAL, "projection", True): 4},
    "regnet_y_400mf": {(RESIDUAL, "identity", True): 12, (RESIDUAL, "projection", True): 4},
    "mobilenet_v2": {(RESIDUAL, "identity", True): 10, (PLAIN, "identity", True): 3},
    "mobilenet_v3_small": {(RESIDUAL, "identity", True): 6, (PLAIN, "identity", True): 6},
    "efficientnet_b0": {(RESIDUAL, "identity", True): 9, (PLAIN, "identity", True): 10},
    "efficientnet_v2_s": {(RESIDUAL, "identity", True): 35, (PLAIN, "identity", True): 4},
    "shufflenet_v2_x0_5": {
        (RESIDUAL, "branch_identity", False): 13,
        (RESIDUAL, "zero_features", False): 3,
    },
    "convnext_tiny": {(RESIDUAL, "identity", True): 18},
    "swin_t": {(RESIDUAL, "identity", True): 12},
    "vit_b_32": {(RESIDUAL, "identity", True): 12},
    "densenet121": {(DENSE, "zero_features", False): 58},
    "googlenet": {
        (INCEPTION, "identity", True): 3,
        (INCEPTION, "pad_identity", False): 6,
        (BRANCH, "zero_features", True): 36,
        (PLAIN, "identity", True): 1,
    },
    "inception_v3": {
        (INCEPTION, "identity", True): 6,
        (INCEPTION, "pad_identity", False): 3,
        (BRANCH, "zero_features", True): 42,
    },
    "vgg11": {(PLAIN, "identity", True): 5},
    "vgg16_bn": {(PLAIN, "identity", True): 10},
}
LARGE = (
    "vgg16_bn",
    "inception_v3",
    "wide_resnet50_2",
    "efficientnet_v2_s",
    "vit_b_32",
    "densenet121",
)


def _zoo(name: str) -> tuple[nn.Module, torch.Tensor]:
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    side = 224 if name.startswith("vit") else 96 if name == "inception_v3" else 64
    model = torchvision.models.get_model(name, weights=None, num_classes=7, **quick)
    return model.eval(), torch.randn(2, 3, side, side)


def _first(output: object) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in ZOO]
)
def test_units_and_ways_are_stated(name: str) -> None:
    model, x = _zoo(name)
    if name.startswith("vit"):
        nn.init.normal_(model.heads.head.weight)  # zero at first: nothing would change
    units = [unit for unit in find_units(model, example=x) if unit.kind != "head"]
    assert Counter((u.kind, u.way, u.exact) for u in units) == ZOO[name]
    assert len({unit.name for unit in units}) == len(units)
    assert [u.position for u in units] == sorted(u.position for u in units)
    with torch.no_grad():
        whole = _first(model(x))
        for unit in (units[1], units[-1]):
            with dropped(model, unit.name, example=x):
                assert not torch.equal(_first(model(x)), whole), unit.name
        assert torch.equal(_first(model(x)), whole)


def test_a_dropped_bottleneck_and_a_dropped_transformer_layer_are_not_there() -> None:
    """By algebra: the network built without the unit gives the same bits."""
    resnet = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [3, 1, 1, 1], num_classes=5
    ).eval()
    swin = torchvision.models.SwinTransformer(
        [4, 4], 16, [3, 1], [2, 2], [2, 2], num_classes=5
    ).eval()
    vit = torchvision.models.VisionTransformer(
        32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    ).eval()
    nn.init.normal_(vit.heads.head.weight)
    x = torch.randn(2, 3, 32, 32)
    for model, unit, parent, index in (
        (resnet, "layer1.1", "layer1", 1),
        (swin, "features.1.1", "features.1", 1),
        (vit, "encoder.layers.encoder_layer_1", "encoder.layers", 1),
    ):
        shorter = copy.deepcopy(model)
        del shorter.get_submodule(parent)[index]
        with torch.no_grad():
            with dropped(model, unit, example=x):
                lesioned = model(x)
            assert torch.equal(lesioned, shorter(x)), unit
            assert not torch.equal(lesioned, model(x)), unit


def test_the_users_bypass_is_what_runs() -> None:
    model = models.build("resnet20").eval()
    shorter = copy.deepcopy(model)
    shorter.stage1[1] = nn.Identity()
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad(), dropped(model, "stage1.1", units={"stage1.1": bypass_identity}):
        assert torch.equal(model(x), shorter(x))


def test_a_model_with_nothing_to_bypass_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 3))
    with pytest.raises(GradScopeError, match="has no unit that can be bypassed") as told:
        find_units(model)
    assert "units={" in str(told.value)


class _NormAct(nn.BatchNorm2d):
    """A normalisation that holds its activation, as timm's do."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x))


class _Growing(nn.Module):
    """A dense layer whose second normalisation is as wide as its first one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = _NormAct(8), nn.Conv2d(8, 16, 1)
        self.norm2, self.conv2 = _NormAct(16), nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.conv2(self.norm2(self.conv1(self.norm1(x))))), 1)


def test_a_normalisation_is_no_dense_layer() -> None:
    model = nn.Sequential(_Growing(), nn.Conv2d(16, 3, 1)).eval()
    units = find_units(model, example=torch.randn(2, 8, 4, 4))
    assert [(u.name, u.kind) for u in units if u.kind != "head"] == [("0", "dense")]


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "regnetx_002"]
)
def test_units_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=7).eval()
    side = 224 if name.startswith("vit") else 64
    x = torch.randn(2, 3, side, side)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # zero at the end of each branch at first
    units = [unit for unit in find_units(model, example=x) if unit.kind == "residual"]
    assert len(units) >= 8
    assert all(unit.exact for unit in units)
    with torch.no_grad():
        whole = model(x)
        with dropped(model, units[1].name, example=x):
            assert not torch.equal(model(x), whole)
        assert torch.equal(model(x), whole)
