"""A small model in training, and what a tracker could leave on it or in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_always_called",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def global_hooks() -> dict[str, int]:
    counts = {name: len(getattr(torch_module, name)) for name in GLOBAL_HOOKS}
    counts["step_pre"] = len(torch_optimizer._global_optimizer_pre_hooks)
    counts["step_post"] = len(torch_optimizer._global_optimizer_post_hooks)
    return counts


def attributes(model: nn.Module) -> dict[str, dict[str, object]]:
    """Every module's attributes, hook dictionaries by their size; parameters' too."""
    found = {
        name: {
            key: len(value) if key.endswith("_hooks") else id(value)
            for key, value in module.__dict__.items()
        }
        for name, module in model.named_modules()
    }
    for name, parameter in model.named_parameters():
        hooks = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
        found[f"parameter {name}"] = {
            "hooks": sum(len(h) for h in hooks if h),
            "attributes": sorted(parameter.__dict__),
        }
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 3)
        self.trouble: BaseException | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.relu(self.first(x)))
        if self.trouble is not None:
            raise self.trouble
        return self.last(x)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    loss = model(torch.randn(6, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())
