"""Small versions of many architectures, to train with and without the tracker."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import nn

import gradscope.models


def _zoo(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, num_classes=10, **options)


def _own(name: str) -> Callable[[], nn.Module]:
    return lambda: gradscope.models.build(name, in_channels=3, image_size=32)


def _maxvit() -> nn.Module:
    return torchvision.models.MaxVit(
        (32, 32),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.2,
        num_classes=10,
    )


def _vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        32, 8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, dropout=0.1, num_classes=10
    )


def _narrow(name: str) -> Callable[[], nn.Module]:
    """With 64 instead of 4096 units in the hidden linear layers: they hold nearly all the weights."""

    def make() -> nn.Module:
        model = torchvision.models.get_model(name, num_classes=10)
        layers = [i for i, m in enumerate(model.classifier) if isinstance(m, nn.Linear)]
        sizes = [model.classifier[layers[0]].in_features, 64, 64, 10]
        for place, wide, narrow in zip(layers, sizes, sizes[1:], strict=False):
            model.classifier[place] = nn.Linear(wide, narrow)
        return model

    return make


def _bottlenecks(**options: int) -> Callable[[], nn.Module]:
    """A ResNet of wide or grouped bottlenecks, one a stage."""
    block = torchvision.models.resnet.Bottleneck
    return lambda: torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10, **options)


DEFAULT: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "resnet20": (32, _own("resnet20")),
    "densenet22": (32, _own("densenet22")),
    "mobilenet_v3_small": (32, _zoo("mobilenet_v3_small")),
    "squeezenet1_1": (32, _zoo("squeezenet1_1")),
    "shufflenet_v2_x0_5": (32, _zoo("shufflenet_v2_x0_5")),
    "vit": (32, _vit),
}
"""Image size and builder of the quick ones."""

MORE: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "alexnet": (64, _narrow("alexnet")),
    "vgg11_bn": (32, _narrow("vgg11_bn")),
    "vgg13": (32, _narrow("vgg13")),
    "googlenet": (32, _zoo("googlenet", aux_logits=False, init_weights=False)),
    "inception_v3": (75, _zoo("inception_v3", aux_logits=False, init_weights=False)),
    "densenet121": (32, _zoo("densenet121")),
    "mnasnet0_5": (32, _zoo("mnasnet0_5")),
    "mobilenet_v2": (32, _zoo("mobilenet_v2")),
    "regnet_x_400mf": (32, _zoo("regnet_x_400mf")),
    "regnet_y_400mf": (32, _zoo("regnet_y_400mf")),
    "resnet18": (32, _zoo("resnet18")),
    "resnet50": (32, _zoo("resnet50")),
    "resnext50_32x4d": (32, _bottlenecks(groups=32, width_per_group=4)),
    "wide_resnet50_2": (32, _bottlenecks(width_per_group=128)),
    "shufflenet_v2_x1_0": (32, _zoo("shufflenet_v2_x1_0")),
    "squeezenet1_0": (32, _zoo("squeezenet1_0")),
    "efficientnet_b0": (32, _zoo("efficientnet_b0")),
    "efficientnet_v2_s": (32, _zoo("efficientnet_v2_s")),
    "convnext_tiny": (32, _zoo("convnext_tiny")),
    "swin_t": (32, _zoo("swin_t")),
    "swin_v2_t": (32, _zoo("swin_v2_t")),
    "maxvit": (32, _maxvit),
    "plain20": (32, _own("plain20")),
    "resnet32": (32, _own("resnet32")),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, int]:
    """The network in training mode, and the edge of its images."""
    size, make = (DEFAULT | MORE)[name]
    torch.manual_seed(seed)
    return make().train(), size
