"""Depth and growth rate -> the densely connected network of Huang et al. 2017 for small images.

Must never know of recording, files or training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradscope.models.initialise import he_initialise, norm, seeded

BLOCKS = 3


class DenseLayer(nn.Module):
    """Adds `growth` feature maps made from all maps before: y = cat(x, H(x)) along the channels.

    H is normalisation, ReLU, 3x3 convolution; with `bottleneck` a 1x1 convolution to 4 growth
    maps comes first. Input (N, C, H, W), output (N, C + growth, H, W).
    """

    def __init__(self, width_in: int, growth: int, batch_norm: bool, bottleneck: bool) -> None:
        super().__init__()
        bias = not batch_norm
        self.width_in = width_in
        self.growth = growth
        self.bottleneck = bottleneck
        self.bn1 = norm(width_in, batch_norm)
        self.relu = nn.ReLU()
        if bottleneck:
            self.conv1 = nn.Conv2d(width_in, 4 * growth, 1, bias=bias)
            self.bn2 = norm(4 * growth, batch_norm)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=bias)
        else:
            self.conv1 = nn.Conv2d(width_in, growth, 3, padding=1, bias=bias)

    def branch(self, x: Tensor) -> Tensor:
        """The new feature maps alone: (N, C, H, W) -> (N, growth, H, W)."""
        new: Tensor = self.conv1(self.relu(self.bn1(x)))
        if self.bottleneck:
            new = self.conv2(self.relu(self.bn2(new)))
        return new

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.branch(x)), dim=1)


class Transition(nn.Module):
    """Normalisation, ReLU, 1x1 convolution to `width` maps, 2x2 mean pooling."""

    def __init__(self, width_in: int, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.bn = norm(width_in, batch_norm)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(width_in, width, 1, bias=not batch_norm)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.conv(self.relu(self.bn(x))))
        return out


class DenseNet(nn.Module):
    """Stem, three dense blocks of `layers` layers with two transitions between, classifier.

    Input (N, in_channels, H, W) with H, W of at least 4; output logits (N, num_classes).
    The stem has 16 maps, or 2 growth maps with bottlenecks, as in section 4.2 of the paper.
    """

    def __init__(
        self,
        layers: int,
        *,
        growth: int = 12,
        in_channels: int = 1,
        num_classes: int = 10,
        batch_norm: bool = True,
        bottleneck: bool = False,
        compression: float = 1.0,
    ) -> None:
        super().__init__()
        width = 2 * growth if bottleneck else 16
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=not batch_norm)
        for number in range(1, BLOCKS + 1):
            block = nn.Sequential()
            for index in range(layers):
                block.add_module(str(index), DenseLayer(width, growth, batch_norm, bottleneck))
                width += growth
            self.add_module(f"block{number}", block)
            if number < BLOCKS:
                narrowed = max(1, math.floor(compression * width))
                self.add_module(f"transition{number}", Transition(width, narrowed, batch_norm))
                width = narrowed
        self.bn = norm(width, batch_norm)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for number in range(1, BLOCKS + 1):
            x = self.get_submodule(f"block{number}")(x)
            if number < BLOCKS:
                x = self.get_submodule(f"transition{number}")(x)
        x = self.relu(self.bn(x))
        out: Tensor = self.fc(self.avgpool(x).flatten(1))
        return out


def dense_net(
    layers: int,
    *,
    growth: int,
    in_channels: int,
    num_classes: int,
    batch_norm: bool,
    bottleneck: bool,
    compression: float,
    seed: int | None,
) -> DenseNet:
    """Build and initialise a dense network of `layers` layers a block."""
    with seeded(seed):
        model = DenseNet(
            layers,
            growth=growth,
            in_channels=in_channels,
            num_classes=num_classes,
            batch_norm=batch_norm,
            bottleneck=bottleneck,
            compression=compression,
        )
    he_initialise(model, seed)
    return model
