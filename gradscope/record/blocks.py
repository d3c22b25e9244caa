"""Residual units and the two gradients that leave them -> one step's rows of `blocks`.

Must never know optimizers or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.hooks import Source, source_of, watch_split
from gradscope.measure import products
from gradscope.record.outputs import Columns, Work
from gradscope.record.sheet import to_host
from gradscope.record.sites import SiteList
from gradscope.units import residual_parts


@dataclass(frozen=True)
class Split:
    """Sums over both gradients of one unit: shortcut squares, branch squares, products."""

    site: int
    sums: Tensor


class BlockRecorder:
    """Collects one step's residual units; `take` hands them over for the background thread.

    Units are modules whose own forward holds exactly one residual addition. Those of `modules` are
    looked at at once, so that no training step pays for tracing them; others when they are called.
    """

    def __init__(self, sites: SiteList, modules: Mapping[str, nn.Module]) -> None:
        self._sites = sites
        self._is_unit = {
            (name, id(module)): has_one_addition(module) for name, module in modules.items()
        }
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self._pass = object()
        self._entered: dict[str, Source] = {}
        self._splits: dict[int, Split] = {}

    def enter(self, name: str, module: nn.Module, args: object) -> None:
        """A module is called with `args`; a unit's input is remembered."""
        key = (name, id(module))
        unit = self._is_unit.get(key)
        if unit is None:
            unit = self._is_unit[key] = has_one_addition(module)
        if not unit or name in self._entered or not isinstance(args, tuple) or not args:
            return
        source = source_of(args[0]) if isinstance(args[0], Tensor) else None
        if source is not None:
            self._entered[name] = source

    def leave(self, name: str, module: nn.Module, output: object) -> None:
        """The module returned for the first time in this step."""
        source = self._entered.pop(name, None)  # a place in the graph keeps its activations
        if source is None or not isinstance(output, Tensor):
            return
        token = self._pass
        shape = tuple(output.shape)

        def split(shortcut: Tensor, branch: Tensor) -> None:
            if token is not self._pass or shortcut.shape != branch.shape:
                return
            site = self._sites.known("block", name)
            if site is None:
                site = self._sites.index(
                    "block",
                    name,
                    module=name,
                    module_type=type(module).__name__,
                    shape=shape,
                    parameters=sum(p.numel() for p in module.parameters()),
                )
            self._splits[site] = Split(site, split_sums(shortcut, branch))

        watch_split(source, output, split)

    def take(self, step: int, scale: Tensor | None = None) -> Work | None:
        """The step's rows, to be worked out later; None when no unit was seen.

        `scale` is what the loss was multiplied with.
        """
        splits = list(self._splits.values())
        self.clear()
        if not splits:
            return None
        arriving = [to_host(s.sums) for s in splits]
        factor = None if scale is None else to_host(scale.reshape(()))

        def work() -> Mapping[str, Columns]:
            sums = np.stack([get() for get in arriving])
            divisor = 1.0 if factor is None else float(factor())
            with np.errstate(divide="ignore", invalid="ignore"):
                shortcut, branch = np.sqrt(sums[:, 0]), np.sqrt(sums[:, 1])
                columns = {
                    "skip_grad_norm": shortcut / divisor,
                    "branch_grad_norm": branch / divisor,
                    "skip_share": shortcut / (shortcut + branch),
                    "cosine": np.clip(sums[:, 2] / (shortcut * branch), -1.0, 1.0),
                }
            rows: Columns = {k: v.astype(np.float32) for k, v in columns.items()}
            rows["step"] = np.full(len(splits), step, dtype=np.int64)
            rows["site"] = np.array([s.site for s in splits], dtype=np.int32)
            return {"blocks": rows}

        return work


def has_one_addition(module: nn.Module) -> bool:
    """Whether the module's own forward adds a branch to a shortcut, once."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    return any(True for _ in module.children()) and len(residual_parts(module)) == 1


def split_sums(shortcut: Tensor, branch: Tensor) -> Tensor:
    """Squares of both and their products, summed up in float64: three numbers on the device."""
    if shortcut.device.type == "cpu":
        return torch.from_numpy(np.array(products(shortcut, branch)))
    wide = torch.float32 if shortcut.device.type == "mps" else torch.float64
    s, b = shortcut.reshape(-1).to(wide), branch.reshape(-1).to(wide)
    return torch.stack([torch.dot(s, s), torch.dot(b, b), torch.dot(s, b)])
