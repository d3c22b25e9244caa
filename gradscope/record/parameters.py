"""Parameters and their gradients around an optimizer's step -> rows of the table `parameters`.

Must never know module outputs or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.hooks import clean_name
from gradscope.measure import difference_square_sum, finish, square_sum, square_sums
from gradscope.record.outputs import Columns, Work, histogram_columns
from gradscope.record.ranks import clip_factor
from gradscope.record.shared import Shared
from gradscope.record.sheet import Sheet, arriving, to_host
from gradscope.record.sites import SiteList

COUNT, ZEROS = 0, 2


@dataclass(frozen=True)
class Known:
    """A parameter of the model: its clean path, and that of the module that owns it."""

    name: str
    module: str
    module_type: str


@dataclass
class Before:
    """What a sampled step has to remember until the optimizer is done."""

    parameters: list[Tensor]
    copies: list[Tensor]


class ParameterRecorder:
    """Reads gradients before an optimizer's step and the updates after it.

    `selected` says by module path whether a parameter is observed.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: SiteList,
        selected: Callable[[str], bool],
        histograms: bool,
    ) -> None:
        self._model = model
        self._sites = sites
        self._selected = selected
        self._histograms = histograms
        self._known: dict[int, Known] = {}
        self._strangers: set[int] = set()
        self._before: Before | None = None
        self._accumulated: dict[int, Tensor | float] = {}
        self._slots: dict[tuple[int, str], int] = {}
        self.shared: Shared | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look the model's parameters up again: some may have been replaced."""
        self._strangers.clear()
        owner: dict[int, tuple[str, str, str]] = {}
        for path, module in self._model.named_modules():
            for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                owner.setdefault(id(parameter), (path, local, type(module).__name__))
                self._slots[id(module), local] = id(parameter)
        self._known = {
            key: Known(clean_name(f"{path}.{local}" if path else local), clean_name(path), kind)
            for key, (path, local, kind) in owner.items()
            if self._selected(clean_name(path) or type(self._model).__name__)
        }

    def release(self) -> None:
        """Let go of the model."""
        self._model = nn.Module()
        self._known.clear()
        self._slots.clear()
        self._accumulated.clear()
        self.shared = None
        self._before = None

    def mine(self, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
        """The observed parameters that an optimizer updates, trainable ones only."""
        return list(self._mine(optimizer))

    def concerned(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether an optimizer updates any of them."""
        return any(True for _ in self._mine(optimizer))

    def _mine(self, optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                key = id(parameter)
                if key not in self._known and key not in self._strangers:
                    self.refresh()
                    if key not in self._known:
                        self._strangers.add(key)
                if key in self._known and parameter.requires_grad:
                    yield parameter

    def observed(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Those of the parameters that belong to observed modules."""
        return [p for p in parameters if id(p) in self._known]

    def gradients(
        self,
        parameters: list[nn.Parameter],
        step: int,
        scale: Tensor | None,
        full: bool,
        loss_scale: Tensor | None = None,
    ) -> Work | None:
        """Rows of step `step` from the gradients as they are now; `scale` divides them.

        `loss_scale` is what they were multiplied with in the backward pass, divided out or not.
        Norms only unless `full`, which needs `remember` to have been called before the update.
        """
        if not parameters:
            return None
        if full:
            return self._full(parameters, step, scale, loss_scale)
        present = [(i, p.grad) for i, p in enumerate(parameters) if p.grad is not None]
        norms = gradient_norms([local(g) for _, g in present])
        factor = to_host(scale) if scale is not None else None
        index = self._site_index(parameters)
        where = [i for i, _ in present]

        def work() -> Mapping[str, Columns]:
            values = np.full(len(index), np.nan)
            if where:
                values[where] = norms() if factor is None else norms() / factor()
            return {"parameters": keyed(step, index, {"grad_norm": values})}

        return work

    def remember(self, parameters: list[nn.Parameter]) -> None:
        """Copy the weights before an update that is to be looked at in full."""
        weights = [local(p) for p in parameters]
        self._before = Before(list(parameters), [w.clone() for w in weights])

    def updates(self, full: Work | None) -> Work | None:
        """Complete the rows of a full step with the update just applied."""
        before, self._before = self._before, None
        if full is None or before is None:
            return full
        now = [local(p) for p in before.parameters]
        changes = update_squares(now, before.copies)

        def work() -> Mapping[str, Columns]:
            tables = dict(full())
            columns = tables["parameters"]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.sqrt(changes()) / columns["weight_norm"].astype(np.float64)
            columns["update_ratio"] = np.where(np.isfinite(ratio), ratio, np.nan).astype(np.float32)
            return tables

        return work

    def _full(
        self,
        parameters: list[nn.Parameter],
        step: int,
        scale: Tensor | None,
        loss_scale: Tensor | None,
    ) -> Work:
        sheet = Sheet()
        index = self._site_index(parameters)
        slots: list[int | None] = []
        numel: list[int] = []
        for parameter in parameters:
            if parameter.grad is None:
                slots.append(None)
                numel.append(0)
                continue
            gradient = local(parameter.grad)
            slots.append(sheet.add(gradient, self._histograms))
            sparse = parameter.grad.is_sparse
            numel.append(local(parameter).numel() if sparse else gradient.numel())
        before = self._before
        weight_slots = [sheet.add(w) for w in before.copies] if before is not None else []
        resolve = sheet.take()
        factor = to_host(scale) if scale is not None else None
        shared = self.shared.columns(parameters) if self.shared else None
        clip = self._clip_factors(parameters)
        loss = None if loss_scale is None else to_host(loss_scale.reshape(()))

        def work() -> Mapping[str, Columns]:
            sums = resolve()
            divisor = 1.0 if factor is None else float(factor())
            columns = full_columns(sums.raw, slots, weight_slots, numel, divisor)
            times = float(loss()) if loss else 1.0
            columns["clip_factor"] = clip(columns["grad_norm"] * times)
            columns |= shared(times) if shared else {}
            counted = {(int(i), 1): s for i, s in zip(index, slots, strict=True) if s is not None}
            return {
                "parameters": keyed(step, index, columns),
                **histogram_columns(step, counted, sums, divisor),
            }

        return work

    def watch_accumulation(self, parameters: list[nn.Parameter]) -> Iterator[Callable[[], None]]:
        """Remember gradients' norms as backward left them, for clip factors; yields removers."""

        def accumulated(parameter: Tensor) -> None:
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                self._accumulated[id(parameter)] = norm_now(gradient)

        self._accumulated.clear()
        if self.shared is not None:  # what arrives is this process's own, not yet averaged
            yield from self.shared.watch(parameters)
            return
        for parameter in parameters:
            yield parameter.register_post_accumulate_grad_hook(accumulated).remove

    def watch_gathered(self, module: nn.Module) -> Iterator[Callable[[], None]]:
        """The same for a module whose shards are together for its forward pass (FSDP)."""
        for name, parameter in module.named_parameters(recurse=False):
            key = self._slots.get((id(module), name))
            if self.shared and key is not None and key != id(parameter):
                yield self.shared.listen(parameter, key)

    def _clip_factors(
        self, parameters: list[nn.Parameter]
    ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """The function norms at the step -> clip factors; NaN where no norm was seen before."""
        seen = [self._accumulated.pop(id(p), math.nan) for p in parameters]
        arrived = arriving(seen)

        def factors(norms: NDArray[np.float64]) -> NDArray[np.float64]:
            return clip_factor(norms, arrived())

        return factors

    def _site_index(self, parameters: list[nn.Parameter]) -> NDArray[np.int32]:
        found = []
        for parameter in parameters:
            known = self._known[id(parameter)]
            place = self._sites.known("parameter", known.name)
            found.append(
                place
                if place is not None
                else self._sites.index(
                    "parameter",
                    known.name,
                    module=known.module,
                    module_type=known.module_type,
                    shape=tuple(parameter.shape),
                    parameters=parameter.numel(),
                )
            )
        return np.array(found, dtype=np.int32)


def local(t: Tensor) -> Tensor:
    """A tensor's values on this process as a plain real one: of shards, sparse, complex ones too."""
    if t.requires_grad:
        t = t.detach()
    if type(t) is not Tensor and hasattr(t, "to_local"):
        t = cast(Tensor, t.to_local())
    if t.is_sparse:
        t = t.coalesce().values()
    return torch.view_as_real(t) if t.is_complex() else t


def norm_now(t: Tensor) -> Tensor | float:
    """L2 norm added up in float64: a number for a host tensor, else a scalar tensor on its device."""
    if t.device.type == "cpu":
        return math.sqrt(square_sum(t))
    wide = torch.float32 if t.device.type == "mps" else torch.float64
    norm: Tensor = torch.linalg.vector_norm(t, dtype=wide)
    return norm


def gradient_norms(gradients: list[Tensor]) -> Callable[[], NDArray[np.float64]]:
    """L2 norms of many gradients; the function returned gives them as float64, waiting if it must.

    A gradient with NaN or infinite elements has the norm of its finite ones on the host, and a
    non-finite norm where that would need another pass.
    """
    devices = {g.device for g in gradients}
    if all(d.type == "cpu" for d in devices):
        squares = np.array(square_sums(gradients))
        return lambda: np.sqrt(squares)
    arrived = []
    for device in devices:
        where = [i for i, g in enumerate(gradients) if g.device == device]
        norms = torch._foreach_norm([gradients[i].float() for i in where])
        arrived.append((where, to_host(torch.stack(norms))))

    def resolve() -> NDArray[np.float64]:
        out = np.full(len(gradients), np.nan)
        for where, values in arrived:
            out[where] = values()
        return out

    return resolve


def update_squares(now: list[Tensor], before: list[Tensor]) -> Callable[[], NDArray[np.float64]]:
    """Sums of squares of now - before; `before` may be overwritten."""
    if all(t.device.type == "cpu" for t in now):
        found = [difference_square_sum(a, b) for a, b in zip(now, before, strict=True)]
        return lambda: np.array(found)
    torch._foreach_sub_(before, now)
    norms = gradient_norms(before)
    return lambda: norms() ** 2


def full_columns(
    raw: NDArray[np.float64],
    slots: list[int | None],
    weight_slots: list[int],
    numel: list[int],
    divisor: float,
) -> dict[str, NDArray[np.float64]]:
    """Statistics of gradients and weights from their raw sums; absent gradients are NaN."""
    where = [i for i, slot in enumerate(slots) if slot is not None]
    rows = raw[[slot for slot in slots if slot is not None]]
    rows[:, COUNT] = np.maximum(rows[:, COUNT], np.array(numel)[where])
    statistics = finish(rows)
    columns = {
        name: np.full(len(slots), np.nan)
        for name in ("grad_norm", "grad_rms", "grad_absmax", "grad_nonfinite")
    }
    if where:
        columns["grad_rms"][where] = statistics[:, 2] / divisor
        columns["grad_norm"][where] = statistics[:, 3] / divisor
        columns["grad_absmax"][where] = statistics[:, 4] / divisor
        columns["grad_nonfinite"][where] = statistics[:, 6]
    columns["weight_norm"] = finish(raw[weight_slots])[:, 3]
    return columns


def keyed(
    step: int, index: NDArray[np.int32], columns: Mapping[str, NDArray[np.float64]]
) -> Columns:
    """Columns with their keys, statistics as float32."""
    out: Columns = {name: values.astype(np.float32) for name, values in columns.items()}
    return {"step": np.full(len(index), step, dtype=np.int64), "site": index, **out}
