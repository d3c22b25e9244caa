"""A dense network -> how much each layer listens to each earlier one (Huang et al. 2017, figure 5).

Must never know files or figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from gradscope.schema import GradScopeError
from gradscope.units import Unit, find_units, unwrapped


@dataclass(frozen=True)
class FeatureReuse:
    """One entry per block, source and target layer.

    `source` 0 is the block's input, s > 0 its s-th layer; `target` counts from 1. `weight` is the
    mean absolute weight of the target's first convolution on the source's channels, `relative` the
    same divided by the largest of that block.
    """

    block: np.ndarray
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    relative: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        return {
            "block": self.block,
            "source": self.source,
            "target": self.target,
            "weight": self.weight,
            "relative": self.relative,
        }

    def matrix(self, block: str) -> np.ndarray:
        """(sources, targets) of `weight`, NaN where the target comes before the source."""
        rows = self.block == block
        size = int(self.target[rows].max())
        grid = np.full((size, size), np.nan)
        grid[self.source[rows], self.target[rows] - 1] = self.weight[rows]
        return grid


def feature_reuse(model: nn.Module, *, example: Any = None) -> FeatureReuse:
    """The map of every dense block. GradScopeError where the network has no dense layers."""
    inner = unwrapped(model)
    stages: dict[str, list[Unit]] = {}
    for unit in find_units(inner, example=example):
        if unit.kind == "dense":
            stages.setdefault(unit.stage, []).append(unit)
    if not stages:
        raise GradScopeError(f"{type(inner).__name__} has no dense layers: nothing is reused.")
    rows: list[tuple[str, int, int, float, float]] = []
    for stage, layers in stages.items():
        convolutions = [_first_convolution(inner.get_submodule(u.name), u.name) for u in layers]
        edges = [0, *(conv.in_channels for conv in convolutions)]
        found = []
        for target, conv in enumerate(convolutions, start=1):
            strength = conv.weight.detach().double().abs().mean(dim=(0, 2, 3)).cpu().numpy()
            for source in range(target):
                value = float(strength[edges[source] : edges[source + 1]].mean())
                found.append((stage, source, target, value))
        most = max(value for *_, value in found) or 1.0
        rows += [(*row, row[3] / most) for row in found]
    columns = list(zip(*rows, strict=True))
    return FeatureReuse(
        np.array(columns[0], dtype=object),
        np.array(columns[1]),
        np.array(columns[2]),
        np.array(columns[3]),
        np.array(columns[4]),
    )


def _first_convolution(layer: nn.Module, name: str) -> nn.Conv2d:
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise GradScopeError(f"The dense layer {name!r} has no 2-d convolution to read weights from.")
