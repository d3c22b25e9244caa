"""A residual unit -> where its shortcut's and branch's gradients are read, and both measured.

How to record them during training, at no extra pass: `ResidualParts` names, for each addition
z = s(x) + F(x), the modules that read x first on the branch (`branch`), the shortcut module
(`shortcut`, empty where s is the identity) and the module that reads z (`after`, None where z is
the unit's output). Give each branch reader an alias of its input in a forward pre-hook
(`x.view_as(x)`); the gradient that arrives at the alias is J_F^T g exactly. The gradient of an
alias given to the shortcut module, or with an identity shortcut the gradient that arrives at z, is
J_s^T g. Must never know sampling, rows or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from gradscope.schema import GradScopeError
from gradscope.units.bypass import GraphEdit
from gradscope.units.calls import as_inputs, at_rest, tensors_in
from gradscope.units.swap import replaced
from gradscope.units.trace import additions, own_graph
from gradscope.units.unit import Bypass, Unit, unwrapped


@dataclass(frozen=True)
class ResidualParts:
    """Paths, relative to the unit, where one addition's gradients can be read.

    `branch` and `after` come with the number of the call within the unit's forward (from 0), for
    modules that are called several times. `way` is the shortcut's, as in `Unit.way`.
    """

    way: str
    shortcut: str
    branch: tuple[tuple[str, int], ...]
    after: tuple[str, int] | None
    measurable: bool


@dataclass(frozen=True)
class SkipGradients:
    """One row per unit: norms of J_s^T g and J_F^T g, their cosine, and how well they sum up.

    `skip_share` is skip / (skip + branch); `sum_error` is the norm of (skip + branch - whole)
    relative to the whole gradient that leaves the unit towards the input.
    """

    unit: tuple[str, ...]
    skip_grad_norm: np.ndarray
    branch_grad_norm: np.ndarray
    skip_share: np.ndarray
    cosine: np.ndarray
    sum_error: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        return {
            "unit": np.array(self.unit, dtype=object),
            "skip_grad_norm": self.skip_grad_norm,
            "branch_grad_norm": self.branch_grad_norm,
            "skip_share": self.skip_share,
            "cosine": self.cosine,
            "sum_error": self.sum_error,
        }


def residual_parts(unit: nn.Module) -> tuple[ResidualParts, ...]:
    """The parts of each residual addition in the unit's own forward; empty where there is none."""
    graph = own_graph(unit)
    if graph is None:
        return ()
    number: dict[fx.Node, tuple[str, int]] = {}
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            path = str(node.target)
            number[node] = (path, calls.get(path, 0))
            calls[path] = calls.get(path, 0) + 1
    parts = []
    for addition in additions(unit, graph):
        on_branch = _above(addition.branch) | {addition.branch}
        around = (_above(addition.shortcut) | {addition.shortcut}) - _above(addition.source)
        around -= {addition.source}
        readers = [n for n in addition.source.users if n in on_branch and n not in around]
        shortcut = [n for n in around if addition.source in n.all_input_nodes]
        after = [number[n] for n in addition.node.users if n in number]
        one_way = len(shortcut) <= 1 and all(n in number for n in shortcut)
        parts.append(
            ResidualParts(
                addition.way,
                number[shortcut[0]][0] if len(shortcut) == 1 and one_way else "",
                tuple(number[n] for n in readers if n in number),
                after[0] if len(after) == 1 else None,
                bool(readers) and all(n in number for n in readers) and one_way,
            )
        )
    return tuple(parts)


