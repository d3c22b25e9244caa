"""A model, a batch and a loss -> what a few forward and backward passes show, as plain tables.

Must never know rules or how a report looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.hooks import Observer, clean_name, named_modules, tensors
from gradscope.measure import (
    BINS,
    STATISTICS,
    channel_dim,
    dead_fraction,
    finish,
    magnitude_histogram,
    raw_sums_into,
)
from gradscope.preflight.skips import SkipShare, residual_modules, skip_shares
from gradscope.schema import GradScopeError, Site

LossFunction = Callable[..., Tensor]
HISTOGRAM_SAMPLE = 1 << 16


@dataclass
class Passes:
    """Rows of outputs and parameters per pass, histograms per output (0: forward, 1: gradient)."""

    sites: list[Site] = field(default_factory=list)
    rows: dict[str, list[dict[str, float]]] = field(
        default_factory=lambda: {"outputs": [], "parameters": []}
    )
    histograms: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    skips: list[SkipShare] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    samples: int = 1

    def site(self, kind: str, name: str, type_name: str, shape: tuple[int, ...]) -> int:
        """Position of a site, appended when new; its depth is its place among its kind."""
        same = [i for i, s in enumerate(self.sites) if s.kind == kind]
        for i in same:
            if self.sites[i].name == name:
                return i
        elements = int(np.prod(shape)) if kind == "parameter" else 0
        self.sites.append(Site(name, kind, len(same), type_name, shape, elements))
        return len(self.sites) - 1

    def columns(self, table: str) -> dict[str, NDArray[Any]]:
        """A table's rows as columns, NaN where a row lacks one."""
        rows = self.rows[table]
        names = sorted({name for row in rows for name in row} | {"step", "site"})
        return {n: np.array([row.get(n, np.nan) for row in rows], np.float64) for n in names}


def run_passes(model: nn.Module, batch: object, loss_fn: LossFunction, passes: int) -> Passes:
    """Run the passes in training mode. The caller preserves the model's state."""
    seen = Passes()
    inputs, keywords, targets = split(to_device(batch, model))
    first = next((t for _, t in tensors((inputs, keywords))), None)
    seen.samples = first.shape[0] if first is not None and first.dim() else 1
    if not model.training:
        model.train()
    residual = residual_modules(model)
    for step in range(passes):
        _one_pass(model, inputs, keywords, targets, loss_fn, step, seen, residual)
    return seen


def split(batch: object) -> tuple[tuple[object, ...], dict[str, object], tuple[object, ...]]:
    """A batch -> positional inputs, keyword inputs, and () or (target,).

    `(inputs, target)` is a pair; anything else is inputs alone. Inputs that are a tuple or a
    mapping become the model's arguments.
    """
    targets: tuple[object, ...] = ()
    if isinstance(batch, tuple | list):
        if len(batch) < 2:
            batch = batch[0] if batch else ()
        else:
            *given, target = batch
            batch, targets = (given[0] if len(given) == 1 else tuple(given)), (target,)
    if isinstance(batch, Mapping):
        return (), {str(key): value for key, value in batch.items()}, targets
    return (tuple(batch) if isinstance(batch, tuple | list) else (batch,)), {}, targets


