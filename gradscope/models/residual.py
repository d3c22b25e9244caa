"""A depth -> the residual network of He et al. 2015 for small images, or its plain counterpart.

Both share names, shapes and, under one seed, weights: the plain network is the residual one
without its shortcuts. Must never know of recording, files or training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradscope.models.initialise import he_initialise, norm, seeded

WIDTHS = (16, 32, 64)


class PadShortcut(nn.Module):
    """Option A of He et al. 2015: subsample by `stride`, fill the new channels with zeros.

    Input (N, C, H, W), output (N, C + extra, ceil(H / stride), ceil(W / stride)); no parameters.
    """

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, extra={self.extra}"


def _projection(width_in: int, width: int, stride: int, batch_norm: bool) -> nn.Sequential:
    shortcut = nn.Sequential()
    shortcut.add_module("conv", nn.Conv2d(width_in, width, 1, stride=stride, bias=not batch_norm))
    shortcut.add_module("bn", norm(width, batch_norm))
    return shortcut


class PlainUnit(nn.Module):
    """Two 3x3 convolutions, each followed by normalisation and ReLU; no way around them."""

    def __init__(self, width_in: int, width: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=bias)
        self.bn1 = norm(width, batch_norm)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.bn2 = norm(width, batch_norm)

    def branch(self, x: Tensor) -> Tensor:
        """The unit's function before its last ReLU: (N, C_in, H, W) -> (N, C, H', W')."""
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.bn2(self.conv2(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x))
        return out


class ResidualUnit(PlainUnit):
    """`relu(skip_scale * shortcut(x) + branch(x))`, figure 2 of He et al. 2015.

    `skip_scale` is 1 in the paper. `survival` below 1 is stochastic depth (Huang et al. 2016,
    arXiv 1603.09382): in training the branch is left out with probability 1 - survival, once per
    batch; in evaluation it is weighed by `survival`. Both may be changed at any time.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        stride: int,
        batch_norm: bool,
        shortcut: str = "A",
        skip_scale: float = 1.0,
    ) -> None:
        super().__init__(width_in, width, stride, batch_norm)
        self.skip_scale = skip_scale
        self.survival = 1.0
        self.shortcut: nn.Module
        if width_in == width and stride == 1:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(stride, width - width_in)
        else:
            self.shortcut = _projection(width_in, width, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        skip: Tensor = self.shortcut(x)
        if self.skip_scale != 1.0:
            skip = self.skip_scale * skip
        if self.survival >= 1.0:
            out = skip + self.branch(x)
        elif not self.training:
            out = skip + self.survival * self.branch(x)
        elif torch.rand(()).item() < self.survival:
            out = skip + self.branch(x)
        else:
            out = skip
        result: Tensor = self.relu(out)
        return result

    def extra_repr(self) -> str:
        parts = [] if self.skip_scale == 1.0 else [f"skip_scale={self.skip_scale:g}"]
        parts += [] if self.survival >= 1.0 else [f"survival={self.survival:g}"]
        return ", ".join(parts)


class SmallImageNet(nn.Module):
    """Stem, three stages of units at widths 16, 32, 64, mean over the image, classifier.

    Input (N, in_channels, H, W) with any H, W of at least 4 (meant for 28 or 32);
    output logits (N, num_classes). Depth 6 n + 2 for n units a stage.
    """

    def __init__(
        self,
        units: int,
        *,
        skips: bool,
        in_channels: int = 1,
        num_classes: int = 10,
        batch_norm: bool = True,
        shortcut: str = "A",
        skip_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=not batch_norm)
        self.bn1 = norm(WIDTHS[0], batch_norm)
        self.relu = nn.ReLU()
        width_in = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            stage = nn.Sequential()
            for index in range(units):
                stride = 2 if number > 1 and index == 0 else 1
                unit = (
                    ResidualUnit(width_in, width, stride, batch_norm, shortcut, skip_scale)
                    if skips
                    else PlainUnit(width_in, width, stride, batch_norm)
                )
                stage.add_module(str(index), unit)
                width_in = width
            self.add_module(f"stage{number}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"stage{number}")(x)
        out: Tensor = self.fc(self.avgpool(x).flatten(1))
        return out


def small_image_net(
    units: int,
    *,
    skips: bool,
    in_channels: int,
    num_classes: int,
    batch_norm: bool,
    shortcut: str,
    skip_scale: float,
    seed: int | None,
) -> SmallImageNet:
    """Build and initialise; everything but the shortcuts has the same weights with and without."""
    with seeded(seed):
        model = SmallImageNet(
            units,
            skips=skips,
            in_channels=in_channels,
            num_classes=num_classes,
            batch_norm=batch_norm,
            shortcut=shortcut,
            skip_scale=skip_scale,
        )
    he_initialise(model, seed, last=("shortcut",))
    return model


def set_survival(model: nn.Module, final: float) -> int:
    """Give the residual units survival probabilities falling linearly with depth to `final`.

    Unit l of L survives with 1 - l / L * (1 - final) (Huang et al. 2016, eq. 4).
    Returns how many units there were; 0 means that the model has none of ours.
    """
    units = [module for module in model.modules() if isinstance(module, ResidualUnit)]
    for index, unit in enumerate(units, start=1):
        unit.survival = 1.0 - index / len(units) * (1.0 - final)
    return len(units)
