"""A part of a network that can be taken out, as a value: what it is, where, and how it is bypassed.

Must never know how units are found, what is recorded, or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Bypass = Callable[..., Any]
"""Called as `bypass(module, *args, **kwargs)` in place of `module(*args, **kwargs)`."""

KINDS = ("residual", "dense", "inception", "branch", "plain", "head")

WAYS: Mapping[str, str] = {
    "identity": "the input is passed on",
    "projection": "only the unit's own shortcut with weights is left",
    "pad": "only the unit's own shortcut without weights is left",
    "zero_branch": "the branch gives zeros, the rest of the unit is computed",
    "zero_features": "the features the unit would add to a concatenation are zeros",
    "branch_identity": "the branch passes its input on, the rest of the unit is computed",
    "pad_identity": "the input is passed on, cut or filled with zeros to the unit's width",
    "remove": "the head is taken out of the network",
    "custom": "a bypass given by the user",
}
"""How a unit is bypassed, in words."""


@dataclass(frozen=True)
class Unit:
    """One part of a network that can be bypassed.

    `name` is the module path (of the first module where there are several); `modules` all module
    paths whose forward is replaced. `exact` says that the lesioned network is the network built
    without the unit: nothing invented stands in its place. `parameters` and `macs` (multiply-
    accumulates per sample) are what the bypass takes away, `position` the order of execution.
    """

    name: str
    kind: str
    modules: tuple[str, ...]
    way: str
    exact: bool
    stage: str = ""
    parameters: int = 0
    macs: int = 0
    position: int = 0
    replacements: Mapping[str, Bypass] = field(
        default_factory=dict, repr=False, compare=False, hash=False
    )

    def describe(self) -> str:
        """One line for people."""
        exact = "exactly" if self.exact else "with a stand-in"
        return (
            f"{self.name}: {self.kind}, bypassed {exact} ({WAYS[self.way]}); "
            f"{self.parameters:,} parameters, {self.macs:,} multiply-accumulates"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_inside(path: str, covered: set[str]) -> bool:
    """Whether the path or a parent of it is among the covered ones."""
    parts = path.split(".")
    return any(".".join(parts[: n + 1]) in covered for n in range(len(parts)))
