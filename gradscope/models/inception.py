"""Head names -> a small inception network with auxiliary classifiers that trains on a CPU.

GoogLeNet's modules (Szegedy et al. 2014, arXiv 1409.4842) at a twelfth of its width, for 28x28 and
32x32 images. Must never know of recording, files or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradscope.models.initialise import he_initialise, norm, seeded

HEADS = ("aux1", "aux2")


class InceptionOutputs(NamedTuple):
    """Logits (N, classes) of the main and the auxiliary heads; None where a head was left out."""

    logits: Tensor
    aux1: Tensor | None
    aux2: Tensor | None


class ConvUnit(nn.Module):
    """Convolution, normalisation, ReLU, each a module of its own so that each can be observed."""

    def __init__(self, width_in: int, width: int, kernel: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, padding=kernel // 2, bias=not batch_norm)
        self.bn = norm(width, batch_norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class InceptionModule(nn.Module):
    """Four branches side by side, their maps concatenated (figure 2b of the paper).

    `widths` are the maps of: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after pooling.
    Input (N, C, H, W), output (N, w1 + w3 + w5 + wp, H, W).
    """

    def __init__(
        self, width_in: int, widths: tuple[int, int, int, int, int, int], batch_norm: bool
    ) -> None:
        super().__init__()
        w1, r3, w3, r5, w5, wp = widths
        self.branch1 = ConvUnit(width_in, w1, 1, batch_norm)
        self.branch2 = nn.Sequential(
            ConvUnit(width_in, r3, 1, batch_norm), ConvUnit(r3, w3, 3, batch_norm)
        )
        self.branch3 = nn.Sequential(
            ConvUnit(width_in, r5, 1, batch_norm), ConvUnit(r5, w5, 5, batch_norm)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), ConvUnit(width_in, wp, 1, batch_norm)
        )
        self.width = w1 + w3 + w5 + wp

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x))
        return torch.cat(branches, dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier hung on the trunk: mean pooling to 4x4, 1x1 convolution, two linear layers."""

    def __init__(self, width_in: int, num_classes: int, batch_norm: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvUnit(width_in, 16, 1, batch_norm)
        self.fc1 = nn.Linear(16 * 16, 64)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x)).flatten(1)
        out: Tensor = self.fc2(self.relu(self.fc1(x)))
        return out


class SmallInception(nn.Module):
    """Stem, seven inception modules at three resolutions, two auxiliary heads, classifier.

    Input (N, in_channels, H, W) with H, W of at least 8. In training mode the output is
    `InceptionOutputs`; in evaluation, or with no auxiliary head, the main logits (N, num_classes).
    The heads hang behind `inception4a` and `inception4c`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        batch_norm: bool = True,
        heads: Sequence[str] = HEADS,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=not batch_norm)
        self.bn1 = norm(16, batch_norm)
        self.relu = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.inception3a = InceptionModule(16, (8, 12, 16, 4, 4, 4), batch_norm)
        self.inception3b = InceptionModule(32, (12, 16, 24, 4, 6, 6), batch_norm)
        self.pool2 = nn.MaxPool2d(2)
        self.inception4a = InceptionModule(48, (16, 16, 32, 4, 8, 8), batch_norm)
        self.inception4b = InceptionModule(64, (16, 16, 32, 4, 8, 8), batch_norm)
        self.inception4c = InceptionModule(64, (16, 16, 32, 4, 8, 8), batch_norm)
        self.inception4d = InceptionModule(64, (24, 24, 48, 8, 12, 12), batch_norm)
        self.pool3 = nn.MaxPool2d(2)
        self.inception5a = InceptionModule(96, (32, 24, 64, 8, 16, 16), batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)
        self.aux1 = AuxiliaryHead(64, num_classes, batch_norm) if "aux1" in heads else None
        self.aux2 = AuxiliaryHead(64, num_classes, batch_norm) if "aux2" in heads else None

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        x = self.pool1(self.relu(self.bn1(self.conv1(x))))
        x = self.pool2(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        aux1 = self.aux1(x) if self.training and self.aux1 is not None else None
        x = self.inception4c(self.inception4b(x))
        aux2 = self.aux2(x) if self.training and self.aux2 is not None else None
        x = self.inception5a(self.pool3(self.inception4d(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        if aux1 is None and aux2 is None:
            return logits
        return InceptionOutputs(logits, aux1, aux2)


def small_inception(
    *,
    in_channels: int,
    num_classes: int,
    batch_norm: bool,
    heads: Sequence[str],
    seed: int | None,
) -> SmallInception:
    """Build and initialise; the trunk has the same weights whichever heads hang on it."""
    with seeded(seed):
        model = SmallInception(
            in_channels=in_channels, num_classes=num_classes, batch_norm=batch_norm, heads=heads
        )
    # One stream for each head: dropping the first must not change the second.
    he_initialise(model, seed, last=HEADS)
    for offset, head in enumerate((model.aux1, model.aux2), start=1):
        if head is not None and seed is not None:
            he_initialise(head, seed + offset * 1_000_003)
    return model
