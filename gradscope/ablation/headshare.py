"""A network with auxiliary heads and a batch -> each head's own gradient at each layer.

Must never know files or figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.ablation.state import restored
from gradscope.schema import GradScopeError
from gradscope.units import auxiliary_heads, unwrapped
from gradscope.units.calls import as_inputs, tensors_in

AUX_WEIGHT = 0.3
"""Weight of an auxiliary head's loss (Szegedy et al. 2014)."""

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class HeadShare:
    """One entry per layer and head, layers in order of execution.

    `norm` is the norm of the head's own loss gradient, times its `weight`, at the layer's output,
    `share` norm / sum of the heads' norms there, `cosine` with the main head's gradient (NaN where
    either does not reach the layer). `relative_depth` is 0 at the first layer, 1 at the last;
    `samples` is the number of inputs.
    """

    layer: np.ndarray
    head: np.ndarray
    weight: np.ndarray
    depth: np.ndarray
    relative_depth: np.ndarray
    norm: np.ndarray
    share: np.ndarray
    cosine: np.ndarray
    samples: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table `heads`, one entry per layer and head."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def head_share(
    model: nn.Module,
    batch: tuple[Any, Tensor],
    loss_fn: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    *,
    weights: Mapping[str, float] | None = None,
) -> HeadShare:
    """Gradients of each head's loss at the output of every convolution and linear layer.

    Runs once in training mode; the model, its gradients, buffers and random state are restored.
    `weights` by head name (default 1 for `main`, 0.3 for auxiliary heads, as in GoogLeNet).
    GradScopeError where the model has no auxiliary head that runs.
    """
    inner = unwrapped(model)
    names = {module: name for name, module in auxiliary_heads(inner)}
    inputs, target = batch
    order: list[str] = []
    arrived: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = []

    def watch(site: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            if site not in order and output.requires_grad:
                order.append(site)
                output.register_hook(lambda g: arrived.__setitem__(site, g.detach().double()))

        return hook

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs[name] = next(tensors_in(output))

        return hook

    parameters = [p for p in inner.parameters() if p.requires_grad]
    found: dict[str, dict[str, Tensor]] = {}
    with restored(inner, weights=False), torch.enable_grad():
        try:
            for name, module in inner.named_modules():
                if isinstance(module, _LAYERS):
                    handles.append(module.register_forward_hook(watch(name)))
                if module in names:
                    handles.append(module.register_forward_hook(keep(names[module])))
            inner.train()
            main = next(tensors_in(inner(*as_inputs(inputs))))
        finally:
            for handle in handles:
                handle.remove()
        if not outputs:
            raise GradScopeError(f"{type(inner).__name__} ran no auxiliary head: nothing to share.")
        scales = {head: 1.0 if head == "main" else AUX_WEIGHT for head in ("main", *outputs)}
        scales |= {head: weight for head, weight in (weights or {}).items() if head in scales}
        for head, logits in {"main": main, **outputs}.items():
            arrived.clear()
            loss = scales[head] * loss_fn(logits, target)
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            found[head] = dict(arrived)
    return _table(order, found, scales, len(target))


def _table(
    order: list[str],
    found: Mapping[str, Mapping[str, Tensor]],
    scales: Mapping[str, float],
    samples: int,
) -> HeadShare:
    rows: list[tuple[Any, ...]] = []
    for depth, site in enumerate(order):
        norms = {head: float(g[site].norm()) if site in g else 0.0 for head, g in found.items()}
        total = sum(norms.values())
        main = found["main"].get(site)
        for head, norm in norms.items():
            own = found[head].get(site)
            cosine = float("nan")
            if own is not None and main is not None and norm and norms["main"]:
                cosine = float((own * main).sum()) / (norm * norms["main"])
            relative = depth / max(1, len(order) - 1)
            share = norm / total if total else float("nan")
            rows.append((site, head, scales[head], depth, relative, norm, share, cosine, samples))
    columns = list(zip(*rows, strict=True))
    return HeadShare(
        np.array(columns[0], dtype=object),
        np.array(columns[1], dtype=object),
        *(np.array(column) for column in columns[2:]),
    )
