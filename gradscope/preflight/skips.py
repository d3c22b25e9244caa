"""A residual unit, its input and its output's gradient -> the share that takes the shortcut.

The unit runs once more by its own graph, so that shortcut and branch can be asked separately.
Must never know sites, findings or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gradscope.units.trace import Addition, additions, own_graph


@dataclass(frozen=True)
class SkipShare:
    """For y = s(x) + F(x): norms of the gradients to x through s and through F.

    `share` = shortcut / (shortcut + branch); `cosine` between the two gradients.
    """

    unit: str
    shortcut_norm: float
    branch_norm: float
    share: float
    cosine: float


def residual_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules whose own forward holds a residual addition, by path; the model itself left out."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        plain = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if not name or plain or not any(True for _ in module.children()):
            continue
        graph = own_graph(module)
        if graph is not None and additions(module, graph):
            found[name] = module
    return found


def skip_shares(
    name: str, module: nn.Module, inputs: tuple[object, ...], gradient: Tensor
) -> list[SkipShare]:
    """Skip share of each addition in the unit; empty where its forward cannot be run by its graph.

    `inputs` are the forward's arguments, `gradient` the loss gradient at its output. Dropout is
    drawn anew. Source: docs/metrics.md, `skip share`.
    """
    graph = own_graph(module)
    found = additions(module, graph) if graph is not None else ()
    if graph is None or not found:
        return []
    _expose(graph, found)
    fresh = [
        x.detach().clone().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x
        for x in inputs
    ]
    with torch.enable_grad():
        whole, taps = fx.GraphModule(module, graph)(*fresh)
        if not isinstance(whole, Tensor) or whole.shape != gradient.shape:
            return []
        labels = [name] if len(taps) == 1 else [f"{name}#{i + 1}" for i in range(len(taps))]
        return [
            _share(label, whole, tap, gradient) for label, tap in zip(labels, taps, strict=True)
        ]


def _expose(graph: fx.Graph, found: tuple[Addition, ...]) -> None:
    """Let the graph return (output, ((x, s(x), F(x), y), ...)); copies keep in-place ops away."""
    taps = []
    for addition in found:
        node = addition.node
        with graph.inserting_before(node):
            copies = {
                side: graph.call_method("clone", (side,))
                for side in (addition.shortcut, addition.branch)
            }
        node.args = tuple(copies.get(a, a) if isinstance(a, fx.Node) else a for a in node.args)
        with graph.inserting_after(node):
            onward = graph.call_method("clone", (node,))
        for user in list(node.users):
            if user is not onward:
                user.replace_input_with(node, onward)
        taps.append((addition, node))
    output = next(n for n in graph.nodes if n.op == "output")
    renamed = tuple((a.source, a.shortcut, a.branch, node) for a, node in taps)
    output.args = ((output.args[0], renamed),)
    graph.lint()


def _share(
    label: str, whole: Tensor, tap: tuple[Tensor, Tensor, Tensor, Tensor], gradient: Tensor
) -> SkipShare:
    source, shortcut, branch, total = tap
    (arriving,) = torch.autograd.grad(whole, total, gradient, retain_graph=True)
    through = [_pull(side, source, arriving).double().flatten() for side in (shortcut, branch)]
    a, b = (float(g.norm()) for g in through)
    cosine = float(through[0] @ through[1]) / (a * b) if a and b else math.nan
    return SkipShare(label, a, b, a / (a + b) if a + b else math.nan, cosine)


def _pull(side: Tensor, source: Tensor, arriving: Tensor) -> Tensor:
    if side is source:
        return arriving
    if not side.requires_grad:
        return torch.zeros_like(source)
    (pulled,) = torch.autograd.grad(side, source, arriving, retain_graph=True, allow_unused=True)
    return torch.zeros_like(source) if pulled is None else pulled