class Gated(GraphEdit):
    """A unit whose forward is as ever and whose gradient passes the gates of its additions.

    `gate(side, value)` wraps the value of each addition's `skip` and `branch`.
    """

    def __init__(self, gate: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self._gates = {f"_gate_{side}": _Gate(gate, side) for side in ("skip", "branch")}

    def extras(self) -> dict[str, nn.Module]:
        return dict(self._gates)

    def edit(self, module: nn.Module, graph: fx.Graph) -> None:
        for addition in additions(module, graph):
            with graph.inserting_before(addition.node):
                skip = graph.call_module("_gate_skip", (addition.operands()[0],))
                branch = graph.call_module("_gate_branch", (addition.operands()[1],))
                total = graph.call_function(torch.add, (skip, branch))
            addition.node.replace_all_uses_with(total)
            graph.erase_node(addition.node)


class _Gate(nn.Module):
    def __init__(self, gate: Callable[[str, Tensor], Tensor], side: str) -> None:
        super().__init__()
        self.gate = gate
        self.side = side

    def forward(self, value: Tensor) -> Tensor:
        return self.gate(self.side, value)


def skip_gradients(
    model: nn.Module,
    units: Sequence[Unit],
    loss_fn: Callable[[Any, Tensor], Tensor],
    batch: tuple[Any, Tensor],
) -> SkipGradients:
    """Measures each residual unit's shortcut and branch gradient by vector-Jacobian products.

    Runs in eval mode and leaves the model, its gradients, buffers and random state as they were.
    In a unit with several additions, the skip is the way around all of them and the branch all
    else. GradScopeError where a unit is not a residual module of its own.
    """
    inner = unwrapped(model)
    for unit in units:
        if unit.kind != "residual" or unit.modules != (unit.name,) or unit.way == "zero_branch":
            raise GradScopeError(f"{unit.name!r} is no residual module: its skip cannot be parted.")
    inputs, target = batch
    kept: dict[str, tuple[tuple[Any, ...], dict[str, Any], Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:  # noqa: ARG001
            result = output if output.requires_grad else output.detach().requires_grad_()
            kept[name] = (args, kwargs, result)
            return result.view_as(result)  # a later in-place layer must not change what is kept

        return hook

    with at_rest(inner), torch.enable_grad():
        handles = [
            inner.get_submodule(u.name).register_forward_hook(keep(u.name), with_kwargs=True)
            for u in units
        ]
        try:
            loss = loss_fn(inner(*as_inputs(inputs)), target)
        finally:
            for handle in handles:
                handle.remove()
        outputs = [kept[unit.name][2] for unit in units]
        arriving = torch.autograd.grad(loss, outputs, allow_unused=True)
        rows = [
            _parted(inner, unit, kept[unit.name][:2], g)
            for unit, g in zip(units, arriving, strict=True)
        ]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 5)
    return SkipGradients(tuple(u.name for u in units), *(table[:, n] for n in range(5)))


def _parted(
    model: nn.Module, unit: Unit, call: tuple[Any, Any], arriving: Tensor | None
) -> tuple[float, ...]:
    if arriving is None:
        return (float("nan"),) * 5
    module = model.get_submodule(unit.name)
    single = len(additions(module, own_graph(module) or fx.Graph())) == 1
    whole = _pulled(model, unit, call, arriving, lambda _side, value: value)
    skip = _pulled(model, unit, call, arriving, lambda s, v: v.detach() if s == "branch" else v)
    branch = whole - skip
    if single:
        branch = _pulled(model, unit, call, arriving, lambda s, v: v.detach() if s == "skip" else v)
    a, b = float(skip.norm()), float(branch.norm())
    cosine = float((skip * branch).sum()) / (a * b) if a and b else float("nan")
    error = float((skip + branch - whole).norm()) / max(float(whole.norm()), 1e-300)
    return a, b, a / (a + b) if a + b else float("nan"), cosine, error


def _pulled(
    model: nn.Module,
    unit: Unit,
    call: tuple[Any, Any],
    arriving: Tensor,
    gate: Callable[[str, Tensor], Tensor],
) -> Tensor:
    """The gradient at the unit's input when `arriving` comes in at its output."""
    args, kwargs = call
    x = next(tensors_in((args, kwargs)))
    leaf = x.detach().clone().requires_grad_()
    bypass: Bypass = Gated(gate)
    swapped = tuple(leaf.view_as(leaf) if a is x else a for a in args)
    with replaced(model, {unit.name: bypass}):
        out = model.get_submodule(unit.name)(*swapped, **kwargs)
    if not out.requires_grad:
        return torch.zeros_like(leaf, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out, leaf, arriving, allow_unused=True)
    return (torch.zeros_like(leaf) if gradient is None else gradient).double()


def _above(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    queue = list(node.all_input_nodes)
    while queue:
        current = queue.pop()
        if current not in seen:
            seen.add(current)
            queue.extend(current.all_input_nodes)
    return seen