def to_device(batch: Any, model: nn.Module) -> Any:
    """The batch with its tensors on the device of the model's first parameter."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise GradScopeError(
            f"{type(model).__name__} has no parameters: there is nothing to check."
        )
    return _moved(batch, parameter.device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_moved(item, device) for item in value)
    return value


def _one_pass(
    model: nn.Module,
    inputs: tuple[object, ...],
    keywords: dict[str, object],
    targets: tuple[object, ...],
    loss_fn: LossFunction,
    step: int,
    seen: Passes,
    residual: Mapping[str, nn.Module],
) -> None:
    rows: dict[str, dict[str, float]] = {}
    entries: dict[str, tuple[object, ...]] = {}
    arrived: dict[str, Tensor] = {}
    returns: dict[str, list[str]] = {}

    def output(name: str, module: nn.Module, t: Tensor) -> None:
        kind = type(module).__name__
        index = seen.site("output", name, kind, tuple(t.shape))
        dead = float(dead_fraction(t, channel_dim(t, kind)))
        rows[name] = {"step": step, "site": index, **statistics(t), "dead_fraction": dead}
        _count(seen, index, 0, t)
        if name in residual:
            returns[name] = [name]

    def alias(name: str, _module: nn.Module, other: str) -> None:
        if name in residual:
            returns.setdefault(other, []).append(name)

    def gradient(name: str, t: Tensor) -> None:
        row = rows.get(name)
        if row is not None and not t.is_sparse:
            row |= {f"grad_{key}": value for key, value in statistics(t).items()}
            _count(seen, int(row["site"]), 1, t)
        if step == 0:
            arrived.update({unit: t.clone() for unit in returns.get(name, ())})

    def entry(name: str, _module: nn.Module, args: object) -> None:
        if step == 0 and name in residual and isinstance(args, tuple) and name not in entries:
            entries[name] = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)

    observer = Observer(
        model,
        named_modules(model),
        on_output=output,
        on_gradient=gradient,
        on_alias=alias,
        on_restart=rows.clear,
        on_entry=entry,
        on_return=lambda *_: None,
        on_skip=lambda *_: None,
    )
    observer.attach()
    try:
        with torch.enable_grad():
            loss = _loss(model, inputs, keywords, targets, loss_fn)
            seen.losses.append(float(loss.detach()))
            _backward(model, loss, step, seen)
    finally:
        observer.detach()
    seen.rows["outputs"] += rows.values()
    for name, at_output in arrived.items():
        if name in entries:
            seen.skips += skip_shares(name, residual[name], entries[name], at_output)


def statistics(t: Tensor) -> dict[str, float]:
    """The statistics of docs/metrics.md of one tensor on any device."""
    row = torch.zeros(7, dtype=torch.float64, device="cpu" if t.device.type == "mps" else t.device)
    raw_sums_into(t.to(row.device), row)
    return dict(zip(STATISTICS, finish(row.cpu().numpy()[None])[0].tolist(), strict=True))


def _count(seen: Passes, index: int, of: int, t: Tensor) -> None:
    counts = magnitude_histogram(t, HISTOGRAM_SAMPLE)
    seen.histograms[index, of] = seen.histograms.get((index, of), np.zeros(BINS, np.int64)) + counts


def _loss(
    model: nn.Module,
    inputs: tuple[object, ...],
    keywords: dict[str, object],
    targets: tuple[object, ...],
    loss_fn: LossFunction,
) -> Tensor:
    who = type(model).__name__
    try:
        output = model(*inputs, **keywords)
    except GradScopeError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(t.shape)) for _, t in tensors((inputs, keywords)))
        raise GradScopeError(
            f"{who} failed on the batch (inputs of shape {shapes or 'none'}): {_line(error)}"
        ) from error
    try:
        loss = loss_fn(output, *targets)
    except Exception as error:
        hint = ""
        if not isinstance(output, Tensor):
            parts = ", ".join(path.lstrip(":") for path, _ in tensors(output))
            hint = (
                f" The model returns a {type(output).__name__} ({parts}), not a tensor: "
                "let loss_fn take what it needs from it."
            )
        given = "(output, target)" if targets else "(output)"
        raise GradScopeError(f"loss_fn{given} failed: {_line(error)}{hint}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise GradScopeError(f"loss_fn must return one number as a tensor, not {what}: average it.")
    if not loss.requires_grad:
        raise GradScopeError(
            f"The loss does not depend on the parameters of {who}: they are all frozen, or "
            "something between output and loss detaches it."
        )
    return loss


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


def _backward(model: nn.Module, loss: Tensor, step: int, seen: Passes) -> None:
    """Gradients by `autograd.grad`, which leaves `.grad` and optimizer-in-backward hooks alone."""
    owners = {
        id(p): type(module).__name__
        for module in model.modules()
        for p in module.parameters(recurse=False)
    }
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for (name, parameter), gradient in zip(named, gradients, strict=True):
        kind, shape = owners[id(parameter)], tuple(parameter.shape)
        index = seen.site("parameter", clean_name(name), kind, shape)
        row: dict[str, float] = {"step": step, "site": index}
        if gradient is not None:
            dense = gradient.coalesce().values() if gradient.is_sparse else gradient
            values = statistics(dense)
            row |= {f"grad_{key}": values[key] for key in ("norm", "rms", "absmax", "nonfinite")}
        seen.rows["parameters"].append(row)
